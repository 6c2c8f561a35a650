"""The fields of each kind of job, from the configuration classes of the commands, and their description for forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

import tuning.config
import tuning.sweep
from services.jobs.queue.states import KINDS
from services.jobs.runs.own_fields import CommandFields, EvaluationInputs, PromotionInputs
from services.jobs.runs.steps import COMMAND, PIPELINE, PIPELINE_INPUTS, SINGLE
from zsbir import evaluate, export, index, ingest, pretrain, promote, teacher, train
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.losses.registry import fields_of, loss_kind, offered
from zsbir.recipes import RECIPES, recipe
from zsbir.training.config import TrainConfig
from zsbir.training_run.fitting import CHOSEN, FITTED

NOT_SUBMITTED = frozenset({"root", "tracking", "parent", "recipe", "places"})
"""Fields that the service sets itself, or that are not fields of a form."""

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


def fields_of_losses(kind: str, config: Mapping[str, Any]) -> Mapping[str, FieldInfo]:
    """Return the fields that the further losses of a training add. Raises InputError for a loss that is not installed."""
    if kind not in ("train", "sweep") or not isinstance(config.get("recipe", ""), str):
        return {}
    try:
        return fields_of(named_losses(config))
    except InputError as error:
        raise InputError(f"{kind}: field 'losses': {error}") from None


def named_losses(config: Mapping[str, Any]) -> list[str]:
    """Return the further losses that the values of a training name, each once: one that is named twice has its own error."""
    names = config.get("losses", recipe_of(config).losses)
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []
    return list(dict.fromkeys(known))


def recipe_of(config: Mapping[str, Any]) -> TrainConfig:
    """Return the recipe that the values of a training start from. Raises InputError for one that does not exist."""
    return recipe(str(config.get("recipe") or "custom"))


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
