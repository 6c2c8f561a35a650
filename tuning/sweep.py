"""A recipe and a space in, a Sweep artifact out: every trial, the best configuration, and pictures of how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field

from tuning.outcome import Outcome, table_text
from tuning.report import write_report
from tuning.space import SPACES, Space, as_yaml, open_space
from tuning.suggest import Search
from tuning.table import TABLE, State, Table, Trial, as_parquet
from zsbir.base import events
from zsbir.base.artifact import Artifact, draft, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.layout import sweep_uri
from zsbir.base.lease import alone
from zsbir.base.storage import folder_name, is_remote, open_folder
from zsbir.data.samples import load_samples
from zsbir.train import InputUris, Settings, resolve
from zsbir.training.config import TrainConfig
from zsbir.training.loop import plan_training

if TYPE_CHECKING:
    from zsbir.edge.parents import Parent


class SweepConfig(Config):
    """What the sweep does."""

    space: str = Field("losses", description=f"{', '.join(SPACES)}, or a YAML file of ranges and choices")
    search: Search = Field("tpe", description="Optuna's TPE, random, or grid")
    trials: int = Field(16, ge=1, description="trials at most, trial 0 (the recipe as it is) included")
    budget_minutes: float = Field(0, ge=0, description="minutes for the whole sweep, restarts included; 0: no limit")
    early_stopping: Literal["asha", "none"] = Field("asha", description="whether poor trials are stopped early")
    grace_steps: int = Field(0, ge=0, description="steps before the first decision; 0: until the first evaluation")
    reduction: float = Field(
        2.0, gt=1, description="at a decision about one trial in so many goes on; the next is at so many times the steps"
    )
    sweep_seed: int = Field(0, ge=0, description="seed of the search; the trainings have their own")


class SweepSettings(Config):
    """Where trials run. Nothing here changes what is computed."""

    at_once: int = Field(0, ge=0, description="trials at the same time; 0: as many as the cluster's CPUs and GPUs hold")
    retry_failed: bool = Field(False, description="train failed trials again")


@dataclass(frozen=True)
class Asked:
    """A sweep as somebody asks for it. base: what trial 0 trains; start_from: fields of further configurations to try first."""

    base: TrainConfig
    uris: InputUris
    config: SweepConfig
    start_from: Sequence[dict[str, Any]]
    settings: Settings
    where: SweepSettings


@dataclass(frozen=True)
class Resolved:
    """The same with every input checked: where it lies, what varies, its first points, the steps of a trial, who is told."""

    uri: str
    dataset: str
    space: Space
    points: Sequence[dict[str, Any]]
    steps: int
    tracking_uri: str


def sweep(asked: Asked) -> Artifact:
    """The Sweep artifact: made, gone on with, or found. Raises InputError for bad inputs, RunError when no trial finished."""
    asked = _absolute(asked)
    found = _resolve(asked)
    if exists(found.uri):
        events.say(f"already swept: {found.uri}")
        return Artifact(found.uri, "sweep")
    with alone(found.uri):
        open_folder(found.uri).check_writable()
        table = _open_table(found, asked)
        parent = _parent(found, asked)
        try:
            _run_trials(found, asked, table, parent)
        except KeyboardInterrupt:
            raise Interrupted(f"the same command goes on with {found.uri}") from None
        finally:
            if parent:
                parent.close_children({folder_name(trial.run): (trial.number, trial.state) for trial in table.trials if trial.run})
        return _sign(found, asked, Outcome(asked.base, found.space, table.trials), parent)


def _absolute(asked: Asked) -> Asked:
    """The same with addresses that mean the same in every working directory: Ray Tune gives each trial one of its own."""
    uris, weights = asked.uris, asked.uris.weights
    if weights and not is_remote(weights) and Path(weights).exists():
        weights = str(Path(weights).resolve())
    places = {name: open_folder(uri).uri for name in ("dataset", "knowledge") if (uri := getattr(uris, name))}
    root = open_folder(asked.settings.root).uri
    return replace(asked, uris=uris.replace(weights=weights, **places), settings=asked.settings.replace(root=root))


def _resolve(asked: Asked) -> Resolved:
    """Whatever would be wrong with every trial is found before the first one."""
    base = asked.base
    if base.train_on_dev:
        raise InputError("train_on_dev leaves no classes to score trials on: sweep without it, then train its best.yaml with it")
    space = open_space(asked.config.space, base)
    job = resolve(base, asked.uris, asked.settings)
    samples = load_samples(Artifact(job.dataset, "dataset"))
    if not all(len(samples.select(split="dev", domain=domain)) for domain in ("sketch", "photo")):
        raise InputError(f"{job.dataset} has no dev classes to score trials on: ingest with --dev-frac above 0")
    points = _points(asked, space)
    identity = [asked.config.model_dump(mode="json", exclude={"space"}), as_yaml(space), points, folder_name(job.run)]
    return Resolved(
        uri=sweep_uri(asked.settings.root, base.recipe, digest_of(identity)),
        dataset=job.dataset,
        space=space,
        points=points,
        steps=len(plan_training(base, samples, max(1, asked.settings.num_workers))),
        tracking_uri=job.tracking_uri,
    )


def _points(asked: Asked, space: Space) -> list[dict[str, Any]]:
    """The recipe as it is, and what else is known to be good; each has a value for every field of the space."""
    base = asked.base
    start = {field: getattr(base, field) for field in space}
    points = [start]
    for fields in asked.start_from:
        base.replace(**fields)  # an error here is the file's, not a trial's
        points.append(start | {field: value for field, value in fields.items() if value != getattr(base, field)})
    return points


def _open_table(found: Resolved, asked: Asked) -> Table:
    table = Table(open_folder(found.uri))
    if asked.where.retry_failed:
        table.reopen(trial.number for trial in table.trials if trial.state == "failed")
    if len(table):
        ended = sum(trial.ended for trial in table.trials)
        events.say(
            f"going on with {found.uri}: {ended} of {asked.config.trials} trials have ended, {len(table) - ended} were begun"
        )
    return table


def _parent(found: Resolved, asked: Asked) -> Parent | None:
    """The MLflow run above the trials'."""
    if not asked.settings.tracking:
        return None
    from zsbir.edge.parents import Parent  # MLflow takes seconds to load

    params = {**asked.config.model_dump(mode="json"), "space": as_yaml(found.space), "recipe": asked.base.recipe}
    return Parent(found.tracking_uri, asked.settings.experiment, folder_name(found.uri), params)


