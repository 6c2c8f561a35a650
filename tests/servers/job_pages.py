"""The pages of a job queue in a real browser: a service over a store of its own, and visits that record what must not happen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import BrowserContext, Page, Route

from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Attempt, Job, JobRequest, Lease
from services.jobs.queue.store import Store, open_store
from services.jobs.runs.attempt_dir import End, attempt_dir_of
from zsbir.base.storage import join, open_folder

SEEN_MS = 15_000
"""Milliseconds within which a page must show what a test waits for."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WATCHED = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

PIPELINE: dict[str, Any] = {"ingest": {"layout": "toy"}, "teacher": {}, "train": {"recipe": "toy"}, "evaluate": {}, "index": {}}
"""The steps of a pipeline as a job has them."""


@dataclass
class Queue:
    """A service over a store of its own, with a dispatcher's lease."""

    store: Store
    root: str
    address: str = ""
    lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        lease = self.store.take_lease("dispatcher on this machine", None)
        assert lease
        self.lease = lease

    def submit(self, kind: str = "train", config: dict[str, Any] | None = None, **more: Any) -> Job:
        given = config if config is not None else {"recipe": "toy", "steps": 200, "lr": 0.003}
        return self.store.submit(JobRequest.of({"kind": kind, "config": given, **more}))

    def submit_array(self, seeds: Sequence[int], **more: Any) -> list[Job]:
        """Submit a pipeline of the toy data with each of these seeds, as one array."""
        configs = [{**PIPELINE, "train": {"recipe": "toy", "seed": seed}} for seed in seeds]
        requests = [
            JobRequest.of({"kind": "pipeline", "config": config, "name": f"toy seed={seed}", **more})
            for seed, config in zip(seeds, configs, strict=True)
        ]
        return self.store.submit_or_find(requests)[0]

    def start(self, *steps: str) -> Attempt:
        """Start an attempt of the next job."""
        attempt = self.store.claim(self.lease, Limits(running=99))
        assert attempt
        job = self.store.job(attempt.job_id)
        names = steps or (job.kind,)
        attempt_dir_of(self.root, attempt.submission_id).write_spec(
            {"steps": [{"name": name, "values": {}, "fed": {}} for name in names]}
        )
        self.store.started(self.lease, attempt)
        return attempt

    def report(self, attempt: Attempt, frac: float, *, resumed_from: str = "", **more: Any) -> None:
        done = round(200 * frac)
        metrics = {"step": done, "train/loss": 2.51 - frac, "dev/map_all": 0.312345 + frac / 5}
        progress = {"step": "train", "steps": "", "label": "train", "done": done, "total": 200, "unit": "steps", "per_s": 4.1234}
        now = {"left_s": (200 - done) / 4, "frac": frac, "metrics": metrics, "updated_s": time.time()}
        self.store.report(self.lease, attempt, {**progress, **now, **more}, resumed_from=resumed_from)

    def say(self, attempt: Attempt, text: str) -> None:
        attempt_dir_of(self.root, attempt.submission_id).write_log(0, text.encode())

    def curve(self, attempt: Attempt, rows: list[dict[str, float | None]], step: str = "train") -> None:
        there = open_folder(join(attempt_dir_of(self.root, attempt.submission_id).uri, step))
        there.replace("curve.json", json.dumps({"rows": rows}).encode())

    def end(self, attempt: Attempt, cause: Any, message: str = "", result: str = "", made: dict[str, str] | None = None) -> None:
        attempt_dir_of(self.root, attempt.submission_id).write_end(End(cause, message, result, made))
        self.store.end(self.lease, attempt, cause, message=message, result=result)

    def token(self, name: str, role: Any) -> str:
        return Tokens(self.store).make(name, role, "test")


@contextmanager
def served(settings: ApiSettings) -> Iterator[str]:
    """Serve from a thread; the address."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def opened(folder: Path, **more: Any) -> Iterator[Queue]:
    url, root = f"sqlite:///{folder / 'jobs.db'}", str(folder / "root")
    Path(root).mkdir()
    with closing(open_store(url).engine.raw_connection()):
        queue = Queue(open_store(url), root)
    with served(ApiSettings.of({"store": url, "root": root, "mlflow_url": "http://mlflow.test", **more})) as address:
        queue.address = address
        yield queue


@dataclass
class Visit:
    """A new user's pages, and a record of what must not happen on them."""

    context: BrowserContext
    address: str
    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.add_init_script(WATCHED)
        self.context.route("**/*", self._stay)

    def _stay(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.address}/", "data:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.set_default_timeout(SEEN_MS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.address + path)
        return page

    def check(self, *, refusals: bool = False) -> None:
        """Check that none of it happened. refusals: the browser's own lines about refused requests are expected."""
        for page in self.context.pages:
            assert page.evaluate("window.cracked") is None
            assert page.evaluate("window.violations") == []
        lines = [line for line in self.complaints if not (refusals and line.startswith("Failed to load resource"))]
        assert not lines
        assert not self.outside
