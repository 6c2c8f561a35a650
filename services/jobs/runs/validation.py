"""What a job's configuration may be: the fields of the commands, checked by their own configuration classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.jobs.queue.states import Kind
from services.jobs.runs.addresses import with_checked_paths
from services.jobs.runs.checks import check_job
from services.jobs.runs.fields import SCHEMAS, STARTS, fields_of_losses, named_losses, recipe_of
from services.jobs.runs.steps import COMMAND, PIPELINE, steps_of
from zsbir import teacher
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.cli import split_fields
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.losses.registry import unknown_field
from zsbir.training.config import TrainConfig
from zsbir.training.requirements import MEAN_FEATURES_STARTS


def check_config(kind: Kind, config: Mapping[str, Any], allowed: AllowedPaths) -> dict[str, Any]:
    """Return the configuration as it will be stored: only the given fields, their addresses absolute. Raises InputError."""
    if kind == "pipeline":
        stored = _pipeline(config, allowed)
    else:
        _check_step(kind, config, inputs=frozenset())
        stored = with_checked_paths(kind, config, allowed)
    check_job(kind, stored)
    return stored


def check_places(kind: Kind, config: Mapping[str, Any], allowed: AllowedPaths) -> None:
    """Check that a configuration, as it was stored, names only addresses that jobs may read now. What is there does not matter.

    Raises InputError.
    """
    for step in steps_of(kind, config):
        with_checked_paths(step.name, step.values, allowed, opens=False)


def _pipeline(config: Mapping[str, Any], allowed: AllowedPaths) -> dict[str, Any]:
    sections: dict[str, Any] = dict(config)
    name = sections.pop("recipe", None)
    unknown = next((step for step in sections if step not in PIPELINE), None)
    if unknown is not None:
        raise InputError(unknown_name("step", unknown, PIPELINE))
    wrong = next((step for step, values in sections.items() if not isinstance(values, Mapping)), None)
    if wrong is not None:
        raise InputError(f"{wrong} must be an object of field names to values, got {sections[wrong]!r}")
    name = name or sections.get("train", {}).get("recipe") or "custom"
    start = STARTS.get(str(name), {})
    wanted = {"ingest", "teacher", "train", "evaluate", "index", *start, *sections}
    steps: dict[str, dict[str, Any]] = {
        step: {**start.get(step, {}), **sections.get(step, {})} for step in PIPELINE if step in wanted
    }
    for step in ("train", "sweep"):
        if step in steps:
            steps[step].setdefault("recipe", name)
    for each in steps_of("pipeline", steps):
        _check_step(each.name, steps[each.name], inputs=frozenset(each.inputs))
    _ask_for_means(steps)
    return {step: with_checked_paths(step, values, allowed) for step, values in steps.items()}


def _ask_for_means(steps: Mapping[str, dict[str, Any]]) -> None:
    """Have the teacher of a pipeline keep the mean features where its training starts from them. InputError where it may not."""
    teacher_step = steps.get("teacher")
    asks = [step for step in ("sweep", "train") if step in steps and not steps[step].get("knowledge")]
    starts = {step: steps[step].get("classifier_start", recipe_of(steps[step]).classifier_start) for step in asks}
    wanted = next((step for step, start in starts.items() if start in MEAN_FEATURES_STARTS), None)
    if wanted is None or teacher_step is None:
        return
    asked = {"mean_features": teacher_step.setdefault("mean_features", True)}
    if not teacher.TeacherConfig.of(asked).mean_features:  # "no" and 0 mean the same as false
        raise InputError(
            f"teacher: field 'mean_features': must be true, since {wanted} begins with classifier_start {starts[wanted]}: leave it"
            " out, or set it"
        )


def _check_step(kind: str, config: Mapping[str, Any], inputs: frozenset[str]) -> None:
    """Check the values of one command. inputs: fields whose values come from another step."""
    schema = SCHEMAS[kind]
    fields = schema.fields() | dict.fromkeys(fields_of_losses(kind, config), TrainConfig)
    extra = {name for name, _ in schema.extra}
    for name, value in config.items():
        if name not in fields and name not in extra:
            known = [*fields, *extra]
            trains = TrainConfig in schema.parts
            line = unknown_field(name, known, named_losses(config)) if trains else unknown_name("field", name, known)
            raise InputError(f"{kind}: {line}")
        if name in extra and not isinstance(value, str):
            raise InputError(f"{kind}: field {name!r}: must be text, got {value!r}")
        if kind != COMMAND:
            _check_list(kind, name, value)
    missing = next((name for name in schema.required if not config.get(name) and name not in inputs), None)
    if missing is not None:
        raise InputError(f"{kind}: field {missing!r} is required")
    values = {name: value for name, value in config.items() if name in fields}
    parts = split_fields(values, *schema.parts)
    for part, given in zip(schema.parts, parts, strict=True):
        if part is TrainConfig:
            recipe_of(config).changed(given, where=kind)
        else:
            part.of(given, where=kind)
    if kind == "ingest" and config["layout"] != "toy" and not config.get("path"):
        raise InputError("ingest: field 'path' is required, the folder that holds the data set")


def _check_list(kind: str, name: str, value: Any) -> None:
    """Check that the parts of a list can be joined by commas: on a command line a list is one argument."""
    for part in value if isinstance(value, list | tuple) else ():
        if isinstance(part, str) and ("," in part or part != part.strip() or not part):
            raise InputError(f"{kind}: field {name!r}: a part of a list has no comma, and no space around it, got {part!r}")
