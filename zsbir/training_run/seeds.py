"""Several seeds of one training, as a command line names them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from zsbir.base.cli import Parser
from zsbir.base.errors import InputError

MOST_SEEDS = 1000
"""Seeds of one command: more are a mistake."""


def add_seeds(parser: Parser) -> None:
    """Add the flag by which the same configuration is trained with several seeds. It is no field: each run has its own seed."""
    group = parser.add_argument_group("several seeds")
    group.add_argument(
        "--seeds", metavar="N,N,...", help="train the same with each of these seeds, in place of --seed; one URI a line, in order"
    )
    group.add_argument(
        "--side-by-side",
        type=int,
        default=1,
        metavar="N",
        help="train N of --seeds at a time on Ray, each in one process that holds --cpus-per-worker and --gpus-per-worker [1]",
    )


def seeds_of(parsed: argparse.Namespace) -> tuple[int, ...]:
    """Return the seeds that a command line names; none where it has no --seeds.

    Raises InputError for what is no list of different seeds, for --seed beside it, and for --side-by-side that does not go with the
    rest. A seed in a YAML file gives way.
    """
    if parsed.side_by_side < 1 or (parsed.side_by_side > 1 and parsed.seeds is None):
        raise InputError(
            f"--side-by-side trains so many of --seeds at a time, got {parsed.side_by_side}: give --seeds, or leave it out"
        )
    if parsed.seeds is None:
        return ()
    if hasattr(parsed, "seed"):
        raise InputError("--seed and --seeds name different trainings: leave one of them out")
    seeds = tuple(_seed(word.strip()) for word in parsed.seeds.split(","))
    if len(seeds) > MOST_SEEDS:
        raise InputError(f"--seeds names {len(seeds)} seeds, at most {MOST_SEEDS} are trained by one command")
    _check_different(seeds)
    return seeds


def _seed(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 19):
        raise InputError(f"--seeds must be whole numbers from 0 with commas between them, as in 0,1,2, got {word[:40]!r}")
    return int(word)


def _check_different(seeds: Sequence[int]) -> None:
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise InputError(f"--seeds names {twice} twice: a seed is trained once")
