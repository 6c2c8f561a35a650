"""The executor over Ray's job API: a client of Ray's own, and a server that answers as Ray 2.60's dashboard does."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ray.job_submission import JobErrorType, JobStatus

from services.jobs.queue.resources import Resources
from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Rejected, Task
from services.jobs.runs.ray_jobs import RayJobs
from services.jobs.runs.ray_messages import cause_of, split_log

NAME = "zsbir-1a2b3c-17-a2"
TASK = Task(submission_id=NAME, attempt_dir="s3://bucket/root/jobs/x", name="night", project="vision", env={"A": "b c"})
RAYS_GUESS = (
    "Job supervisor actor died: The actor died unexpectedly before finishing this task. Worker unexpectedly exits with a "
    "connection error code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer due to "
    "high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another "
    "unexpected error."
)
LOW_MEMORY = "Job supervisor actor died: Task was killed due to the node running low on memory"
FAILED_COMMAND = (
    "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\nnode memory preempted"
)


class Dashboard(BaseHTTPRequestHandler):
    """Jobs in memory. failing: a status code and a text that answer every request but the version's."""

    jobs: dict[str, dict]
    stopped: list[str]
    failing: list[tuple[int, str]]

    def do_GET(self):
        if self.path == "/api/version":
            return self._answer(200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "x"})
        name = self.path.rpartition("/")[2]
        if self.failing:
            return self._text(*self.failing[0])
        return self._answer(200, self.jobs[name]) if name in self.jobs else self._text(404, f"Job {name} does not exist")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        if self.failing:
            return self._text(*self.failing[0])
        if self.path.endswith("/stop"):
            name = self.path.split("/")[-2]
            if name not in self.jobs:
                return self._text(404, f"Job {name} does not exist")
            self.stopped.append(name)
            return self._answer(200, {"stopped": True})
        name = asked["submission_id"]
        if name in self.jobs:  # the agent's own 400, in the text of the head's 500
            return self._text(500, "Traceback (most recent call last):\n ...\nRuntimeError: Request failed with status code 400")
        self.jobs[name] = {**details("PENDING"), "entrypoint": asked["entrypoint"], "asked": asked}
        return self._answer(200, {"job_id": name, "submission_id": name})

    def _answer(self, code, body):
        self._send(code, json.dumps(body), "application/json")

    def _text(self, code, text):
        self._send(code, text, "text/plain")

    def _send(self, code, text, kind):
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def details(status, message=None, error_type=None, exit_code=None):
    """A job as Ray's JobDetails has it."""
    known = {"type": "SUBMISSION", "submission_id": NAME, "status": status, "entrypoint": "python"}
    return {**known, "message": message, "error_type": error_type, "driver_exit_code": exit_code}


