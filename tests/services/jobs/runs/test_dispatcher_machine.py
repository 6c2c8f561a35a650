"""In any order of events, no two attempts at a job ever work at the same time, and every job comes to an end.

The dispatcher, the store and the attempts' folders are the real ones. Simulated are time; the cluster, which forgets, reports
wrongly, does not answer, answers late and starts late; and the attempts, which write to their folders as the runner does, or die
first. Dispatchers are killed inside a round, are replaced without knowing it, and go on.

One assumption: a working attempt writes heartbeats as time passes, unless storage answers nobody.
"""

from __future__ import annotations

import json
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.states import LIVE, RETRY_LIMITS, TERMINAL
from services.jobs.queue.store import open_store
from services.jobs.queue.transactions import StaleLease
from services.jobs.runs.attempt_dir import AttemptDir, End
from services.jobs.runs.dispatcher import UNAVAILABLE, Dispatcher
from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Task
from services.jobs.runs.settings import DispatcherSettings
from zsbir.base.artifact import MANIFEST
from zsbir.base.storage import open_folder
from zsbir.training_run.delivery import UNDELIVERED

RUNNING = 2
STOP_WAIT_S = 60.0
GRACE_S = 40.0
CAUSES = ("succeeded", *RETRY_LIMITS)
MEMORY = Path("/dev/shm")  # where there is one, nobody waits for a disk
ANY = st.integers(0, 9)


class Killed(BaseException):
    """SIGKILL for the dispatcher that asks: no handler of its own may run."""


@dataclass
class Wrapper:
    """One process of an attempt. stage: starting, working, leaving (its end is written), gone. hangs: it never begins."""

    task: Task
    stage: str = "starting"
    hangs: bool = False
    beats: int = 0
    stop_asked_s: float | None = None
    left_s: float | None = None

    @property
    def attempt_dir(self) -> AttemptDir:
        return AttemptDir(self.task.attempt_dir)


class Cluster:
    """The simulated executor: its processes, what it reports of them, and what happens at the next call to it."""

    def __init__(self, now: Callable[[], float]):
        self.now = now
        self.said: dict[str, ExecutorStatus] = {}
        self.tasks: dict[str, Task] = {}
        self.wrappers: list[Wrapper] = []
        self.away = False
        self.unanswered: set[str] = set()
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None

    # --- what the dispatcher asks

    def start(self, task: Task) -> None:
        self._asked()
        if task.submission_id not in self.said:
            self.said[task.submission_id], self.tasks[task.submission_id] = ExecutorStatus("pending"), task
        self._answered()

    def get_status(self, submission_id: str) -> ExecutorStatus:
        self._asked(submission_id)
        seen = self.said.get(submission_id, ExecutorStatus("unknown"))
        self._answered(submission_id)
        return seen

    def stop(self, submission_id: str) -> None:
        self._asked(submission_id)
        if self.said.get(submission_id) == ExecutorStatus("pending"):
            self.said[submission_id] = ExecutorStatus("ended", "stopped")
        for wrapper in self.of(submission_id):
            if wrapper.stop_asked_s is None and submission_id in self.said:
                wrapper.stop_asked_s = self.now()
        self._answered(submission_id)

    def _asked(self, submission_id: str = "") -> None:
        before, self.before = self.before, None
        with self._unanswered(submission_id):
            if before:
                before()
            if self.away:
                raise ExecutorUnavailable("the cluster does not answer")

    def _answered(self, submission_id: str = "") -> None:
        after, self.after = self.after, None
        with self._unanswered(submission_id):
            if after:
                after()

    @contextmanager
    def _unanswered(self, submission_id: str) -> Iterator[None]:
        try:
            yield
        except ExecutorUnavailable:
            self.unanswered.add(submission_id)
            raise

    # --- what happens to it

    def of(self, submission_id: str) -> list[Wrapper]:
        return [wrapper for wrapper in self.wrappers if wrapper.task.submission_id == submission_id]

    def pending(self) -> list[str]:
        return [name for name, seen in self.said.items() if seen.status == "pending"]

    def run(self, submission_id: str, *, hangs: bool = False) -> None:
        self.said[submission_id] = ExecutorStatus("running")
        self.wrappers.append(Wrapper(self.tasks[submission_id], hangs=hangs))

    def gone(self, wrapper: Wrapper, message: str | None) -> None:
        """Its process has exited. message: what the cluster reports of it; None as long as it has not noticed."""
        self.wrappers.remove(wrapper)
        wrapper.stage = "gone"
        if message is not None:
            self.notice(wrapper.task.submission_id, message)

    def notice(self, submission_id: str, message: str) -> None:
        if submission_id in self.said and not self.of(submission_id):
            self.said[submission_id] = ExecutorStatus("ended", message)


