"""The command line; see the package's docstring."""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

from bench.experiments.ledger import FILE, Key, Ledger, read_rows
from bench.experiments.settings import DATASETS, MAIN, SETTINGS
from bench.experiments.table import table

from zsbir.base.errors import InputError, RunError


def main() -> None:
    given = _arguments()
    planned = [
        Key(dataset, setting, seed, given.final) for seed, dataset, setting in product(given.seeds, given.datasets, given.settings)
    ]
    if given.what == "table":
        rows = read_rows(given.ledger) if given.ledger else Ledger(Path(given.root)).rows()
        print(table(planned, rows, given.against))
        return
    ledger = Ledger(Path(given.root))
    from bench.experiments.rows import result

    from zsbir.training.context import StopSignals

    began_s = time.monotonic()
    for key in ledger.to_do(planned):
        if StopSignals.asked_since(began_s):  # when a training was at its end, which it reached
            return
        try:
            found = result(key.dataset, key.setting, key.seed, given)
        except (InputError, RunError) as error:  # a setting that cannot be trained does not keep the others waiting
            ledger.write(key, "failed", {"reason": str(error)})
            print(*key, "failed:", error, flush=True)
            continue
        ledger.write(key, "done", found)
        print(*key, *(f"{name} {found[name]:.4f}" for name in ("map_all", "photo_to_photo", "expanded")), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.experiments")
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--root", help="folder for runs and for the ledger")
    parser.add_argument("--ledger", type=Path, help=f"for a table: the ledger, where it is not ROOT/{FILE}")
    parser.add_argument("--data", help="folder that holds the data sets")
    parser.add_argument("--weights", type=_weights, help="ImageNet weights: resnet18=FILE,resnet50=FILE,...")
    parser.add_argument("--final", action="store_true", help="train on dev classes too, score on unseen ones")
    parser.add_argument("--against", default="today", help="in a table: the setting that the others are compared with")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(DATASETS))
    parser.add_argument("--settings", type=_settings, default=list(MAIN), help="names, separated by ;")
    given = parser.parse_args()
    if not given.root and (given.what == "run" or not given.ledger):
        parser.error("--root is missing")
    return given


def _weights(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(","))


def _settings(text: str) -> list[str]:
    names = text.split(";")
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown setting {unknown[0]!r}; known: {'; '.join(SETTINGS)}")
    return names


if __name__ == "__main__":
    main()
