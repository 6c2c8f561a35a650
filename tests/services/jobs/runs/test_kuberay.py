import json
import shlex
import shutil
import stat
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema.exceptions import ValidationError
from manifests.objects import check

from services.jobs.queue.resources import Resources
from services.jobs.runs import kuberay
from services.jobs.runs.executor import ExecutorUnavailable, Task
from services.jobs.runs.kuberay import KubeRay, status_of
from services.jobs.runs.rayjob import CONFIG, KubeRayConfig, load_config, render
from zsbir.base.errors import InputError, RunError

NAME = "zsbir-1a2b3c-17-a2"
RAYS_GUESS = (
    "Job supervisor actor died. Some common causes include: (1) the process was killed by the OOM killer due to high memory"
)
FAILED_COMMAND = (
    "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\nnode memory preempted"
)
FREE = ("metadata", "runtimeEnvYAML", "entrypoint")
"""The fields of a RayJob's spec that hold free text."""

NASTY = st.text(max_size=40) | st.sampled_from(
    ["a\nb: c", "'; rm -rf / #", '"', "$(touch x)", "`x`", "{}", "- x", "*a", "!!python/object:x", "%", "--all", "a\\", "\u2028"]
)


def task(cpus=8, gpus=0, **changes):
    fixed = {"submission_id": NAME, "attempt_dir": "s3://bucket/root/jobs/x", "project": "vision"}
    return Task(**{**fixed, "resources": Resources(cpus=cpus, gpus=gpus), **changes})


def with_workers(**changes):
    return task(**{"workers": 2, "gpus": 2, **changes})


def template(group):
    return group["template"]["spec"]


def container(group):
    return template(group)["containers"][0]


def head_of(manifest):
    return manifest["spec"]["rayClusterSpec"]["headGroupSpec"]


def workers_of(manifest):
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return group