class World(RuleBasedStateMachine):
    """Everything that can happen to a queue."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.base))
        (self.root / "jobs").mkdir()
        self.now_s, self.store_s = 1000.0, 1e6
        self.store = open_store(f"sqlite:///{self.root}/jobs.db", clock=lambda: self.store_s)
        self.store.set_limits(Limits(running=RUNNING), "test")
        self.cluster = Cluster(lambda: self.now_s)
        self.dispatchers: list[Dispatcher] = []
        self.succeeded: set[str] = set()
        self.ended: dict[int, str] = {}
        self.start_dispatcher()
        self.submit(key=None, priority=0, limit_s=None)
        self.rounds(which=0, rounds=1)

    base = ""

    # --- people

    @rule(
        key=st.sampled_from([None, None, "a"]),
        priority=st.integers(-1, 1),
        limit_s=st.sampled_from([None, None, 50.0]),
        within_s=st.sampled_from([None, None, 50.0]),
        after=st.sampled_from(["", "", "success", "end"]),
    )
    def submit(self, key, priority, limit_s, within_s=None, after=""):
        """after: it starts after the newest job."""
        terms = {"priority": priority, "idempotency_key": key and f"{key}{priority}", "time_limit_s": limit_s}
        newest = self.store.jobs(limit=1)
        if newest and after and not key:
            terms["after"] = [{"job": newest[0].id, "on": after}]
        self.store.submit(JobRequest(kind="train", **terms, start_by_s=within_s and self.store_s + within_s))

    @rule(which=ANY)
    def cancel(self, which):
        jobs = self.store.jobs(states=["queued", "starting", "running"])
        if jobs:
            self.store.cancel(jobs[which % len(jobs)].id, "ann")

    # --- time

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0, 100.0]))
    def time_passes(self, seconds):
        """A working process writes a heartbeat; one that was asked to stop long ago is killed."""
        self.now_s += seconds
        self.store_s += seconds
        for wrapper in list(self.cluster.wrappers):
            if wrapper.stop_asked_s is not None and self.now_s - wrapper.stop_asked_s >= STOP_WAIT_S:
                self.cluster.gone(wrapper, "stopped")
            elif wrapper.stage == "working" and not self.storage_is_away:
                self.heartbeat(wrapper)

    @rule(seconds=st.sampled_from([-4000.0, -3.0, 4000.0]))
    def the_stores_clock_jumps(self, seconds):
        self.store_s += seconds

    # --- dispatchers

    @precondition(lambda self: len(self.dispatchers) < 3)
    @rule()
    def start_dispatcher(self):
        options = DispatcherSettings(root=str(self.root), patience_s=20, lease_s=15, begin_s=60, grace_s=GRACE_S)
        dispatcher = Dispatcher(self.store, self.cluster, options, clock=lambda: self.now_s)
        dispatcher.leadership.holder = f"elsewhere-{uuid.uuid4().hex[:4]} 1"  # as if each were on a machine of its own
        self.dispatchers.append(dispatcher)

    @precondition(lambda self: len(self.dispatchers) > 1)
    @rule(which=ANY)
    def kill_dispatcher(self, which):
        self.dispatchers.pop(which % len(self.dispatchers))

    @precondition(lambda self: self.dispatchers)
    @rule(which=ANY, rounds=st.integers(1, 3))
    def rounds(self, which, rounds):
        dispatcher = self.dispatchers[which % len(self.dispatchers)]
        for _ in range(rounds):
            self.round(dispatcher)

    @rule(times=st.integers(1, 5), wrappers=st.booleans(), ends=st.booleans())
    def life_goes_on(self, times, wrappers, ends=False):
        """Nothing special happens, and there is always somebody in line: most of the time."""
        if not self.store.counts().get("queued"):
            self.submit(key=None, priority=0, limit_s=None)
        if ends and self.cluster.wrappers and not self.storage_is_away:
            self.an_attempt_ends(0, "succeeded", noticed=True, stays=True)
        for _ in range(times):
            self.time_passes(6.0)
            for dispatcher in list(self.dispatchers):
                self.round(dispatcher)
            self.who_works_is_the_one_live_attempt_of_his_job()
        if wrappers:
            self.all_that_can_begin_begins()
            self.no_more_are_there_than_the_limit()
            self.who_has_ended_leaves(noticed=True)

    def round(self, dispatcher):
        """As in Dispatcher.run."""
        try:
            dispatcher.round()
        except StaleLease:
            dispatcher.leadership.lose()
        except UNAVAILABLE:
            pass
        except Killed:
            if dispatcher in self.dispatchers:
                self.dispatchers.remove(dispatcher)

    # --- what becomes of the next call to the cluster

    @rule(after=st.booleans(), event=st.sampled_from(["killed", "away", "late", "replaced", "forgets", "begins"]))
    def the_next_call(self, after, event):
        """Before the cluster has done anything, or after it has done it all."""
        action = {
            "killed": self._raise(Killed()),
            "away": self._raise(ExecutorUnavailable("no answer")),
            "late": lambda: self.time_passes(30.0),
            "replaced": self._replaced,
            "forgets": lambda: self.the_cluster_forgets(lives=True),
            "begins": self.all_that_can_begin_begins,
        }[event]
        if after:
            self.cluster.after = action
        else:
            self.cluster.before = action

    def _raise(self, error):
        def action():
            raise error

        return action

    def _replaced(self):
        """While one dispatcher waits for an answer, another one finds it silent, and takes over."""
        if len(self.dispatchers) > 1:
            other = self.dispatchers[-1]
            for seconds in (0.0, 16.0, 0.0):
                self.time_passes(seconds)
                self.round(other)

    # --- the cluster

    @rule(away=st.sampled_from([True, False, False]))
    def the_cluster_is_away_or_back(self, away):
        self.cluster.away = away

    @precondition(lambda self: self.cluster.pending())
    @rule(which=ANY, hangs=st.sampled_from([False, False, False, True]))
    def a_wrapper_starts(self, which, hangs):
        pending = self.cluster.pending()
        self.cluster.run(pending[which % len(pending)], hangs=hangs)

    @rule(lives=st.booleans())
    def the_cluster_forgets(self, lives):
        """Its head restarts: what it ran goes on unknown to it, or dies."""
        if not lives:
            for wrapper in list(self.cluster.wrappers):
                self.cluster.gone(wrapper, None)
        self.cluster.said.clear()

    @precondition(lambda self: self.cluster.wrappers)
    @rule(which=ANY)
    def the_cluster_says_failed_of_one_that_lives(self, which):
        """Ray's issue 65608."""
        wrapper = self.wrapper(which)
        if wrapper.task.submission_id in self.cluster.said:
            self.cluster.said[wrapper.task.submission_id] = ExecutorStatus(
                "ended", "Unexpected error: the supervisor actor was lost"
            )

    @rule(message=st.sampled_from(["exit code 1", "the node died", "killed: out of memory"]))
    def the_cluster_notices_who_is_gone(self, message):
        for name, seen in list(self.cluster.said.items()):
            if seen.status == "running":
                self.cluster.notice(name, message)

    # --- storage

    @property
    def storage_is_away(self):
        return (self.root / "jobs").is_file()

    @rule(away=st.sampled_from([True, False, False]))
    def storage_is_away_or_back(self, away):
        """A file where the folder should be: every call for an attempt's folder fails with an error of the system."""
        if away and not self.storage_is_away:
            (self.root / "jobs").rename(self.root / "jobs elsewhere")
            (self.root / "jobs").write_bytes(b"")
        elif not away and self.storage_is_away:
            (self.root / "jobs").unlink()
            (self.root / "jobs elsewhere").rename(self.root / "jobs")

    # --- attempts

    @precondition(lambda self: self.cluster.wrappers and not self.storage_is_away)
    @rule(which=ANY)
    def a_wrapper_begins(self, which):
        wrapper = self.wrapper(which)
        if wrapper.stage == "starting" and not wrapper.hangs:
            self.begin(wrapper)

    @precondition(lambda self: self.cluster.wrappers)
    @rule(which=ANY, made=st.booleans(), noticed=st.booleans())
    def a_wrapper_is_killed(self, which, made, noticed):
        """At any point: before its claim, after it, or when its result is there and its end is not."""
        wrapper = self.wrapper(which)
        if made and wrapper.stage == "working" and not self.storage_is_away:
            self.make(wrapper)
        self.cluster.gone(wrapper, "killed by SIGKILL" if noticed else None)

    @precondition(lambda self: self.cluster.wrappers and not self.storage_is_away)
    @rule(which=ANY, cause=st.sampled_from(CAUSES), noticed=st.booleans(), stays=st.booleans())
    def an_attempt_ends(self, which, cause, noticed, stays=False):
        wrapper = self.wrapper(which)
        if wrapper.stage == "working":
            self.end(wrapper, cause, noticed=noticed, stays=stays)

    @precondition(lambda self: self.cluster.wrappers)
    @rule(noticed=st.booleans())
    def who_has_ended_leaves(self, noticed):
        for wrapper in list(self.cluster.wrappers):
            if wrapper.stage == "leaving":
                self.cluster.gone(wrapper, "it has left" if noticed else None)

    @precondition(lambda self: self.cluster.wrappers and not self.storage_is_away)
    @rule()
    def who_is_asked_to_stop_stops(self):
        for wrapper in list(self.cluster.wrappers):
            reason = wrapper.attempt_dir.stop_reason() or ("preempted" if wrapper.stop_asked_s is not None else None)
            if wrapper.stage == "working" and reason:
                self.end(wrapper, reason)

    def all_that_can_begin_begins(self):
        for name in self.cluster.pending():
            self.cluster.run(name)
        for wrapper in list(self.cluster.wrappers):
            if wrapper.stage == "starting" and not wrapper.hangs and not self.storage_is_away:
                self.begin(wrapper)

    def wrapper(self, which):
        return self.cluster.wrappers[which % len(self.cluster.wrappers)]

    def begin(self, wrapper):
        if wrapper.attempt_dir.claim_start("an attempt"):
            wrapper.stage = "working"
            self.heartbeat(wrapper)
        else:
            self.cluster.gone(wrapper, "exit code 1")

    def heartbeat(self, wrapper):
        wrapper.beats += 1
        wrapper.attempt_dir.write_heartbeat(wrapper.beats)

    def end(self, wrapper, cause, *, noticed=True, stays=False):
        """stays: the end is written, and the process has not exited yet."""
        result = self.make(wrapper) if cause == "succeeded" else ""
        if result:
            self.succeeded.add(wrapper.task.submission_id)
        wrapper.attempt_dir.write_end(End(cause, "by its own word", result))
        if stays:
            wrapper.stage, wrapper.left_s = "leaving", self.now_s
        else:
            self.cluster.gone(wrapper, f"ended: {cause}" if noticed else None)

    def make(self, wrapper):
        """The run that this job's training makes, whichever attempt at it does, and its address among the attempt's signs."""
        run = str(self.root / "runs" / str(wrapper.attempt_dir.spec()["job"]))
        open_folder(run).create(MANIFEST, b"{}")
        open_folder(wrapper.attempt_dir.uri).replace(
            "train/driver.json", json.dumps({"facts": {"run": run}, "updated_s": 1.0}).encode()
        )
        return run

    # --- what never happens

    @invariant()
    def who_works_is_the_one_live_attempt_of_his_job(self):
        live = {attempt.submission_id: job.id for job, attempt in self.store.live()}
        working = [wrapper.task.submission_id for wrapper in self.cluster.wrappers if wrapper.stage == "working"]
        assert set(working) <= set(live), "an attempt works that the queue takes for ended, or lost"
        assert len({live[name] for name in working}) == len(working) <= RUNNING

    @invariant()
    def the_store_keeps_its_promises(self):
        for job in self.store.jobs(limit=1000):
            attempts = self.store.attempts(job.id)
            assert sum(attempt.ended_s is None for attempt in attempts) == (job.state in LIVE)
            for cause, limit in RETRY_LIMITS.items():
                assert sum(attempt.cause == cause for attempt in attempts) <= limit + 1
            if job.id in self.ended:
                assert job.state == self.ended[job.id], "a terminal state changed"
            if job.state in TERMINAL:
                self.ended[job.id] = job.state
            if job.state == "succeeded":
                assert (Path(job.result) / MANIFEST).is_file()
                assert Path(job.result).name == str(job.id)
            for attempt in attempts:
                if attempt.ended_s is not None and attempt.submission_id in self.succeeded:
                    assert attempt.cause == "succeeded", "an attempt succeeded, and the queue says otherwise"

    @invariant()
    def no_more_are_there_than_the_limit(self):
        """Nor while an ended process takes time to exit: it is waited for if the cluster answers, and not forever."""
        there = [
            wrapper.task.submission_id
            for wrapper in self.cluster.wrappers
            if wrapper.stage in ("working", "leaving")
            and self.cluster.said.get(wrapper.task.submission_id) == ExecutorStatus("running")
            and (wrapper.left_s is None or self.now_s - wrapper.left_s <= GRACE_S)
        ]
        assert len(set(there) - self.cluster.unanswered) <= RUNNING

    # --- in the end

    def teardown(self):
        try:
            self.all_comes_to_an_end()
        finally:
            self.store.engine.dispose()

    def all_comes_to_an_end(self):
        """The world heals: everybody answers, the clocks go on, who hangs goes on hanging, and all others do their work."""
        self.storage_is_away_or_back(away=False)
        self.cluster.away, self.cluster.before, self.cluster.after = False, None, None
        self.dispatchers.clear()
        self.start_dispatcher()
        for _ in range(60):
            if all(job.state in TERMINAL for job in self.store.jobs(limit=1000)):
                return
            for wrapper in list(self.cluster.wrappers):
                if wrapper.stage == "working":
                    self.end(wrapper, "succeeded")
            self.all_that_can_begin_begins()
            self.the_cluster_notices_who_is_gone("the node died")
            self.time_passes(1000.0)
            self.round(self.dispatchers[0])
            self.who_works_is_the_one_live_attempt_of_his_job()
            self.the_store_keeps_its_promises()
        raise AssertionError(f"no end in sight: {[job for job in self.store.jobs(limit=1000) if job.state not in TERMINAL]}")


