"""What a job's configuration may be: the fields of the commands, checked by their own configuration classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

import tuning.config
import tuning.sweep
from services.jobs.queue.states import KINDS, Kind
from services.jobs.runs.checks import NAMED_WEIGHTS, check_job
from services.jobs.runs.own_fields import CommandFields, EvaluationInputs, PromotionInputs
from services.jobs.runs.steps import COMMAND, PIPELINE, PIPELINE_INPUTS, SINGLE, steps_of
from tuning.space import SPACES
from zsbir import evaluate, export, index, ingest, pretrain, promote, teacher, train
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact, exists
from zsbir.base.artifact import Kind as Made
from zsbir.base.cli import split_fields
from zsbir.base.config import Address, Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.layout import below_root, root_of
from zsbir.base.manifest import parts
from zsbir.base.storage import join, split_file
from zsbir.losses.registry import fields_of, loss_kind, offered, unknown_field
from zsbir.promotion.address import is_model_address, parse_address
from zsbir.recipes import RECIPES, recipe
from zsbir.training.config import TrainConfig
from zsbir.training.requirements import MEAN_FEATURES_STARTS
from zsbir.training_run.fitting import CHOSEN, FITTED

NOT_SUBMITTED = frozenset({"root", "tracking", "parent", "recipe", "places"})
"""Fields that the service sets itself, or that are not fields of a form."""

ADDRESSES: Mapping[str, Mapping[str, Made | None]] = {
    "ingest": {"path": None},
    "teacher": {"dataset": "dataset", "weights": None},
    "train": {"dataset": "dataset", "knowledge": "knowledge", "weights": None},
    "evaluate": {"run": "run", "dataset": "dataset", "unseen_to": "run"},
    "sweep": {"dataset": "dataset", "knowledge": "knowledge", "weights": None},
    "index": {"run": "run", "gallery": None, "metadata": None},
    "promote": {"report": "report", "index": "index", "other_reports": "report", "champion_reports": "report"},
    "export": {"run": "run"},
    COMMAND: {"cwd": None},
}
"""Fields that are addresses, or lists of them, with the kind of artifact at each; None: a file, or a folder of images.

