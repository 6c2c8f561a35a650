"""What can be known of a job's inputs when it is submitted: what cannot work is refused then, not found failed in the morning.

Each check is the command's own, made on what is there already: manifests, names of folders, the first entry of a folder. What an
earlier step of a pipeline will make is judged as far as its configuration tells. What cannot be known is not refused. Errors begin
with the step and name the field: `train: field 'classes_per_batch': ...`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from services.jobs.queue.states import Kind
from services.jobs.runs.steps import Step, steps_of
from zsbir.base.artifact import Artifact
from zsbir.base.artifact import Kind as Made
from zsbir.base.cli import split_fields
from zsbir.base.errors import FieldError, InputError, Unreachable
from zsbir.base.storage import is_remote, open_folder, split_file
from zsbir.data.domains import SPLITS
from zsbir.data.requirements import check_split
from zsbir.data.splits import count_by_split
from zsbir.data.trees import open_tree
from zsbir.evaluation.protocol import find_protocol
from zsbir.index import IndexConfig
from zsbir.ingestion.plan import IngestConfig, planned_splits
from zsbir.promotion.address import is_model_address
from zsbir.recipes import recipe
from zsbir.train import InputUris, Settings
from zsbir.training import requirements
from zsbir.training.config import TrainConfig
from zsbir.training_run.fitting import FITTED, choose

NAMED_WEIGHTS = frozenset({"imagenet", "imagenet_v2"})

Counts = Mapping[str, int]
"""Counts of a data set, as a manifest has them or as they are planned; those that are not known are missing."""


def check_job(kind: Kind, config: Mapping[str, Any]) -> None:
    """Raise InputError for a job that cannot work. config: as it is stored, each field valid and each address absolute."""
    planned: Counts = {}
    for step in steps_of(kind, config):
        try:
            with field_named(step.name):
                planned = _CHECKS.get(step.name, _nothing)(step, planned)
        except Unreachable:  # the job itself would wait for this store
            planned = {}


@contextmanager
def field_named(step: str) -> Iterator[None]:
    """Have errors inside begin with the step, and name the field where they know it."""
    try:
        yield
    except FieldError as error:
        raise InputError(f"{step}: field {error.field!r}: {error}") from None
    except InputError as error:
        raise InputError(f"{step}: {error}") from None


def _nothing(_step: Step, planned: Counts) -> Counts:
    return planned


def _ingest(step: Step, _planned: Counts) -> Counts:
    """Check the folder, and return what the names in it tell of the data set."""
    fields = {name: value for name, value in step.values.items() if name in IngestConfig.model_fields}
    config, path = IngestConfig.of(fields), str(step.values.get("path") or "")
    if config.layout == "toy" and path:
        raise FieldError("path", "toy draws its own images: leave out the path")
    if config.layout != "toy":
        _check_folder("path", path)
    if is_remote(path):  # a listing of all that is there may take minutes
        return {}
    split_of = planned_splits(config, open_tree(path))
    return count_by_split(split_of) if split_of else {}


def _teacher(step: Step, planned: Counts) -> Counts:
    _check_weights(step)
    return planned


def _train(step: Step, planned: Counts) -> Counts:
    """Check a training, or the trial that a sweep begins with."""
    _check_weights(step)
    if "config" in step.inputs:  # what a sweep will find best is not known
        return planned
    changes, settings, _ = split_fields(dict(step.values), TrainConfig, Settings, InputUris)
    start = changes.pop("recipe", None) or "custom"
    base = recipe(str(start))
    fields = TrainConfig.all_fields(changes.get("losses", base.losses))
    config = base.replace(**{name: value for name, value in changes.items() if name in fields})
    where = Settings.of(settings)
    dataset = Artifact(step.values["dataset"], "dataset") if step.values.get("dataset") else None
    has_knowledge = bool(step.values.get("knowledge")) or "knowledge" in step.inputs
    counts = dataset.manifest.counts if dataset else planned
    if config.recipe in FITTED:
        config = config.replace(**choose(config, changes, counts, gpu=where.gpus_per_worker > 0, knowledge=has_knowledge))
    requirements.check_workers(config, where.num_workers, where.gpus_per_worker)
    requirements.check_addresses(config)
    requirements.check_has_knowledge(config, given=has_knowledge)
    if dataset is None:
        requirements.check_counts(config, planned)
        return planned
    knowledge = Artifact(step.values["knowledge"], "knowledge") if step.values.get("knowledge") else None
    requirements.check_inputs(config, dataset, knowledge, must_say=False)
    return dataset.manifest.counts


def _evaluate(step: Step, planned: Counts) -> Counts:
    try:
        protocol = find_protocol(str(step.values.get("protocol") or "zero_shot"))
    except InputError as error:
        raise FieldError("protocol", str(error)) from None
    other = step.values.get("dataset")
    counts = Artifact(other, "dataset").manifest.counts if other else _counts(step, planned)
    check_split(counts, protocol.split, f"protocol {protocol.label()}", field="protocol")
    return planned


def _index(step: Step, planned: Counts) -> Counts:
    if step.values.get("gallery"):
        _check_folder("gallery", step.values["gallery"])
        return planned
    split = str(step.values.get("split") or IndexConfig().split)
    if split != "all" and split not in SPLITS:
        raise FieldError("split", f"must be all, {', '.join(SPLITS)}, got {split!r}")
    if split != "all":
        check_split(_counts(step, planned), split, "an index", field="split")
    return planned


def _promote(step: Step, planned: Counts) -> Counts:
    """Check that report and index are of one run, as far as their manifests say."""
    if step.values.get("reason") and not step.values.get("force"):
        raise FieldError("reason", "it says why a promotion is forced: give it with force, or leave it out")
    if step.values.get("force") and not str(step.values.get("reason") or "").strip():
        raise FieldError("reason", "a forced promotion needs one, which is recorded for those who look at the champion later")
    if step.values.get("report") and step.values.get("index"):
        made_from = [_run_of(str(step.values["report"]), "report"), _run_of(str(step.values["index"]), "index")]
        if None not in made_from and made_from[0] != made_from[1]:
            raise FieldError(
                "index", "it is of another run than the report; make one with python -m zsbir.index of the report's run"
            )
    return planned


_CHECKS: Mapping[str, Callable[[Step, Counts], Counts]] = {
    "ingest": _ingest,
    "teacher": _teacher,
    "train": _train,
    "sweep": _train,
    "evaluate": _evaluate,
    "index": _index,
    "promote": _promote,
}


def _counts(step: Step, planned: Counts) -> Counts:
    """Return the counts of the data set of the run that a step is given, or of the one that will be made for it."""
    if not step.values.get("run"):
        return planned
    if is_model_address(step.values["run"]):  # which run it stands for is known when the job starts
        return {}
    run = Artifact(step.values["run"], "run")
    reference = run.manifest.inputs.get("dataset")
    is_named = isinstance(reference, Mapping) and isinstance(reference.get("uri"), str)
    return run.input("dataset", "dataset").manifest.counts if is_named else {}


def _run_of(uri: str, kind: Made) -> str | None:
    """Return the digest of the run that an artifact was made from; None where its manifest does not say."""
    if is_model_address(uri):
        return None
    reference = Artifact(uri, kind).manifest.inputs.get("run")
    return str(reference["digest"]) if isinstance(reference, Mapping) and reference.get("digest") else None


def _check_weights(step: Step) -> None:
    weights = str(step.values.get("weights") or "")
    if weights and weights not in NAMED_WEIGHTS:
        folder, name = split_file(weights)
        if folder.size(name) is None:
            raise FieldError("weights", f"no file at {weights!r}; name one, or {' or '.join(sorted(NAMED_WEIGHTS))}")


def _check_folder(field: str, uri: str) -> None:
    """Raise FieldError for a folder that is not there, or holds nothing. Looks at the first entry alone."""
    local = open_folder(uri).local()
    if local is None:
        if not list(islice(open_folder(uri).walk(), 1)):
            raise FieldError(field, f"there is nothing below {uri!r}: correct the address, or put images there first")
        return
    if not local.is_dir():
        raise FieldError(field, f"no folder at {uri!r}: give the folder that holds the images")
    with os.scandir(local) as entries:
        if next(entries, None) is None:
            raise FieldError(field, f"the folder {uri!r} is empty: give the folder that holds the images")
