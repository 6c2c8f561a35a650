"""A job service on its own port, over a real store, and methods that do to the store what a dispatcher does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from servers.processes import HOST, free_ports
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Attempt, JobRequest
from services.jobs.queue.store import open_store
from services.jobs.runs.attempt_dir import AttemptDir, attempt_dir_of

MANY = Limits(running=10**6)


class Service:
    """A job service on its own port, and methods that do to its store what a dispatcher does."""

    def __init__(self, root: Path, auth: str):
        self.root, self.port = str(root), free_ports(1)[0]
        self.url = f"http://{HOST}:{self.port}"
        self.settings = ApiSettings(store=f"sqlite:///{root / 'jobs.db'}", root=self.root, auth=auth)
        self.store = open_store(self.settings.store)
        self.lease = self.store.take_lease("dispatcher", None)
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(create_app(self.settings), host=HOST, port=self.port, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def submit(self, **words: Any) -> int:
        return self.store.submit(JobRequest.of({"kind": "ingest", "config": {"layout": "toy"}, **words})).id

    def run(self) -> tuple[Attempt, AttemptDir]:
        """Start an attempt of the next job; return the attempt and its folder."""
        attempt = self.store.claim(self.lease, MANY)
        assert attempt
        assert self.store.started(self.lease, attempt)
        return attempt, attempt_dir_of(self.root, attempt.submission_id)

    def end(self, attempt: Attempt, cause: Any = "succeeded", **words: str) -> None:
        self.store.end(self.lease, attempt, cause, **words)

    def begin(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start a command as a process."""
        environment = {**os.environ, "ZSBIR_JOBS_URL": self.url, "COLUMNS": "80", **env}
        argv = [sys.executable, "-m", "services.jobs", *words]
        return subprocess.Popen(
            argv,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def command(self, *words: str, **env: str) -> tuple[int, str, str]:
        """Run a command; return its exit code, standard output and standard error."""
        process = self.begin(*words, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err
