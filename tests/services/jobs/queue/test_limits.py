from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.jobs.queue.limits import Limits, ProjectLimits, Turn, Usage, WaitingJob, turns
from services.jobs.queue.resources import LABELS, MOST

NOW = 1000.0


def job(number, project="vision", cpus=1.0, gpus=0.0, not_before_s=0.0):
    return WaitingJob(id=number, project=project, cpus=cpus, gpus=gpus, not_before_s=not_before_s)


def reasons(queue, live=(), spent=None, **limits):
    return {turn.job.id: turn.reason for turn in turns(queue, live, spent or {}, Limits(**limits), now_s=NOW)}


def test_as_many_start_as_there_is_room_for_in_the_order_of_the_line():
    assert reasons([job(1), job(2), job(3)], running=2) == {1: "", 2: "", 3: "2 of 2 jobs are running: jobs 1, 2"}


def test_a_job_that_waits_for_shared_room_is_not_overtaken_by_smaller_ones():
    found = reasons([job(2, cpus=2), job(3, cpus=1)], live=[job(1, cpus=1)], running=9, cpus=2)
    assert found[2] == "asks for 2 CPUs; 1 of 2 are in use by job 1"
    assert found[3] == "job 2 is first in line, and waits for room"


def test_a_job_that_waits_for_its_own_project_is_overtaken():
    found = reasons([job(2), job(3, "audio")], live=[job(1)], running=9, projects={"vision": ProjectLimits(cpus=1)})
    assert found == {2: "1 of 1 CPUs of project vision are in use by job 1", 3: ""}


def test_a_spent_budget_holds_back_only_jobs_with_gpus():
    limits = {"vision": ProjectLimits(gpu_hours=10)}
    found = reasons([job(1, gpus=1), job(2)], spent={"vision": 10.5}, running=9, projects=limits)
    assert found == {1: "project vision has spent 10.5 of its 10 GPU-hours", 2: ""}


def test_a_job_that_can_never_fit_into_its_project_says_so_and_blocks_nobody():
    found = reasons([job(1, cpus=8), job(2)], running=9, projects={"vision": ProjectLimits(cpus=4)})
    assert found == {1: "asks for 8 CPUs, project vision may use 4", 2: ""}


def test_a_job_that_asks_for_more_than_the_queue_may_use_blocks_nobody_either():
    found = reasons([job(1, cpus=4), job(2, gpus=1), job(3)], running=9, cpus=2, gpus=0)
    assert found == {1: "asks for 4 CPUs, the queue may use 2", 2: "asks for 1 GPUs, the queue may use 0", 3: ""}


def test_a_job_that_rests_after_a_failure_blocks_nobody():
    assert reasons([job(1, not_before_s=NOW + 30), job(2)], running=1) == {1: "tried again in 30 s", 2: ""}


# --- at the limit exactly, and just beyond it


@pytest.mark.parametrize("resource", LABELS)
@pytest.mark.parametrize(("asked", "held", "starts"), [(2, 0, True), (1, 1, True), (2.5, 0, False), (1.5, 1, False), (0, 2, True)])
def test_a_limit_of_the_queue_can_be_used_up_and_not_exceeded(resource, asked, held, starts):
    waiting, live = job(2, cpus=0, gpus=0), job(1, cpus=0, gpus=0)
    found = reasons([replace(waiting, **{resource: asked})], [replace(live, **{resource: held})], running=9, **{resource: 2})
    assert (not found[2]) == starts


@pytest.mark.parametrize("resource", LABELS)
@pytest.mark.parametrize(("asked", "held", "starts"), [(2, 0, True), (1, 1, True), (2.5, 0, False), (1.5, 1, False), (0, 2, True)])
def test_a_limit_of_a_project_can_be_used_up_and_not_exceeded(resource, asked, held, starts):
    waiting, live = job(2, cpus=0, gpus=0), job(1, cpus=0, gpus=0)
    projects = {"vision": ProjectLimits(**{resource: 2})}
    found = reasons([replace(waiting, **{resource: asked})], [replace(live, **{resource: held})], running=9, projects=projects)
    assert (not found[2]) == starts


@pytest.mark.parametrize(("resource", "label"), LABELS.items())
def test_reasons_name_the_resource_its_amounts_and_who_holds_it(resource, label):
    def holding(number, amount):
        return replace(job(number, cpus=0, gpus=0), **{resource: amount})

    live, projects = [holding(1, 2)], {"vision": ProjectLimits(**{resource: 3})}
    assert reasons([holding(2, 2)], live, running=9, projects=projects) == {
        2: f"2 of 3 {label} of project vision are in use by job 1"
    }
    assert reasons([holding(2, 4)], live, running=9, projects=projects) == {2: f"asks for 4 {label}, project vision may use 3"}
    assert reasons([holding(2, 2)], live, running=9, **{resource: 3}) == {2: f"asks for 2 {label}; 2 of 3 are in use by job 1"}
    assert reasons([holding(2, 4)], live, running=9, **{resource: 3}) == {2: f"asks for 4 {label}, the queue may use 3"}


