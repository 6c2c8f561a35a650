"""infra/kubernetes, rendered: every object is one that its API takes, and they agree with each other and with the program."""

from __future__ import annotations

import copy
import re
from functools import partial
from importlib.metadata import version

import kubernetes_validate
import pytest
import yaml
from jsonschema.exceptions import ValidationError
from manifests.objects import INFRA, OVERLAYS, check, expanded, of_kind, pods_of, read, references_of, rendered, variables_of
from manifests.policies import matches
from manifests.runs import EXAMPLE, attempts, everything
from starlette.testclient import TestClient

import services.jobs.__main__ as jobs_main
import services.search.__main__ as search_main
from services.common.users import LocalUser
from services.jobs.http.api import create_app as create_jobs_app
from services.jobs.http.state import ApiSettings as JobsSettings
from services.jobs.local import tracking_server
from services.jobs.runs.rayjob import CONFIG, SCRATCH, WAIT_FOR_WORK, KubeRayConfig
from services.search.http.api import create_app as create_search_app
from services.search.http.state import ApiSettings as SearchSettings
from services.search.serving.catalogue import Catalogue

ADMINISTRATORS = {
    ("Secret", "zsbir-store"): {"url"},
    ("Secret", "zsbir-mlflow"): {"url"},
    ("Secret", "zsbir-credentials"): {"MLFLOW_TRACKING_PASSWORD"},
    ("Secret", "zsbir-ray"): {"auth_token"},
    ("Secret", "zsbir-tls"): {"tls.crt", "tls.key"},
}
"""What the objects name and do not contain, with its keys: infra/kubernetes/README.md says who makes each."""

RAW = sorted(path.relative_to(INFRA).as_posix() for path in INFRA.rglob("*.yaml") if path.name not in ("kustomization.yaml",))
NOT_OBJECTS = ("base/names.yaml", "components/kueue/kuberay.yaml", "components/kueue/dispatcher.yaml", "overlays/")
"""Settings, and patches of objects."""


@pytest.fixture(params=OVERLAYS)
def overlay(request):
    return request.param


# --- each object by itself


def test_every_rendered_object_is_one_that_its_api_takes(overlay):
    objects = everything(overlay)
    assert len(objects) > 20
    for each in objects:
        check(each)


@pytest.mark.parametrize("path", [path for path in RAW if not path.startswith(NOT_OBJECTS)])
def test_every_file_holds_objects_that_their_apis_take_also_where_nothing_can_be_rendered(path):
    for each in read(path):
        # kustomize adds the namespace, which the schemas of KubeRay's objects ask for
        if each["apiVersion"].startswith("ray.io"):
            each["metadata"].setdefault("namespace", "zsbir")
        check(each)


