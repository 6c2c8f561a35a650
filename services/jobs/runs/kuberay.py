"""The executor on Kubernetes: each attempt is a RayJob with a Ray cluster of its own, which KubeRay runs when Kueue admits it.

Who waits, who fits, who makes room for whom is Kueue's to decide: every RayJob begins suspended, with the name of its queue and
of its priority class, and nothing here chooses between two of them. Written for KubeRay from 1.5.1 on and Kueue from 0.15 on, from
their types and controllers; infra/kubernetes/README.md says what was tried.

How an attempt is asked to end. Ray's own stop signal is SIGINT, as everywhere else. A pod that Kubernetes ends gets SIGTERM, which
Ray does not hand on to jobs; so its preStop hook comes first: the head's has Ray stop the job and waits for it, a worker's waits
until no work is left on it. That holds for all ways in which a cluster takes pods back: `stop`, Kueue's preemption, a drained node.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

import yaml
from pydantic import Field

from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Rejected, Task
from zsbir.base.config import Config, read_yaml

CONFIG = "ZSBIR_KUBERAY"
"""The environment's name for the file with this executor's configuration."""

NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""What KubeRay takes as a RayJob's name: a DNS label of 47 characters, as it makes longer ones from it."""

QUEUE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What is a queue's name and a label's value."""

LAST_WORDS_S = 30
"""Seconds that pods get beyond the grace: for the hook to start, and the attempt's last words."""

WAIT_FOR_WORK = "while pgrep -af '^ray::' | grep -qvE 'ray::(IDLE|SPILL|RESTORE|DashboardAgent|RuntimeEnvAgent)'; do sleep 1; done"
"""Until this pod has no Ray process but Ray's own: the job that it works for has ended. Ray names its processes so."""

ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
TAKEN_BACK = frozenset({"Suspending", "Suspended"})
REFUSED = frozenset({"BadRequest", "Conflict", "Forbidden", "Invalid", "MethodNotAllowed", "NotFound", "Unauthorized"})
"""Reasons of a Kubernetes API server that has answered, and will not answer otherwise."""

COMPLAINTS = {
    "no matches for kind": "; is KubeRay installed on this cluster?",
    "doesn't have a resource type": "; is KubeRay installed on this cluster?",
    "must be logged in": "; log kubectl in, or name another context",
    "does not exist": "; kubectl config get-contexts lists those that do",
}
"""What kubectl itself says before it has asked anybody to do anything, and the way out."""


class KubeRayConfig(Config):
    """What the attempts' pods are like, and how the cluster is reached. Its own settings are no user's to choose."""

    kubectl: str = Field("kubectl", description="the kubectl program")
    context: str = Field("", description="kubectl's context; none: its current one, or the pod's own service account")
    timeout_s: int = Field(15, gt=0, description="seconds that the cluster may take to answer")
    namespace: str = Field("zsbir", description="namespace of all attempts")
    queue: str = Field("zsbir", description="Kueue's LocalQueue; {project} in it stands for the job's project")
    priority_classes: dict[str, int] = Field(
        {"zsbir-low": -100, "zsbir-normal": 0, "zsbir-high": 1},
        description="Kueue's WorkloadPriorityClasses, each with the lowest priority of the jobs that it is for; {}: none is named",
    )
    image: str = Field("zsbir-train", description="container image of all nodes: docker/Dockerfile.train")
    ray_version: str = Field(default_factory=lambda: version("ray"), description="Ray's version in that image")
    ray_auth: Literal["token", "disabled"] = Field("token", description="token: each cluster has one of its own (KubeRay 1.5.1)")
    service_account: str = Field("zsbir-jobs", description="service account of the nodes; it needs no rights in Kubernetes")
    credentials: str = Field(
        "zsbir-credentials", description="Secret with the nodes' environment (storage keys); none: a node's role"
    )
    storage_claim: str = Field("", description="PersistentVolumeClaim that holds the storage root; none: object storage")
    storage_path: str = Field("/shared/zsbir", description="where that is mounted")
    head_cpus: float = Field(1, gt=0, description="CPUs for the head's own work and the attempt's first process")
    head_memory_gib: float = Field(6, gt=0, description="GiB for these")
    memory_per_cpu_gib: float = Field(4, gt=0, description="GiB for each CPU that a job holds")
    gpu_resource: str = Field("nvidia.com/gpu", description="Kubernetes' name for a GPU")
    grace_s: int = Field(120, gt=0, description="seconds for a final checkpoint when pods are taken back")
    ttl_s: int = Field(60, ge=0, description="seconds that an ended attempt's cluster is kept for people who look at it")


def configured() -> KubeRayConfig:
    """From the YAML file that ZSBIR_KUBERAY names; the defaults where it is not set. InputError names what is wrong in it."""
    path = os.environ.get(CONFIG)
    return KubeRayConfig.of(read_yaml(path), where=path) if path else KubeRayConfig()


# --- a RayJob