def _run_trials(found: Resolved, asked: Asked, table: Table, parent: Parent | None) -> None:
    from tuning.study import Ledger, Plan, run_trials, trials_at_once  # Ray takes seconds to load
    from tuning.trial import TrialTask
    from zsbir.edge.ray_cluster import connected

    config, settings = asked.config, asked.settings.replace(parent=parent.run_id if parent else "")
    plan = Plan(
        space=found.space,
        known=found.points,
        search=config.search,
        seed=config.sweep_seed,
        trials=config.trials,
        steps=found.steps,
        grace=(config.grace_steps or asked.base.eval_every_steps) if config.early_stopping == "asha" else 0,
        reduction=config.reduction,
        budget_s=config.budget_minutes * 60,
    )
    ledger = Ledger(plan, TrialTask(asked.base, asked.uris, settings), table)
    if ledger.is_done():
        return
    workers = max(1, settings.num_workers)
    with connected(cpus=workers * settings.cpus_per_worker, gpus=workers * settings.gpus_per_worker):
        at_once = trials_at_once(settings, asked.where.at_once)
        events.say(f"{config.trials} trials of {found.steps} steps, {at_once} at a time, over {', '.join(found.space)}")
        run_trials(ledger, open_folder(found.uri), at_once=at_once)


def _sign(found: Resolved, asked: Asked, outcome: Outcome, parent: Parent | None) -> Artifact:
    """The Sweep artifact of trials that have all ended, or as many as the time allowed."""
    best, folder = outcome.best, open_folder(found.uri)
    if best is None:
        raise RunError(_nothing_finished(found.uri, outcome.trials))
    events.say(table_text(outcome.space, outcome.trials))
    runs = {f"trial-{trial.number:04d}": trial.run for trial in outcome.trials if trial.state == "finished"}
    with draft(found.uri, "sweep", asked.base.recipe) as work:
        work.file("trials.parquet").write_bytes(as_parquet(outcome.trials))
        write_report(work.file, outcome, best)
        made = work.commit(
            digest=digest_of([folder_name(found.uri)]),
            config=asked.config,
            inputs={role: Artifact(uri).reference() for role, uri in {"dataset": found.dataset, **runs}.items()},
            counts={state: sum(trial.state == state for trial in outcome.trials) for state in get_args(State)},
            facts={"best_trial": best.number, "best_run": best.run, "best_dev_map_all": best.score},
        )
    folder.delete([TABLE])
    events.say(outcome.verdict())
    events.say(f"best configuration, for python -m zsbir.train --config: {made.address('best.yaml')}")
    events.say(f"pictures: {made.address('sweep.html')}")
    if parent:
        parent.finish({"best/dev/map_all": float(best.score or 0)}, {name: made.file(name) for name in made.manifest.files})
    return made


def _nothing_finished(uri: str, trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        first = f"trial {failed[0].number}: {failed[0].error}"
        return f"no trial finished, {len(failed)} failed; {first}; when that is mended: the same command with --retry-failed"
    return f"no trial finished; {uri} keeps what was trained, and the same command, or one with more --budget-minutes, goes on"