def test_the_check_notices_a_misspelt_field_wherever_it_is():
    for path, where in (
        ("base/raycluster.yaml", lambda each: each["spec"]["workerGroupSpecs"][0]),
        ("base/raycluster.yaml", lambda each: each["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]),
        ("base/network.yaml", lambda each: each["spec"]),
        ("base/jobs.yaml", lambda each: each["spec"]["template"]["spec"]),
        ("components/kueue/kueue.yaml", lambda each: each["spec"]),
        ("components/external-secrets/secrets.yaml", lambda each: each["spec"]["target"]),
        ("examples/network/cilium.yaml", lambda each: each["spec"]),
    ):
        each = copy.deepcopy(read(path)[0])
        each["metadata"].setdefault("namespace", "zsbir")
        if "spec" not in each:
            each["spec"] = {}
        where(each)["replicaz"] = 1
        with pytest.raises((ValidationError, kubernetes_validate.ValidationError), match="replicaz"):
            check(each)


# --- objects that name others


def test_every_selector_matches_a_pod(overlay):
    objects, pods = rendered(overlay), pods_of(everything(overlay))
    for each in objects:
        name, spec = f"{each['kind']}/{each['metadata']['name']}", each.get("spec", {})
        if each["kind"] == "Deployment":
            assert matches(spec["selector"], spec["template"]["metadata"]["labels"]), name
            for spread in spec["template"]["spec"].get("topologySpreadConstraints", []):
                assert matches(spread["labelSelector"], spec["template"]["metadata"]["labels"]), name
        elif each["kind"] == "Service":
            assert any(matches({"matchLabels": spec["selector"]}, pod.labels) for pod in pods), name
        elif each["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = spec["selector" if each["kind"] == "PodDisruptionBudget" else "podSelector"]
            assert any(matches(selector, pod.labels) for pod in pods), name
        elif each["kind"] == "HorizontalPodAutoscaler":
            target = of_kind(objects, "Deployment")[spec["scaleTargetRef"]["name"]]
            assert "replicas" not in target["spec"], "the autoscaler's number would be set back whenever this is applied"


def certificates(listener):
    return listener.get("tls", {}).get("certificateRefs", [])


def test_whatever_is_named_is_there_or_on_the_list_of_what_the_administrator_makes(overlay):
    objects = everything(overlay)
    text = (INFRA / "README.md").read_text("utf-8")
    there = {(each["kind"], each["metadata"]["name"]): set(each.get("data", {})) for each in objects}
    needed = set().union(*(references_of(pod) for pod in pods_of(objects)))
    for gateway in of_kind(objects, "Gateway").values():
        needed |= {("Secret", each["name"], "") for part in gateway["spec"]["listeners"] for each in certificates(part)}
    assert len(needed) > 8
    for kind, name, key in needed:
        if (kind, name) in ADMINISTRATORS:
            assert not key or key in ADMINISTRATORS[kind, name]
            assert f"`{name}`" in text, f"the README does not say who makes the {kind} {name}"
        else:
            assert (kind, name) in there, f"{kind} {name} is nowhere"
            assert not key or key in there[kind, name]
    for name, each in of_kind(objects, "ExternalSecret").items():
        keys = {item["secretKey"] for item in each["spec"].get("data", [])}
        assert each["spec"]["target"]["name"] == name
        assert not keys or keys == ADMINISTRATORS["Secret", name]


def test_services_routes_and_probes_name_ports_that_containers_have(overlay):
    objects, pods = rendered(overlay), pods_of(rendered(overlay))
    for pod in pods:
        for container in pod.containers:
            named = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
            probes = [container[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in container]
            for probe in probes:
                assert probe.get("httpGet", probe.get("tcpSocket"))["port"] in named, pod.owner
    for service in of_kind(objects, "Service").values():
        (port,) = service["spec"]["ports"]
        (pod,) = [each for each in pods if matches({"matchLabels": service["spec"]["selector"]}, each.labels)]
        named = {each["name"]: each["containerPort"] for each in pod.containers[0]["ports"]}
        assert named[port["targetPort"]] == port["port"]
    for route in of_kind(objects, "HTTPRoute").values():
        for backend in (each for rule in route["spec"]["rules"] for each in rule.get("backendRefs", [])):
            ports = of_kind(objects, "Service")[backend["name"]]["spec"]["ports"]
            assert backend["port"] in {port["port"] for port in ports}


def test_the_standing_cluster_is_where_the_dispatcher_looks_for_it_and_runs_the_same_ray():
    (cluster,) = read("base/raycluster.yaml")
    # KubeRay calls the head's Service after the cluster, and the Secret with its token by the cluster's own name.
    (dispatcher,) = pods_of(read("base/dispatcher.yaml"))
    assert f"--ray=http://{cluster['metadata']['name']}-head-svc:8265" in dispatcher.containers[0]["command"]
    assert ("Secret", cluster["metadata"]["name"], "auth_token") in references_of(dispatcher)
    assert cluster["spec"]["rayVersion"] == version("ray")
    assert read(EXAMPLE)[0]["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


# --- what runs in them


class Reached(Exception):
    """A command has read its arguments and would now begin to work."""


def reached(*_words, **_named):
    raise Reached


@pytest.fixture
def commands(monkeypatch):
    """Run a container's command up to where it would open a database."""
    monkeypatch.setattr("services.jobs.http.api.create_app", reached)
    monkeypatch.setattr("services.jobs.queue.store.open_store", reached)
    monkeypatch.setattr("services.search.start.port_for", lambda _host, port: port)  # whether it is free here is of no concern
    monkeypatch.setattr("services.search.start.open_app", reached)
    monkeypatch.setattr(tracking_server, "create_app", reached)
    monkeypatch.setattr(tracking_server, "_password", lambda _file: "hush")
    monkeypatch.setenv(tracking_server.STORE_VARIABLE, "postgresql://zsbir@db/mlflow")
    monkeypatch.setenv("ZSBIR_JOBS_STORE", "postgresql://zsbir@db/zsbir")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(words):
        assert words[:2] == ["python", "-m"]
        module, arguments = words[2], words[3:]
        monkeypatch.setattr("sys.argv", [module, *arguments])
        parse = {"services.jobs": partial(jobs_main._parse, arguments), "services.search": partial(search_main._parse, arguments)}
        with pytest.raises(Reached):
            parse.get(module, tracking_server.main)()
        assert module in (*parse, "services.jobs.local.tracking_server")

    monkeypatch.setenv("ZSBIR_ROOT", "s3://bucket/zsbir")
    return run


def test_every_command_is_one_that_the_program_takes_and_listens_where_its_port_says(overlay, commands, monkeypatch):
    objects, seen = rendered(overlay), set()
    kuberay = [each for name, each in of_kind(objects, "ConfigMap").items() if name.startswith("zsbir-kuberay")]
    for pod in pods_of(objects):
        if pod.ray:
            assert "command" not in pod.containers[0], "KubeRay starts Ray itself"
            continue
        (container,) = pod.containers
        words = expanded(container, objects)
        if "--executor=kuberay" in words:
            variables = {each["name"]: each.get("value") for each in container["env"]}
            assert variables[CONFIG] == "/etc/zsbir/kuberay.yaml"
            assert "RAY_AUTH_TOKEN" not in variables
            assert "kuberay.yaml" in kuberay[0]["data"]
            monkeypatch.setattr(jobs_main, "_executor", lambda _settings: None)
        commands(words)
        port = next((int(word.partition("=")[2]) for word in words if word.startswith("--port=")), None)
        assert pod.ports == ({port} if port else set())
        seen.add(words[2] + (words[3] if words[2] == "services.jobs" else ""))
    assert seen == {"services.jobsserve", "services.jobsdispatch", "services.search", "services.jobs.local.tracking_server"}


def test_the_examples_command_is_one_that_training_takes(monkeypatch):
    words = read(EXAMPLE)[0]["spec"]["entrypoint"].split()
    import zsbir.train

    monkeypatch.setattr(zsbir.train, "fitted", reached)
    assert words[:3] == ["python", "-m", "zsbir.train"]
    with pytest.raises(Reached):
        zsbir.train._parse(words[3:])


@pytest.fixture
def apps(tmp_path):
    """The applications behind the containers, by name, each on an empty store."""
    root = str(tmp_path)
    jobs = create_jobs_app(JobsSettings(store=f"sqlite:///{tmp_path}/jobs.db", root=root, host="127.0.0.1", auth="tokens"))
    search = create_search_app(SearchSettings(root=root), Catalogue(), LocalUser())
    return {"serve": (jobs, 200), "search": (search, 503)}


def test_probes_ask_for_routes_that_answer_a_kubelet_without_a_token(overlay, apps):
    """The kubelet uses the pod's address, by which no service is known; an index that is not open yet is no reason to restart."""
    asked = set()
    for pod in pods_of(rendered(overlay)):
        for container in pod.containers:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {}).get("httpGet")
                if probe and container["name"] == "mlflow":
                    assert probe["path"] == tracking_server.OPEN_PATH, "the only page that asks for no password"
                elif probe:
                    app, when_empty = apps[container["name"]]
                    headers = {each["name"]: each["value"] for each in probe["httpHeaders"]}
                    got = TestClient(app, base_url="http://10.1.2.3:8270").get(probe["path"], headers=headers)
                    assert got.status_code == (when_empty if kind == "readinessProbe" else 200), (pod.owner, kind)
                    asked.add((container["name"], probe["path"]))
                if container.get(kind):
                    assert not pod.ray, "KubeRay has its own"
    assert asked == {("serve", "/healthz"), ("search", "/healthz"), ("search", "/readyz")}


# --- pods that can do little


def test_pods_are_those_that_the_restricted_profile_lets_in_and_write_to_their_scratch_volume_alone(overlay):
    objects = everything(overlay)
    namespace = of_kind(objects, "Namespace")["zsbir"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = pods_of(objects)
    assert len(pods) >= 6
    for pod in pods:
        spec = pod.spec
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), pod.owner
        assert {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}.items() <= spec[
            "securityContext"
        ].items(), pod.owner
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "secret", "configMap"}
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, pod.owner
            writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert writable == {SCRATCH}
            assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
            places = variables_of(container, objects)
            assert (places["HOME"], places["ZSBIR_CACHE"]) == (SCRATCH, f"{SCRATCH}/zsbir-cache")
            assert pod.ray or container["workingDir"] == SCRATCH, "where a service keeps its own files"


def test_every_container_says_what_it_needs_and_what_it_may_use(overlay):
    for pod in pods_of(everything(overlay)):
        for container in pod.containers:
            needs = container["resources"]
            assert {"cpu", "memory"} <= set(needs["requests"]) & set(needs["limits"]), pod.owner
            gpus = [side.get("nvidia.com/gpu") for side in needs.values()]
            assert gpus[0] == gpus[1], "Kubernetes takes requests of GPUs only where they equal the limits"


def test_only_the_dispatcher_has_rights_in_kubernetes_and_only_over_rayjobs(overlay):
    objects = everything(overlay)
    assert [pod.owner for pod in pods_of(objects) if pod.spec["automountServiceAccountToken"]] == (
        [] if overlay == "small" else ["Deployment/zsbir-dispatcher"]
    )
    rules = [each["rules"] for each in objects if each["kind"] == "Role"]
    rayjobs = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "delete"]}]
    assert rules == ([] if overlay == "small" else [rayjobs])
    assert not [each for each in objects if each["kind"].startswith("ClusterRole")]
    assert KubeRayConfig().service_account in of_kind(objects, "ServiceAccount")
    for binding in of_kind(objects, "RoleBinding").values():
        assert [each["name"] for each in binding["subjects"]] == ["zsbir-dispatcher"]