@pytest.fixture
def dashboard():
    handler = type("Handler", (Dashboard,), {"jobs": {}, "stopped": [], "failing": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def executor(dashboard):
    return RayJobs(dashboard.address)


def test_a_job_is_submitted_once_with_its_signal_and_its_environment(dashboard, executor):
    executor.start(TASK)
    executor.start(TASK)
    (job,) = dashboard.jobs.values()
    assert job["entrypoint"] == "python -m services.jobs.runs.runner s3://bucket/root/jobs/x"
    assert job["asked"]["runtime_env"]["env_vars"] == {
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "A": "b c",
    }
    assert job["asked"]["metadata"] == {"name": "night", "project": "vision", "place": "s3://bucket/root/jobs/x"}
    assert executor.get_status(NAME).status == "pending"


def test_a_job_that_ray_does_not_have_is_unknown_and_need_not_be_stopped(dashboard, executor):
    assert executor.get_status(NAME) == ExecutorStatus("unknown")
    executor.stop(NAME)
    executor.start(TASK)
    executor.stop(NAME)
    assert dashboard.stopped == [NAME]


def test_a_request_that_ray_will_never_take_is_rejected(dashboard, executor, monkeypatch):
    monkeypatch.setattr(RayJobs, "_details", lambda *_: None)
    dashboard.failing.append((400, "bad submission"))
    with pytest.raises(Rejected, match="Ray refused: 400: bad submission"):
        executor.start(TASK)


def test_a_404_in_a_proxys_words_is_no_news_of_the_job(dashboard, executor):
    dashboard.failing.append((404, "default backend - 404"))
    for call in (lambda: executor.get_status(NAME), lambda: executor.stop(NAME), lambda: executor.start(TASK)):
        with pytest.raises(ExecutorUnavailable, match="default backend"):
            call()


@pytest.mark.parametrize("code", [400, 403, 500, 503])
def test_an_error_of_the_dashboard_is_no_news_of_the_job(dashboard, executor, code):
    dashboard.failing.append((code, "does not exist, already exists\nsecond line"))
    for call in (lambda: executor.get_status(NAME), lambda: executor.stop(NAME), lambda: executor.start(TASK)):
        with pytest.raises(ExecutorUnavailable, match="cannot answer") as caught:
            call()
        assert "second line" not in str(caught.value)


def test_a_dashboard_that_is_not_there_is_unavailable():
    with pytest.raises(ExecutorUnavailable, match="does not answer"):
        RayJobs("http://127.0.0.1:9").get_status(NAME)


@pytest.mark.parametrize(
    ("job", "status", "cause"),
    [
        (details("RUNNING", "out of memory"), "running", "lost"),
        (details("SUCCEEDED"), "ended", "lost"),  # a process that ended well, without having written so
        (details("STOPPED", "Job was intentionally stopped."), "ended", "lost"),
        (details("FAILED", FAILED_COMMAND, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, 1), "ended", "lost"),
        (details("FAILED", "MemoryError", JobErrorType.JOB_ENTRYPOINT_COMMAND_START_ERROR), "ended", "lost"),
        (details("FAILED", "no memory", JobErrorType.RUNTIME_ENV_SETUP_FAILURE), "ended", "lost"),
        (details("FAILED", "entrypoint_memory", JobErrorType.JOB_SUPERVISOR_ACTOR_START_TIMEOUT), "ended", "lost"),
        (details("FAILED", "not schedulable", JobErrorType.JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE), "ended", "node_lost"),
        (details("FAILED", RAYS_GUESS, JobErrorType.JOB_SUPERVISOR_ACTOR_DIED), "ended", "lost"),
        (details("FAILED", LOW_MEMORY, JobErrorType.JOB_SUPERVISOR_ACTOR_DIED), "ended", "out_of_memory"),
        (details("FAILED", "its node has died", JobErrorType.JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE), "ended", "node_lost"),
        (details("FAILED", "out of memory", "OF_A_LATER_RAY"), "ended", "lost"),
        (details("FAILED", "out of memory"), "ended", "lost"),
    ],
)
def test_rays_own_fields_become_a_status_and_a_cause(dashboard, executor, job, status, cause):
    dashboard.jobs[NAME] = job
    found = executor.get_status(NAME)
    assert (found.status, found.cause) == (status, cause)


def test_a_quoted_log_is_no_part_of_the_message(dashboard, executor):
    dashboard.jobs[NAME] = details("FAILED", FAILED_COMMAND, JobErrorType.JOB_ENTRYPOINT_COMMAND_ERROR, 1)
    found = executor.get_status(NAME)
    assert (found.message, found.log) == ("Job entrypoint command failed with exit code 1", "node memory preempted")


def test_every_status_of_ray_has_one_of_the_queue(dashboard, executor):
    for status in JobStatus:
        dashboard.jobs[NAME] = details(status)
        assert executor.get_status(NAME).status in ("pending", "running", "ended")


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (RAYS_GUESS, "lost"),
        ("Task was killed due to the node running low on memory", "out_of_memory"),
        ("the node died", "node_lost"),
        (FAILED_COMMAND, "lost"),
        ("The node was preempted", "preempted"),
        ("", "lost"),
    ],
)
def test_rays_own_words_are_told_from_its_guesses_and_from_logs(message, cause):
    assert cause_of(split_log(message)[0]) == cause


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        (Resources(cpus=1), {"entrypoint_num_cpus": 1}),
        (Resources(cpus=4, gpus=1), {"entrypoint_num_cpus": 4, "entrypoint_num_gpus": 1}),
    ],
)
def test_an_attempt_that_computes_by_itself_runs_where_its_resources_are(dashboard, resources, asked):
    RayJobs(dashboard.address).start(replace(TASK, resources=resources, in_one_process=True))
    assert asked.items() <= dashboard.jobs[NAME]["asked"].items()


def test_an_attempt_that_drives_workers_leaves_them_every_cpu_and_stays_on_the_head(dashboard):
    RayJobs(dashboard.address).start(replace(TASK, resources=Resources(cpus=2, gpus=2), workers=2))
    sent = dashboard.jobs[NAME]["asked"]
    assert not sent.get("entrypoint_num_cpus")
    assert not sent.get("entrypoint_num_gpus")
    assert list(sent["entrypoint_resources"]) == ["node:__internal_head__"]
