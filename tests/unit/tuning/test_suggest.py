import pytest

from tuning.space import contains, open_space, read_space
from tuning.suggest import suggest
from tuning.table import Trial
from zsbir.recipes import recipe

BASE = recipe("toy")
SPACE = open_space("losses", BASE)
START = {field: getattr(BASE, field) for field in SPACE}


def score(point) -> float:
    """A hill whose top is at margin_cross .4, weight_quadruplet 2."""
    return 0.5 - (point["margin_cross"] - 0.4) ** 2 - 0.02 * (point["weight_quadruplet"] - 2) ** 2


def grow(search, count, *, seed=0, space=SPACE, known=(START,), stop_below=-1.0):
    trials = []
    for number in range(count):
        found = suggest(search, space, list(known), trials, seed=seed)
        if found is None:
            break
        origin, point = found
        value = score({**START, **point})
        trials.append(Trial(number, origin, point, "finished" if value > stop_below else "stopped", scores=((10, value),)))
    return trials


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_the_known_come_first_and_the_rest_lies_in_the_space(search):
    warm = {**START, "margin_cross": 0.9, "lr": 0.5}
    trials = grow(search, 8, known=(START, warm))
    assert [trial.origin for trial in trials] == ["base", "warm", *[search] * 6]
    assert [trial.point for trial in trials[:2]] == [START, warm]
    assert all(contains(SPACE, trial.point) for trial in trials[2:])


@pytest.mark.parametrize("search", ["random", "tpe", "grid"])
def test_a_suggestion_depends_on_the_table_alone(search):
    space = read_space({"margin_cross": {"low": 0.1, "high": 0.5, "points": 4}, "weight_quadruplet": [1.0, 2.0]}, BASE)
    known = [{"margin_cross": 0.2, "weight_quadruplet": 1.0}]
    whole = grow(search, 8, space=space, known=known)
    for cut in range(len(whole)):
        assert suggest(search, space, known, whole[:cut], seed=0) == (whole[cut].origin, whole[cut].point)


def test_seeds_differ():
    assert grow("tpe", 5, seed=1)[1].point != grow("tpe", 5, seed=2)[1].point


def test_nothing_is_tried_twice_and_a_used_up_space_says_so():
    space = read_space({"batch_norm": ["frozen", "sync"], "mining": ["hard", "all"]}, BASE)
    known = [{"batch_norm": "frozen", "mining": "hard"}]
    for search in ("grid", "random", "tpe"):
        trials = grow(search, 10, space=space, known=known)
        points = [tuple(sorted(trial.point.items())) for trial in trials]
        assert len(points) == len(set(points)) == 4, search


def test_tpe_learns_where_random_does_not():
    """Ten seeds, thirty trials: the mean score of the last ten."""

    def late(search, seed):
        return sum(trial.score for trial in grow(search, 30, seed=seed)[20:]) / 10

    better = [late("tpe", seed) > late("random", seed) for seed in range(10)]
    assert sum(better) >= 9


def test_tpe_goes_on_with_stopped_failed_and_running_trials():
    trials = grow("tpe", 12, stop_below=0.45)
    trials.append(Trial(12, "tpe", trials[5].point, "failed"))
    trials.append(Trial(13, "tpe", {**START, "margin_cross": 0.111}))
    assert suggest("tpe", SPACE, [START], trials, seed=0) is not None
