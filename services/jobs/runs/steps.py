"""Kinds of jobs as steps: which module each runs, with which arguments. Fixed words here, data from the user.

A flag and its value are one argument (`--steps=5`), and what stands without a flag comes behind `--`: whatever a value begins with,
it stays a value. What the values may be, `services.jobs.runs.validation` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.jobs.queue.states import Kind

SINGLE: tuple[Kind, ...] = ("ingest", "pretrain", "teacher", "train", "evaluate", "sweep", "index")

PIPELINE: tuple[Kind, ...] = ("ingest", "pretrain", "teacher", "sweep", "train", "evaluate", "index")
"""The order of a pipeline's steps. pretrain and sweep are taken where they are asked for."""

MODULES: Mapping[str, str] = {**{kind: f"zsbir.{kind}" for kind in SINGLE}, "sweep": "tuning"}

POSITIONAL: Mapping[str, tuple[str, ...]] = {
    "ingest": ("layout", "path"),
    "teacher": ("dataset",),
    "train": ("recipe",),
    "evaluate": ("run",),
    "sweep": ("recipe",),
    "index": ("run",),
}
"""Fields that the command takes without a flag."""


@dataclass(frozen=True)
class StepInput:
    """What an earlier step made: its URI, or a file of it, as the value of a field."""

    step: str
    file: str = ""


FEEDS: Mapping[str, Mapping[str, StepInput]] = {
    "teacher": {"dataset": StepInput("ingest"), "weights": StepInput("pretrain")},
    "sweep": {"dataset": StepInput("ingest"), "knowledge": StepInput("teacher")},
    "train": {"dataset": StepInput("ingest"), "knowledge": StepInput("teacher"), "config": StepInput("sweep", "best.yaml")},
    "evaluate": {"run": StepInput("train")},
    "index": {"run": StepInput("train")},
}
"""In a pipeline, where a step's field comes from when the user does not name it and that step is there."""


@dataclass(frozen=True)
class Step:
    """One command: `python -m MODULE ARGV`. fed: fields whose values are known when the steps before are done."""

    name: str
    values: Mapping[str, Any]
    fed: Mapping[str, StepInput] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """What runs."""
        return MODULES[self.name]

    def argv(self, made: Mapping[str, str], root: str) -> list[str]:
        """Its arguments. made: what fed fields turned out to be, by field."""
        values = {**self.values, **made}
        if self.name == "sweep":  # by itself it would take the whole cluster, whatever the job holds
            values["at_once"] = _trials(values)
        bare = [str(values.pop(name)) for name in POSITIONAL.get(self.name, ()) if values.get(name) not in (None, "")]
        flags = [_flag(name, value) for name, value in values.items() if value is not None]
        return [*flags, f"--root={root}", *(["--", *bare] if bare else [])]

    def as_json(self) -> dict[str, Any]:
        """For an attempt's specification."""
        return {
            "name": self.name,
            "values": dict(self.values),
            "fed": {name: [fed.step, fed.file] for name, fed in self.fed.items()},
        }

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Step:
        """From that."""
        return cls(said["name"], said["values"], {name: StepInput(*fed) for name, fed in said["fed"].items()})


def steps_of(kind: Kind, config: Mapping[str, Any]) -> list[Step]:
    """The steps of a job, in order."""
    if kind != "pipeline":
        return [Step(kind, dict(config))]
    names = [name for name in PIPELINE if name in config]
    steps = []
    for name in names:
        values = dict(config[name])
        fed = {field: fed for field, fed in FEEDS.get(name, {}).items() if field not in values and fed.step in names}
        if "config" in fed:
            values.pop("recipe", None)  # the best configuration says it all
        steps.append(Step(name, values, fed))
    return steps


@dataclass(frozen=True)
class Needs:
    """What a job holds while it runs. workers: data-parallel ones besides the process that waits for them."""

    cpus: float
    gpus: float
    workers: int


def needs_of(kind: Kind, config: Mapping[str, Any]) -> Needs:
    """The largest of its steps': as many as its workers hold, or one CPU for a step that is one process."""
    needs = [_needs(step.values) for step in steps_of(kind, config)]
    return Needs(max(each.cpus for each in needs), max(each.gpus for each in needs), max(each.workers for each in needs))


def _trials(values: Mapping[str, Any]) -> int:
    """Trainings at the same time."""
    return int(values.get("at_once") or 1)


def _needs(values: Mapping[str, Any]) -> Needs:
    workers, trials = int(values.get("num_workers") or 0), _trials(values)
    cpus, gpus = float(values.get("cpus_per_worker") or 1), float(values.get("gpus_per_worker") or 0)
    return Needs(max(1, workers) * cpus * trials, max(1, workers) * gpus * trials, workers)


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"--{flag}=" + ",".join(str(part) for part in value)
    return f"--{flag}={value}"
