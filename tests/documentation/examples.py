"""Small real artifacts, one of each kind, at the addresses that the documentation uses as examples."""

from __future__ import annotations

import shutil
from pathlib import Path

from zsbir.base.artifact import Artifact
from zsbir.training.config import TrainConfig

DATASET = "artifacts/datasets/toy/0123456789abcdef"
KNOWLEDGE = "artifacts/knowledge/0123456789abcdef/0123456789abcdef"
RUN = "artifacts/runs/toy-0123456789ab"
SWEEP = "artifacts/sweeps/toy-0123456789ab"
REPORT = "artifacts/reports/0123456789abcdef"
INDEX = "artifacts/indexes/toy/0123456789abcdef"


def make_artifacts() -> None:
    """Run a whole pipeline on 116 small drawings, and move what each stage makes to the documented address."""
    from zsbir.evaluate import EvaluateConfig, evaluate
    from zsbir.evaluate import Settings as EvaluateSettings
    from zsbir.index import IndexConfig, build_index
    from zsbir.index import Settings as IndexSettings
    from zsbir.ingest import IngestConfig, ingest
    from zsbir.ingest import Settings as IngestSettings
    from zsbir.model.backbones import network_of
    from zsbir.model.weights import save_weights
    from zsbir.teacher import Settings as TeacherSettings
    from zsbir.teacher import TeacherConfig, teach
    from zsbir.train import InputUris, train
    from zsbir.train import Settings as TrainSettings

    toys = IngestConfig(layout="toy", toy_photos_per_class=2, toy_sketches_per_class=2, toy_px=32)
    _moved(ingest(toys, "", IngestSettings()), DATASET)
    labels = ("circle", "square", "triangle")
    trunk = network_of("resnet18").build(len(labels)).state_dict()
    weights, _ = save_weights(trunk, backbone="resnet18", labels=labels, root=Path("artifacts"))
    teacher = TeacherConfig(backbone="resnet18", weights=str(weights), image_px=32)
    _moved(teach(DATASET, teacher, TeacherSettings()), KNOWLEDGE)
    tiny = TrainConfig(recipe="toy", backbone="resnet18", embedding_dim=8, image_px=32, steps=2, classes_per_batch=2, per_class=1)
    _moved(train(tiny, InputUris(dataset=DATASET, knowledge=KNOWLEDGE), TrainSettings(tracking=False)), RUN)
    _moved(evaluate(RUN, EvaluateConfig(grid_rows=2), EvaluateSettings(tracking=False)), REPORT)
    _moved(build_index(RUN, IndexConfig(), IndexSettings()), INDEX)


def _moved(artifact: Artifact, address: str) -> None:
    """Move an artifact to a documented address; its digest lies inside, so it stays the same artifact."""
    Path(address).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(artifact.path, address)
