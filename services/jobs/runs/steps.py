"""Kinds of jobs as steps: which module each step runs, with which arguments.

The words are fixed here, except for an operator's own command; users give values alone. A flag and its value are one argument
(`--steps=5`), and arguments without a flag come after `--`: whatever a value begins with, it stays a value.
`services.jobs.runs.fields` says what the values may be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.jobs.queue.resources import LABELS, Resources
from services.jobs.queue.states import Kind

COMMAND: Kind = "command"
"""The kind whose words are the user's own: operators alone may submit it, and it is never a step of a pipeline."""

SINGLE: tuple[Kind, ...] = (
    "ingest", "pretrain", "teacher", "train", "evaluate", "sweep", "index", "promote", "export", COMMAND,
)  # fmt: skip

PIPELINE: tuple[Kind, ...] = ("ingest", "pretrain", "teacher", "sweep", "train", "evaluate", "index", "promote")
"""The order of a pipeline's steps. pretrain, sweep and promote run only where they are asked for."""

MODULES: Mapping[str, str] = {**{kind: f"zsbir.{kind}" for kind in SINGLE if kind != COMMAND}, "sweep": "tuning"}

POSITIONAL: Mapping[str, tuple[str, ...]] = {
    "ingest": ("layout", "path"),
    "teacher": ("dataset",),
    "train": ("recipe",),
    "evaluate": ("run",),
    "sweep": ("recipe",),
    "index": ("run",),
    "promote": ("report", "other_reports"),
    "export": ("run",),
}
"""Fields that the command takes without a flag; the parts of a list are arguments of their own."""

REPEATED: Mapping[str, str] = {"champion_reports": "champion-report", "unseen_to": "unseen-to"}
"""Fields whose parts are each given with a flag, by that flag's name. The parts of other lists are one argument, with commas."""


@dataclass(frozen=True)
class StepInput:
    """The result of an earlier step as the value of a field: its URI, or a file in it."""

    step: str
    file: str = ""


PIPELINE_INPUTS: Mapping[str, Mapping[str, StepInput]] = {
    "teacher": {"dataset": StepInput("ingest"), "weights": StepInput("pretrain")},
    "sweep": {"dataset": StepInput("ingest"), "knowledge": StepInput("teacher")},
    "train": {"dataset": StepInput("ingest"), "knowledge": StepInput("teacher"), "config": StepInput("sweep", "best.yaml")},
    "evaluate": {"run": StepInput("train")},
    "index": {"run": StepInput("train")},
    "promote": {"report": StepInput("evaluate"), "index": StepInput("index")},
}
"""In a pipeline, the step that gives each field, where the user does not set the field and the pipeline has that step."""


