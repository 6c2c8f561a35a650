"""A run and a data set opened for an evaluation: which images are queries and gallery, and how each model ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.base.layout import report_uri
from zsbir.data.samples import Samples, load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import Forward, both_views, check_finite, embed, embeddings_of, features_of
from zsbir.evaluation.metrics import Evaluation, evaluate_embeddings
from zsbir.evaluation.protocol import Protocol, check_contest, find_protocol
from zsbir.evaluation.reports import FROZEN, TRAINED, UNCHANGED
from zsbir.evaluation.seen import Left, Seen, seen_by, what_is_left
from zsbir.evaluation.statistics import measured, run_statistics
from zsbir.evaluation_run.config import EvaluateConfig
from zsbir.model.encoder import Encoder, saved_facts
from zsbir.model.weights import open_weights
from zsbir.retrieval.prepared import mean_of_views, prepare_gallery
from zsbir.retrieval.whitening import DomainStatistics
from zsbir.training.context import default_device
from zsbir.training.precision import autocast

NOTHING_SEEN = Seen()


@dataclass(frozen=True)
class Trial:
    """The task that both models of a report get: a protocol's queries and gallery in one data set, without what was seen.

    seen: what must not be asked about; empty for a run on its own data set, whose splits have settled that.
    """

    run: Artifact
    dataset: Artifact
    samples: Samples
    images: Images
    protocol: Protocol
    left: Left
    seen: Seen

    @property
    def foreign(self) -> bool:
        """Whether the data set is not the one that the run was trained on."""
        return bool(self.dataset.digest != self.run.manifest.inputs["dataset"]["digest"])

    @property
    def restricted(self) -> bool:
        """Whether the report differs from the run's plain one: another data set, or something is left out."""
        return self.foreign or bool(self.left.out)

    def digest(self, config: EvaluateConfig) -> str:
        """Return the digest of the report. Where nothing is left out of the run's own data set, it is that of the plain report."""
        parts = [config.identity(), self.protocol.identity(), self.run.digest, self.dataset.digest]
        return digest_of([*parts, {"seen": self.seen.digests()}] if self.restricted else parts)

    def uri(self, config: EvaluateConfig, root: str) -> str:
        """Return where the report lies, or will lie."""
        return report_uri(root, self.digest(config))

    def is_made(self, config: EvaluateConfig, root: str) -> bool:
        """Return whether the report exists."""
        return exists(self.uri(config, root))

    @property
    def images_to_embed(self) -> int:
        """Queries and gallery photos together; each is embedded by two models."""
        return len(self.left.queries) + len(self.left.gallery)


@dataclass(frozen=True)
class Subject:
    """One model under evaluation: its embeddings of the queries and the gallery, and the metrics of them."""

    name: str
    queries: Float[np.ndarray, "q d"]
    gallery: Float[np.ndarray, "g d"]
    result: Evaluation


def open_trial(
    run: Artifact, config: EvaluateConfig, *, dataset: Artifact | None = None, unseen_to: Sequence[Artifact] = ()
) -> Trial:
    """Return the evaluation of a run on its own data set, or on another one.

    On another data set, or with further runs in `unseen_to`, whatever the run or one of these has seen is left out. Raises
    InputError where no class is left, and where a data set is gone.
    """
    own = run.manifest.inputs["dataset"]["digest"]
    dataset = dataset or run.input("dataset", "dataset")
    seen = seen_by([run, *unseen_to]) if unseen_to or dataset.digest != own else NOTHING_SEEN
    trial = trial_on(run, config, dataset, load_samples(dataset), seen)
    if not trial.left.classes:
        raise InputError(
            f"no class of {dataset.uri} is left to evaluate {run.uri} on: {trial.left.out.text()}; evaluate on a data set with"
            " unseen classes that no run named here has seen"
        )
    check_contest(trial.samples, trial.left.gallery, trial.protocol)
    return trial