def test_secrets_are_named_and_never_written_down(overlay):
    objects = everything(overlay)
    assert of_kind(objects, "Secret") == {}
    secret = re.compile("passw|secret|token|key", re.IGNORECASE)
    for pod in pods_of(objects):
        for container in pod.containers:
            for variable in container.get("env", []):
                assert "value" not in variable or not secret.search(variable["name"]), (pod.owner, variable)
            assert not [word for word in container.get("command", []) if re.search(r"://[^/]*:[^/]*@", word)]
    for each in of_kind(objects, "ConfigMap").values():
        assert not [key for key in each["data"] if secret.search(key)]


# --- images, spot nodes


def test_every_image_has_the_registry_and_the_tag_that_one_file_sets(overlay):
    component = yaml.safe_load((INFRA / "components" / "images" / "kustomization.yaml").read_text("utf-8"))
    wanted = {f"{each['newName']}:{each['newTag']}" for each in component["images"]}
    assert {each["name"] for each in component["images"]} == {"zsbir-train", "zsbir-services", "zsbir-dispatcher"}
    used = {container["image"] for pod in pods_of(rendered(overlay)) for container in pod.containers}
    used |= {
        KubeRayConfig.of(yaml.safe_load(each["data"]["kuberay.yaml"])).image
        for name, each in of_kind(rendered(overlay), "ConfigMap").items()
        if name.startswith("zsbir-kuberay")
    }
    assert used <= wanted
    assert len(used) == (2 if overlay == "small" else 3)