A run or an index may be given as a registered model, too: see services.jobs.runs.model_inputs.
"""

NAMES_OR_FILES = ("unseen_classes", "seen_classes", "dev_classes", "space")
"""Fields that are names, or files that hold names; a file must lie in the allowed paths."""

FILE_SUFFIXES = (".json", ".txt", ".yaml", ".yml")
"""How names end that the commands take for files in the folder where they run."""

READ_THROUGH: Mapping[str, tuple[str, ...]] = {
    "run": ("dataset", "weights"),
    "knowledge": ("weights",),
    "report": ("run", "dataset"),
    "index": ("run",),
}
"""The inputs that commands open of an artifact that they are given, besides its parts: a manifest may name any address for them."""

STARTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "toy": {
        "ingest": {"layout": "toy"},
        "pretrain": {},
        "teacher": {"backbone": "resnet18", "image_px": 64},
    },
    "folder": {"ingest": {"layout": "folder"}},
}
"""Values that a pipeline of a recipe starts from, by step."""


@dataclass(frozen=True)
class Schema:
    """The fields of one command: their classes, those that are required, and descriptions of those without a class."""

    parts: tuple[type[Config], ...]
    required: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def fields(self) -> dict[str, type[Config]]:
        """Return each field that may be submitted, with its class."""
        return {name: part for part in self.parts for name in part.model_fields if name not in NOT_SUBMITTED}


CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "ingest": {"if": {"properties": {"layout": {"const": "toy"}}}, "else": {"required": ["path"]}},
}
"""What a command requires depending on its other fields, as parts of its JSON schema."""

RECIPE = ("recipe", f"starting point: {', '.join(RECIPES)}")
SCHEMAS: Mapping[str, Schema] = {
    "ingest": Schema((ingest.IngestConfig, ingest.Settings), ("layout",), (("path", "the folder that holds the data set"),)),
    "pretrain": Schema((pretrain.PretrainConfig, pretrain.Settings)),
    "teacher": Schema(
        (teacher.TeacherConfig, teacher.Settings), ("dataset",), (("dataset", "URI of a Dataset artifact, as ingest makes it"),)
    ),
    "train": Schema((TrainConfig, train.InputUris, train.Settings), ("dataset",), (RECIPE,)),
    "evaluate": Schema(
        (evaluate.EvaluateConfig, evaluate.Settings, EvaluationInputs),
        ("run",),
        (("run", "URI of a Run artifact, as train makes it"),),
    ),
    "sweep": Schema(
        (TrainConfig, tuning.config.SweepConfig, tuning.config.SweepSettings, train.InputUris, train.Settings),
        ("dataset",),
        (RECIPE,),
    ),
    "index": Schema((index.IndexConfig, index.Settings), ("run",), (("run", "URI of a Run artifact, as train makes it"),)),
    "promote": Schema((PromotionInputs, promote.PromoteConfig, promote.Settings), ("report", "index")),
    "export": Schema((export.ExportConfig, export.Settings), ("run",), (("run", "URI of a Run artifact, as train makes it"),)),
    COMMAND: Schema((CommandFields,), ("words",)),
}


def check_config(kind: Kind, config: Mapping[str, Any], allowed: AllowedPaths) -> dict[str, Any]:
    """Return the configuration as it will be stored: only the given fields, their addresses absolute. Raises InputError."""
    if kind == "pipeline":
        stored = _pipeline(config, allowed)
    else:
        _check_step(kind, config, inputs=frozenset())
        stored = _with_checked_paths(kind, config, allowed)
    check_job(kind, stored)
    return stored


def check_places(kind: Kind, config: Mapping[str, Any], allowed: AllowedPaths) -> None:
    """Check that a configuration, as it was stored, names only addresses that jobs may read now. What is there does not matter.

    Raises InputError.
    """
    for step in steps_of(kind, config):
        _with_checked_paths(step.name, step.values, allowed, opens=False)


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
    return {step: _with_checked_paths(step, values, allowed) for step, values in steps.items()}


def _ask_for_means(steps: Mapping[str, dict[str, Any]]) -> None:
    """Have the teacher of a pipeline keep the mean features where its training starts from them. InputError where it may not."""
    teacher_step = steps.get("teacher")
    asks = [step for step in ("sweep", "train") if step in steps and not steps[step].get("knowledge")]
    starts = {step: steps[step].get("classifier_start", _recipe_of(steps[step]).classifier_start) for step in asks}
    wanted = next((step for step, start in starts.items() if start in MEAN_FEATURES_STARTS), None)
    if wanted is None or teacher_step is None:
        return
    asked = {"mean_features": teacher_step.setdefault("mean_features", True)}
    if not teacher.TeacherConfig.of(asked).mean_features:  # "no" and 0 mean the same as false
        raise InputError(
            f"teacher: field 'mean_features': must be true, since {wanted} begins with classifier_start {starts[wanted]}: leave it"
            " out, or set it"
        )


def _recipe_of(config: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe that the values of a training start from. Raises InputError for one that does not exist."""
    return recipe(str(config.get("recipe") or "custom"))


def _check_step(kind: str, config: Mapping[str, Any], inputs: frozenset[str]) -> None:
    """Check the values of one command. inputs: fields whose values come from another step."""
    schema = SCHEMAS[kind]
    fields = schema.fields() | dict.fromkeys(_fields_of_losses(kind, config), TrainConfig)
    extra = {name for name, _ in schema.extra}
    for name, value in config.items():
        if name not in fields and name not in extra:
            known = [*fields, *extra]
            trains = TrainConfig in schema.parts
            line = unknown_field(name, known, _named_losses(config)) if trains else unknown_name("field", name, known)
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
            _recipe_of(config).changed(given, where=kind)
        else:
            part.of(given, where=kind)
    if kind == "ingest" and config["layout"] != "toy" and not config.get("path"):
        raise InputError("ingest: field 'path' is required, the folder that holds the data set")


