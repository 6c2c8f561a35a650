"""A night of jobs in which a name service, a store, a disk and processes fail: each job ends as it should, and the list says why.

The service's parts are the real ones: an API, a dispatcher, Ray, SQLite on the disk that fills up. The long form is fifty jobs, ten
minutes without a network and five without room on the disk; the short one six jobs and seconds.
"""

from __future__ import annotations

import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from servers.faults import FaultProxy
from servers.job_queue import JobQueue, job_queue
from servers.night import FullDisk, kill_one, small_disk, wait_until
from servers.ray_head import ray_head
from starlette.testclient import TestClient

from services.common.tokens import Tokens
from services.jobs.cli.format import format_jobs
from services.jobs.cli.style import TextStyle
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.states import TERMINAL
from zsbir.base.artifact import exists
from zsbir.base.storage import open_folder
from zsbir.toys.draw import draw

pytestmark = pytest.mark.slow

TOY = {"layout": "toy", "toy_photos_per_class": 2, "toy_sketches_per_class": 2, "toy_px": 32, "threads": 1}
TINY = {"recipe": "toy", "image_px": 32, "classes_per_batch": 4, "per_class": 2, "steps": 4, "eval_every_steps": 1000}
CLASSES = ("cat", "cow", "dog", "hen", "owl", "pig")
WEIGHTS = "resnet18-f37072fd.pth"
"""The name under which torchvision keeps ImageNet's weights of a ResNet18."""

DISK_MB = 2000
"""Size of the small disk: three trainings of a ResNet18 need 800 of them, and those that are tried again as much on top."""

NEVER = "import sys; print('nobody answers'); sys.exit(75)"
"""A program that asks to be tried again, each time."""


@dataclass(frozen=True)
class Times:
    """Seconds: how long the network is away, from when on and for how long the disk is full, and how long a job waits for them."""

    away_s: float
    full_after_s: float
    full_s: float
    first_pause_s: float
    give_up_s: float
    all_s: float


SHORT = Times(away_s=10, full_after_s=5, full_s=8, first_pause_s=1, give_up_s=75, all_s=300)
LONG = Times(away_s=600, full_after_s=120, full_s=300, first_pause_s=30, give_up_s=900, all_s=2400)


@dataclass
class Wanted:
    """A job, and how it should end: its state, what its line in the list says, and whether it is tried more than once."""

    job: dict[str, Any]
    state: str
    says: str = ""
    again: bool = False
    id: int = 0


