from hypothesis import given
from hypothesis import strategies as st

from services.jobs.queue.limits import Limits, ProjectLimits, WaitingJob, turns

NOW = 1000.0


def job(number, project="vision", cpus=1.0, gpus=0.0, not_before_s=0.0):
    return WaitingJob(number, project, cpus, gpus, not_before_s)


def reasons(queue, live=(), spent=None, **limits):
    return {turn.job.id: turn.reason for turn in turns(queue, live, spent or {}, Limits(**limits), now_s=NOW)}


def test_as_many_start_as_there_is_room_for_in_the_order_of_the_line():
    assert reasons([job(1), job(2), job(3)], running=2) == {1: "", 2: "", 3: "2 of 2 jobs are running: jobs 1, 2"}


def test_who_waits_for_shared_room_is_not_overtaken_by_smaller_ones():
    found = reasons([job(2, cpus=2), job(3, cpus=1)], live=[job(1, cpus=1)], running=9, cpus=2)
    assert found[2] == "asks for 2 CPUs; 1 of 2 are in use by job 1"
    assert found[3] == "job 2 is first in line, and waits for room"


def test_who_waits_for_his_own_project_is_overtaken():
    found = reasons([job(2), job(3, "audio")], live=[job(1)], running=9, projects={"vision": ProjectLimits(cpus=1)})
    assert found == {2: "1 of 1 CPUs of project vision are in use by job 1", 3: ""}


def test_a_spent_budget_holds_back_what_needs_gpus_alone():
    limits = {"vision": ProjectLimits(gpu_hours=10)}
    found = reasons([job(1, gpus=1), job(2)], spent={"vision": 10.5}, running=9, projects=limits)
    assert found == {1: "project vision has spent 10.5 of its 10 GPU-hours", 2: ""}


def test_what_can_never_fit_says_so_and_blocks_nobody():
    found = reasons([job(1, cpus=8), job(2)], running=9, projects={"vision": ProjectLimits(cpus=4)})
    assert found == {1: "asks for 8 CPUs, project vision may use 4", 2: ""}


def test_what_asks_for_more_than_the_queue_may_use_blocks_nobody_either():
    found = reasons([job(1, cpus=4), job(2, gpus=1), job(3)], running=9, cpus=2, gpus=0)
    assert found == {1: "asks for 4 CPUs, the queue may use 2", 2: "asks for 1 GPUs, the queue may use 0", 3: ""}


def test_a_job_that_rests_after_a_failure_blocks_nobody():
    assert reasons([job(1, not_before_s=NOW + 30), job(2)], running=1) == {1: "tried again in 30 s", 2: ""}


JOBS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 1.0]), st.booleans()),
    max_size=12,
)


@given(JOBS, JOBS, st.integers(0, 5), st.sampled_from([None, 1.0, 3.0]), st.sampled_from([None, 1.0, 2.0]))
def test_what_starts_fits_and_what_waits_has_a_reason(queue, live, running, cpus, own):
    waiting = [job(number, project, c, g, NOW + 9 if rests else 0) for number, (project, c, g, rests) in enumerate(queue, 1)]
    held = [job(100 + number, project, c, g) for number, (project, c, g, _) in enumerate(live)]
    limits = Limits(running=running, cpus=cpus, gpus=1, projects={"a": ProjectLimits(cpus=own)})
    found = turns(waiting, held, {}, limits, now_s=NOW)
    assert [turn.place for turn in found] == list(range(1, len(queue) + 1))
    assert not any(turn.blocks and cpus is not None and turn.job.cpus > cpus for turn in found), "room for it will never come"
    started = [turn.job for turn in found if not turn.reason]
    if started:  # what was there before may be over limits that were lowered since; nothing comes on top of it then
        together = held + started
        assert len(together) <= running
        assert cpus is None or sum(one.cpus for one in together) <= cpus
        mine = [one for one in together if one.project == "a"]
        if own is not None and any(one.project == "a" for one in started):
            assert sum(one.cpus for one in mine) <= own