def _fields_of_losses(kind: str, config: Mapping[str, Any]) -> Mapping[str, FieldInfo]:
    """Return the fields that the further losses of a training add. Raises InputError for a loss that is not installed."""
    if kind not in ("train", "sweep") or not isinstance(config.get("recipe", ""), str):
        return {}
    try:
        return fields_of(_named_losses(config))
    except InputError as error:
        raise InputError(f"{kind}: field 'losses': {error}") from None


def _named_losses(config: Mapping[str, Any]) -> list[str]:
    """Return the further losses that the values of a training name, each once: one that is named twice has its own error."""
    names = config.get("losses", _recipe_of(config).losses)
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
    return list(dict.fromkeys(known))


def _check_list(kind: str, name: str, value: Any) -> None:
    """Check that the parts of a list can be joined by commas: on a command line a list is one argument."""
    for part in value if isinstance(value, list | tuple) else ():
        if isinstance(part, str) and ("," in part or part != part.strip() or not part):
            raise InputError(f"{kind}: field {name!r}: a part of a list has no comma, and no space around it, got {part!r}")


def _with_checked_paths(kind: str, config: Mapping[str, Any], allowed: AllowedPaths, *, opens: bool = True) -> dict[str, Any]:
    """Return the values with absolute addresses, after checking that each is allowed.

    opens: check also that it has the right kind of artifact.
    """
    values = dict(config)
    of_losses = _fields_of_losses(kind, config).items()
    named_by_losses = {name: None for name, field in of_losses if any(isinstance(mark, Address) for mark in field.metadata)}
    for name, what in {**ADDRESSES.get(kind, {}), **named_by_losses}.items():
        if not values.get(name) or (name == "weights" and values[name] in NAMED_WEIGHTS):
            continue
        where, given = f"{kind}: field {name!r}", values[name]
        found = [_checked_address(where, uri, what, allowed, opens) for uri in ([given] if isinstance(given, str) else given)]
        values[name] = found[0] if isinstance(given, str) else found
    for name in NAMES_OR_FILES:
        given = values.get(name) or ()
        checked = [
            _checked_name(f"{kind}: field {name!r}", name, value, allowed)
            for value in ([given] if isinstance(given, str) else given)
        ]
        if checked:
            values[name] = checked[0] if isinstance(given, str) else checked
    return values


def _checked_address(where: str, uri: str, what: Made | None, allowed: AllowedPaths, opens: bool) -> str:
    """Return an address in full, after checking that it is allowed and, if it is opened, has the right kind of artifact."""
    if what in ("run", "index") and is_model_address(uri):
        parse_address(uri)  # services.jobs.runs.model_inputs checks what it stands for
        return uri
    address = allowed.check(where, uri)
    if what and opens:
        check_inputs(where, _opened(where, address, what), allowed)
    return address


def _opened(where: str, uri: str, what: Made) -> Artifact:
    """Open an artifact. InputError that begins with the field where there is none of that kind."""
    try:
        return Artifact(uri, what)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _checked_name(where: str, field: str, value: str, allowed: AllowedPaths) -> str:
    """Return a name as it is, and the address of a file after checking that it may be read."""
    is_file = any(mark in value for mark in "/\\~") or value.startswith(".") or value.lower().endswith(FILE_SUFFIXES)
    is_file = is_file or (field == "space" and value not in SPACES)
    if not is_file:
        return value
    address = allowed.check(where, value)
    if "," in address:
        raise InputError(f"{where}: {address!r} has a comma, by which the parts of a list are told apart; move the file")
    return address