def render(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    """The attempt as a RayJob. Refused, with the way out, for what no RayJob can be.

    backoffLimit 0: the queue owns retries. HTTPMode: KubeRay hands the entrypoint to Ray as it is; a submitter (K8sJobMode) would
    put it through another shell and another quoting, and be one more pod whose loss fails the attempt.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": _name(task.submission_id), "namespace": config.namespace, "labels": _labels(task, config)},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": config.ttl_s,
            "submissionMode": "HTTPMode",
            "jobId": task.submission_id,
            "entrypoint": shlex.join(task.entrypoint),
            "metadata": {"project": task.project, "place": task.place},
            "runtimeEnvYAML": _quoted({"env_vars": _environment(task, config)}),
            "rayClusterSpec": _cluster(task, config),
        },
    }


def _name(submission_id: str) -> str:
    if not NAME.fullmatch(submission_id):
        raise Rejected(f"submission id {submission_id!r} cannot be a RayJob's name: a DNS label of at most 47 characters is needed")
    return submission_id


def _labels(task: Task, config: KubeRayConfig) -> dict[str, str]:
    queue = config.queue.replace("{project}", task.project)
    if not QUEUE.fullmatch(queue):
        raise Rejected(
            f"project {task.project!r} cannot have the queue {queue!r}: that is no Kubernetes name; "
            "give the project another name, or all projects one queue (queue, without {project})"
        )
    labels = {"app.kubernetes.io/managed-by": "zsbir-jobs", "kueue.x-k8s.io/queue-name": queue}
    if config.priority_classes:
        labels["kueue.x-k8s.io/priority-class"] = _priority_class(task.priority, config.priority_classes)
    return labels


def _priority_class(priority: int, classes: Mapping[str, int]) -> str:
    """The highest one that the priority reaches, or the lowest of all."""
    rising = sorted(classes, key=lambda name: classes[name])
    return next((name for name in reversed(rising) if classes[name] <= priority), rising[0])


def _environment(task: Task, config: KubeRayConfig) -> dict[str, str]:
    """By way of Ray, not of the containers: there Kubernetes would put other variables' values for `$(NAME)`."""
    return {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(config.grace_s), **task.env}


def _quoted(values: Mapping[str, Any]) -> str:
    """YAML with quotes around all of it: KubeRay's reader takes bare words for numbers that Python's writer does not (1e3)."""
    return str(yaml.safe_dump(dict(values), default_style='"'))


def _cluster(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    """A head that drives and as many workers as the job has; a job without workers does all on the head."""
    told: dict[str, Any] = {"rayVersion": config.ray_version}
    if config.ray_auth == "token":
        told["authOptions"] = {"mode": "token"}
    if not task.workers:
        return {**told, "headGroupSpec": _head(task, config, task.cpus, _whole(task.gpus))}
    # No CPU of the head is Ray's to give, or a worker would be placed there: away from the GPUs and the memory meant for it.
    return {**told, "headGroupSpec": _head(task, config, 0, 0), "workerGroupSpecs": [_workers(task, config)]}


def _head(task: Task, config: KubeRayConfig, cpus: float, gpus: int) -> dict[str, Any]:
    stop = ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", _name(task.submission_id)]
    container = {
        "name": "ray-head",
        "ports": [{"name": "gcs-server", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}],
        "resources": _resources(
            config.head_cpus + cpus, config.head_memory_gib + cpus * config.memory_per_cpu_gib, gpus, config.gpu_resource
        ),
        "lifecycle": {"preStop": {"exec": {"command": stop}}},
    }
    return {"rayStartParams": _ray_start(cpus, gpus), "template": _pod(container, config)}


def _workers(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    cpus, gpus = task.cpus / task.workers, _whole(task.gpus / task.workers)
    container = {
        "name": "ray-worker",
        "resources": _resources(cpus, cpus * config.memory_per_cpu_gib, gpus, config.gpu_resource),
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", WAIT_FOR_WORK]}}},
    }
    return {
        "groupName": "workers",
        "replicas": task.workers,
        "minReplicas": task.workers,
        "maxReplicas": task.workers,
        "rayStartParams": _ray_start(cpus, gpus),
        "template": _pod(container, config),
    }


def _ray_start(cpus: float, gpus: int) -> dict[str, str]:
    return {"num-cpus": str(math.ceil(cpus)), "num-gpus": str(gpus)}


def _whole(gpus: float) -> int:
    if gpus != int(gpus):
        raise Rejected(f"a pod cannot have {gpus:g} GPUs: Kubernetes gives whole ones; ask for a whole number per worker")
    return int(gpus)


def _resources(cpus: float, memory_gib: float, gpus: int, gpu_resource: str) -> dict[str, dict[str, str]]:
    """Asked for and limited to the same: what Kueue counts is what there is."""
    amounts = {"cpu": f"{math.ceil(cpus * 1000)}m", "memory": f"{math.ceil(memory_gib * 1024)}Mi"}
    if gpus:
        amounts[gpu_resource] = str(gpus)
    return {"requests": amounts, "limits": dict(amounts)}


def _pod(container: dict[str, Any], config: KubeRayConfig) -> dict[str, Any]:
    """Without rights, in the container or in the cluster; KubeRay adds shared memory and Ray's own checks."""
    container = {
        **container,
        "image": config.image,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if config.credentials:
        container["envFrom"] = [{"secretRef": {"name": config.credentials}}]
    spec = {
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": config.grace_s + LAST_WORDS_S,
        "containers": [container],
    }
    if config.storage_claim:
        container["volumeMounts"] = [{"name": "storage", "mountPath": config.storage_path}]
        spec["volumes"] = [{"name": "storage", "persistentVolumeClaim": {"claimName": config.storage_claim}}]
    return {"spec": spec}


# --- what becomes of it


def sight_of(rayjob: Mapping[str, Any]) -> ExecutorStatus:
    """What a RayJob's own fields say of the attempt.

    A RayJob that Kueue has suspended again has ended, as the attempt is concerned: its processes are gone. The API server counts
    changes of a specification, and Kueue is the only one who changes these: the first is the admission.
    """
    status, spec = rayjob.get("status") or {}, rayjob.get("spec") or {}
    stage = str(status.get("jobDeploymentStatus") or "New")
    told = ": ".join(str(status[name]) for name in ("reason", "message") if status.get(name))
    if stage in ENDED:
        return ExecutorStatus("ended", told or str(status.get("jobStatus") or stage))
    if stage in TAKEN_BACK and spec.get("suspend"):
        if int(rayjob.get("metadata", {}).get("generation", 1)) > 1:
            return ExecutorStatus("ended", "preempted: Kueue gave its place to another")
        return ExecutorStatus("pending", "waits for Kueue to admit it")
    # KubeRay says Running as soon as the cluster is up; the job's own status tells whether Ray has started it.
    if stage == "Running" and status.get("jobStatus") not in (None, "", "PENDING"):
        return ExecutorStatus("running", told)
    return ExecutorStatus("pending", ": ".join(filter(None, [stage, told])))


class KubeRay:
    """RayJobs by way of `kubectl`, which knows all the ways to log in to a cluster, this one's service account included."""

    def __init__(self, config: KubeRayConfig):
        self._config = config

    def start(self, task: Task) -> None:
        """See Executor. A field that the cluster does not know is an error, not left out."""
        manifest = json.dumps(render(task, self._config))
        self._kubectl("create", "--validate=strict", "--filename=-", manifest=manifest, fine="AlreadyExists")

    def look(self, submission_id: str) -> ExecutorStatus:
        """See Executor."""
        said = self._kubectl("get", "rayjobs.ray.io", _name(submission_id), "--output=json", fine="NotFound")
        if said is None:
            return ExecutorStatus("unknown")
        try:
            return sight_of(json.loads(said))
        except (ValueError, AttributeError, TypeError) as error:
            raise ExecutorUnavailable(f"kubectl's answer about {submission_id} is no RayJob: {said[:200]!r}") from error

    def stop(self, submission_id: str) -> None:
        """See Executor. By deleting it, as only then KubeRay has Ray stop the job before the pods go; those wait in their hooks.

        Suspending it would be Kueue's to undo, and a deadline would leave the hooks alone to do it.
        """
        self._kubectl("delete", "rayjobs.ray.io", _name(submission_id), "--ignore-not-found", "--wait=false")

    def _kubectl(self, *words: str, manifest: str = "", fine: str = "") -> str | None:
        """What it prints; None for the API server's reason that is fine. Refused where the cluster does, Away for no answer."""
        config = self._config
        argv = [config.kubectl, f"--namespace={config.namespace}", f"--request-timeout={config.timeout_s}s", *words]
        if config.context:
            argv.insert(1, f"--context={config.context}")
        try:
            done = subprocess.run(argv, input=manifest, capture_output=True, text=True, timeout=config.timeout_s * 3, check=False)
        except subprocess.TimeoutExpired as error:
            raise ExecutorUnavailable(f"the cluster does not answer within {config.timeout_s * 3} s; {self._way_out()}") from error
        except OSError as error:
            raise ExecutorUnavailable(
                f"cannot run {config.kubectl!r} ({error.strerror}); install kubectl, or name it (kubectl)"
            ) from error
        if not done.returncode:
            return done.stdout
        line = _complaint(done.stderr)
        reason = _reason(line)
        if fine and reason == fine:
            return None
        hint = next((hint for words_, hint in COMPLAINTS.items() if words_ in line and not reason), None)
        if reason in REFUSED or hint is not None:
            raise Rejected(f"Kubernetes refused: {line}{hint or ''}")
        raise ExecutorUnavailable(f"the cluster does not answer: {line}; {self._way_out()}")

    def _way_out(self) -> str:
        context = f" --context={self._config.context}" if self._config.context else ""
        return f"see what this says: {self._config.kubectl}{context} get rayjobs --namespace={self._config.namespace}"


def _complaint(stderr: str) -> str:
    """The line that matters: kubectl's libraries put their own log before it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line for line in lines if not re.match(r"[EWI]\d{4} ", line)]
    return (said or lines or ["kubectl failed without a word"])[0][:300]


def _reason(line: str) -> str:
    """The API server's reason in one word; none where it was not the server who spoke."""
    found = re.match(r"Error from server \((\w+)\)", line)
    return found.group(1) if found else ""
