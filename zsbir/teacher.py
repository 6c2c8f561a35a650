"""Ask an ImageNet classifier about each seen class: Dataset in, Knowledge out, once before training.

    python -m zsbir.teacher artifacts/datasets/toy/0123456789abcdef --backbone resnet50 --weights imagenet

q_c = mean over class c's photos of softmax(teacher(x) / T), a distribution over the teacher's own labels. One pass over the
seen classes' photos, in bounded memory. The result is the same, bit for bit, for any number of workers. Costs one forward pass a
photo: a ResNet50 at 224 px does about 20 photos/s on two busy CPU cores. Prints the URI of the knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from zsbir.base import cli, events, limits, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import Added, Config, digest_of
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.base.layout import knowledge_uri
from zsbir.base.seeds import stream
from zsbir.base.storage import default_root
from zsbir.model.choices import Backbone
from zsbir.training.config import Precision

if TYPE_CHECKING:
    from zsbir.data.knowledge import ClassKnowledge
    from zsbir.data.samples import Samples
    from zsbir.model.weights import Weights

CHUNK = 64
"""Photos in a forward pass and in a unit of distributed work. Fixed, so that the sums do not depend on the number of workers."""


class TeacherConfig(Config):
    """The fields that decide what a Knowledge artifact holds; they are a part of its digest."""

    outside_identity = frozenset({"weights", "weights_sha256"})  # the checksum of the weights that were read is in the digest

    backbone: Backbone = Field("resnet50", description="network of the teacher: of torchvision, timm:NAME, or of a package")
    weights: str = Field("imagenet", description="weights of the teacher: imagenet, imagenet_v2, a file, or s3://bucket/key")
    weights_sha256: str = Field("", description="expected sha256 of the weight file; none: not checked")
    image_px: int = Field(224, ge=16, le=limits.IMAGE_PX, description="side of the photos the teacher sees, pixels")
    temperature: float = Field(1.0, gt=0, description="T of the teacher's softmax")
    mean_features: Annotated[bool, Added(neutral=False)] = Field(
        False, description="keep the mean of each class's pooled features too, from which a training may start its classifier"
    )
    permute_seed: Annotated[int | None, Added(neutral=None)] = Field(
        None, ge=0, description="a control for experiments: give each class the knowledge of another one, drawn by this seed"
    )
    precision: Precision = Field(
        "auto", description="autocast of the teacher's forward pass; auto: bf16 where the hardware gains by it"
    )


class Settings(Config):
    """Where the teacher computes and where its result is stored; no part of the digest."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    num_workers: int = Field(0, ge=0, description="Ray workers; 0: in this process")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs each Ray worker holds")


class Sums(NamedTuple):
    """One chunk's part of the result: class ids, number of photos of each, summed distributions and pooled features of each."""

    ids: Int[np.ndarray, "k"]
    photos: Int[np.ndarray, "k"]
    probabilities: Float[np.ndarray, "k t"]
    features: Float[np.ndarray, "k f"]


class Teacher:
    """The teacher with one data set's photos; each worker builds one."""

    def __init__(self, dataset_uri: str, weights_uri: str, config: TeacherConfig):
        import torch

        from zsbir.data.samples import load_samples
        from zsbir.data.shards import Images
        from zsbir.model.backbones import network_of, split
        from zsbir.model.encoder import Normalise
        from zsbir.model.weights import open_weights
        from zsbir.training.context import default_device

        dataset = Artifact(dataset_uri, "dataset")
        self.samples = load_samples(dataset)
        self.images, self.config, self.device = Images(dataset, self.samples), config, default_device()
        weights = open_weights(weights_uri, backbone=config.backbone)
        kind = network_of(config.backbone)
        kind.check_size(config.image_px)
        whole = kind.build(len(weights.labels))
        whole.load_state_dict(weights.state)
        trunk, classifier = split(whole.to(memory_format=torch.channels_last).eval().to(self.device), kind.classifier)
        self.network, self.classifier = torch.nn.Sequential(Normalise(kind.mean, kind.std).to(self.device), trunk), classifier

    def sums(self, chunks: Sequence[Int[np.ndarray, "n"]]) -> Iterator[Sums]:
        """Yield the sums of each chunk, in float64. chunks: positions in the sample table, at most CHUNK in each."""
        import torch

        from zsbir.data.loader import eval_batches
        from zsbir.training.precision import autocast

        positions = np.concatenate(list(chunks))
        batches = eval_batches(self.images, positions, self.config.image_px, CHUNK)
        for chunk, batch in zip(chunks, batches, strict=True):
            with torch.inference_mode(), autocast(self.config.precision, self.device):
                features = self.network(batch.to(self.device))
                logits = self.classifier(features).double().cpu()
            probabilities = (logits / self.config.temperature).softmax(dim=1).numpy()
            kept = features.double().cpu().numpy() if self.config.mean_features else np.zeros((len(chunk), 0))
            yield sum_by_class(self.samples.class_id[chunk], probabilities, kept)


def sum_by_class(
    class_ids: Int[np.ndarray, "n"], probabilities: Float[np.ndarray, "n t"], features: Float[np.ndarray, "n f"]
) -> Sums:
    """Return the distinct class ids, how often each occurs, and the sums of the rows of each, added in row order."""
    ids, where, counts = np.unique(class_ids, return_inverse=True, return_counts=True)
    totals = [np.zeros((len(ids), values.shape[1])) for values in (probabilities, features)]
    for total, values in zip(totals, (probabilities, features), strict=True):
        np.add.at(total, where, values)
    return Sums(ids, counts, *totals)