@dataclass(frozen=True)
class Step:
    """One command: `python -m MODULE ARGV`. inputs: fields whose values are the results of earlier steps."""

    name: str
    values: Mapping[str, Any]
    inputs: Mapping[str, StepInput] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The Python module whose command line does this step, as in `python -m zsbir.train`; empty for a command of the user's."""
        return MODULES.get(self.name, "")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the words of the process that does this step. argv: as `argv` returns them."""
        return list(argv) if self.name == COMMAND else [sys.executable, "-m", self.module, *argv]

    def argv(self, input_values: Mapping[str, str], root: str, places: Sequence[str] = ()) -> list[str]:
        """Return the command's arguments. input_values: what each field of `inputs` turned out to be.

        places: where jobs may read, besides the root. A promotion has to be told: it reads photos of galleries that only the
        champion's index names, which may be another one by then.
        """
        values = {**self.values, **input_values}
        if self.name == COMMAND:
            return [str(word) for word in values["words"]]
        if self.name == "sweep":  # a sweep that is not told takes the whole cluster, whatever its job holds
            values["at_once"] = _trials(values)
        bare = [word for name in POSITIONAL.get(self.name, ()) for word in _bare(values.pop(name, None))]
        given = {name: value for name, value in values.items() if value is not None}
        if self.name == "promote":  # its command has no flags that say no, and refuses an empty reason
            given = {name: value for name, value in given.items() if value is not False and value != ""}
        flags = [flag for name, value in given.items() for flag in _flags(name, value)]
        if self.name == "promote":
            flags += [f"--places={place}" for place in (root, *places)]
        return [*flags, f"--root={root}", *(["--", *bare] if bare else [])]

    def as_json(self) -> dict[str, Any]:
        """Return the step as an attempt's specification holds it."""
        return {
            "name": self.name,
            "values": dict(self.values),
            "fed": {name: [each.step, each.file] for name, each in self.inputs.items()},
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Step:
        """Return the step of an attempt's specification."""
        return cls(written["name"], written["values"], {name: StepInput(*each) for name, each in written["fed"].items()})


def steps_of(kind: Kind, config: Mapping[str, Any]) -> list[Step]:
    """Return the steps of a job, in order."""
    if kind != "pipeline":
        return [Step(kind, dict(config))]
    names = [name for name in PIPELINE if name in config]
    steps = []
    for name in names:
        values = dict(config[name])
        possible = PIPELINE_INPUTS.get(name, {})
        inputs = {field: each for field, each in possible.items() if field not in values and each.step in names}
        if "config" in inputs:
            values.pop("recipe", None)  # the sweep's best configuration has every field
        steps.append(Step(name, values, inputs))
    return steps


@dataclass(frozen=True, kw_only=True)
class StepResources(Resources):
    """What a step or a job holds while it runs. workers: data-parallel workers besides the process that waits for them."""

    workers: int = 0


def resources_of(kind: Kind, config: Mapping[str, Any]) -> StepResources:
    """Return what a job holds: of each resource, and of workers, as much as the step that takes most."""
    steps = [_step_resources(step.values) for step in steps_of(kind, config)]
    most = {name: max(step.amount(name) for step in steps) for name in LABELS}
    return StepResources(**most, workers=max(step.workers for step in steps))


ON_GPU = frozenset({"pretrain", "teacher", "train", "evaluate", "sweep", "index", "promote", COMMAND})
"""Steps that compute on a GPU where the process sees one."""


def least_of(kind: Kind, config: Mapping[str, Any]) -> Resources:
    """Return what a job uses at least, whatever it declares: for a user's quota.

    Nothing keeps a process from using a whole CPU, or all of a GPU that it sees, so shares count as whole ones; and explicit
    threads are CPUs. A job that is one process sees no GPU unless it holds one.
    """
    steps = [_least_of_step(step.values) for step in steps_of(kind, config)]
    return Resources(**{name: max(step.amount(name) for step in steps) for name in LABELS})


def may_use_gpu(kind: Kind, config: Mapping[str, Any]) -> bool:
    """Return whether a step that is one process computes on a GPU where it sees one."""
    return any(step.name in ON_GPU and not step.values.get("num_workers") for step in steps_of(kind, config))


def _least_of_step(values: Mapping[str, Any]) -> Resources:
    times = max(1, int(values.get("num_workers") or 0)) * _trials(values)
    threads = max(float(values.get(name) or 0) for name in ("cpus_per_worker", "threads", "decode_threads"))
    return Resources(cpus=max(1.0, threads) * times, gpus=math.ceil(float(values.get("gpus_per_worker") or 0)) * times)


def computes_in_one_process(kind: Kind, config: Mapping[str, Any]) -> bool:
    """Return whether each step of a job does its work in its own process: no Ray workers, and no trials of a sweep, do it."""
    return not any(step.name == "sweep" or step.values.get("num_workers") for step in steps_of(kind, config))


def _trials(values: Mapping[str, Any]) -> int:
    """Return how many trainings run at the same time."""
    return int(values.get("at_once") or 1)


def _step_resources(values: Mapping[str, Any]) -> StepResources:
    """Return what a step's workers hold together, or one CPU for a step that is one process."""
    workers = int(values.get("num_workers") or 0)
    times = max(1, workers) * _trials(values)
    cpus, gpus = float(values.get("cpus_per_worker") or 1), float(values.get("gpus_per_worker") or 0)
    return StepResources(cpus=cpus * times, gpus=gpus * times, workers=workers)


def _bare(value: Any) -> list[str]:
    """Return the arguments that give a value without a flag; none where there is no value."""
    parts = value if isinstance(value, list | tuple) else [value]
    return [str(part) for part in parts if part not in (None, "")]


def _flags(name: str, value: Any) -> list[str]:
    if name in REPEATED:
        return [f"--{REPEATED[name]}={part}" for part in value]
    return [_flag(name, value)]


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"--{flag}=" + ",".join(str(part) for part in value)
    return f"--{flag}={value}"
