"""One tiny pipeline that many tests read: ingest, teacher and train by the real verbs, each made once for the whole test run.

Tests that change an artifact copy it first. A Ray head of two CPUs is shared in the same way: a test that kills one starts its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from building import session_root
from servers.moto import Moto
from servers.ray_head import ray_head


@pytest.fixture(scope="session")
def pipeline_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The storage root of the pipeline."""
    with session_root(tmp_path_factory, "pipeline") as root:
        yield root


@pytest.fixture(scope="session")
def head(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head of two CPUs whose workers can reach moto; the environment in which commands join it."""
    with ray_head(2, moto.env | {"ZSBIR_CACHE": str(tmp_path_factory.getbasetemp() / "cache")}) as environment:
        yield environment


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weight file: an untrained ResNet18 with ten labels."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(torchvision.models.resnet18(num_classes=10).state_dict(), file)
    return str(file)


@pytest.fixture(scope="session")
def dataset(pipeline_root: Path) -> str:
    """The URI of a Dataset: six photos and six sketches of each toy class."""
    from zsbir import ingest

    sizes = ["--toy-photos-per-class", "6", "--toy-sketches-per-class", "6", "--toy-px", "48"]
    return ingest._parse(["toy", *sizes, "--root", str(pipeline_root)])


@pytest.fixture(scope="session")
def knowledge(pipeline_root: Path, dataset: str, weights: str) -> str:
    """The URI of a Knowledge: the answers of those weights for each seen class."""
    from zsbir import teacher

    options = ["--backbone", "resnet18", "--weights", weights, "--image-px", "32"]
    return teacher._parse([dataset, *options, "--root", str(pipeline_root)])


@pytest.fixture(scope="session")
def run(pipeline_root: Path, dataset: str, knowledge: str) -> str:
    """The URI of a Run: two steps of training."""
    from zsbir import train

    options = ["--steps", "2", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--no-tracking"]
    return train._parse(["toy", "--dataset", dataset, "--knowledge", knowledge, *options, "--root", str(pipeline_root)])
