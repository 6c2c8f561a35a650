"""What jobs are called, and what they are told apart by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.queue.arrays import common_name
from services.jobs.queue.records import MOST_NAME
from services.jobs.runs.names import default_name, members_of, recipe_of, seed_of, shortened
from zsbir.base.errors import InputError
from zsbir.base.text import clean


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [
        ("train", {"recipe": "toy", "dataset": "/a/b", "margin_cross": 0.3, "seed": 1}, "toy seed=1 margin_cross=0.3"),
        ("train", {"dataset": "/a/b"}, "custom"),
        ("train", {"recipe": "toy", "seed": 0, "num_workers": 4}, "toy"),
        ("pipeline", {"ingest": {"layout": "toy"}, "train": {"recipe": "toy", "seed": 2}}, "toy seed=2"),
        ("pipeline", {"ingest": {"layout": "folder", "path": "/data/my pictures"}, "train": {}}, "custom my_pictures"),
        ("sweep", {"recipe": "toy", "dataset": "/a"}, "toy"),
        ("evaluate", {"run": "/root/runs/toy-4f1c"}, "toy-4f1c"),
        ("ingest", {"layout": "folder", "path": "s3://bucket/pictures/"}, "folder pictures"),
        ("ingest", {"layout": "toy", "name": "mine"}, "mine"),
        ("pretrain", {}, "pretrain"),
    ],
)
def test_a_name_says_the_recipe_and_what_differs_or_what_is_worked_on(kind, config, name):
    assert default_name(kind, config) == name


@pytest.mark.parametrize(
    ("kind", "config", "recipe", "seed"),
    [
        ("train", {"recipe": "toy", "seed": 3}, "toy", 3),
        ("pipeline", {"train": {}}, "custom", 0),
        ("pipeline", {"train": 5}, "custom", 0),
        ("train", {"recipe": "gone", "seed": "x"}, "gone", None),
        ("evaluate", {"run": "x"}, "", None),
    ],
)
def test_recipe_and_seed_are_those_of_the_training(kind, config, recipe, seed):
    assert (recipe_of(kind, config), seed_of(kind, config)) == (recipe, seed)


@given(st.text(max_size=300), st.text(max_size=120))
def test_a_name_is_short_and_printable_whatever_it_is_made_of(name, ending):
    found = shortened(name, ending)
    assert len(found) <= MOST_NAME
    assert clean(found) == found


def test_the_ending_of_a_long_name_stays_whole():
    assert shortened("x" * 200, "seed=1").endswith("x… seed=1")


def test_every_combination_is_a_job_with_words_of_its_own():
    found = {words: config for config, words in members_of({"a": {"b": 1}}, {"a.c": [1, 2], "d": [True, False]})}
    assert found["c=2 d=no"] == {"a": {"b": 1, "c": 2}, "d": False}
    assert len(found) == 4


@pytest.mark.parametrize("values", [[0.1, 0.1], ["a", "a"], []])
def test_values_that_cannot_be_told_apart_are_refused(values):
    with pytest.raises(InputError, match="needs different values"):
        list(members_of({}, {"lr": values}))


def test_addresses_with_the_same_ending_are_told_apart_by_all_of_them():
    assert [words for _, words in members_of({}, {"run": ["a/x", "b/x"]})] == ["run=a/x", "run=b/x"]
    assert [words for _, words in members_of({}, {"run": ["a/x", "a/y"]})] == ["run=x", "run=y"]


def test_what_all_names_have_is_the_name_of_the_array():
    assert common_name(["night seed=0 lr=1", "night seed=1 lr=1"]) == "night lr=1"
    assert common_name(["a", "b"]) == ""
    assert common_name([]) == ""
