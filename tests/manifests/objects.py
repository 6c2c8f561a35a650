"""The objects of infra/kubernetes, rendered by kubectl's kustomize, and the schemas that they have to follow.

Core objects are checked against Kubernetes' own schemas, strictly; those of others (KubeRay, Kueue, Gateway API, External
Secrets, Cilium) against `crds/`, which was written from their types and refuses unknown fields.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra" / "kubernetes"
KUBERNETES = "1.34"
OVERLAYS = ("small", "gpu", "public")
RAY_LABELS = {"ray.io/is-ray-node": "yes", "app.kubernetes.io/created-by": "kuberay-operator"}
"""What KubeRay puts on every pod of a Ray cluster, besides the cluster, the type of node and its group."""

BY_KIND = {"kueue.x-k8s.io": "kueue.yaml", "gateway.networking.k8s.io": "gateway.yaml"}
"""The schemas of groups that have several kinds."""

OTHERS = {"external-secrets.io": "externalsecret.yaml", "cilium.io": "ciliumnetworkpolicy.yaml"}
"""The schemas of groups of which one file says all."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Pods:
    """Pods of one template. owner: the kind and name of what makes them; ray: whether KubeRay does."""

    owner: str
    labels: dict[str, str]
    spec: Object
    ray: bool = False
    namespace: str = "zsbir"

    @property
    def containers(self) -> list[Object]:
        """All containers of a pod."""
        return [*self.spec["containers"], *self.spec.get("initContainers", [])]

    @property
    def ports(self) -> set[int]:
        """The TCP ports that a pod says it listens on."""
        return {port["containerPort"] for each in self.containers for port in each.get("ports", [])}


@cache
def rendered(overlay: str) -> tuple[Object, ...]:
    """The objects of an overlay. The test is skipped where no kubectl is installed."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl is installed, so nothing can be rendered")
    done = subprocess.run(
        ["kubectl", "kustomize", str(INFRA / "overlays" / overlay)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def read(path: str) -> list[Object]:
    """The objects of one file of infra/kubernetes, as they are written."""
    return list(yaml.safe_load_all((INFRA / path).read_text("utf-8")))


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    """The objects of one kind, by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def schema(name: str) -> Object:
    """A schema of `crds/`."""
    return dict(yaml.safe_load((Path(__file__).parent / "crds" / name).read_text("utf-8")))


def check(each: Object) -> None:
    """Raise a ValidationError for an object that its API would refuse."""
    group = each["apiVersion"].partition("/")[0] if "/" in each["apiVersion"] else ""
    if group == "ray.io":
        check_ray(each)
    elif group in BY_KIND:
        kinds = schema(BY_KIND[group])
        Draft202012Validator({"$defs": kinds["$defs"], **kinds[each["kind"]], "unevaluatedProperties": False}).validate(each)
    elif group in OTHERS:
        Draft202012Validator(schema(OTHERS[group])).validate(each)
    else:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def check_ray(each: Object) -> None:
    """Raise a ValidationError for a RayJob or a RayCluster that KubeRay or the API server would refuse."""
    job = schema("rayjob.yaml")
    cluster = each["spec"] if each["kind"] == "RayCluster" else each["spec"]["rayClusterSpec"]
    if each["kind"] == "RayCluster":
        fields = {**job["properties"], "kind": {"const": "RayCluster"}, "spec": {"$ref": "#/$defs/rayClusterSpec"}}
        job = {**job, "properties": fields}
    Draft202012Validator(job).validate(each)
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def pods_of(objects: Sequence[Object]) -> list[Pods]:
    """The pods that these objects become."""
    return [pods for each in objects for pods in _pods(each)]


def _pods(each: Object) -> Iterator[Pods]:
    name = f"{each['kind']}/{each['metadata']['name']}"
    if each["kind"] in ("Deployment", "StatefulSet", "Job"):
        template = each["spec"]["template"]
        yield Pods(name, template["metadata"]["labels"], template["spec"])
    elif each["kind"] in ("RayCluster", "RayJob"):
        cluster = each["spec"] if each["kind"] == "RayCluster" else each["spec"]["rayClusterSpec"]
        # KubeRay calls the cluster of a RayJob by a name that it makes from the job's.
        owner = each["metadata"]["name"] + ("" if each["kind"] == "RayCluster" else "-x7k2p")
        for kind, group in [("head", cluster["headGroupSpec"]), *(("worker", g) for g in cluster.get("workerGroupSpecs", []))]:
            own = group["template"].get("metadata", {}).get("labels", {})
            labels = {**own, **RAY_LABELS, "ray.io/cluster": owner, "ray.io/node-type": kind}
            yield Pods(f"{name}/{kind}", labels, group["template"]["spec"], ray=True)


def references_of(pods: Pods) -> set[tuple[str, str, str]]:
    """What pods need by name: (kind, name, key); the key is "" where all of them are meant."""
    found = {("ServiceAccount", pods.spec["serviceAccountName"], "")}
    for container in pods.containers:
        for source in container.get("envFrom", []):
            found |= {(kind, source[key]["name"], "") for key, kind in ENV_SOURCES.items() if key in source}
        for variable in container.get("env", []):
            for key, kind in KEY_SOURCES.items():
                if key in variable.get("valueFrom", {}):
                    found.add((kind, variable["valueFrom"][key]["name"], variable["valueFrom"][key]["key"]))
    for volume in pods.spec.get("volumes", []):
        found |= set(_volume_references(volume))
    return found


ENV_SOURCES = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
KEY_SOURCES = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}


def _volume_references(volume: Object) -> Iterator[tuple[str, str, str]]:
    for key, kind, name in (
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", "secretName"),
        ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
    ):
        if key in volume:
            keys = [item["key"] for item in volume[key].get("items", [])] or [""]
            yield from ((kind, volume[key][name], each) for each in keys)


def variables_of(container: Object, objects: Sequence[Object]) -> dict[str, str]:
    """The variables of a container's environment whose values are known: from ConfigMaps, and from what `env` says."""
    maps = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    known: dict[str, str] = {}
    for source in container.get("envFrom", []):
        known |= maps.get(source.get("configMapRef", {}).get("name", ""), {})
    return known | {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}


def expanded(container: Object, objects: Sequence[Object]) -> list[str]:
    """A container's command with `$(NAME)` replaced as Kubernetes does."""
    known = variables_of(container, objects)
    words = [re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], found[0]), word) for word in container["command"]]
    assert not [word for word in words if "$(" in word], f"a variable that is not defined: {words}"
    return words
