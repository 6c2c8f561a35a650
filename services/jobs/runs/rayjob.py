"""An attempt as a RayJob of KubeRay: its manifest, from the task and from what an operator configured.

Every RayJob begins suspended, with the name of its Kueue queue and of its priority class: Kueue decides when it starts. Written for
KubeRay from 1.5.1 on and Kueue from 0.15 on, from their types and controllers; infra/kubernetes/README.md says what was tried.

How an attempt is asked to end: Ray's own stop signal is SIGINT, as everywhere else. A pod that Kubernetes ends gets SIGTERM, which
Ray does not pass on to jobs. So its preStop hook comes first: the head's has Ray stop the job and waits for it, a worker's waits
until the worker has no work left. This holds for every way in which a cluster takes pods back: a deleted RayJob, Kueue's
preemption, a drained node.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

import yaml
from pydantic import Field

from services.jobs.runs.executor import Rejected, Task
from zsbir.base.config import Config, read_yaml

CONFIG = "ZSBIR_KUBERAY"
"""The environment variable that names the file with this executor's configuration."""

RAYJOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""What KubeRay takes as a RayJob's name: a DNS label of at most 47 characters, as it makes longer ones from it."""

QUEUE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What Kubernetes takes as both the name of a queue and the value of a label."""

EXTRA_GRACE_S = 30
"""Seconds that pods get beyond the grace: for the hook to start, and for the attempt to write its end."""

SCRATCH = "/tmp"  # noqa: S108 - the pod's own, an empty volume
CACHE_FRAC = 0.7
"""Fraction of a pod's scratch volume for the cache of shards; the rest is for what Ray spills, and for logs."""

WAIT_FOR_WORK = "while pgrep -af '^ray::' | grep -qvE 'ray::(IDLE|SPILL|RESTORE|DashboardAgent|RuntimeEnvAgent)'; do sleep 1; done"
"""Wait until this pod has no Ray process but Ray's own, which means that the job has ended. Ray names its processes like this."""


class KubeRayConfig(Config):
    """The attempts' pods, and how the cluster is reached. Operators set it; users cannot change it."""

    kubectl: str = Field("kubectl", description="the kubectl program")
    context: str = Field("", description="kubectl's context; none: its current one, or the pod's own service account")
    timeout_s: int = Field(15, gt=0, description="seconds that the cluster may take to answer")
    namespace: str = Field("zsbir", description="namespace of all attempts")
    queue: str = Field("zsbir", description="Kueue's LocalQueue; {project} in it stands for the job's project")
    priority_classes: dict[str, int] = Field(
        {"zsbir-low": -100, "zsbir-normal": 0, "zsbir-high": 1},
        description="Kueue's WorkloadPriorityClasses, each with the lowest priority of the jobs that it is for; {}: none is named",
    )
    image: str = Field("zsbir-train", description="container image of all nodes: docker/README.md")
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
    scratch_gib: int = Field(
        100, gt=0, description="GiB of a node's disk for each pod's /tmp, the only place it can write to: the cache and Ray's files"
    )
    spot_taint: str = Field(
        "", description="key of the taint of interruptible nodes, on which workers may run; none: they run where heads run"
    )
    gpu_resource: str = Field(
        "nvidia.com/gpu", description="Kubernetes' name for a GPU, and the key of the taint of nodes that have some"
    )
    grace_s: int = Field(120, gt=0, description="seconds for a final checkpoint when pods are taken back")
    ttl_s: int = Field(60, ge=0, description="seconds that an ended attempt's cluster is kept for people who look at it")


def load_config() -> KubeRayConfig:
    """Return the configuration of the YAML file that ZSBIR_KUBERAY names; the defaults where it is not set.

    InputError names what is wrong in the file.
    """
    path = os.environ.get(CONFIG)
    return KubeRayConfig.of(read_yaml(path), where=path) if path else KubeRayConfig()