def test_what_is_left_unsaid_holds_nobody_back():
    plain = WaitingJob(id=1, project="vision", cpus=1.0, gpus=0.0)
    assert (plain.not_before_s, plain.priority) == (0.0, 0)
    assert Usage().gpu_hours == 0.0
    assert not Turn(plain, position=1).blocks


def test_a_limit_of_zero_is_a_limit_and_none_is_not():
    assert reasons([job(1)], running=9, cpus=0) == {1: "asks for 1 CPUs, the queue may use 0"}
    assert reasons([job(1, cpus=MOST, gpus=MOST)], running=9) == {1: ""}


@pytest.mark.parametrize(("running", "starts"), [(0, False), (1, False), (2, True)])
def test_as_many_run_as_the_limit_says(running, starts):
    assert (not reasons([job(2)], [job(1)], running=running)[2]) == starts


@pytest.mark.parametrize(("spent", "starts"), [(9.99, True), (10, False), (10.01, False)])
def test_a_budget_is_spent_when_it_is_reached(spent, starts):
    found = reasons([job(1, gpus=1)], spent={"vision": spent}, running=9, projects={"vision": ProjectLimits(gpu_hours=10)})
    assert (not found[1]) == starts


def test_a_budget_of_zero_holds_back_gpus_and_another_projects_spending_does_not():
    limits = {"vision": ProjectLimits(gpu_hours=0)}
    assert reasons([job(1, gpus=1), job(2)], running=9, projects=limits)[1].endswith("spent 0.0 of its 0 GPU-hours")
    limits = {"vision": ProjectLimits(gpu_hours=10)}
    assert reasons([job(1, gpus=1)], spent={"audio": 99}, running=9, projects=limits) == {1: ""}


@pytest.mark.parametrize(("not_before_s", "starts"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_a_rest_ends_at_its_time(not_before_s, starts):
    assert (not reasons([job(1, not_before_s=not_before_s)], running=9)[1]) == starts


def test_what_starts_counts_for_those_behind_it_in_its_project_and_in_the_queue():
    projects = {"vision": ProjectLimits(cpus=2)}
    found = reasons([job(1), job(2), job(3), job(4, "audio"), job(5, "audio")], running=9, cpus=3, projects=projects)
    assert [number for number, reason in found.items() if not reason] == [1, 2, 4]
    assert found[3] == "2 of 2 CPUs of project vision are in use by jobs 1, 2"
    assert found[5] == "asks for 1 CPUs; 3 of 3 are in use by jobs 1, 2, 4"


def test_a_job_behind_a_blocking_one_tells_its_own_reason_first():
    projects = {"audio": ProjectLimits(cpus=0)}
    found = turns([job(2, cpus=2), job(3, "audio"), job(4)], [job(1)], {}, Limits(running=9, cpus=2, projects=projects), now_s=NOW)
    assert [turn.blocks for turn in found] == [True, False, False]
    assert found[1].reason == "asks for 1 CPUs, project audio may use 0"
    assert found[2].reason == "job 2 is first in line, and waits for room"


@pytest.mark.parametrize(("live", "names"), [(0, "nobody"), (1, "job 1"), (3, "jobs 1, 2, 3"), (4, "jobs 1, 2, 3 and 1 more")])
def test_the_first_three_who_hold_resources_are_named(live, names):
    found = reasons([job(9)], [job(number) for number in range(1, live + 1)], running=live)
    assert found[9] == f"{live} of {live} jobs are running: {names}"


JOBS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 1.0]), st.booleans()),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(JOBS, JOBS, st.integers(0, 5), st.sampled_from([None, 1.0, 3.0]), st.sampled_from([None, 1.0, 2.0]))
def test_what_starts_fits_and_what_waits_has_a_reason(queue, live, running, cpus, own):
    waiting = [job(number, project, c, g, NOW + 9 if rests else 0) for number, (project, c, g, rests) in enumerate(queue, 1)]
    held = [job(100 + number, project, c, g) for number, (project, c, g, _) in enumerate(live)]
    limits = Limits(running=running, cpus=cpus, gpus=1, projects={"a": ProjectLimits(cpus=own)})
    found = turns(waiting, held, {}, limits, now_s=NOW)
    assert [turn.position for turn in found] == list(range(1, len(queue) + 1))
    assert not any(turn.blocks and cpus is not None and turn.job.cpus > cpus for turn in found), "room for it will never come"
    started = [turn.job for turn in found if not turn.reason]
    if started:  # what was there before may be over limits that were lowered since; nothing comes on top of it then
        together = held + started
        assert len(together) <= running
        assert cpus is None or sum(one.cpus for one in together) <= cpus
        mine = [one for one in together if one.project == "a"]
        if own is not None and any(one.project == "a" for one in started):
            assert sum(one.cpus for one in mine) <= own
