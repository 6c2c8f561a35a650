"""Train an encoder: Dataset and Knowledge in, Run out. This is the main job.

    python -m zsbir.train caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --margin-cross 0.3
    ray job submit --working-dir . -- python -m zsbir.train sketchy_ext --dataset DATASET --num-workers 8

The configuration starts from a recipe (see zsbir.recipes); --config FILE.yaml changes it, and flags change it last. The run's
folder is named by what the run computes: after an interruption the same command goes on from the last checkpoint, and once the run
is finished it returns at once. The checkpoint is chosen on the `dev` classes; `unseen` classes are never opened here. Prints the
URI of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zsbir.base import cli, events, layout, watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import RunError
from zsbir.base.lease import alone
from zsbir.base.storage import folder_name, open_folder
from zsbir.recipes import RECIPES, recipe, title
from zsbir.training.config import TrainConfig
from zsbir.training_run.delivery import deliver_again
from zsbir.training_run.plan import InputUris, Job, Settings, resolve

if TYPE_CHECKING:
    from zsbir.training.context import LocalContext

__all__ = ["InputUris", "Settings", "train"]


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
        deliver_again(job)
        return Artifact(job.run, "run")
    with alone(job.run):
        open_folder(layout.checkpoints_uri(job.run)).check_writable()
        _run(job, context)
    if not exists(job.run):
        raise RunError(f"training ended without a result in {job.run}")
    return Artifact(job.run, "run")


def _run(job: Job, context: LocalContext | None) -> None:
    """Run the job on Ray workers, or in this process if it asks for none."""
    from zsbir.training_run.worker import run_job  # torch takes seconds to load

    if job.settings.num_workers:
        from zsbir.edge.ray_train import fit  # Ray is loaded only where it is asked for

        fit(run_job, job, job.settings)
        return
    from zsbir.training.context import LocalContext

    context = context or LocalContext()
    with context.signals():
        run_job(job, context)


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.train", __doc__ or "")
    parser.add_argument("recipe", nargs="?", help=f"recipe to start from: {', '.join(RECIPES)}")
    parser.add_config_file()
    parser.add_fields(InputUris, title="inputs")
    parser.add_fields(Settings, title="where it runs")
    parser.add_fields(TrainConfig, title="training (a recipe changes the defaults shown here)", skip=frozenset({"recipe"}))
    parsed, values = parser.values(argv)
    changes, uris, settings = cli.split_fields(values, TrainConfig, InputUris, Settings)
    start = recipe(parsed.recipe or changes.pop("recipe", "custom"))
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # a user who gives epochs does not want the recipe's steps
    return train(start.replace(**changes), InputUris.of(uris), Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