def groups_of(manifest):
    cluster = manifest["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


# --- the RayJob


@pytest.mark.parametrize("each", [task(), task(gpus=1), with_workers(), with_workers(gpus=0, priority=50), task(cpus=0.5)])
@pytest.mark.parametrize("config", [KubeRayConfig(), KubeRayConfig(storage_claim="shared", credentials="", ray_auth="disabled")])
def test_every_rayjob_is_one_that_kuberays_types_and_the_core_schemas_take(each, config):
    check(render(each, config))


def test_the_schemas_notice_a_misspelt_field_in_the_rayjob_and_in_its_pods():
    manifest = render(with_workers(), KubeRayConfig())
    with pytest.raises(ValidationError, match="shutdownAfterJobFinish"):
        check({**manifest, "spec": {**manifest["spec"], "shutdownAfterJobFinish": True}})
    template(head_of(manifest))["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        check(manifest)


def test_it_waits_for_kueue_ends_with_its_job_and_is_never_retried_by_kuberay():
    manifest = render(task(), KubeRayConfig(ttl_s=5))
    wanted = {"suspend": True, "shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 5, "backoffLimit": 0}
    assert manifest["spec"].items() >= {**wanted, "submissionMode": "HTTPMode", "jobId": NAME}.items()
    assert manifest["metadata"]["name"] == NAME


def test_a_job_with_workers_has_a_head_that_gives_no_cpu_away_and_workers_with_equal_shares():
    manifest = render(with_workers(cpus=6, gpus=4), KubeRayConfig(memory_per_cpu_gib=2))
    head, workers = head_of(manifest), workers_of(manifest)
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert workers["rayStartParams"] == {"num-cpus": "3", "num-gpus": "2"}
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (2, 2, 2)
    share = {"cpu": "3000m", "memory": "6144Mi", "nvidia.com/gpu": "2"}
    assert container(workers)["resources"] == {"requests": share, "limits": share}
    assert "nvidia.com/gpu" not in container(head)["resources"]["limits"]


def test_a_job_without_workers_has_its_resources_on_the_head_besides_the_heads_own():
    manifest = render(task(cpus=2.5, gpus=1), KubeRayConfig(head_cpus=1, head_memory_gib=4, memory_per_cpu_gib=2))
    assert "workerGroupSpecs" not in manifest["spec"]["rayClusterSpec"]
    assert head_of(manifest)["rayStartParams"] == {"num-cpus": "3", "num-gpus": "1"}
    assert container(head_of(manifest))["resources"]["limits"] == {"cpu": "3500m", "memory": "9216Mi", "nvidia.com/gpu": "1"}


def tolerated(group):
    return [each["key"] for each in template(group).get("tolerations", [])]


def test_pods_with_gpus_tolerate_the_taint_of_nodes_with_gpus_and_others_do_not():
    config = KubeRayConfig(gpu_resource="amd.com/gpu", spot_taint="zsbir.io/spot")
    wide, alone = render(with_workers(), config), render(task(gpus=1), config)
    assert tolerated(workers_of(wide)) == ["zsbir.io/spot", "amd.com/gpu"]
    assert (tolerated(head_of(wide)), tolerated(head_of(alone))) == ([], ["amd.com/gpu"])
    assert tolerated(head_of(render(task(), config))) == []
    assert tolerated(workers_of(render(with_workers(gpus=0), config))) == ["zsbir.io/spot"]
    for each in (wide, alone):
        check(each)


def test_gpus_that_no_pod_can_have_are_refused():
    with pytest.raises(RunError, match=r"cannot have 0.5 GPUs.*whole number per worker"):
        render(with_workers(gpus=1), KubeRayConfig())


@pytest.mark.parametrize(
    ("priority", "name"), [(-1000, "low"), (-100, "low"), (-1, "low"), (0, "normal"), (1, "high"), (100, "high")]
)
def test_a_priority_is_the_class_that_it_reaches(priority, name):
    labels = render(task(priority=priority), KubeRayConfig())["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/priority-class"] == f"zsbir-{name}"


def test_without_classes_none_is_named():
    assert "kueue.x-k8s.io/priority-class" not in render(task(), KubeRayConfig(priority_classes={}))["metadata"]["labels"]


def test_a_project_can_have_a_queue_of_its_own_where_its_name_can_be_one():
    config = KubeRayConfig(queue="zsbir-{project}")
    assert render(task(), config)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "zsbir-vision"
    with pytest.raises(RunError, match=r"'a_b'.*'zsbir-a_b'.*another name"):
        render(task(project="a_b"), config)


def test_pods_have_the_time_and_the_hooks_for_a_final_checkpoint():
    manifest = render(with_workers(), KubeRayConfig(grace_s=300))
    environment = yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])["env_vars"]
    assert environment == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "300"}
    assert [template(group)["terminationGracePeriodSeconds"] > 300 for group in groups_of(manifest)] == [True, True]
    hook = container(head_of(manifest))["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", NAME]
    assert "pgrep" in container(workers_of(manifest))["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_a_variables_value_is_a_text_to_every_yaml_reader():
    manifest = render(task(env={"SEED": "1e3", "YES": "on", "OCTAL": "0o14"}), KubeRayConfig())
    assert {'"SEED": "1e3"', '"YES": "on"', '"OCTAL": "0o14"'} <= {
        line.strip() for line in manifest["spec"]["runtimeEnvYAML"].splitlines()
    }


def test_credentials_are_the_nodes_own_and_pods_have_no_rights():
    manifest = render(with_workers(), KubeRayConfig(credentials="keys"))
    for group in groups_of(manifest):
        assert container(group)["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert [each["name"] for each in container(group)["env"]] == ["HOME", "ZSBIR_CACHE", "ZSBIR_CACHE_GB"]
        assert template(group)["automountServiceAccountToken"] is False
        assert template(group)["securityContext"]["runAsNonRoot"] is True


# --- what users and the cluster put into it


@settings(deadline=None, max_examples=12)
@given(project=NASTY, place=NASTY, key=NASTY, value=NASTY)
def test_no_text_changes_the_structure(project, place, key, value):
    manifest = render(task(project=project, attempt_dir=place, env={key: value}), KubeRayConfig())
    plain = render(task(), KubeRayConfig())
    for read in (json.loads(json.dumps(manifest)), yaml.safe_load(yaml.safe_dump(manifest))):
        spec = read["spec"]
        assert spec.pop("metadata") == {"project": project, "place": place}
        assert yaml.safe_load(spec.pop("runtimeEnvYAML"))["env_vars"][key] == value
        assert shlex.split(spec.pop("entrypoint")) == ["python", "-m", "services.jobs.runs.runner", place]
        assert read == {**plain, "spec": {name: value for name, value in plain["spec"].items() if name not in FREE}}


@settings(deadline=None, max_examples=12)
@given(project=NASTY)
def test_a_queues_name_is_a_name_or_an_error(project):
    try:
        manifest = render(task(project=project), KubeRayConfig(queue="q-{project}"))
    except RunError:
        return
    check(manifest)


@pytest.mark.parametrize("name", ["", "--all", "A", "a_b", "a/b", "a\n", "1a", "-a", "a-", "a" * 48, "$(x)", "a b", "ü"])
def test_what_is_no_name_reaches_neither_manifest_nor_kubectl(name, tmp_path):
    executor, asked = stand_in(tmp_path, "{}")
    for call in (
        lambda: render(task(submission_id=name), KubeRayConfig()),
        lambda: executor.get_status(name),
        lambda: executor.stop(name),
    ):
        with pytest.raises(RunError, match="DNS label"):
            call()
    assert not asked()


def test_the_names_that_the_queue_gives_are_names():
    render(task(submission_id="zsbir-ffffff-9999999999-a9999"), KubeRayConfig())


def test_the_configuration_comes_from_the_file_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.delenv(CONFIG, raising=False)
    assert load_config() == KubeRayConfig()
    file = tmp_path / "kuberay.yaml"
    file.write_text("image: registry/zsbir:1\n")
    monkeypatch.setenv(CONFIG, str(file))
    assert load_config().image == "registry/zsbir:1"
    file.write_text("imgae: x\n")
    with pytest.raises(InputError, match="did you mean 'image'"):
        load_config()


# --- what becomes of it


def rayjob(stage="", job="", *, suspend=False, generation=2, **status):
    told = {"jobDeploymentStatus": stage, "jobStatus": job, **status}
    return {"metadata": {"generation": generation}, "spec": {"suspend": suspend}, "status": told}


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"metadata": {"generation": 1}, "spec": {"suspend": True}}, "pending"),
        (rayjob("Suspended", suspend=True, generation=1), "pending"),
        (rayjob("Suspended"), "pending"),  # admitted, and KubeRay has not seen it yet
        (rayjob("Initializing"), "pending"),
        (rayjob("Waiting"), "pending"),
        (rayjob("Retrying"), "pending"),
        (rayjob("Running"), "pending"),
        (rayjob("Running", "PENDING"), "pending"),
        (rayjob("Running", "RUNNING"), "running"),
        (rayjob("Running", "RUNNING", suspend=True, generation=3), "running"),  # it may be saving its work
        (rayjob("Suspending", "RUNNING", suspend=True, generation=3), "ended"),
        (rayjob("Suspended", suspend=True, generation=3), "ended"),
        (rayjob("Complete", "SUCCEEDED"), "ended"),
        (rayjob("Failed", "FAILED"), "ended"),
        (rayjob("ValidationFailed"), "ended"),
    ],
)
def test_a_rayjobs_own_words_become_the_queues(said, status):
    assert status_of(said).status == status


