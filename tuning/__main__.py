"""Find the best configuration of a training: recipe and space in, Sweep out, made of many trainings.

    python -m tuning caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --space losses --trials 16
    ray job submit --working-dir . -- python -m tuning sketchy_ext --dataset DATASET --knowledge KNOWLEDGE --gpus-per-worker 1

Each trial is a training of its own, scored on the `dev` classes; trial 0 is the recipe as it is. Poor trials are stopped early
(ASHA). Killed at any moment, the same command goes on. Prints the URI of the sweep: its best.yaml is a configuration for `python -m
zsbir.train --config`, its sweep.html shows every trial. `unseen` classes are never opened here: evaluate the best run on them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuning.config import SweepConfig, SweepRequest, SweepSettings
from tuning.sweep import sweep
from zsbir.base import cli
from zsbir.base.config import read_yaml
from zsbir.recipes import RECIPES, changed_recipe
from zsbir.training.config import TrainConfig
from zsbir.training_run.fitting import fitted
from zsbir.training_run.flags import add_training_fields
from zsbir.training_run.plan import InputUris, Settings


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("tuning", __doc__ or "")
    parser.add_argument("recipe", nargs="?", help=f"recipe that trial 0 trains and the space varies: {', '.join(RECIPES)}")
    parser.add_config_file()
    parser.add_argument(
        "--start-from",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file of a configuration to try first; may be given several times",
    )
    parser.add_fields(SweepConfig, title="sweep")
    parser.add_fields(SweepSettings, title="trials")
    parser.add_fields(InputUris, title="inputs")
    parser.add_fields(Settings, title="where each trial runs", skip=frozenset({"parent"}))
    add_training_fields(parser, argv, RECIPES, title="training: the same in all trials")
    parsed, values = parser.values(argv)
    changes, config, where, uris, settings = cli.split_fields(values, TrainConfig, SweepConfig, SweepSettings, InputUris, Settings)
    name, inputs, trials = parsed.recipe or changes.pop("recipe", "custom"), InputUris.of(uris), Settings.of(settings)
    known = [{name: value for name, value in read_yaml(file).items() if name != "recipe"} for file in parsed.start_from]
    request = SweepRequest(
        base=fitted(changed_recipe(name, changes), changes, inputs, trials, gpu=trials.gpus_per_worker > 0),
        uris=inputs,
        config=SweepConfig.of(config),
        start_from=known,
        settings=trials,
        where=SweepSettings.of(where),
    )
    return sweep(request).uri


if __name__ == "__main__":
    cli.main(_parse)