def check_inputs(where: str, artifact: Artifact, allowed: AllowedPaths) -> None:
    """Check the inputs of an artifact that the commands will open with it. InputError where one lies elsewhere.

    Like the commands, look in the artifact's own root first, where a copy of it has its inputs.
    """
    manifest = artifact.manifest
    opened = [manifest.reference(role) for role in READ_THROUGH.get(manifest.kind, ())]
    for reference in (*filter(None, opened), *parts(manifest)):
        role, uri = reference.role, reference.uri
        copied = join(root_of(artifact.uri), below_root(uri))
        if not _is_there(copied, role):
            allowed.check(f"{where}: the {role} that its manifest names", uri)
            continue
        allowed.check(f"{where}: the {role} that its manifest names", copied)
        if copied != uri and role != "weights" and Artifact(copied).digest != reference.digest:
            allowed.check(f"{where}: the {role} that its manifest names", uri)


def _is_there(uri: str, role: str) -> bool:
    if role != "weights":
        return exists(uri)
    folder, name = split_file(uri)
    return folder.size(name) is not None


def describe_kinds() -> dict[str, Any]:
    """Return the JSON schema of every kind, for forms and command lines, and what holds for fields that are left out.

    recipes: the values of a training by recipe. chosen: fields of these that follow from the data set, by recipe. starts: what a
    pipeline of a recipe begins with, by step. inputs: for each step of a pipeline, the step that gives each of its fields.
    """
    kinds = {kind: _describe_kind(kind) for kind in SINGLE}
    kinds["pipeline"] = {
        "type": "object",
        "description": "all steps in order, each reading what earlier ones made; a pipeline that failed goes on where it failed",
        "properties": {
            "recipe": {"type": "string", "enum": sorted(RECIPES), "description": RECIPE[1]},
            **{step: kinds[step] for step in PIPELINE},
        },
        "additionalProperties": False,
    }
    recipes = {name: make().model_dump(mode="json", exclude={"recipe"}) for name, make in RECIPES.items()}
    about = {name: (make.__doc__ or "").strip().split("\n")[0] for name, make in RECIPES.items()}
    return {
        "kinds": {kind: kinds[kind] for kind in KINDS if kind in kinds},
        "recipes": recipes,
        "about_recipes": about,
        "order": list(PIPELINE),
        "starts": STARTS,
        "chosen": {name: list(CHOSEN) for name in FITTED},
        "inputs": {step: {name: each.step for name, each in inputs.items()} for step, inputs in PIPELINE_INPUTS.items()},
    }


def _describe_kind(kind: str) -> dict[str, Any]:
    schema = SCHEMAS[kind]
    parts = {part: part.model_json_schema()["properties"] for part in schema.parts}
    properties = {name: dict(parts[part][name]) for name, part in schema.fields().items()}
    extra: dict[str, dict[str, Any]] = {name: {"type": "string", "description": text} for name, text in schema.extra}
    if "recipe" in extra:
        extra["recipe"]["enum"] = sorted(RECIPES)
        properties |= _properties_of_losses()
    return {
        "type": "object",
        "description": _summary_of(kind),
        "properties": {**extra, **properties},
        "required": list(schema.required),
        **CONDITIONS.get(kind, {}),
        "additionalProperties": False,
    }


def _properties_of_losses() -> dict[str, Any]:
    """Return the fields of every further loss that can be named here. One that cannot be imported has none, and no training."""
    found: dict[str, Any] = {}
    for loss in sorted(offered()):
        try:
            TrainConfig.all_fields([loss])
            described = loss_kind(loss).fields.model_json_schema()["properties"]
        except InputError:
            continue
        for name, field in described.items():
            found[name] = {**field, "description": f"{field.get('description', '')} (where losses names {loss})"}
    return found


def _summary_of(kind: str) -> str:
    modules = {
        "ingest": ingest, "pretrain": pretrain, "teacher": teacher, "train": train, "evaluate": evaluate, "index": index,
        "sweep": tuning.sweep, "promote": promote, "export": export,
    }  # fmt: skip
    described = modules[kind].__doc__ if kind in modules else CommandFields.__doc__
    return (described or "").strip().split("\n")[0]
