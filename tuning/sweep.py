"""Try many configurations of a training: recipe and space in, Sweep out, with every trial, the best configuration and pictures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tuning.config import SweepRequest
from tuning.outcome import Outcome, table_text
from tuning.space import SPACES, Space, as_yaml, open_space
from tuning.table import TABLE, State, Table, Trial, as_parquet
from zsbir.base import events, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.config import digest_of
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.layout import sweep_uri
from zsbir.base.lease import alone
from zsbir.base.storage import folder_name, is_remote, open_folder
from zsbir.recipes import short_digest, shortened
from zsbir.training.config import TrainConfig
from zsbir.training.requirements import check_has_knowledge, check_inputs
from zsbir.training_run.plan import Job, Settings, resolve

if TYPE_CHECKING:
    from zsbir.edge.parents import Parent

PRESERVATION = "weight_preservation"


@dataclass(frozen=True)
class Resolved:
    """A request with every input checked: the sweep's address, the space, its first points, the steps of a whole trial.

    knowledge, weights: addresses of what every trial starts from; "" for no knowledge.
    """

    uri: str
    dataset: str
    space: Space
    points: Sequence[dict[str, Any]]
    steps: int
    tracking_uri: str
    knowledge: str = ""
    weights: str = ""


def sweep(request: SweepRequest) -> Artifact:
    """Return the Sweep artifact of a request: made, finished from where it was interrupted, or found.

    Raises InputError for bad inputs, RunError when no trial finished, Interrupted on Ctrl-C.
    """
    request = _absolute(request)
    found = _resolve(request)
    if exists(found.uri):
        events.say(f"already swept: {found.uri}")
        watch.record_found(found.uri)
        made = Artifact(found.uri, "sweep")
        events.say_lines(next_steps(made, found, request))
        return made
    with alone(found.uri):
        open_folder(found.uri).check_writable()
        table = _open_table(found, request)
        parent = _parent_run(found, request)
        try:
            _run_trials(found, request, table, parent)
        except KeyboardInterrupt:
            raise Interrupted(f"the same command goes on with {found.uri}") from None
        finally:
            if parent:
                parent.close_children(_states_of_runs(table.trials))
        return _sign(found, request, Outcome(request.base, found.space, table.trials), parent)


def _absolute(request: SweepRequest) -> SweepRequest:
    """Return the request with absolute addresses, because Ray Tune gives each trial a working directory of its own."""
    uris, weights = request.uris, request.uris.weights
    if weights and not is_remote(weights) and Path(weights).exists():
        weights = str(Path(weights).resolve())
    absolute = {name: open_folder(uri).uri for name in ("dataset", "knowledge") if (uri := getattr(uris, name))}
    root = open_folder(request.settings.root).uri
    return replace(request, uris=uris.replace(weights=weights, **absolute), settings=request.settings.replace(root=root))


def _resolve(request: SweepRequest) -> Resolved:
    """Check everything that would be wrong with every trial before the first one starts."""
    from zsbir.data.samples import load_samples
    from zsbir.training.loop import plan_training

    base = request.base
    if base.train_on_dev:
        raise InputError("train_on_dev leaves no classes to score trials on: sweep without it, then train its best.yaml with it")
    space = _possible(open_space(request.config.space, base), request)
    if request.config.seeds_per_trial > 1 and "seed" in space:
        raise InputError("the space varies seed, and seeds_per_trial gives each trial its own: leave one of them out")
    job = resolve(base, request.uris, request.settings)
    _check_starts(space, base, job)
    samples = load_samples(Artifact(job.dataset, "dataset"))
    if not all(len(samples.select(split="dev", domain=domain)) for domain in ("sketch", "photo")):
        raise InputError(f"{job.dataset} has no dev classes to score trials on: ingest with --dev-frac above 0")
    points = _points(request, space)
    identity = [request.config.identity(), as_yaml(space), points, folder_name(job.run)]
    return Resolved(
        uri=sweep_uri(request.settings.root, base.recipe, digest_of(identity)),
        dataset=job.dataset,
        space=space,
        points=points,
        steps=len(plan_training(base, samples, max(1, request.settings.num_workers))),
        tracking_uri=job.tracking_uri,
        knowledge=job.knowledge,
        weights=job.weights,
    )


def _check_starts(space: Space, base: TrainConfig, job: Job) -> None:
    """Check that the knowledge has what each start of the classifier that is tried begins with. Raises InputError."""
    if (tried := space.get("classifier_start")) is None:
        return
    dataset, knowledge = Artifact(job.dataset, "dataset"), Artifact(job.knowledge, "knowledge") if job.knowledge else None
    for start in tried.grid():
        config = base.replace(classifier_start=start)
        check_has_knowledge(config, given=knowledge is not None)
        check_inputs(config, dataset, knowledge)


def _possible(space: Space, request: SweepRequest) -> Space:
    """Return a space without the weight of preservation where no trial has knowledge to preserve: those trials would all fail."""
    if request.uris.knowledge or PRESERVATION not in space:
        return space
    if request.config.space not in SPACES:
        raise InputError(
            f"the space varies {PRESERVATION}, and there is no knowledge to preserve: pass --knowledge URI, as python -m"
            " zsbir.teacher prints it, or leave that field out"
        )
    events.say(f"{PRESERVATION} is not varied, since there is no knowledge to preserve (--knowledge)")
    return {field: dimension for field, dimension in space.items() if field != PRESERVATION}


def _points(request: SweepRequest, space: Space) -> list[dict[str, Any]]:
    """Return the recipe as it is and the configurations to start from, each with a value for every field of the space."""
    base = request.base
    start = {field: getattr(base, field) for field in space}
    points = [start]
    for fields in request.start_from:
        base.replace(**fields)  # an error here is the file's, not a trial's
        points.append(start | {field: value for field, value in fields.items() if value != getattr(base, field)})
    return points


def _open_table(found: Resolved, request: SweepRequest) -> Table:
    """Open the table of trials; failed ones are reopened if the request says so."""
    table = Table(open_folder(found.uri))
    if request.where.retry_failed:
        table.reopen(trial.number for trial in table.trials if trial.state == "failed")
    if len(table):
        ended = sum(trial.ended for trial in table.trials)
        events.say(
            f"going on with {found.uri}: {ended} of {request.config.trials} trials have ended, {len(table) - ended} were begun"
        )
    return table


def _states_of_runs(trials: Sequence[Trial]) -> dict[str, tuple[int, str]]:
    """Return the number of its trial and its state for each run, by the name of its folder.

    A seed that was trained to its end is finished, however its trial ended.
    """
    found: dict[str, tuple[int, str]] = {}
    for trial in trials:
        for run in filter(None, trial.runs):
            done = trial.further and trial.state != "finished" and exists(run)
            found[folder_name(run)] = (trial.number, "finished" if done else trial.state)
    return found


def _parent_run(found: Resolved, request: SweepRequest) -> Parent | None:
    """Open the MLflow run that the trials' runs are nested under; None without tracking."""
    if not request.settings.tracking:
        return None
    from zsbir.edge.parents import Parent  # MLflow takes seconds to load

    params = {**request.config.model_dump(mode="json"), "space": as_yaml(found.space), "recipe": request.base.recipe}
    key = folder_name(found.uri)
    title = shortened(f"sweep {request.base.recipe} over {', '.join(found.space)}")
    name = request.settings.run_name or f"{title} ({short_digest(key)})"
    return Parent(found.tracking_uri, request.settings.experiment, key, name=name, params=params)


