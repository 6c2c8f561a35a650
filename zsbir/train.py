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
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsbir.base import cli, events, layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import Interrupted, PermanentError, RunError, naming
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
    job = resolve(config, uris, settings)
    job = job.replace(name=settings.run_name or title(config.model_dump(mode="json"), folder_name(job.run)))
    watch.record_facts(run=job.run)
    if exists(job.run):
        events.say(f"already trained: {job.run}")
        watch.record_found(job.run)
        run = Artifact(job.run, "run")
        _record_best(run)
        events.say(kept(run))
        deliver_again(job)
        return run
    with alone(job.run):
        open_folder(layout.checkpoints_uri(job.run)).check_writable()
        _run(job, context)
    if not exists(job.run):
        raise RunError(f"training ended without a result in {job.run}")
    run = Artifact(job.run, "run")
    events.say(kept(run))
    return run


def train_seeds(config: TrainConfig, seeds: Sequence[int], uris: InputUris, settings: Settings) -> list[Artifact]:
    """Return the Run of a configuration with each of these seeds, in order: one after another is trained, finished or found.

    Raises as `train` does; the error says which seed it is of. A training that fails for good, as by a loss that is not finite,
    does not keep the seeds behind it from being trained.
    """
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
        return f"so did all {len(failed)} seeds" if len(failed) > 1 else "it was the only seed"
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
    from zsbir.training.context import LocalContext
    from zsbir.training.threads import free_threads

    context = context or LocalContext()
    with context.signals(), free_threads():
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
    config = fitted(config, changes, inputs, where)
    if seeds := seeds_of(parsed):
        return "\n".join(run.uri for run in train_seeds(config, seeds, inputs, where))
    return train(config, inputs, where).uri


if __name__ == "__main__":
    cli.main(_parse)
