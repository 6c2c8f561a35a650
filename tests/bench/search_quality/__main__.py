"""The command line; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.search_quality.embeddings import embeddings, trained_run
from bench.search_quality.measure import measure
from bench.search_quality.report import tables
from bench.search_quality.settings import DATASETS, SEEDS, SETTINGS, THINNED

ROWS = "search-quality{}.jsonl"


def main() -> None:
    given = _arguments()
    file = Path(given.root) / ROWS.format(f", {given.training}" if given.training else "")
    if given.what == "table":
        print(tables(_current(_rows(file))))
        return
    for seed in given.seeds:
        for dataset in given.datasets:
            _measure_all(dataset, seed, given, file)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.search_quality")
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--root", required=True, help="folder for runs, embeddings and rows")
    parser.add_argument("--data", help="folder that holds the data sets")
    parser.add_argument("--weights", help="ImageNet weights of the ResNet18")
    parser.add_argument("--training", default="", help="a setting of bench.experiments, in place of the recipe folder at 112 px")
    parser.add_argument("--split", choices=["dev", "unseen"], default="dev")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=list(SEEDS))
    parser.add_argument("--datasets", type=lambda text: text.split(","), default=list(DATASETS))
    parser.add_argument("--settings", type=lambda text: text.split(";"), default=list(SETTINGS), help="names, separated by ;")
    return parser.parse_args()


def _measure_all(dataset: str, seed: int, given: argparse.Namespace, file: Path) -> None:
    """Compute the rows of one training that are not there yet."""
    done = {_key(row) for row in _current(_rows(file))}
    wanted = [(dataset, given.split, setting, photos, seed) for setting in given.settings for photos in THINNED]
    missing = [key for key in wanted if key not in done]
    if not missing:
        return
    run = trained_run(dataset, seed, given)
    table = embeddings(run, given.split, Path(given.root) / "embeddings")
    for key in missing:
        began = time.monotonic()
        row = {"dataset": dataset, "split": given.split, "setting": key[2], "photos": key[3], "seed": seed, "run": run.uri}
        row |= {"options": SETTINGS[key[2]].text(), "state": "done", "result": measure(table, SETTINGS[key[2]], key[3])}
        row["minutes"] = round((time.monotonic() - began) / 60, 2)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(key, f"{row['result']['map_all']:.4f}", flush=True)


def _key(row: dict[str, Any]) -> tuple[str, str, str, int, int]:
    return row["dataset"], row["split"], row["setting"], row["photos"], row["seed"]


def _current(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are done, and whose setting still means what it meant."""
    return [row for row in rows if row["state"] == "done" and row["options"] == SETTINGS[row["setting"]].text()]


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