def _run_trials(found: Resolved, request: SweepRequest, table: Table, parent: Parent | None) -> None:
    """Train on Ray until the sweep's trials or its time are used up."""
    from tuning.ledger import Ledger, Plan
    from tuning.study import run_trials, trials_at_once  # Ray takes seconds to load
    from tuning.trial import TrialTask
    from zsbir.edge.ray_cluster import connected
    from zsbir.edge.ray_lines import warnings_of_workers_alone
    from zsbir.edge.ray_room import Need

    config, settings = request.config, request.settings.replace(parent=parent.run_id if parent else "")
    plan = Plan(
        space=found.space,
        known=found.points,
        search=config.search,
        seed=config.sweep_seed,
        trials=config.trials,
        steps=found.steps,
        grace=(config.grace_steps or request.base.eval_every_steps) if config.early_stopping == "asha" else 0,
        reduction=config.reduction,
        budget_s=config.budget_minutes * 60,
        seeds=config.seeds_per_trial,
    )
    ledger = Ledger(plan, TrialTask(request.base, request.uris, settings, config.seeds_per_trial), table)
    if ledger.is_done():
        return
    workers = max(1, settings.num_workers)
    need = Need(workers, settings.cpus_per_worker, settings.gpus_per_worker)
    with connected(need), warnings_of_workers_alone():
        at_once = trials_at_once(settings, request.where.at_once)
        each = f"{found.steps} steps" + (f" and {plan.seeds} seeds" if plan.seeds > 1 else "")
        events.say(f"{ledger.most} trials of {each}, {at_once} at a time, over {', '.join(found.space)}")
        run_trials(ledger, open_folder(found.uri), at_once=at_once)


