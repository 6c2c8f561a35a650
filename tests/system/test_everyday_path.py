"""A team's days, by the commands of the README alone: own folders, a sweep, promotion, growing data, rollback, export, object
storage, `ray job submit`, and the queue with names, arrays, dependencies, cancelling and trying again.

The training is a small one, and its weights are untrained: what is asked here is whether each command finds what the one before has
made, and says what a person needs to know.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from servers.ray_head import ray_head
from servers.rgw import Rgw

from zsbir.base.artifact import Artifact
from zsbir.toys.draw import draw

pytestmark = pytest.mark.long

CLASSES = ("bicycle", "cup", "fish", "house", "ladder", "mushroom", "castle", "tree", "umbrella", "key", "sailboat", "flower")
UNSEEN = ("umbrella", "key", "sailboat", "flower")
NEW = "snowman"
SMALL = ("--image-px", "32", "--steps", "6", "--classes-per-batch", "4", "--per-class", "2", "--eval-every-steps", "3")


@dataclass
class Person:
    """Someone who types commands in a folder. times: what each of them took, in seconds."""

    folder: Path
    env: dict[str, str]
    times: list[tuple[str, float]] = field(default_factory=list)

    def types(self, command: str, *words: str, allowed: tuple[int, ...] = (0,)) -> Answer:
        """Run `python -m COMMAND WORDS`."""
        return self.runs([sys.executable, "-m", *shlex.split(command), *words], allowed=allowed)

    def runs(self, words: list[str], allowed: tuple[int, ...] = (0,)) -> Answer:
        """Run a program, as a shell would; its exit code must be one of `allowed`, and no traceback may show."""
        began = time.monotonic()
        done = subprocess.run(words, cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=500, check=False)
        shown = shlex.join(words[2:4] if words[0] == sys.executable else words[:3])
        self.times.append((shown, time.monotonic() - began))
        assert done.returncode in allowed, f"{shlex.join(words)}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout.strip(), done.stderr)


@dataclass(frozen=True)
class Answer:
    """What a command ended with and printed. uri: the last line of its standard output."""

    code: int
    out: str
    told: str

    @property
    def uri(self) -> str:
        return self.out.splitlines()[-1]


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """Someone with a folder of pictures, an own home, and nothing else. Prints what each command took."""
    (tmp_path / "home").mkdir()
    unset = ("RAY_AUTH_MODE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ZSBIR_JOBS_URL", "ZSBIR_JOBS_TOKEN")
    env = {name: value for name, value in os.environ.items() if name not in unset and not name.startswith(("AWS_", "ZSBIR_"))}
    env |= {"HOME": str(tmp_path / "home"), "ZSBIR_ROOT": str(tmp_path / "artifacts"), "ZSBIR_CACHE": str(tmp_path / "cache")}
    for class_name in CLASSES:
        add_pictures(tmp_path / "pictures", class_name)
    somebody = Person(tmp_path, env)
    yield somebody
    print("\n".join(f"{seconds:7.1f} s  {command}" for command, seconds in somebody.times))


def add_pictures(folder: Path, class_name: str, count: int = 8) -> None:
    """Draw photos and sketches of a class into the layout that the README names."""
    rng = np.random.default_rng(sum(class_name.encode()))
    for domain in ("photo", "sketch"):
        place = folder / domain / class_name
        place.mkdir(parents=True)
        for number in range(count):
            draw(class_name, domain, rng, 64).convert("RGB").save(place / f"{number:02}.png")


def trained(person: Person, dataset: str, weights: str, *more: str) -> str:
    return person.types("zsbir.train", "folder", "--dataset", dataset, "--weights", weights, *SMALL, *more).uri


def promoted(person: Person, run: str, *more: str, allowed: tuple[int, ...] = (0,)) -> Answer:
    """Evaluate and index a run, and ask for its promotion."""
    report, index = person.types("zsbir.evaluate", run).uri, person.types("zsbir.index", run).uri
    return person.types("zsbir.promote", report, "--index", index, *more, allowed=allowed)


def test_days_with_the_commands_of_the_readme(person: Person, weights: str, rgw: Rgw):
    weights = shutil.copy(weights, person.folder)  # where the queue may read
    dataset, run = own_pictures(person, weights)
    first = promoted(person, run, "--force", "--reason", "a first champion to search with").uri
    search_with_the_champion(person)
    sweep_and_follow_up(person, dataset, weights)
    second = grow(person, dataset, weights)
    roll_back(person, first, second)
    to_object_storage(person, rgw)
    ray_job(person, dataset, weights)
    queue(person, dataset, weights)


def own_pictures(person: Person, weights: str) -> tuple[str, str]:
    """Ingest and train; what is printed names the unseen classes, the dev scores and the step that was kept."""
    ingest = person.types("zsbir.ingest", "folder", "pictures", "--unseen-classes", ",".join(UNSEEN))
    assert all(name in ingest.told for name in UNSEEN), ingest.told
    training = person.types("zsbir.train", "folder", "--dataset", ingest.uri, "--weights", weights, *SMALL)
    assert re.search(r"dev/map_all \.?\d", training.told), training.told
    assert "kept: step" in training.told, training.told
    assert person.types("zsbir.train", "folder", "--dataset", ingest.uri, "--weights", weights, *SMALL).uri == training.uri
    return ingest.uri, training.uri


def search_with_the_champion(person: Person) -> None:
    drawing = str(person.folder / "pictures" / "sketch" / UNSEEN[0] / "00.png")
    found = person.types("zsbir.search", "models:/zsbir@champion", drawing, "-k", "5", "--grid", "found.png")
    assert len(found.out.splitlines()) == 6, found.out
    with Image.open(person.folder / "found.png") as picture:
        assert max(picture.size) < 2000
    export = person.types("zsbir.export", "models:/zsbir@champion", "--formats", "pt2")
    assert Artifact(export.uri, "export").manifest.files
    assert "zsbir" in person.types("zsbir.promote list").out


def sweep_and_follow_up(person: Person, dataset: str, weights: str) -> None:
    """Sweep, then type the commands that the sweep prints."""
    options = ["--space", "losses", "--trials", "2", "--at-once", "1"]
    sweep = person.types("tuning", "folder", "--dataset", dataset, "--weights", weights, *SMALL, *options)
    assert "\x1b[" not in sweep.told, sweep.told
    printed = re.findall(r": python -m (zsbir\..*)$", sweep.told, re.MULTILINE)
    assert len(printed) == 2, sweep.told
    assert "failed" not in sweep.told, sweep.told
    for command in printed:
        person.types(command)


def grow(person: Person, dataset: str, weights: str) -> str:
    """One photo fewer, one file damaged, one class more: the gate compares on both data sets, without --force."""
    (person.folder / "pictures" / "photo" / CLASSES[0] / "00.png").unlink()
    (person.folder / "pictures" / "photo" / CLASSES[1] / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    add_pictures(person.folder / "pictures", NEW)
    more = person.types("zsbir.ingest", "folder", "pictures", "--unseen-classes", ",".join(UNSEEN), "--max-bad-frac", "0.05")
    assert more.uri != dataset
    run = trained(person, more.uri, weights)
    answer = promoted(person, run, allowed=(0, 1))
    assert "on the challenger's data" in answer.told, answer.told
    assert "on the champion's data" in answer.told, answer.told
    if answer.code == 0:
        return answer.uri
    return promoted(person, run, "--force", "--reason", "more pictures").uri


def roll_back(person: Person, first: str, second: str) -> None:
    assert first != second
    assert person.types("zsbir.promote rollback", "--reason", "misses umbrellas").uri == first
    listed = person.types("zsbir.promote list", "--json").out.splitlines()
    champions = [row["version"] for row in map(json.loads, listed) if "champion" in row["aliases"]]
    assert champions == [first]


def to_object_storage(person: Person, rgw: Rgw) -> None:
    """Copy the champion's index to a bucket, and search there."""
    index = next(iter((person.folder / "artifacts" / "indexes").glob("*/*")))
    remote = Person(person.folder, {**person.env, **rgw.env}, person.times)
    copied = remote.types("zsbir.artifacts copy", str(index), f"s3://{rgw.new_bucket()}/zsbir").uri
    assert copied.startswith("s3://")
    drawing = str(person.folder / "pictures" / "sketch" / UNSEEN[1] / "00.png")
    assert len(remote.types("zsbir.search", copied, drawing, "-k", "3").out.splitlines()) == 4


