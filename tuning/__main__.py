"""Many trainings out of one recipe and a space, the best configuration in the end.

    python -m tuning caltech_qd60_r18 --dataset DATASET --knowledge KNOWLEDGE --space losses --trials 16
    ray job submit --working-dir . -- python -m tuning sketchy_ext --dataset DATASET --knowledge KNOWLEDGE --gpus-per-worker 1

Each trial is a training of its own, scored on the `dev` classes; trial 0 is the recipe as it is. Poor ones are stopped early
(ASHA). Killed at any moment, the same command goes on. Prints the URI of the sweep: best.yaml in it is what `python -m zsbir.train
--config` takes, sweep.html shows it all. `unseen` classes are never opened here: evaluate the best run for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuning.sweep import Asked, SweepConfig, SweepSettings, sweep
from zsbir.base import cli
from zsbir.base.config import read_yaml
from zsbir.recipes import RECIPES, recipe
from zsbir.train import InputUris, Settings
from zsbir.training.config import TrainConfig


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("tuning", __doc__ or "")
    parser.add_argument("recipe", nargs="?", help=f"what trial 0 trains, and the space varies: {', '.join(RECIPES)}")
    parser.add_config_file()
    parser.add_argument(
        "--start-from", action="append", default=[], metavar="FILE", help="YAML of a configuration to try first; again for more"
    )
    parser.add_fields(SweepConfig, title="sweep")
    parser.add_fields(SweepSettings, title="trials")
    parser.add_fields(InputUris, title="inputs")
    parser.add_fields(Settings, title="where each trial runs", skip=frozenset({"parent"}))
    parser.add_fields(TrainConfig, title="training: what all trials share", skip=frozenset({"recipe"}))
    parsed, values = parser.values(argv)
    changes, config, where, uris, settings = cli.split_fields(values, TrainConfig, SweepConfig, SweepSettings, InputUris, Settings)
    start = recipe(parsed.recipe or changes.pop("recipe", "custom"))
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # whoever says epochs does not mean the recipe's steps
    known = [{name: value for name, value in read_yaml(file).items() if name != "recipe"} for file in parsed.start_from]
    asked = Asked(
        base=start.replace(**changes),
        uris=InputUris.of(uris),
        config=SweepConfig.of(config),
        start_from=known,
        settings=Settings.of(settings),
        where=SweepSettings.of(where),
    )
    return sweep(asked).uri


if __name__ == "__main__":
    cli.main(_parse)
