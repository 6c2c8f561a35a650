import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tuning.space import SPACES, Choice, Range, as_yaml, contains, grid_points, open_space, random_point, read_space
from zsbir.base.errors import InputError
from zsbir.recipes import RECIPES, recipe
from zsbir.training.config import TrainConfig

BASE = recipe("caltech_qd60_r18")


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("base", RECIPES)
def test_every_named_space_fits_every_recipe_and_holds_it(name, base):
    """A recipe without preservation is meant for trainings without knowledge, whose sweeps leave its weight out."""
    config = recipe(base)
    space = open_space(name, config)
    if not config.weight_preservation:
        del space["weight_preservation"]
    assert contains(space, {field: getattr(config, field) for field in space})
    for number in range(20):
        config.replace(**random_point(space, seed=0, number=number))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_random_point_lies_in_its_space_and_depends_on_seed_and_number_alone(seed, number):
    space = open_space("all", BASE)
    point = random_point(space, seed=seed, number=number)
    assert contains(space, point)
    assert point == random_point(space, seed=seed, number=number)
    assert point != random_point(space, seed=seed, number=number + 1)


def test_random_points_fill_a_logarithmic_range_evenly_in_the_logarithm():
    space = {"lr": Range(low=1e-4, high=1e-2, log=True)}
    drawn = [math.log10(random_point(space, seed=1, number=number)["lr"]) for number in range(2000)]
    assert sum(value < -3 for value in drawn) / len(drawn) == pytest.approx(0.5, abs=0.05)


def test_relative_bounds_are_factors_of_the_base():
    space = read_space({"lr": {"low": 0.5, "high": 2, "relative": True}}, BASE)
    assert (space["lr"].low, space["lr"].high) == (BASE.lr * 0.5, BASE.lr * 2)


def test_a_grid_is_every_combination_once():
    space = read_space({"margin_cross": {"low": 0.1, "high": 0.3}, "batch_norm": ["frozen", "sync"]}, BASE)
    points = list(grid_points(space))
    assert points == [{"margin_cross": margin, "batch_norm": norm} for margin in (0.1, 0.2, 0.3) for norm in ("frozen", "sync")]


def test_whole_numbers_stay_whole():
    space = read_space({"classes_per_batch": {"low": 4, "high": 12}}, BASE)
    values = {random_point(space, seed=0, number=number)["classes_per_batch"] for number in range(300)}
    assert values == set(range(4, 13))
    assert all(isinstance(value, int) for value in values)


def test_a_space_reads_back_from_its_own_yaml(tmp_path):
    space = open_space("all", BASE)
    (tmp_path / "space.yaml").write_text(as_yaml(space))
    assert open_space(str(tmp_path / "space.yaml"), BASE) == space


@given(st.floats(0, 1))
def test_a_share_of_a_range_and_back(share):
    for dimension in (Range(low=0.05, high=0.6), Range(low=0.03, high=3, log=True)):
        assert dimension.share_of(dimension.at(share)) == pytest.approx(share, abs=1e-4)


def test_choices_come_evenly():
    choice = Choice(values=("a", "b", "c"))
    assert [choice.at(share) for share in (0, 0.34, 0.999)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "nothing varies"),
        ({"margin_cros": {"low": 0, "high": 1}}, "unknown field 'margin_cros'; did you mean 'margin_cross'"),
        ({"margin_cross": {"low": 1, "high": 0.5}}, "low must be below high"),
        ({"margin_cross": {"low": 0, "high": 1, "log": True}}, "starts above 0"),
        ({"margin_cross": {"low": -1, "high": 1}}, "'margin_cross'"),
        ({"margin_cross": 0.3}, "must be {low: ..., high: ...} or a list"),
        ({"margin_cross": {"lo": 0, "high": 1}}, "unknown field 'lo'"),
        ({"steps": [10, 20]}, "steps cannot vary"),
        ({"batch_norm": ["frozen", "none"]}, "'batch_norm'"),
        ({"batch_norm": []}, "at least 1"),
        ({"lr_preserver": {"low": 0.5, "high": 2, "relative": True}}, "cannot be relative"),
        ({"margin_cross": {"low": 0, "high": float("inf")}}, "finite"),
    ],
)
def test_bad_spaces_are_told_in_a_line(values, line):
    with pytest.raises(InputError) as told:
        read_space(values, BASE)
    assert line in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["loses", "nowhere.yaml", "../../etc/passwd"])
def test_a_space_that_is_not_there(name):
    with pytest.raises(InputError):
        open_space(name, BASE)


def test_yaml_with_python_objects_is_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("margin_cross: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InputError, match="cannot read"):
        open_space(str(tmp_path / "bad.yaml"), TrainConfig())
    assert yaml.safe_load(as_yaml(open_space("losses", TrainConfig())))