@dataclass
class Night:
    """The queue, its API, and what can fail."""

    queue: JobQueue
    http: TestClient
    pictures: FaultProxy
    disk: Path
    hub: Path
    weights: Path
    dataset: str
    knowledge: str
    bucket: str
    wanted: list[Wanted] = field(default_factory=list)

    def submit(self, wanted: Wanted) -> None:
        answer = self.http.post("/api/jobs", json=wanted.job)
        assert answer.status_code == 201, answer.text
        wanted.id = answer.json()["id"]
        self.wanted.append(wanted)

    def listed(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = self.http.get("/api/jobs?limit=200").json()["jobs"]
        return jobs

    def network_returns(self) -> None:
        self.pictures.heal()
        shutil.copy(self.weights, self.hub / "part")
        (self.hub / "part").rename(self.hub / WEIGHTS)

    def all_have_met_it(self) -> bool:
        """Whether each job that needs the network has been ended by an outage, or was lost."""
        needing = [each.id for each in self.wanted if each.again and each.state == "succeeded"]
        ends = [{attempt.cause for attempt in self.queue.store.attempts(number)} for number in needing]
        return all(found & {"unreachable", "disk_full", "lost"} for found in ends)

    def one_says_when_it_is_tried_again(self) -> bool:
        """Whether a job is in its pause after an outage; at a given moment each may be running, or wait for one of the places."""
        return any(
            job["reason"].startswith("tried again in") for job in self.listed() if job["state"] == "queued" and job["message"]
        )

    def told(self) -> str:
        """The list, and of each job that has not ended its attempts and the end of its log."""
        store, late = self.queue.store, [job for job in self.listed() if job["state"] not in TERMINAL]
        parts = [f"{job}\n{store.attempts(job['id'])}\n{self.queue.log(job['id'])[-2000:]}" for job in late]
        return "\n\n".join([format_jobs(self.listed(), TextStyle()), *parts])

    def all_have_ended(self) -> bool:
        return all(job["state"] in TERMINAL for job in self.listed())


@pytest.fixture
def night(request, dataset, knowledge, pipeline_root, moto, tmp_path) -> Iterator[Night]:
    times: Times = request.param
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk", DISK_MB))
        except PermissionError as reason:
            pytest.skip(str(reason))
        pictures = stack.enter_context(FaultProxy(moto))
        hub = tmp_path / "torch" / "hub" / "checkpoints"
        hub.mkdir(parents=True)
        torch.manual_seed(0)
        torch.save(torchvision.models.resnet18().state_dict(), weights := tmp_path / "weights.pth")
        env = pictures.env | {
            "ZSBIR_CACHE": str(tmp_path / "cache"),
            "TORCH_HOME": str(tmp_path / "torch"),
            "https_proxy": "http://nobody.invalid:3128",  # the host name that does not resolve
            "no_proxy": "127.0.0.1,localhost",
        }
        for name, value in pictures.env.items():
            stack.enter_context(pytest.MonkeyPatch.context()).setenv(name, value)
        bucket = pictures.new_bucket()
        options = ["--poll-s=0.2", "--patience-s=4", "--lease-s=4", "--grace-s=20"]
        options += [f"--outage-pause-s={times.first_pause_s}", f"--outage-s={times.give_up_s}"]
        head = stack.enter_context(ray_head(2, env))
        queue = stack.enter_context(job_queue(str(disk / "root"), head, disk, options=options))
        queue.store.set_limits(Limits(running=2), "test")
        places = (str(pipeline_root), f"s3://{bucket}")
        app = create_app(ApiSettings(store=queue.url, root=queue.root, places=places, allow_commands=True))
        token = Tokens(queue.store).make("ann", "operator", "test")
        http = stack.enter_context(
            TestClient(
                app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {token}"}, raise_server_exceptions=False
            )
        )
        yield Night(queue, http, pictures, disk, hub, weights, dataset, knowledge, bucket)


def some_pictures(night: Night) -> str:
    """A folder of six classes in the store that will be away."""
    place = f"s3://{night.bucket}/pictures"
    folder = open_folder(place)
    for number, name in enumerate(CLASSES):
        for domain in ("photo", "sketch"):
            data = io.BytesIO()
            draw("cup", domain, np.random.default_rng(number), 32).save(data, "PNG")
            folder.create(f"{domain}/{name}/1.png", data.getvalue())
    return place


def command(*words: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "command", "config": {"words": list(words)}, **fields}


def ingest(seed: int) -> Wanted:
    return Wanted({"kind": "ingest", "config": {**TOY, "seed": seed}}, "succeeded")


def from_store(place: str, seed: int) -> Wanted:
    config = {"layout": "folder", "path": place, "unseen_frac": 0.2, "seed": seed}
    return Wanted({"kind": "ingest", "config": config}, "succeeded", again=True)


def by_name(night: Night, temperature: float) -> Wanted:
    """A teacher whose weights are on a host whose name does not resolve."""
    config = {"dataset": night.dataset, "backbone": "resnet18", "weights": "imagenet", "image_px": 32, "temperature": temperature}
    return Wanted({"kind": "teacher", "config": config}, "succeeded", again=True)


def failing(code: int) -> Wanted:
    program = f"print('the file is odd'); raise SystemExit({code})"
    return Wanted(command("python", "-c", program), "failed", f"exit code {code}: the file is odd")


def never(number: int) -> Wanted:
    return Wanted(command("python", "-c", NEVER, str(number)), "failed", r"nobody answers \(tried for \d+ minutes\)", again=True)


SLEEPS_ONCE = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1])
again = file.exists()
file.touch()
time.sleep(0 if again else 600)
"""


def killed(mark: str) -> Wanted:
    """A program that sleeps the first time, and is killed then; the second time it ends at once."""
    return Wanted(command("python", "-c", SLEEPS_ONCE, mark), "succeeded", again=True)


def of_six(night: Night, mark: str) -> list[Wanted]:
    place = some_pictures(night)
    return [killed(mark), by_name(night, 1.0), from_store(place, 0), failing(3), never(0), ingest(0)]


def of_fifty(night: Night, mark: str) -> list[Wanted]:
    place = some_pictures(night)
    trainings = [
        Wanted(
            {"kind": "train", "config": {**TINY, "seed": seed, "dataset": night.dataset, "knowledge": night.knowledge}}, "succeeded"
        )
        for seed in range(3)
    ]
    late = [Wanted(command("sleep", "600", time_limit_s=5.0), "timed_out") for _ in range(2)]
    return [
        killed(mark),
        *(by_name(night, 1.0 + number) for number in range(4)),
        *(from_store(place, number) for number in range(4)),
        *trainings,
        *(failing(code) for code in range(3, 9)),
        *(never(number) for number in range(3)),
        *late,
        *(Wanted(command("python", "-c", f"print({number})"), "succeeded") for number in range(13)),
        *(ingest(seed) for seed in range(14)),
    ]


@pytest.mark.parametrize(
    ("night", "jobs_of", "times"),
    [
        pytest.param(SHORT, of_six, SHORT, id="six"),
        pytest.param(LONG, of_fifty, LONG, id="fifty", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
    indirect=["night"],
)
def test_each_job_of_a_night_ends_as_it_should_and_the_list_says_why(
    night: Night, jobs_of: Callable[[Night, str], list[Wanted]], times: Times, tmp_path: Path
) -> None:
    mark = str(tmp_path / "mark")
    wanted = jobs_of(night, mark)
    night.queue.store.set_limits(Limits(running=0), "test")
    for each in wanted:
        night.submit(each)
    night.pictures.cut()
    night.queue.store.set_limits(Limits(running=2), "test")
    began = time.monotonic()

    kill_one(mark)
    time.sleep(max(0.0, times.full_after_s - (time.monotonic() - began)))
    full = FullDisk(night.disk)
    full.start()
    time.sleep(times.full_s)
    full.let_go()
    time.sleep(max(0.0, times.away_s - (time.monotonic() - began)))
    wait_until(night.all_have_met_it, times.give_up_s, about=night.told)
    wait_until(night.one_says_when_it_is_tried_again, times.give_up_s, about=night.told)
    night.network_returns()
    wait_until(night.all_have_ended, times.all_s, pause_s=0.5, about=night.told)
    print(format_jobs(night.listed(), TextStyle()))
    judge(night)


def judge(night: Night) -> None:
    """Check each job's state, its artifact, its attempts, and its line in the list."""
    jobs = {job["id"]: job for job in night.listed()}
    lines = {int(line.split()[0]): line for line in format_jobs(night.listed(), TextStyle()).splitlines() if line[:1].isdigit()}
    seen = set()
    for each in night.wanted:
        job, attempts = jobs[each.id], night.queue.store.attempts(each.id)
        ends = [attempt.cause for attempt in attempts]
        told = [(attempt.cause, attempt.message) for attempt in attempts]
        about = f"job {each.id}: {each.job}\n{told}\n{night.queue.log(each.id)[-2000:]}"
        seen.update(ends)
        assert job["state"] == each.state, about
        assert each.state in lines[each.id], about
        assert re.search(each.says, lines[each.id]), lines[each.id]
        assert not each.again or len(attempts) > 1, about
        assert each.job["kind"] == "command" or exists(job["result"]), about
        assert "user_error" not in ends or each.says.startswith("exit code"), about
    assert {"unreachable", "lost"} <= seen
    assert night.queue.store.live() == []
