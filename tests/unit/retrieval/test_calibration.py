"""What scores mean, as a value: how it moves with score and gallery, and what a manifest may state of it."""

from __future__ import annotations

import itertools

import pytest
from building import put
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.retrieval.calibration import (
    MOST,
    Calibration,
    HitProbability,
    NoMatch,
    Rate,
    calibration_facts,
    calibration_for,
    calibrations_of,
)
from zsbir.retrieval.options import PLAIN, SearchOptions

RATE = Rate(mean=0.1, low=0.05, high=0.2)
NO_MATCH = NoMatch(base=0.2, per_photos=0.03, per_kin=0.5, false_alarm=RATE, miss=RATE)
HIT = HitProbability(intercept=-3, slope=12, error=0.02)
MADE = Calibration(options=PLAIN, no_match=NO_MATCH, hit=HIT, classes=11, photos=1000)

finite = st.floats(-1000, 1000)


@given(finite, st.floats(0, 1000), st.lists(st.floats(-1.01, 1.01), min_size=2), st.integers(2, 10**9))
def test_a_probability_lies_between_0_and_1_and_never_falls_as_the_score_rises(intercept, slope, scores, classes):
    hit = HitProbability(intercept=intercept, slope=slope, error=0)
    found = [hit.at(score, classes) for score in sorted(scores)]
    assert all(0 <= each <= 1 for each in found)
    assert all(low <= high for low, high in itertools.pairwise(found))


def test_with_twice_the_classes_the_odds_are_half():
    odds = [p / (1 - p) for p in (HIT.at(0.4, classes) for classes in (11, 21))]
    assert odds[0] == pytest.approx(2 * odds[1])


def test_a_threshold_rises_with_the_photos_and_with_their_kin_and_stays_below_a_bound_for_any_number_of_kin():
    assert NO_MATCH.threshold(1) == 0.2
    assert NO_MATCH.threshold(10_000) > NO_MATCH.threshold(100) > NO_MATCH.threshold(0) == 0.2
    assert 0.2 < NO_MATCH.threshold(1, 1.0) < NO_MATCH.threshold(1, 5.0) < 0.7 == pytest.approx(NO_MATCH.threshold(1, 1e9))


def test_a_manifest_gives_back_what_was_stated_by_the_options_it_was_measured_with(tmp_path):
    other = MADE.replace(options=SearchOptions(), hit=None)
    run = put(str(tmp_path), "run", facts=calibration_facts([MADE, other]))
    assert calibrations_of(run) == [MADE, other]
    assert calibration_for(run, SearchOptions()) == other
    assert calibration_for(run, PLAIN.replace(flip=True)) is None


def test_artifacts_of_earlier_versions_are_not_calibrated(tmp_path):
    assert calibrations_of(put(str(tmp_path), "index")) == []
    assert calibration_facts([]) == {}


def changed(**changes):
    return {**MADE.model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    "stated",
    [
        "yes",
        {},
        [1],
        [changed()] * (MOST + 1),
        [changed(classes=1)],
        [changed(surprise=1)],
        [changed(options={"smooth": 10**9})],
        [changed(hit={"intercept": -3, "slope": -1, "error": 0})],
        [changed(hit={"intercept": "1e999", "slope": 1, "error": 0})],
        [changed(no_match={**NO_MATCH.model_dump(), "base": 1e300})],
        [changed(no_match={**NO_MATCH.model_dump(), "miss": {"mean": 2, "low": 0, "high": 1}})],
    ],
)
def test_a_manifest_that_states_something_else_is_refused_in_one_line(tmp_path, stated):
    with pytest.raises(InputError) as error:
        calibrations_of(put(str(tmp_path), "index", facts={"calibrations": stated}))
    assert "\n" not in str(error.value)
    assert "calibration" in str(error.value)