def trial_on(run: Artifact, config: EvaluateConfig, dataset: Artifact, samples: Samples, seen: Seen) -> Trial:
    """Return the evaluation of a run on a data set whose sample table is open, without what was seen. It may have no query left."""
    protocol = find_protocol(config.protocol)
    return Trial(run, dataset, samples, Images(dataset, samples), protocol, what_is_left(samples, protocol, seen), seen)


def frozen(trial: Trial, config: EvaluateConfig) -> Subject:
    """Evaluate the backbone that the run started from, with its pooled features as embeddings."""
    facts: dict[str, Any] = saved_facts(trial.run.verified("encoder.safetensors"))
    encoder = Encoder(**facts)
    encoder.load_trunk(open_weights(trial.run.input_file("weights"), backbone=facts["backbone"]))
    embedding = _embedding(FROZEN, trial, encoder, features_of(encoder), config)
    return _subject(FROZEN, trial, *embedding, _frozen_statistics(trial, encoder, config))


def trained(trial: Trial, config: EvaluateConfig) -> list[Subject]:
    """Evaluate the run's own encoder. Under a protocol with search options it comes twice: first as PLAIN, without them."""
    encoder = Encoder.load(trial.run.verified("encoder.safetensors"))
    queries, gallery = _embedding(TRAINED, trial, encoder, embeddings_of(encoder), config)
    options, device = trial.protocol.options, default_device()
    statistics = None
    if options.needs_statistics:
        statistics = run_statistics(trial.run, encoder, device, autocast(config.precision, device))
    subject = _subject(TRAINED, trial, queries, gallery, statistics)
    if not options.changes_ranking:
        return [subject]
    first = encoder.embedding_dim  # of both views, one after the other, the first is the picture as it is
    return [_ranked(UNCHANGED, trial, queries[:, :first], gallery[:, :first]), subject]


def _frozen_statistics(trial: Trial, encoder: Encoder, config: EvaluateConfig) -> DomainStatistics | None:
    """Measure the pre-trained backbone by the training images of the run, as its own encoder was measured."""
    if not trial.protocol.options.needs_statistics:
        return None
    device, dataset = default_device(), trial.run.input("dataset", "dataset")
    samples = trial.samples if dataset.digest == trial.dataset.digest else load_samples(dataset)
    return measured(
        features_of(encoder),
        samples,
        Images(dataset, samples),
        image_px=encoder.image_px,
        device=device,
        autocast=autocast(config.precision, device),
    )


def _embedding(
    name: str, trial: Trial, encoder: Encoder, output: Forward, config: EvaluateConfig
) -> tuple[Float[np.ndarray, "q e"], Float[np.ndarray, "g e"]]:
    """Embed queries and gallery. output: what of the encoder's output is the embedding; with `flip`, of both views of a picture."""
    device = default_device()
    encoder.eval().to(device)
    both = embed(
        both_views(output) if trial.protocol.options.flip else output,
        trial.images,
        np.concatenate([trial.left.queries, trial.left.gallery]),
        image_px=encoder.image_px,
        device=device,
        autocast=autocast(config.precision, device),
        label=f"embed {name}",
    )
    check_finite(both, f"the {name} model")
    return both[: len(trial.left.queries)], both[len(trial.left.queries) :]


def _subject(
    name: str,
    trial: Trial,
    queries: Float[np.ndarray, "q e"],
    gallery: Float[np.ndarray, "g e"],
    statistics: DomainStatistics | None,
) -> Subject:
    """Evaluate a model as the protocol's options have it ranked."""
    options = trial.protocol.options
    if options.flip:
        queries, gallery = mean_of_views(queries), mean_of_views(gallery)
    prepared = prepare_gallery(gallery, options, statistics)
    return _ranked(name, trial, prepared.queries(queries), prepared.vectors)


def _ranked(name: str, trial: Trial, queries: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"]) -> Subject:
    """Rank the gallery for each query, and compute the metrics."""
    labels = trial.samples.class_id
    result = evaluate_embeddings(queries, labels[trial.left.queries], gallery, labels[trial.left.gallery])
    return Subject(name, queries, gallery, result)
