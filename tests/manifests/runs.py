"""What runs in the namespace: the objects of an overlay, attempts of the queue, and the training by hand of `examples`."""

from __future__ import annotations

from manifests.objects import Object, read, rendered
from services.jobs.queue.resources import Resources
from services.jobs.runs.executor import Task
from services.jobs.runs.rayjob import KubeRayConfig, render

EXAMPLE = "examples/rayjob.yaml"


def attempts(spot: str = "zsbir.io/spot") -> list[Object]:
    """RayJobs of the queue: without workers and with two. spot: key of the taint of interruptible nodes."""
    config = KubeRayConfig(image="registry.example/zsbir-train:0.1.0", spot_taint=spot)
    place, project = "s3://bucket/root/jobs/x", "vision"
    alone, wide = Resources(cpus=4, gpus=1), Resources(cpus=8, gpus=2)
    tasks = (
        Task(submission_id="zsbir-1a2b3c-17-a2", resources=alone, attempt_dir=place, project=project),
        Task(submission_id="zsbir-1a2b3c-18-a1", resources=wide, workers=2, attempt_dir=place, project=project),
    )
    return [render(each, config) for each in tasks]


def everything(overlay: str) -> tuple[Object, ...]:
    """The overlay's objects, and with Kueue (which `small` has not) attempts of the queue and the example."""
    return (*rendered(overlay), *(attempts() if overlay != "small" else []), *(read(EXAMPLE) if overlay != "small" else []))