def test_an_end_says_why():
    failed = rayjob("Failed", "FAILED", reason="AppFailed", message="Job entrypoint command failed with exit code 1")
    assert status_of(failed).message == "AppFailed: Job entrypoint command failed with exit code 1"
    assert status_of(rayjob("Complete", "SUCCEEDED")).message == "SUCCEEDED"
    assert status_of(rayjob("Suspended", suspend=True, generation=3)).message.startswith("preempted")


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (rayjob("Suspended", suspend=True, generation=3), "preempted"),
        (rayjob("Failed", "FAILED", reason="AppFailed", message=RAYS_GUESS), "lost"),
        (rayjob("Failed", "FAILED", reason="AppFailed", message="The actor died because its node has died."), "node_lost"),
        (rayjob("Failed", "FAILED", reason="AppFailed", message=FAILED_COMMAND), "lost"),
        (rayjob("Failed", "FAILED", message="Task was killed due to the node running low on memory"), "out_of_memory"),
        (rayjob("Complete", "SUCCEEDED"), "lost"),  # a process that ended well, without having written so
    ],
)
def test_an_end_has_a_cause(seen, cause):
    assert (status_of(seen).status, status_of(seen).cause) == ("ended", cause)


def test_a_quoted_log_is_no_part_of_the_message():
    found = status_of(rayjob("Failed", "FAILED", reason="AppFailed", message=FAILED_COMMAND))
    assert found.message == "AppFailed: Job entrypoint command failed with exit code 1"
    assert found.log == "node memory preempted"


# --- kubectl, as a program that says what kubectl 1.32 says


