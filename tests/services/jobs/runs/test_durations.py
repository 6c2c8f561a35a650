"""Progress as a share of time: what is counted, what is expected, and when the time left is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.runs.durations import WEIGHTS, Stage, estimate, expected_durations
from services.jobs.runs.steps import SINGLE

KNOWN = {"ingest": 10.0, "teacher": 10.0, "train": 160.0, "evaluate": 20.0}


def stages(**states):
    return [Stage(name, *each) if isinstance(each, tuple) else Stage(name, each, None) for name, each in states.items()]


def test_the_time_of_earlier_jobs_says_what_share_of_this_one_has_passed():
    found = estimate(stages(ingest=("done", 10.0), teacher=("done", 10.0), train=("running", 80.0), evaluate="waiting"), KNOWN)
    assert found == (pytest.approx(0.5), pytest.approx(100.0))


def test_stages_that_were_found_done_count_for_nothing():
    """Two of four stages that returned at once were 40 % of the bar."""
    found = estimate(stages(ingest=("found", 0.4), teacher="done", train=("running", 0.0), evaluate="waiting"), KNOWN)
    assert found == (0.0, pytest.approx(180.0))


def test_a_stages_own_rate_counts_more_than_earlier_jobs():
    found = estimate(stages(train=("running", 100.0, 300.0), evaluate="waiting"), KNOWN)
    assert found == (pytest.approx(100 / 420), pytest.approx(320.0))


def test_a_stage_that_takes_longer_than_it_used_to_is_not_over_yet():
    frac, left_s = estimate(stages(train=("running", 400.0)), KNOWN)
    assert 0.9 < frac < 1
    assert left_s == pytest.approx(40.0)


def test_without_earlier_jobs_stages_to_come_are_guessed_in_relation_to_the_one_that_runs():
    frac, left_s = estimate(stages(train=("running", 30.0, 30.0), evaluate="waiting"), {})
    rest_s = 60.0 * WEIGHTS["evaluate"] / WEIGHTS["train"]
    assert left_s == pytest.approx(30.0 + rest_s)
    assert frac == pytest.approx(30.0 / (60.0 + rest_s))


def test_the_time_left_is_not_told_where_most_of_it_would_be_guessed():
    frac, left_s = estimate(stages(ingest=("running", 1.0, 1.0), teacher="waiting", train="waiting"), {})
    assert left_s is None
    assert 0 < frac < 0.1


def test_a_job_of_one_stage_without_times_shows_its_own_share():
    assert estimate([Stage("train", "running", None, None, 0.25)], {})[0] == pytest.approx(0.25)


def test_expected_is_the_median_of_those_that_did_the_work():
    def job(state, took_s):
        return [{"name": "train", "state": state, "took_s": took_s}]

    earlier = [job("done", 10.0), job("done", 30.0), job("done", 20.0), job("found", 0.1), job("done", None), job("done", "x"), []]
    assert expected_durations(earlier) == {"train": 20.0}


SECONDS = st.one_of(st.none(), st.floats(0, 1e6))
STAGES = st.lists(
    st.builds(
        Stage, st.sampled_from(SINGLE), st.sampled_from(["waiting", "running", "done", "found"]), SECONDS, SECONDS, st.floats(0, 1)
    ),
    unique_by=lambda stage: stage.name,
)


@given(STAGES, st.dictionaries(st.sampled_from(SINGLE), st.floats(0, 1e6)))
def test_the_share_is_one_and_time_never_runs_out_below_zero(stages, expected_s):
    frac, left_s = estimate(stages, expected_s)
    assert 0 <= frac <= 1
    assert left_s is None or left_s >= 0
