from itertools import product

import pytest

from services.jobs.queue.states import FORGIVEN, LIVE, MOVES, STATES, TERMINAL, after


def test_a_terminal_state_never_changes_and_every_other_can_end():
    assert set(MOVES) == set(STATES)
    assert all(not MOVES[state] for state in TERMINAL)
    assert all(MOVES[state] & TERMINAL for state in set(STATES) - TERMINAL)


def test_who_is_live_may_go_wherever_an_end_leads():
    for state, cause, cancelling in product(LIVE, ("succeeded", "cancelled", "timed_out", *FORGIVEN), (False, True)):
        assert after(cause, {cause: 1}, cancelling=cancelling) in MOVES[state]


@pytest.mark.parametrize("cause", FORGIVEN)
def test_each_cause_is_forgiven_so_often_and_no_more(cause):
    states = [after(cause, {cause: number}, cancelling=False) for number in range(1, FORGIVEN[cause] + 2)]
    assert states == ["queued"] * FORGIVEN[cause] + ["failed"]


def test_a_cancelled_job_is_not_tried_again_but_what_was_made_is_made():
    assert after("preempted", {"preempted": 1}, cancelling=True) == "cancelled"
    assert after("succeeded", {"succeeded": 1}, cancelling=True) == "succeeded"
