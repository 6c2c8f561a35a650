"""A job queue whose pages a real browser opens: a service over a store of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.pages import served
from services.common.tokens import Tokens
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Attempt, Job, JobRequest, Lease
from services.jobs.queue.store import Store, open_store
from services.jobs.runs.attempt_dir import End, attempt_dir_of
from zsbir.base.storage import join, open_folder

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


def opened(folder: Path, **more: Any) -> Iterator[Queue]:
    url, root = f"sqlite:///{folder / 'jobs.db'}", str(folder / "root")
    Path(root).mkdir()
    with closing(open_store(url).engine.raw_connection()):
        queue = Queue(open_store(url), root)
    with served(create_app(ApiSettings.of({"store": url, "root": root, "mlflow_url": "http://mlflow.test", **more}))) as address:
        queue.address = address
        yield queue
