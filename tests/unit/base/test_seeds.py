from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from zsbir.base.seeds import _FIRST_VERSION, Purpose, short_seed, stream
from zsbir.data.splits import ClassLists, assign, draw_unseen
from zsbir.toys.draw import toy_sources

REPOSITORY = Path(__file__).resolve().parents[3]
NEW = sorted(set(get_args(Purpose)) - set(_FIRST_VERSION))
EDGES = (0, 1, 2, 5, 7, 2**32 - 1, 2**32, 2**32 + 1, 2**64)
"""Numbers at which words of 32 bits begin and end, and small ones."""


def beginning(rng: np.random.Generator) -> int:
    """Return the stream's first 128 bits, which tell two streams apart."""
    high, low = rng.integers(2**64, size=2, dtype=np.uint64).tolist()
    return high << 64 | low


def grid() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every new purpose with every sequence of up to three numbers, also such as no caller has."""
    for purpose, count in product(NEW, range(4)):
        for numbers in product(EDGES, repeat=count):
            yield purpose, numbers


def test_numpys_own_seeds_of_several_numbers_collide():
    assert beginning(np.random.default_rng([0, 5, 0])) == beginning(np.random.default_rng([0, 5]))
    assert beginning(np.random.default_rng([2**32 + 1])) == beginning(np.random.default_rng([1, 1]))


def test_no_two_streams_of_any_purpose_and_numbers_are_the_same():
    found = Counter(beginning(stream(purpose, *numbers)) for purpose, numbers in grid())
    assert len(found) == len(NEW) * sum(len(EDGES) ** count for count in range(4))


def test_the_streams_of_one_training_are_different_ones_and_different_from_every_draw_of_its_data_set():
    """Seed, step and position of an image met the class and domain of the batch plan, and the draw of dev classes."""
    seeds, places = range(3), [(a, b) for a in range(8) for b in range(8)]
    names = [("order of classes", (seed,)) for seed in seeds]
    names += [("augmentation", (seed, *place)) for seed in seeds for place in places]
    names += [("order of images", (seed, *place)) for seed in seeds for place in places]
    names += [(purpose, (seed,)) for purpose in ("dev classes", "unseen classes") for seed in seeds]
    assert max(Counter(beginning(stream(purpose, *numbers)) for purpose, numbers in names).values()) == 1


@pytest.mark.parametrize("purpose", sorted(_FIRST_VERSION))
def test_the_streams_of_one_stored_content_are_different_ones(purpose):
    count = {"toy drawing": 4, "pretext photo": 4}.get(purpose, 1)
    names = list(product((0, 1, 2, 5, 2**32 - 1), repeat=count))
    assert len({beginning(stream(purpose, *numbers)) for numbers in names}) == len(names)


def test_a_stream_is_the_same_on_every_call_and_whatever_kind_of_whole_number_names_it():
    assert beginning(stream("augmentation", 1, 2, 3)) == beginning(stream("augmentation", 1, np.int32(2), np.uint8(3)))
    assert short_seed("TPE trial", 1, 2, 3) == short_seed("TPE trial", np.int64(1), 2, 3)
    assert stream("augmentation", 0, 0, 0).integers(1000, size=4).tolist() == [590, 287, 200, 43]


def test_short_seeds_have_32_bits_and_differ():
    seeds = [short_seed("TPE trial", *numbers) for numbers in product(range(5), range(120), (0, 1, 99))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_what_is_stored_is_drawn_as_version_0_1_0_drew_it():
    """Data sets and weights have names already: other draws would give them another content."""
    names = [f"class{number:02d}" for number in range(20)]
    assert draw_unseen(names, 0.2, seed=3).unseen == ("class02", "class07", "class16", "class17")
    split_of = assign(names, ClassLists(("class02",)), dev_frac=0.15, seed=3)
    assert [name for name in names if split_of[name] == "dev"] == ["class03", "class08", "class18"]
    drawing = toy_sources(1, 1, 32, seed=5)[3]
    assert beginning(stream("toy drawing", *drawing.seed)) == beginning(np.random.default_rng(drawing.seed))
    assert beginning(stream("pretext photo", 0, 1, 2, 3)) == beginning(np.random.default_rng([0, 1, 2, 3]))


def test_no_other_module_makes_a_seed_of_several_numbers():
    for file in [*REPOSITORY.glob("zsbir/**/*.py"), *REPOSITORY.glob("tuning/**/*.py"), *REPOSITORY.glob("services/**/*.py")]:
        if file.name == "seeds.py":
            continue
        text = file.read_text()
        for call in ast.walk(ast.parse(text)) if "default_rng" in text or "SeedSequence" in text else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in ("default_rng", "SeedSequence"):
                assert not isinstance(call.args[0], ast.List | ast.Tuple), f"{file}:{call.lineno}: use zsbir.base.seeds.stream"
