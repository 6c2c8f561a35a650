"""A job queue's dispatcher as a process of its own, over any store and Ray, to be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.processes import kill
from services.jobs.queue.records import Attempt, Job, JobRequest
from services.jobs.queue.states import TERMINAL
from services.jobs.queue.store import Store, open_store
from services.jobs.runs.attempt_dir import AttemptDir, attempt_dir_of

WAIT_S = 240


@dataclass
class JobQueue:
    """A store and its dispatcher. env: the dispatcher's environment, which names its Ray. url: the store's address."""

    root: str
    env: Mapping[str, str]
    folder: Path
    tracking_uri: str = ""
    options: Sequence[str] = ("--poll-s=0.2", "--patience-s=4", "--lease-s=4", "--grace-s=20")
    url: str = ""
    store: Store = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.url = self.url or f"sqlite:///{self.folder}/jobs.db"
        self.store = open_store(self.url)

    def start(self) -> None:
        command = [sys.executable, "-m", "services.jobs", "dispatch", f"--root={self.root}", f"--store={self.url}", *self.options]
        command += [f"--ray={self.env['RAY_API_SERVER_ADDRESS']}", f"--tracking-uri={self.tracking_uri}"]
        with (self.folder / "dispatcher.log").open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **self.env}, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """Kill the dispatcher with SIGKILL."""
        if self.process:
            kill(self.process)

    def dispatcher_log(self) -> str:
        """Return the dispatcher's log."""
        return (self.folder / "dispatcher.log").read_text("utf-8", "replace")

    def submit(self, kind: str, config: dict[str, Any], **fields: Any) -> Job:
        return self.store.submit(JobRequest(kind=kind, config=config, **fields))

    def attempt_dir(self, attempt: Attempt) -> AttemptDir:
        return attempt_dir_of(self.root, attempt.submission_id)

    def newest(self, job_id: int) -> AttemptDir:
        """Return the folder of a job's newest attempt."""
        return self.attempt_dir(self.store.attempts(job_id)[-1])

    def until(self, job_id: int, happened: Callable[[Job], object], timeout_s: float = WAIT_S) -> Job:
        """Wait until something is true of the job, and return it."""
        end = time.monotonic() + timeout_s
        while not happened(job := self.store.job(job_id)):
            alive = self.process is None or self.process.poll() is None
            assert alive, self.dispatcher_log()[-3000:]
            assert time.monotonic() < end, f"{job}\n{self.dispatcher_log()[-3000:]}\n{self.log(job_id)[-3000:]}"
            time.sleep(0.1)
        return job

    def ended(self, job_id: int, timeout_s: float = WAIT_S) -> Job:
        return self.until(job_id, lambda job: job.state in TERMINAL, timeout_s)

    def at_step(self, job_id: int, step: int) -> Job:
        """Wait until its training has done so many steps, and return the job."""
        return self.until(job_id, lambda job: job.progress.get("label") == "train" and (job.progress.get("done") or 0) >= step)

    def log(self, job_id: int) -> str:
        attempts = self.store.attempts(job_id)
        return "\n".join(self.attempt_dir(attempt).log(0).decode("utf-8", "replace") for attempt in attempts)


@contextmanager
def job_queue(root: str, env: Mapping[str, str], folder: Path, tracking_uri: str = "", **fields: Any) -> Iterator[JobQueue]:
    """Yield a queue with its dispatcher, which is killed at the end."""
    queue = JobQueue(root, env, folder, tracking_uri, **fields)
    queue.start()
    try:
        yield queue
    finally:
        queue.kill()
