"""Train an encoder: Dataset and Knowledge in, Run out. This is the main job.

    python -m zsbir.train caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --margin-cross 0.3
    python -m zsbir.train caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --seeds 0,1,2
    ray job submit --working-dir . -- python -m zsbir.train sketchy_ext --dataset DATASET --num-workers 8

The configuration starts from a recipe (see zsbir.recipes); --config FILE.yaml changes it, and flags change it last. The run's
folder is named by what the run computes: after an interruption the same command goes on from the last checkpoint, and once the run
is finished it returns at once. The checkpoint is chosen on the `dev` classes; `unseen` classes are never opened here. Prints the
URI of the run; with --seeds one URI a line, in the order of the seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from zsbir.base import cli, events, layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError, Interrupted, PermanentError, RunError, naming
from zsbir.base.lease import alone
from zsbir.base.storage import folder_name, open_folder
from zsbir.recipes import RECIPES, changed_recipe, shortened, title
from zsbir.training.config import TrainConfig
from zsbir.training_run.delivery import deliver_again
from zsbir.training_run.fitting import fitted
from zsbir.training_run.flags import add_training_fields
from zsbir.training_run.plan import InputUris, Job, Settings, resolve
from zsbir.training_run.seeds import add_seeds, seeds_of

if TYPE_CHECKING:
    from zsbir.training.context import LocalContext

__all__ = ["InputUris", "Settings", "train", "train_seeds"]


def train(config: TrainConfig, uris: InputUris, settings: Settings, context: LocalContext | None = None) -> Artifact:
    """Return the Run artifact of a configuration and its inputs: trained, finished from its last checkpoint, or found.

    context: the world of a training in this process, for a caller that follows it, as a sweep's trial does; Ray workers make their
    own.

    Raises InputError for bad inputs, RunError when training fails, Interrupted when asked to stop.
    """
    if settings.parent:
        watch.stop()
    job = _named_job(config, uris, settings)
    watch.record_facts(run=job.run)
    if exists(job.run):
        return _found(job)
    with _alone(job):
        _run(job, context)
    return _made(job)


def _named_job(config: TrainConfig, uris: InputUris, settings: Settings) -> Job:
    """Return the job of a training, with what people see it by."""
    job = resolve(config, uris, settings)
    return job.replace(name=settings.run_name or title(config.model_dump(mode="json"), folder_name(job.run)))


def _found(job: Job) -> Artifact:
    """Return a run that is finished, after delivering what MLflow lacks of it."""
    events.say(f"already trained: {job.run}")
    watch.record_found(job.run)
    run = Artifact(job.run, "run")
    _record_best(run)
    events.say(kept(run))
    deliver_again(job)
    return run


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Train a run inside, while no other process does. Raises Busy where one does."""
    with alone(job.run):
        open_folder(layout.checkpoints_uri(job.run)).check_writable()
        yield


def _made(job: Job) -> Artifact:
    """Return the run that a training has just made. Raises RunError where it has not."""
    if not exists(job.run):
        raise RunError(f"training ended without a result in {job.run}")
    run = Artifact(job.run, "run")
    events.say(kept(run))
    return run


def train_seeds(
    config: TrainConfig, seeds: Sequence[int], uris: InputUris, settings: Settings, *, side_by_side: int = 1
) -> list[Artifact]:
    """Return the Run of a configuration with each of these seeds, in order: each is trained, finished or found.

    side_by_side: how many train at the same time, on Ray, each in one process; 1: one after another, as `train` does.
    Raises as `train` does; the error says which seed it is of. A training that fails for good, as by a loss that is not finite,
    does not keep the others from being trained; side by side, no error of one does.
    """
    if side_by_side > 1:
        return _train_beside(config, seeds, uris, settings, side_by_side)
    runs, failed, began_s = {}, {}, time.monotonic()
    for number, seed in enumerate(seeds, 1):
        _check_not_stopped(began_s, seed)
        events.say(f"seed {seed}, {number} of {len(seeds)}")
        try:
            with naming(f"seed {seed}"):
                runs[seed] = train(config.replace(seed=seed), uris, _named_by_seed(settings, seed))
        except PermanentError as error:
            events.warn(str(error))
            failed[seed] = error
    if failed:
        first = next(iter(failed.values()))
        raise PermanentError(f"{first}; {_failed_among(list(failed), list(runs))}") from first
    return list(runs.values())