WALKS = settings(stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
EVERYDAY, FULL = 3, 150
"""How many walks: in every run of the tests, and in the long one."""


@pytest.mark.parametrize("walks", [EVERYDAY, pytest.param(FULL, marks=pytest.mark.long)])
def test_no_two_attempts_at_a_job_work_at_once_and_every_job_comes_to_an_end(walks):
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as base:

        class Here(World):
            pass

        Here.base = base
        run_state_machine_as_test(Here, settings=settings(WALKS, max_examples=walks))


# --- what such walks have found, or would after long


@pytest.fixture
def world(tmp_path):
    class Here(World):
        base = tmp_path

    made = Here()
    yield made
    made.teardown()


def test_an_attempt_whose_heartbeats_could_not_be_written_while_storage_was_away_is_not_lost(world):
    """The cluster forgets it meanwhile; when storage is back, the dispatcher checks before the next heartbeat."""
    world.a_wrapper_starts(0, hangs=False)
    world.a_wrapper_begins(0)
    world.rounds(0, rounds=2)
    world.storage_is_away_or_back(away=True)
    world.the_cluster_forgets(lives=True)
    world.time_passes(100.0)
    world.storage_is_away_or_back(away=False)
    world.rounds(0, rounds=3)
    world.who_works_is_the_one_live_attempt_of_his_job()


def test_an_attempt_that_begins_while_the_dispatcher_gives_it_up_goes_on(world):
    """It is cancelled, and begins between the dispatcher's check and its claim: then it is asked to stop."""
    world.a_wrapper_starts(0, hangs=False)
    world.cancel(0)
    world.the_next_call(after=True, event="begins")
    world.rounds(0, rounds=1)
    world.who_works_is_the_one_live_attempt_of_his_job()
    world.rounds(0, rounds=1)
    world.who_is_asked_to_stop_stops()
    world.rounds(0, rounds=1)
    assert world.store.job(1).state == "cancelled"


def test_one_process_of_an_attempt_that_was_started_twice_works(world):
    """The cluster forgets it before it has begun, and is asked to start it again."""
    world.a_wrapper_starts(0, hangs=False)
    world.the_cluster_forgets(lives=True)
    world.rounds(0, rounds=1)
    world.a_wrapper_starts(0, hangs=False)
    assert len(world.cluster.wrappers) == 2
    world.all_that_can_begin_begins()
    assert [wrapper.stage for wrapper in world.cluster.wrappers] == ["working"]
    world.who_works_is_the_one_live_attempt_of_his_job()


def test_the_result_of_an_attempt_that_was_killed_before_it_wrote_its_end_is_found(world):
    """It is killed between its artifact and its end, and cancelled besides."""
    world.a_wrapper_starts(0, hangs=False)
    world.a_wrapper_begins(0)
    world.rounds(0, rounds=1)
    world.cancel(0)
    world.a_wrapper_is_killed(0, made=True, noticed=True)
    for _ in range(6):
        world.life_goes_on(times=1, wrappers=False)
    assert world.store.job(1).state == "succeeded"


@pytest.mark.parametrize("event", ["away", "killed"])
def test_a_process_that_hangs_before_it_begins_is_given_up_also_by_the_next_dispatcher(world, event):
    """The first dispatcher claimed the attempt, and got no further."""
    world.a_wrapper_starts(0, hangs=True)
    world.rounds(0, rounds=1)
    world.time_passes(100.0)
    world.cluster.before = lambda: world.the_next_call(
        after=False, event=event
    )  # its second call: it checks, claims the attempt, stops the process
    world.rounds(0, rounds=1)
    world.all_comes_to_an_end()


def test_the_next_attempt_begins_when_the_ended_process_has_exited(world):
    """The end is written, the process takes a moment to exit, and the cluster a moment to notice."""
    for _ in range(RUNNING):
        world.submit(key=None, priority=0, limit_s=None)
    world.rounds(0, rounds=1)
    world.all_that_can_begin_begins()
    world.rounds(0, rounds=2)
    leaving = world.wrapper(0)
    world.end(leaving, "succeeded", stays=True)
    world.rounds(0, rounds=3)
    assert len(world.cluster.tasks) == RUNNING
    world.who_has_ended_leaves(noticed=True)
    world.rounds(0, rounds=1)
    assert world.store.job(leaving.attempt_dir.spec()["job"]).state == "succeeded"
    assert len(world.cluster.tasks) == RUNNING + 1
    assert leaving.stop_asked_s is None


@pytest.mark.parametrize("away", [False, True])
def test_an_ended_process_that_does_not_exit_is_stopped_and_holds_nobody_up_forever(world, away):
    world.a_wrapper_starts(0, hangs=False)
    world.a_wrapper_begins(0)
    wrapper = world.wrapper(0)
    world.end(wrapper, "succeeded", stays=True)
    world.cluster.away = away
    world.rounds(0, rounds=2)
    assert (world.store.job(1).state == "succeeded") == away
    world.cluster.away = False
    for _ in range(4):
        world.time_passes(GRACE_S / 3)
        world.rounds(0, rounds=1)
    assert world.store.job(1).state == "succeeded"
    assert (wrapper.stop_asked_s is None) == away


def working(world, **job):
    """The first job is cancelled; another one is at work, and its dispatcher has heard it."""
    world.cancel(0)
    world.rounds(0, rounds=2)
    wanted = world.store.submit(JobRequest(kind="train", **job))
    world.rounds(0, rounds=1)
    world.all_that_can_begin_begins()
    world.rounds(0, rounds=2)
    assert world.store.job(wanted.id).state == "running"
    return wanted.id


def test_a_machine_that_was_off_is_no_reason_for_a_time_limit(world):
    """It is killed after a moment of its hour; the next dispatcher starts three hours later, and never sees it alive."""
    job = working(world, time_limit_s=3600.0)
    world.dispatchers.clear()
    world.a_wrapper_is_killed(0, made=False, noticed=False)
    world.cluster.said.clear()
    world.now_s += 3 * 3600
    world.store_s += 3 * 3600
    world.start_dispatcher()
    for _ in range(12):
        world.round(world.dispatchers[0])
        world.time_passes(6.0)
    (first, *_) = world.store.attempts(job)
    assert first.cause == "lost"
    assert world.store.job(job).state != "timed_out"


def test_an_attempt_that_is_alive_and_out_of_time_is_asked_to_end(world):
    job = working(world, time_limit_s=50.0)
    for _ in range(12):
        world.time_passes(6.0)
        world.rounds(0, rounds=1)
    assert world.cluster.wrappers[0].attempt_dir.stop_reason() == "timed_out"
    world.who_is_asked_to_stop_stops()
    world.rounds(0, rounds=1)
    assert world.store.job(job).state == "timed_out"


def test_a_training_killed_before_mlflow_had_all_of_it_is_tried_again(world):
    job = working(world)
    run = world.make(world.wrapper(0))
    open_folder(run).replace(UNDELIVERED, b"")
    world.a_wrapper_is_killed(0, made=False, noticed=True)
    for _ in range(12):
        world.time_passes(6.0)
        world.rounds(0, rounds=1)
    (first, *_) = world.store.attempts(job)
    assert (first.cause, first.message) == ("lost", "it was trained, and fell silent before MLflow had all of it")
    open_folder(run).delete([UNDELIVERED])
    world.all_comes_to_an_end()
    assert world.store.job(job).state == "succeeded"


def test_an_attempt_that_waits_in_the_clusters_own_queue_past_its_deadline_is_given_up(world):
    world.cancel(0)
    world.rounds(0, rounds=2)
    job = world.store.submit(JobRequest(kind="train", start_by_s=world.store_s + 60)).id
    world.rounds(0, rounds=1)
    assert world.store.job(job).state == "starting"
    world.time_passes(100.0)
    world.rounds(0, rounds=2)
    assert (world.store.job(job).state, world.store.job(job).message) == ("timed_out", "did not start by its deadline")
    assert not world.cluster.pending()


def test_one_attempt_that_cannot_be_checked_stops_no_other(world):
    """Whatever the error is: the others' jobs go on, and so does this one when it is over."""
    for _ in range(2):
        world.submit(key=None, priority=0, limit_s=None)
    world.rounds(0, rounds=1)
    world.all_that_can_begin_begins()
    world.rounds(0, rounds=2)
    spec = world.wrapper(0).attempt_dir.uri + "/spec.json"
    said = Path(spec).read_bytes()
    Path(spec).write_bytes(b"{")
    for wrapper in list(world.cluster.wrappers):
        wrapper.attempt_dir.write_end(End("preempted", "by its own word"))
        world.cluster.gone(wrapper, "ended")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    world.dispatchers[0].settings = world.dispatchers[0].settings.replace(poll_s=0.05)
    world.dispatchers[0].run(stop)
    ends = Counter(attempt.cause for job in world.store.jobs() for attempt in world.store.attempts(job.id))
    assert ends["preempted"] == RUNNING - 1
    Path(spec).write_bytes(said)
    world.all_comes_to_an_end()


@pytest.mark.parametrize("cause", ["lost", "node_lost", "preempted", "out_of_memory"])
@pytest.mark.parametrize("begun", [False, True])
def test_the_executors_cause_is_that_of_an_attempt_that_wrote_no_end(world, cause, begun):
    """Whatever words its message has."""
    world.a_wrapper_starts(0, hangs=False)
    if begun:
        world.a_wrapper_begins(0)
        world.rounds(0, rounds=1)
    world.a_wrapper_is_killed(0, made=False, noticed=False)
    (name,) = world.cluster.said
    world.cluster.said[name] = ExecutorStatus("ended", "out of memory on a node that was preempted", cause, "its log")
    for _ in range(6):
        world.time_passes(6.0)
        world.rounds(0, rounds=1)
    (first, *_) = world.store.attempts(1)
    assert first.cause == cause
    words = "out of memory on a node that was preempted"
    assert first.message == (f"it fell silent, and is ended to the cluster: {words}" if begun else f"{words}: its log")


def test_a_job_behind_one_that_fails_is_cancelled_in_the_next_round_and_one_behind_its_end_starts(world):
    job = working(world)
    hopeless = world.store.submit(JobRequest(kind="train", after=[{"job": job, "on": "success"}]))
    patient = world.store.submit(JobRequest(kind="train", after=[{"job": job, "on": "end"}]))
    world.rounds(0, rounds=1)
    assert [world.store.job(each.id).state for each in (hopeless, patient)] == ["queued", "queued"]
    world.end(world.cluster.wrappers[0], "user_error")
    world.rounds(0, rounds=2)
    assert world.store.job(hopeless.id).state == "cancelled"
    assert world.store.job(hopeless.id).message == f"job {job} failed, and this was to start after its success"
    assert world.store.job(patient.id).state == "starting"


def test_progress_is_expected_from_earlier_jobs_of_the_same_recipe(world):
    config = {"recipe": "toy"}
    earlier = working(world, config=config)
    times = {"train": {"began_s": 0.0, "took_s": 100.0}}
    world.cluster.wrappers[0].attempt_dir.write_stage_times(times)
    world.end(world.cluster.wrappers[0], "succeeded")
    world.rounds(0, rounds=2)
    assert world.store.job(earlier).progress["stages"] == [{"name": "train", "state": "done", "took_s": 100.0}]
    for recipe, expected in (("toy", (0.25, 75.0)), ("sketchy_ext", None)):
        later = world.store.submit(JobRequest(kind="train", config={"recipe": recipe})).id
        world.rounds(0, rounds=1)
        world.all_that_can_begin_begins()
        wrapper = world.cluster.wrappers[-1]
        wrapper.attempt_dir.write_stage_times({"train": {"began_s": 5.0}})
        wrapper.attempt_dir.write_heartbeat(99, ran_s=30.0)
        world.rounds(0, rounds=2)
        progress = world.store.job(later).progress
        found = (progress["frac"], progress["left_s"])
        assert (found == expected) if expected else (found[1] is None)
        world.end(wrapper, "succeeded")
        world.rounds(0, rounds=2)