def render(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    """Return the attempt as a RayJob's manifest. Rejected, with the way out, for a task that cannot be a RayJob.

    backoffLimit 0: the queue owns retries. HTTPMode: KubeRay passes the entrypoint to Ray as it is; a submitter (K8sJobMode) would
    put it through another shell and another quoting, and be one more pod whose loss fails the attempt.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": checked_name(task.submission_id), "namespace": config.namespace, "labels": _labels(task, config)},
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": config.ttl_s,
            "submissionMode": "HTTPMode",
            "jobId": task.submission_id,
            "entrypoint": shlex.join(task.entrypoint),
            "metadata": {"project": task.project, "place": task.attempt_dir},
            "runtimeEnvYAML": _yaml_of_strings({"env_vars": _environment(task, config)}),
            "rayClusterSpec": _cluster(task, config),
        },
    }


def checked_name(submission_id: str) -> str:
    """Return a submission id that can be a RayJob's name. Rejected for any other."""
    if not RAYJOB_NAME.fullmatch(submission_id):
        raise Rejected(f"submission id {submission_id!r} cannot be a RayJob's name: a DNS label of at most 47 characters is needed")
    return submission_id


def _labels(task: Task, config: KubeRayConfig) -> dict[str, str]:
    queue = config.queue.replace("{project}", task.project)
    if not QUEUE_NAME.fullmatch(queue):
        raise Rejected(
            f"project {task.project!r} cannot have the queue {queue!r}: that is not a Kubernetes name; "
            "give the project another name, or all projects one queue (queue, without {project})"
        )
    labels = {"app.kubernetes.io/managed-by": "zsbir-jobs", "kueue.x-k8s.io/queue-name": queue}
    if config.priority_classes:
        labels["kueue.x-k8s.io/priority-class"] = _priority_class(task.priority, config.priority_classes)
    return labels


def _priority_class(priority: int, classes: Mapping[str, int]) -> str:
    """Return the highest class that the priority reaches, or the lowest of all."""
    rising = sorted(classes, key=lambda name: classes[name])
    return next((name for name in reversed(rising) if classes[name] <= priority), rising[0])


def _environment(task: Task, config: KubeRayConfig) -> dict[str, str]:
    """Return the variables for Ray to set. In a container's environment, Kubernetes would expand `$(NAME)` in their values."""
    return {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(config.grace_s), **task.env}


def _yaml_of_strings(values: Mapping[str, Any]) -> str:
    """Return YAML in which every scalar is quoted: KubeRay's reader takes some bare words for numbers, such as 1e3."""
    return str(yaml.safe_dump(dict(values), default_style='"'))


def _cluster(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    """Return a head that drives the job's workers; a job without workers does everything on the head."""
    common: dict[str, Any] = {"rayVersion": config.ray_version}
    if config.ray_auth == "token":
        common["authOptions"] = {"mode": "token"}
    if not task.workers:
        return {**common, "headGroupSpec": _head(task, config, task.resources.cpus, _whole_gpus(task.resources.gpus))}
    # The head offers Ray no CPUs, or Ray would place a worker there, without the GPUs and the memory meant for it.
    return {**common, "headGroupSpec": _head(task, config, 0, 0), "workerGroupSpecs": [_workers(task, config)]}


def _head(task: Task, config: KubeRayConfig, cpus: float, gpus: int) -> dict[str, Any]:
    stop = ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", checked_name(task.submission_id)]
    container = {
        "name": "ray-head",
        "ports": [{"name": "gcs-server", "containerPort": 6379}, {"name": "dashboard", "containerPort": 8265}],
        "resources": _container_resources(
            config.head_cpus + cpus, config.head_memory_gib + cpus * config.memory_per_cpu_gib, gpus, config.gpu_resource
        ),
        "lifecycle": {"preStop": {"exec": {"command": stop}}},
    }
    return {"rayStartParams": _ray_start(cpus, gpus), "template": _pod(container, config)}


def _workers(task: Task, config: KubeRayConfig) -> dict[str, Any]:
    cpus, gpus = task.resources.cpus / task.workers, _whole_gpus(task.resources.gpus / task.workers)
    container = {
        "name": "ray-worker",
        "resources": _container_resources(cpus, cpus * config.memory_per_cpu_gib, gpus, config.gpu_resource),
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", WAIT_FOR_WORK]}}},
    }
    return {
        "groupName": "workers",
        "replicas": task.workers,
        "minReplicas": task.workers,
        "maxReplicas": task.workers,
        "rayStartParams": _ray_start(cpus, gpus),
        "template": _pod(container, config, tolerated=config.spot_taint),
    }


def _ray_start(cpus: float, gpus: int) -> dict[str, str]:
    return {"num-cpus": str(math.ceil(cpus)), "num-gpus": str(gpus)}


def _whole_gpus(gpus: float) -> int:
    if gpus != int(gpus):
        raise Rejected(f"a pod cannot have {gpus:g} GPUs: Kubernetes gives whole ones; ask for a whole number per worker")
    return int(gpus)


def _container_resources(cpus: float, memory_gib: float, gpus: int, gpu_resource: str) -> dict[str, dict[str, str]]:
    """Return requests that equal the limits, so that Kueue counts what the container can use."""
    amounts = {"cpu": f"{math.ceil(cpus * 1000)}m", "memory": f"{math.ceil(memory_gib * 1024)}Mi"}
    if gpus:
        amounts[gpu_resource] = str(gpus)
    return {"requests": amounts, "limits": dict(amounts)}


def _pod(container: dict[str, Any], config: KubeRayConfig, tolerated: str = "") -> dict[str, Any]:
    """Return a pod template without rights in the node or the cluster. KubeRay adds shared memory and Ray's own probes.

    tolerated: key of a taint on nodes where the pod may run all the same; "": none. A pod with GPUs tolerates the taint by which
    clusters usually keep others off nodes with GPUs: it is called like the resource.
    """
    taints = [tolerated] if tolerated else []
    if config.gpu_resource in container["resources"]["limits"]:
        taints.append(config.gpu_resource)
    container = {
        **container,
        "image": config.image,
        "env": _writable_places(config),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}],
    }
    if config.credentials:
        container["envFrom"] = [{"secretRef": {"name": config.credentials}}]
    spec: dict[str, Any] = {
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": config.grace_s + EXTRA_GRACE_S,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": f"{config.scratch_gib}Gi"}}],
    }
    if taints:
        spec["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in taints]
    if config.storage_claim:
        container["volumeMounts"].append({"name": "storage", "mountPath": config.storage_path})
        spec["volumes"].append({"name": "storage", "persistentVolumeClaim": {"claimName": config.storage_claim}})
    return {"spec": spec}


def _writable_places(config: KubeRayConfig) -> list[dict[str, str]]:
    """Return the variables that lead everything that writes to the scratch volume. Ray's own files are below /tmp by default."""
    cache_gb = max(1, int(config.scratch_gib * CACHE_FRAC))
    places = {"HOME": SCRATCH, "ZSBIR_CACHE": f"{SCRATCH}/zsbir-cache", "ZSBIR_CACHE_GB": str(cache_gb)}
    return [{"name": name, "value": value} for name, value in places.items()]
