"""What Kueue promises to jobs in infra/kubernetes, and what runs beside it: no node is promised twice."""

from __future__ import annotations

import re

import pytest
import yaml
from manifests.objects import INFRA, OVERLAYS, of_kind, pods_of, rendered
from manifests.runs import attempts, everything

from services.jobs.runs.rayjob import KubeRayConfig


def test_the_queue_the_classes_and_the_flavors_are_those_that_the_executor_and_each_other_name():
    objects = rendered("gpu")
    config = KubeRayConfig.of(
        yaml.safe_load(
            next(each for name, each in of_kind(objects, "ConfigMap").items() if name.startswith("zsbir-kuberay"))["data"][
                "kuberay.yaml"
            ]
        )
    )
    classes = of_kind(objects, "WorkloadPriorityClass")
    assert set(classes) == set(config.priority_classes)
    rising = sorted(config.priority_classes, key=config.priority_classes.get)
    assert rising == sorted(rising, key=lambda name: classes[name]["value"])
    queues, flavors = of_kind(objects, "ClusterQueue"), of_kind(objects, "ResourceFlavor")
    assert of_kind(objects, "LocalQueue")[config.queue]["spec"]["clusterQueue"] in queues
    assert [taint["key"] for taint in flavors["zsbir-spot"]["spec"]["nodeTaints"]] == [config.spot_taint]
    for queue in queues.values():
        for group in queue["spec"]["resourceGroups"]:
            assert [flavor["name"] for flavor in group["flavors"]] == ["zsbir-spot", "zsbir"], "the cheaper one first"
            assert {flavor["name"] for flavor in group["flavors"]} == set(flavors)
            for flavor in group["flavors"]:
                assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]
            for pod in pods_of(attempts()):
                assert set(pod.containers[0]["resources"]["limits"]) <= set(group["coveredResources"])


UNITS = {"m": 0.001, "Mi": 2**20, "Gi": 2**30}
QUEUE = "kueue.x-k8s.io/queue-name"


def amount(text):
    """Return a quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|Mi|Gi)?", text).groups()
    return float(number) * UNITS.get(unit, 1)


def requested(pods):
    """Return what pods, each of them so many times, request together: CPUs, GiB, GPUs."""
    total = [0.0, 0.0, 0.0]
    for pod, times in pods:
        for container in pod.containers:
            asks = container["resources"]["requests"]
            of_each = (amount(asks["cpu"]), amount(asks["memory"]) / UNITS["Gi"], amount(asks.get("nvidia.com/gpu", "0")))
            total = [whole + times * part for whole, part in zip(total, of_each, strict=True)]
    return [round(each, 3) for each in total]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_holds_gpus_is_in_the_queue_with_kueue_so_that_no_quota_is_promised_twice(overlay):
    objects = rendered(overlay)
    queues, classes = of_kind(objects, "LocalQueue"), of_kind(objects, "WorkloadPriorityClass")
    for each in everything(overlay):
        labels = each["metadata"].get("labels", {})
        if not queues:
            assert QUEUE not in labels, "nobody would admit it"
        elif each["kind"] in ("RayCluster", "RayJob"):
            assert labels[QUEUE] in queues
            assert labels["kueue.x-k8s.io/priority-class"] in classes
        else:
            assert not [pod for pod in pods_of([each]) if "nvidia.com/gpu" in pod.containers[0]["resources"]["limits"]]


def test_kueue_can_admit_the_standing_cluster_and_no_job_preempts_it():
    """Kueue refuses a cluster that scales itself or has workers called "head", and preempts lower priorities alone."""
    objects = rendered("gpu")
    cluster = of_kind(objects, "RayCluster")["zsbir-ray"]
    assert "enableInTreeAutoscaling" not in cluster["spec"]
    assert [group["groupName"] for group in cluster["spec"]["workerGroupSpecs"]] == ["workers"]
    (queue,) = of_kind(objects, "ClusterQueue").values()
    assert queue["spec"]["preemption"] == {"withinClusterQueue": "LowerPriority"}
    classes = of_kind(objects, "WorkloadPriorityClass")
    highest = max(classes, key=lambda name: classes[name]["value"])
    assert cluster["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == highest


def test_the_quota_the_standing_cluster_and_the_services_add_up_to_no_more_than_the_nodes_have():
    objects = rendered("gpu")
    largest = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]["maxReplicas"] for each in objects if "Autoscaler" in each["kind"]
    }
    services = requested(
        (pod, largest.get(each["metadata"]["name"], each["spec"].get("replicas")))
        for each in objects
        if each["kind"] == "Deployment"
        for pod in pods_of([each])
    )
    (cluster,) = (each for each in objects if each["kind"] == "RayCluster")
    head, worker = pods_of([cluster])
    workers = cluster["spec"]["workerGroupSpecs"][0]["replicas"]
    text = (INFRA / "components" / "kueue" / "kueue.yaml").read_text("utf-8")
    nodes = {
        name: tuple(map(float, numbers)) for name, *numbers in re.findall(r"#   (\S+): (\d+) CPUs, (\d+) GiB, (\d+) GPUs", text)
    }
    (queue,) = of_kind(objects, "ClusterQueue").values()
    (group,) = queue["spec"]["resourceGroups"]
    quota = {}
    for flavor in group["flavors"]:
        cpus, memory, gpus = (amount(str(each["nominalQuota"])) for each in flavor["resources"])
        quota[flavor["name"]] = (cpus, memory / UNITS["Gi"], gpus)
    assert set(nodes) == set(quota)
    beside = {"zsbir": services, "zsbir-spot": [0, 0, 0]}
    # Heads tolerate no interruptible node. Workers do, and that flavor is the first.
    standing = {"zsbir": requested([(head, 1)]), "zsbir-spot": requested([(worker, workers)])}
    for name, has in nodes.items():
        assert all(part + other <= whole for part, other, whole in zip(quota[name], beside[name], has, strict=True)), name
        assert all(part < whole for part, whole in zip(standing[name], quota[name], strict=True)), "nothing is left for jobs"
    for page in (text, (INFRA / "README.md").read_text("utf-8")):
        flat = re.sub(r"\s+(# )?", " ", page)
        assert f"at most {services[0]:g} CPUs and {services[1]:g} GiB" in flat
    whole = requested([(head, 1), (worker, workers)])
    assert f"it holds {whole[0]:g} CPUs, {whole[1]:g} GiB and {whole[2]:g} GPUs of the quota" in flat