def _sign(found: Resolved, request: SweepRequest, outcome: Outcome, parent: Parent | None) -> Artifact:
    """Commit the Sweep artifact of the trials that have ended. Raises RunError if none has finished."""
    from tuning.report import write_report  # the libraries that draw take long to load

    best, folder = outcome.best, open_folder(found.uri)
    if best is None:
        raise RunError(_nothing_finished(found.uri, outcome.trials))
    events.say_lines(table_text(outcome.space, outcome.trials))
    runs = {
        f"trial-{trial.number:04d}{f'-seed-{place}' if place else ''}": run
        for trial in outcome.trials
        if trial.state == "finished"
        for place, run in enumerate(trial.runs)
    }
    with draft(found.uri, "sweep", request.base.recipe) as work:
        work.file("trials.parquet").write_bytes(as_parquet(outcome.trials))
        write_report(work.file, outcome, best)
        made = work.commit(
            digest=digest_of([folder_name(found.uri)]),
            config=request.config,
            inputs={role: Artifact(uri).reference() for role, uri in {"dataset": found.dataset, **runs}.items()},
            counts={state: sum(trial.state == state for trial in outcome.trials) for state in get_args(State)},
            facts={"best_trial": best.number, "best_run": best.run, "best_dev_map_all": best.score}
            | ({"best_runs": list(best.runs)} if best.further else {}),
        )
    folder.delete([TABLE])
    events.say(outcome.verdict())
    events.say_lines(next_steps(made, found, request))
    if parent:
        parent.finish({"best/dev/map_all": float(best.score or 0)}, {name: made.file(name) for name in made.manifest.files})
    return made


def next_steps(made: Artifact, found: Resolved, request: SweepRequest) -> str:
    """Return the best run, or those of its seeds, complete commands that go on from it, and where the pictures are, a line each."""
    facts, settings = made.manifest.facts, request.settings
    runs = [str(run) for run in facts.get("best_runs") or [facts.get("best_run", "")]]
    evaluate = ["python", "-m", "zsbir.evaluate", *runs, f"--root={settings.root}"]
    train = ["python", "-m", "zsbir.train", f"--config={made.address('best.yaml')}", f"--root={settings.root}"]
    inputs = {"dataset": found.dataset, "knowledge": found.knowledge, "weights": found.weights}
    train += [f"--{name}={uri}" for name, uri in inputs.items() if uri]
    tracking = [f"--experiment={settings.experiment}"] if settings.experiment != Settings().experiment else []
    tracking += [] if settings.tracking else ["--no-tracking"]
    return "\n".join(
        [
            f"best run{'s' if len(runs) > 1 else ''}: {' '.join(runs)}",
            f"score it on the unseen classes: {shlex.join([*evaluate, *tracking])}",
            f"train its configuration, changed as you like (--train-on-dev, --seeds 0,1,2): {shlex.join([*train, *tracking])}",
            f"pictures: {made.address('sweep.html')}",
        ]
    )


def _nothing_finished(uri: str, trials: Sequence[Trial]) -> str:
    """Return the error line of a sweep without a finished trial."""
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        first = f"trial {failed[0].number}: {failed[0].error}"
        return f"no trial finished, {len(failed)} failed; {first}; once that is fixed, give the same command with --retry-failed"
    return f"no trial finished; what was trained is kept in {uri}: the same command, or one with more --budget-minutes, goes on"