def _train_beside(config: TrainConfig, seeds: Sequence[int], uris: InputUris, settings: Settings, at_once: int) -> list[Artifact]:
    """Train the seeds that are not finished side by side on Ray, and return the runs of all seeds."""
    if settings.num_workers:
        raise InputError("--side-by-side trains each seed in one process: leave out --num-workers, or --side-by-side")
    jobs = {seed: _named_job(config.replace(seed=seed), uris, _named_by_seed(settings, seed)) for seed in seeds}
    runs = {seed: _found(job) for seed, job in jobs.items() if exists(job.run)}
    left = {seed: job for seed, job in jobs.items() if seed not in runs}
    if left:
        from zsbir.edge.ray_beside import train_beside  # Ray is loaded only where it is asked for
        from zsbir.training_run.worker import run_job

        with ExitStack() as stack:
            for seed, job in left.items():
                with naming(f"seed {seed}"):
                    stack.enter_context(_alone(job))
            endings = train_beside(run_job, list(left.values()), [f"seed {seed}" for seed in left], at_once=at_once)
        runs |= _ended(dict(zip(left, endings, strict=True)), left, list(runs))
    return [runs[seed] for seed in seeds]


def _ended(endings: Mapping[int, Exception | None], jobs: Mapping[int, Job], found: Sequence[int]) -> dict[int, Artifact]:
    """Return the runs of trainings that have ended side by side, by seed.

    Raises the first error, after warnings of the others; Interrupted before any other. found: the seeds that were finished before.
    """
    failed = {seed: error for seed, error in endings.items() if error is not None}
    runs = {seed: _made(jobs[seed]) for seed in endings if seed not in failed}
    if not failed:
        return runs
    stopped = [seed for seed, error in failed.items() if isinstance(error, Interrupted)]
    first, *others = [*stopped, *(seed for seed in failed if seed not in stopped)]
    for seed in others:
        events.warn(f"seed {seed}: {failed[seed]}")
    more = "" if stopped else f"; {_failed_among(list(failed), [*found, *runs])}"
    failed[first].args = (f"seed {first}: {failed[first]}{more}",)
    raise failed[first]


def _check_not_stopped(began_s: float, seed: int) -> None:
    """Raise Interrupted where the user asked to stop when a training was at its end: it finished, and the next must not begin."""
    from zsbir.training.context import StopSignals  # torch takes seconds to load

    if StopSignals.asked_since(began_s):
        raise Interrupted(f"the seeds before {seed} are done; the same command goes on with it")


def _named_by_seed(settings: Settings, seed: int) -> Settings:
    """Return the settings of one of several seeds: a name that the user gave for MLflow says which seed it is."""
    return settings.replace(run_name=shortened(f"{settings.run_name} seed={seed}")) if settings.run_name else settings


def _failed_among(failed: Sequence[int], trained: Sequence[int]) -> str:
    """Return how many seeds have failed, and how to get the addresses of the others."""
    if not trained:
        return f"all {len(failed)} seeds failed" if len(failed) > 1 else "it was the only seed"
    others = ",".join(map(str, trained))
    return f"{len(failed)} of {len(failed) + len(trained)} seeds failed; --seeds {others} prints the addresses of the others"


def kept(run: Artifact) -> str:
    """Return which encoder a run has kept, and its score on the dev classes, as a line."""
    step, score = run.manifest.counts["best_step"], run.manifest.facts.get("best_dev_map_all")
    if isinstance(score, int | float):
        return f"kept: step {step}, dev/map_all {score:.3f}"
    return f"kept: step {step}, the last one, since no dev classes were held out to score the steps"


def _record_best(run: Artifact) -> None:
    """Tell who follows this process how good a run's encoder is on the dev classes, where it was scored."""
    score, step = run.manifest.facts.get("best_dev_map_all"), run.manifest.counts.get("best_step")
    if isinstance(score, int | float):
        watch.record_score(float(score), "map_all", "dev", step)


def _run(job: Job, context: LocalContext | None) -> None:
    """Run the job on Ray workers, or in this process if it asks for none."""
    from zsbir.training_run.worker import run_job  # torch takes seconds to load

    if job.settings.num_workers:
        from zsbir.edge.ray_train import fit  # Ray is loaded only where it is asked for

        fit(run_job, job, job.settings)
        return
    from zsbir.training.computing import computing
    from zsbir.training.context import LocalContext

    context = context or LocalContext()
    with context.signals(), computing():
        run_job(job, context)


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.train", __doc__ or "")
    parser.add_argument("recipe", nargs="?", help=f"recipe to start from: {', '.join(RECIPES)}")
    parser.add_config_file()
    parser.add_fields(InputUris, title="inputs")
    add_seeds(parser)
    parser.add_fields(Settings, title="where it runs")
    add_training_fields(parser, argv, RECIPES, title="training (a recipe changes the defaults shown here)")
    parsed, values = parser.values(argv)
    changes, uris, settings = cli.split_fields(values, TrainConfig, InputUris, Settings)
    name, inputs, where = parsed.recipe or changes.pop("recipe", "custom"), InputUris.of(uris), Settings.of(settings)
    config = changed_recipe(name, changes)
    seeds = seeds_of(parsed)
    config = fitted(config, changes, inputs, where)
    if seeds:
        runs = train_seeds(config, seeds, inputs, where, side_by_side=parsed.side_by_side)
        return "\n".join(run.uri for run in runs)
    return train(config, inputs, where).uri


if __name__ == "__main__":
    cli.main(_parse)