def test_what_computes_runs_in_the_image_with_pytorch_and_the_rest_in_the_small_one(overlay):
    for pod in pods_of(rendered(overlay)):
        computes = pod.ray or pod.owner == "Deployment/zsbir-search"
        dispatches_to_kubernetes = overlay != "small" and pod.owner == "Deployment/zsbir-dispatcher"
        wanted = "zsbir-train" if computes else "zsbir-dispatcher" if dispatches_to_kubernetes else "zsbir-services"
        assert f"/{wanted}:" in pod.containers[0]["image"], pod.owner


def test_workers_may_run_on_interruptible_nodes_and_heads_may_not():
    for pod in pods_of([*everything("gpu")]):
        keys = {each["key"] for each in pod.spec.get("tolerations", [])}
        assert ("zsbir.io/spot" in keys) == pod.owner.endswith("/worker"), pod.owner
        if pod.owner.endswith("/worker"):
            assert pod.spec["terminationGracePeriodSeconds"] >= KubeRayConfig().grace_s
            assert pod.containers[0]["lifecycle"]["preStop"]["exec"]["command"] == ["sh", "-c", WAIT_FOR_WORK]


def test_without_a_taint_in_the_configuration_attempts_tolerate_no_interruptible_nodes():
    keys = {each["key"] for pod in pods_of(attempts(spot="")) for each in pod.spec.get("tolerations", [])}
    assert keys == {"nvidia.com/gpu"}


def test_whatever_asks_for_gpus_tolerates_the_taint_of_nodes_that_have_some_and_nothing_else_does(overlay):
    with_gpus = 0
    for pod in pods_of(everything(overlay)):
        asks = "nvidia.com/gpu" in pod.containers[0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in {each["key"] for each in pod.spec.get("tolerations", [])}) == asks, pod.owner
        with_gpus += asks
    assert with_gpus == (0 if overlay == "small" else 4)