def stand_in(tmp_path, out="", err="", code=0, **config):
    """An executor whose kubectl says and ends so, and a function for what it was asked: arguments, and what it was given."""
    program, asked = tmp_path / "kubectl", tmp_path / "asked"
    body = f"""
        import json, sys
        given = sys.stdin.read() if "--filename=-" in sys.argv else ""
        open({str(asked)!r}, "a").write(json.dumps([sys.argv[1:], given]) + "\\n")
        sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({code})
    """
    program.write_text(f"#!{sys.executable}\n" + "\n".join(line.strip() for line in body.splitlines()))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def read():
        return [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    return KubeRay(KubeRayConfig(kubectl=str(program), **config)), read


EXISTS = f'Error from server (AlreadyExists): error when creating "STDIN": rayjobs.ray.io "{NAME}" already exists\n'
MISSING = f'Error from server (NotFound): rayjobs.ray.io "{NAME}" not found\n'
LIBRARY = 'E1122 23:53:14.754724   14507 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group list"\n'
NO_SERVER = [
    LIBRARY * 5 + "The connection to the server 127.0.0.1:9 was refused - did you specify the right host or port?\n",
    "Unable to connect to the server: dial tcp: lookup cluster.example: no such host\n",
    'error: error validating "STDIN": error validating data: failed to download openapi: dial tcp: connection refused\n',
    "Error from server (ServiceUnavailable): the server is currently unable to handle the request\n",
    "Error from server (InternalError): an error on the server has prevented the request from succeeding\n",
    "",
]
REFUSALS = [
    ('Error from server (Forbidden): rayjobs.ray.io is forbidden: User "x" cannot create resource\n', "cannot create resource"),
    ('Error from server (NotFound): error when creating "STDIN": namespaces "zsbir" not found\n', "namespaces"),
    (
        'error: resource mapping not found for name: "x" from "STDIN": no matches for kind "RayJob" in version "ray.io/v1"\n',
        "is KubeRay installed",
    ),
    ('error: context "nope" does not exist\n', "get-contexts"),
    ("error: You must be logged in to the server (Unauthorized)\n", "log kubectl in"),
]


def test_start_hands_kubectl_the_manifest_and_names_the_place_to_put_it(tmp_path):
    executor, asked = stand_in(tmp_path, context="prod", namespace="ml")
    executor.start(task())
    ((words, given),) = asked()
    assert words == ["--context=prod", "--namespace=ml", "--request-timeout=15s", "create", "--validate=strict", "--filename=-"]
    assert json.loads(given) == render(task(), KubeRayConfig(namespace="ml"))


def test_what_was_started_before_stays_as_it_is(tmp_path):
    executor, _ = stand_in(tmp_path, err=EXISTS, code=1)
    executor.start(task())


def test_look_tells_what_is_there_and_that_nothing_is(tmp_path):
    assert stand_in(tmp_path, json.dumps(rayjob("Running", "RUNNING")))[0].get_status(NAME).status == "running"
    assert stand_in(tmp_path, err=MISSING, code=1)[0].get_status(NAME).status == "unknown"


def test_an_answer_that_is_none_is_no_news_of_the_attempt(tmp_path):
    for answer in ("", "[]", "Forbidden by proxy"):
        with pytest.raises(ExecutorUnavailable, match="not a RayJob"):
            stand_in(tmp_path, answer)[0].get_status(NAME)


def test_stop_deletes_and_does_not_mind_that_there_is_nothing(tmp_path):
    executor, asked = stand_in(tmp_path)
    executor.stop(NAME)
    assert asked()[0][0][2:] == ["delete", "rayjobs.ray.io", NAME, "--ignore-not-found", "--wait=false"]


@pytest.mark.parametrize("err", NO_SERVER)
@pytest.mark.parametrize("call", [lambda e: e.start(task()), lambda e: e.get_status(NAME), lambda e: e.stop(NAME)])
def test_no_answer_is_away_with_the_way_out(tmp_path, err, call):
    with pytest.raises(ExecutorUnavailable, match="get rayjobs --namespace=zsbir") as caught:
        call(stand_in(tmp_path, err=err, code=1)[0])
    assert "memcache" not in str(caught.value)


@pytest.mark.parametrize(("err", "way_out"), REFUSALS)
def test_a_refusal_is_no_absence(tmp_path, err, way_out):
    with pytest.raises(RunError, match=way_out) as caught:
        stand_in(tmp_path, err=err, code=1)[0].start(task())
    assert not isinstance(caught.value, ExecutorUnavailable)


def test_a_kubectl_that_is_not_there_or_hangs_is_away(tmp_path, monkeypatch):
    with pytest.raises(ExecutorUnavailable, match="install kubectl"):
        KubeRay(KubeRayConfig(kubectl=str(tmp_path / "none"))).get_status(NAME)
    monkeypatch.setattr(kuberay, "TIMEOUTS", 0.2)
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(ExecutorUnavailable, match=r"does not answer within 0\.2 s"):
        KubeRay(KubeRayConfig(kubectl=str(slow), timeout_s=1)).get_status(NAME)


# --- a real kubectl, and a server that answers as a Kubernetes API server does


class ApiServer(BaseHTTPRequestHandler):
    """RayJobs in memory: discovery, and create, get, delete with the API's own status objects."""

    found: dict[str, dict]
    rayjob = {"group": "ray.io", "version": "v1", "kind": "RayJob"}

    def do_GET(self):
        path, name = self.path.partition("?")[0], self.path.partition("?")[0].rpartition("/")[2]
        group = {"groupVersion": "ray.io/v1", "version": "v1"}
        resource = {"name": "rayjobs", "singularName": "rayjob", "namespaced": True, "kind": "RayJob"}
        groups = [{"name": "ray.io", "versions": [group], "preferredVersion": group}]
        item = "/apis/ray.io/v1/namespaces/{namespace}/rayjobs/{name}"
        strict = {"x-kubernetes-group-version-kind": self.rayjob, "parameters": [{"name": "fieldValidation", "in": "query"}]}
        known = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
            "/apis/ray.io/v1": {
                "kind": "APIResourceList",
                "groupVersion": "ray.io/v1",
                "resources": [{**resource, "verbs": ["create", "delete", "get"]}],
            },
            "/openapi/v3": {"paths": {"apis/ray.io/v1": {"serverRelativeURL": "/openapi/v3/apis/ray.io/v1"}}},
            "/openapi/v3/apis/ray.io/v1": {
                "openapi": "3.0.0",
                "info": {"title": "x", "version": "1"},
                "paths": {item: {"patch": strict}},
            },
        }
        if path in known:
            return self._answer(200, known[path])
        return self._answer(200, self.found[name]) if name in self.found else self._status(404, "NotFound", name)

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = given["metadata"]["name"]
        if "fieldValidation=Strict" not in self.path:
            return self._status(400, "BadRequest", name)
        if name in self.found:
            return self._status(409, "AlreadyExists", name)
        self.found[name] = given
        return self._answer(201, given)

    def do_DELETE(self):
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        return self._answer(200, self.found.pop(name)) if name in self.found else self._status(404, "NotFound", name)

    def _status(self, code, reason, name):
        message = f'rayjobs.ray.io "{name}" {"already exists" if code == 409 else "not found"}'
        details = {"name": name, "group": "ray.io", "kind": "rayjobs"}
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
        self._answer(code, {**told, "message": message, "details": details})

    def _answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The server's RayJobs, and an executor with the kubectl that is installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl is installed")
    handler = type("Handler", (ApiServer,), {"found": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **kubeconfig}))
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield handler.found, KubeRay(KubeRayConfig(context="c")), server
    server.shutdown()
    server.server_close()


def test_a_real_kubectl_creates_once_reads_and_deletes(cluster):
    found, executor, _ = cluster
    assert executor.get_status(NAME).status == "unknown"
    executor.start(with_workers())
    executor.start(with_workers())
    assert found[NAME]["spec"] == render(with_workers(), KubeRayConfig())["spec"]
    assert executor.get_status(NAME).status == "pending"
    found[NAME]["status"] = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    assert executor.get_status(NAME).status == "running"
    executor.stop(NAME)
    executor.stop(NAME)
    assert found == {}


def test_a_real_kubectl_without_a_server_or_a_context_says_so(cluster):
    _, _, server = cluster
    server.shutdown()
    server.server_close()
    executor = KubeRay(KubeRayConfig(context="c"))
    for call in (lambda: executor.start(task()), lambda: executor.get_status(NAME), lambda: executor.stop(NAME)):
        with pytest.raises(ExecutorUnavailable, match="refused"):
            call()
    with pytest.raises(RunError, match="get-contexts"):
        KubeRay(KubeRayConfig(context="nope")).get_status(NAME)
