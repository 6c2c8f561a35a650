from itertools import product

import pytest

from services.jobs.queue.states import LIVE, RETRY_LIMITS, STATES, TERMINAL, TRANSITIONS, next_state


def test_a_terminal_state_never_changes_and_every_other_can_end():
    assert set(TRANSITIONS) == set(STATES)
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert all(TRANSITIONS[state] & TERMINAL for state in set(STATES) - TERMINAL)


def test_a_live_job_may_enter_every_state_that_an_end_leads_to():
    for state, cause, cancelling in product(LIVE, ("succeeded", "cancelled", "timed_out", *RETRY_LIMITS), (False, True)):
        assert next_state(cause, {cause: 1}, cancelling=cancelling) in TRANSITIONS[state]


@pytest.mark.parametrize("cause", RETRY_LIMITS)
def test_each_cause_is_tried_again_up_to_its_limit(cause):
    states = [next_state(cause, {cause: number}, cancelling=False) for number in range(1, RETRY_LIMITS[cause] + 2)]
    assert states == ["queued"] * RETRY_LIMITS[cause] + ["failed"]


def test_a_cancelled_job_is_not_tried_again_but_what_was_made_is_made():
    assert next_state("preempted", {"preempted": 1}, cancelling=True) == "cancelled"
    assert next_state("succeeded", {"succeeded": 1}, cancelling=True) == "succeeded"