def ray_job(person: Person, dataset: str, weights: str) -> None:
    """Train on two workers through `ray job submit`."""
    words = ["zsbir.train", "folder", "--dataset", dataset, "--weights", weights, *SMALL, "--seed", "7", "--num-workers", "2"]
    ray = str(Path(sys.executable).parent / "ray")
    own = {"ZSBIR_ROOT": person.env["ZSBIR_ROOT"], "ZSBIR_CACHE": person.env["ZSBIR_CACHE"]}
    with ray_head(2, own) as environment:
        somebody = Person(person.folder, {**person.env, **environment}, person.times)
        (person.folder / "empty").mkdir()
        told = somebody.runs([ray, "job", "submit", "--working-dir", "empty", "--", "python", "-m", *words])
    run = next(line for line in told.out.splitlines() if line.startswith(f"{person.env['ZSBIR_ROOT']}/runs/"))
    assert Artifact(run, "run").manifest.counts["steps"] == 6


def queue(person: Person, dataset: str, weights: str) -> None:
    """Bring the service up; submit, watch, cancel and try again; bring it down, and find everything again."""
    jobs = "services.jobs"
    person.types(f"{jobs} up", "--running", "1", "--cpus", "2", "--gpus", "0", "--grace-s", "30")
    try:
        fields = ["--recipe", "folder", "--dataset", dataset, "--weights", weights]
        small = [*SMALL[:2], *SMALL[4:]]
        array = person.types(f"{jobs} submit train", *fields, *small, "--steps", "5", "--seeds", "10,11", "--name", "two seeds").uri
        endless = person.types(f"{jobs} submit train", *fields, *small, "--steps", "4000", "--name", "endless").uri
        after = person.types(f"{jobs} submit train", *fields, *small, "--steps", "5", "--seed", "12", "--after", endless).uri
        until(person, lambda listed: state_of(listed, endless) == "running")
        listed = person.types(f"{jobs} list").out
        assert [part for part in ("two seeds", "endless", f"after job {endless}") if part not in listed] == [], listed
        person.types(f"{jobs} cancel", endless)
        ended = until(person, lambda listed: state_of(listed, after) == "cancelled")
        assert state_of(ended, endless) == "cancelled"
        assert endless in next(job["reason"] or job["message"] for job in ended if str(job["id"]) == after)
        again = person.types(f"{jobs} retry", endless).uri
        until(person, lambda listed: steps_of(listed, again))
        saved = person.types(f"{jobs} down")
        assert re.search(rf"job {again} .*has saved step \d+: ", saved.told), saved.told
        person.types(f"{jobs} up", "--running", "1", "--cpus", "2", "--gpus", "0")
        until(person, lambda listed: state_of(listed, again) == "running")
        assert "seed" in person.types(f"{jobs} show", array).out
        person.types(f"{jobs} cancel", again)
    finally:
        person.types(f"{jobs} down", "--now")


def until(person: Person, happened: object, timeout_s: float = 300) -> list[Mapping[str, object]]:
    """Ask for the list of jobs until something is true of it, and return it."""
    end = time.monotonic() + timeout_s
    while True:
        listed = json.loads(person.types("services.jobs list", "--all", "--json").out)
        if happened(listed):
            return listed
        assert time.monotonic() < end, listed
        time.sleep(2)


def state_of(listed: list[Mapping[str, object]], job_id: str) -> str:
    return next((str(job["state"]) for job in listed if str(job["id"]) == job_id), "")


def steps_of(listed: list[Mapping[str, object]], job_id: str) -> int:
    """Return how many steps a training of the queue has done."""
    progress = next((job["progress"] for job in listed if str(job["id"]) == job_id), {})
    return int(progress.get("done") or 0) if progress.get("label") == "train" else 0