def teach(dataset_uri: str, config: TeacherConfig, settings: Settings) -> Artifact:
    """Return the Knowledge artifact of a data set; an existing one is found, not made again.

    Raises InputError for a bad data set or weight file, or a seen class without photos.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from zsbir.data.knowledge import KNOWLEDGE_SCHEMA
    from zsbir.data.samples import load_samples
    from zsbir.model.weights import load_weights

    dataset = Artifact(dataset_uri, "dataset")
    weights = load_weights(config.weights, backbone=config.backbone, root=settings.root, sha256=config.weights_sha256)
    samples = load_samples(dataset)
    digest = digest_of([config.identity(), dataset.digest, weights.sha256])
    uri = knowledge_uri(settings.root, dataset.digest, digest)
    if exists(uri):
        watch.record_found(uri)
        return Artifact(uri, "knowledge")
    with draft(uri, "knowledge", dataset.manifest.name) as work:
        parts = _all_sums(photo_chunks(samples), dataset, weights, config, settings)
        knowledge = permuted(add_up(samples, parts), config.permute_seed)
        _check_complete(samples, knowledge)
        rows = [entry.row(weights.labels) for entry in knowledge]
        pq.write_table(pa.Table.from_pylist(rows, KNOWLEDGE_SCHEMA), work.file("knowledge.parquet"))
        return work.commit(
            digest=digest,
            config=config,
            inputs={"dataset": dataset.reference(), "weights": {"uri": weights.uri, "digest": weights.sha256}},
            counts={"classes": len(rows), "photos": sum(entry.photos for entry in knowledge), "labels": len(weights.labels)},
            facts={"labels_digest": digest_of(weights.labels)},
        )


def photo_chunks(samples: Samples) -> list[Int[np.ndarray, "n"]]:
    """Return the positions of the seen classes' photos (train and dev, never unseen) in table order, CHUNK at a time."""
    seen = [samples.select(split=split, domain="photo") for split in ("train", "dev")]
    positions = np.sort(np.concatenate(seen))
    return [positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK)]


def _all_sums(
    chunks: list[Int[np.ndarray, "n"]], dataset: Artifact, weights: Weights, config: TeacherConfig, settings: Settings
) -> Iterator[Sums]:
    """Yield the sums of every chunk in order, and show the progress."""
    from zsbir.training.computing import computing

    with events.Progress("teach", total=sum(map(len, chunks)), unit="photo") as progress, computing():
        if settings.num_workers:
            from zsbir.edge.ray_map import ray_map  # Ray is loaded only where it is asked for

            results = ray_map(
                Teacher,
                (dataset.uri, weights.uri, config),
                "sums",
                chunks,
                workers=settings.num_workers,
                gpus_per_worker=settings.gpus_per_worker,
            )
        else:
            results = Teacher(dataset.uri, weights.uri, config).sums(chunks)
        for chunk, sums in zip(chunks, results, strict=True):
            yield sums
            progress.advance(len(chunk))


def add_up(samples: Samples, parts: Iterable[Sums]) -> list[ClassKnowledge]:
    """Add the sums of all chunks in their order, so that rounding is the same for any number of workers."""
    from zsbir.data.knowledge import ClassKnowledge

    found: dict[int, ClassKnowledge] = {}
    for part in parts:
        for class_id, photos, total, features in zip(*part, strict=True):
            before = found.get(int(class_id))
            found[int(class_id)] = ClassKnowledge(
                int(class_id),
                samples.class_names[class_id],
                int(photos) + (before.photos if before else 0),
                total + (before.total if before else 0),
                features + (before.features if before else 0),
            )
    return [found[class_id] for class_id in sorted(found)]


def permuted(knowledge: list[ClassKnowledge], seed: int | None) -> list[ClassKnowledge]:
    """Return each class with the knowledge of another one, for a control; with its own for None.

    No class keeps its own: classes are put into a random circle, and each gets that of the next.
    """
    if seed is None:
        return knowledge
    circle = stream("permuted knowledge", seed).permutation(len(knowledge)).tolist()
    source = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return [
        replace(knowledge[source[place]], class_id=entry.class_id, class_name=entry.class_name)
        for place, entry in enumerate(knowledge)
    ]


def _check_complete(samples: Samples, knowledge: list[ClassKnowledge]) -> None:
    """Check that each seen class has a distribution. Raises InputError."""
    from zsbir.data.knowledge import is_distribution

    seen = set(samples.classes("train").tolist()) | set(samples.classes("dev").tolist())
    missing = sorted(seen - {entry.class_id for entry in knowledge})
    if missing:
        raise InputError(f"class {samples.class_names[missing[0]]!r} has no photo that the teacher could classify")
    bad = [entry.class_name for entry in knowledge if not is_distribution(entry.total / entry.photos)]
    if bad:
        raise InputError(
            f"the teacher's answers for {len(bad)} of {len(knowledge)} classes are not probabilities (NaN or infinite), the first"
            f" {bad[0]!r}: its weights overflow in this precision; pass --precision fp32, or other --weights"
        )


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.teacher", __doc__ or "")
    parser.add_argument("dataset", help="URI of a Dataset artifact, as zsbir.ingest prints it")
    parser.add_config_file()
    parser.add_fields(TeacherConfig, title="teacher")
    parser.add_fields(Settings, title="where it runs")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, TeacherConfig, Settings)
    return teach(parsed.dataset, TeacherConfig.of(config), Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
