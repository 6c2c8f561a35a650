"""The cluster in a box (infra/cluster_in_a_box) for tests: made once for a file's tests, made whole before each of them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from infra.cluster_in_a_box.box import CHECKOUT, Box, address_of
from infra.cluster_in_a_box.namespaces import BRIDGE, reason_why_not
from servers.debian import Packages
from servers.processes import guard
from zsbir.base.artifact import Artifact
from zsbir.base.storage import open_folder

__all__ = ["BRIDGE", "CHECKOUT", "Box", "Command", "Training", "box", "make_whole", "reason_why_not", "workers"]

LONG_S = 1500
"""Seconds after which a test gives up: the machine may be busy."""


@contextmanager
def box(nodes: int, cpus: int = 1) -> Iterator[Box]:
    """Make a box without machines; everything in it ends with these tests, however they end."""
    folder = Path(tempfile.mkdtemp(prefix="zb", dir="/tmp"))
    made = Box.make(folder, nodes, cpus)
    watch = guard([made.holder.pid], folder)
    try:
        yield made
    finally:
        made.end()
        watch.stdin.close()
        watch.wait()


def make_whole(made: Box, numbers: Sequence[int]) -> None:
    """Let exactly these machines run, with network, the store there, and Ray know of it."""
    made.s3_up()
    for number in range(made.facts.nodes + 1):
        if number not in numbers and made.alive(number):
            made.unplug(number)
        elif number in numbers and made.alive(number):
            made.mend(number)
    for number in numbers:
        if not made.alive(number):
            made.start(number)
    until_ray_sees(made, numbers)


def until_ray_sees(made: Box, numbers: Sequence[int]) -> None:
    """Wait until Ray holds exactly these machines for alive; it notices a death after some seconds."""
    wanted, until = {address_of(number) for number in numbers}, time.monotonic() + LONG_S
    while (found := {address for address, alive in made.nodes_of_ray().items() if alive}) != wanted:
        assert time.monotonic() < until, f"{found} are alive instead of {wanted}"
        time.sleep(0.5)


def workers(made: Box, number: int) -> list[psutil.Process]:
    """Return the workers of a training on a machine."""
    found = made.processes(number) if made.alive(number) else []
    return [process for process in found if "RayTrainWorker" in " ".join(process.info["cmdline"] or [])]


def faketime() -> str:
    """Return libfaketime's file, out of Debian's package. Unavailable where it cannot be had."""
    root = Packages("libfaketime", "faketime", ["libfaketime"], [], lambda _: {}).unpacked()
    return str(next(root.glob("usr/lib/*/faketime/libfaketime.so.1")))


class Command:
    """A command on a machine, with what it says in a file."""

    def __init__(self, made: Box, number: int, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None):
        self._log = log
        with log.open("ab") as out:
            command = made.command(number, words, environment)
            self.process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def said(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command itself, which is a child of the one that entered the machine."""
        for child in self.process.children():
            child.send_signal(number)

    def end(self) -> None:
        """Kill it, frozen or not."""
        with suppress(psutil.Error):
            for each in [*self.process.children(recursive=True), self.process]:
                with suppress(psutil.Error):
                    each.kill()
        self.process.wait()

    def until(self, happened: Callable[[], object], timeout_s: float = LONG_S) -> float:
        """Wait for something, and return the seconds it took."""
        began = time.monotonic()
        while not happened():
            assert self.process.poll() is None, self.said()[-5000:]
            assert time.monotonic() - began < timeout_s, self.said()[-5000:]
            time.sleep(0.2)
        return time.monotonic() - began

    def until_said(self, pattern: str, times: int = 1) -> float:
        return self.until(lambda: len(re.findall(pattern, self.said())) >= times)


class Training(Command):
    """A data-parallel training of two workers, driven from the head, with a storage root of its own in the box's store."""

    def __init__(self, made: Box, inputs: Sequence[str], name: str, folder: Path, *more: str):
        small = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--precision", "fp32", "--no-tracking"]
        often = ["--checkpoint-every-steps", "10", "--eval-every-steps", "100000", "--log-every-steps", "1", "--num-workers", "2"]
        self.root, self._box = f"s3://{made.facts.store['bucket']}/{name}", made
        words = ["python", "-m", "zsbir.train", "toy", *inputs, "--root", self.root, *small, *often, *more]
        self._watched = made.disk(0) / "tmp" / f"watched-{name}" / "driver.json"
        super().__init__(made, 0, words, folder / f"{name}.log", {"ZSBIR_WATCH": f"/tmp/watched-{name}"})

    def saved_step(self) -> int:
        """The newest complete checkpoint's step; 0 before the first."""
        return max((int(match[1]) for match in self._stored(r"[^/]*/checkpoints/step-(\d+)/manifest\.json")), default=0)

    def _stored(self, pattern: str) -> list[re.Match[str]]:
        matches = (re.fullmatch(pattern, entry.key) for entry in open_folder(f"{self.root}/runs").walk())
        return [match for match in matches if match]

    def last_step(self) -> int:
        """The last step that it reported."""
        return max(map(int, re.findall(r"train (\d+)/", self.said())), default=0)

    def resumed_steps(self) -> list[int]:
        """The steps at which it resumed, each once: every worker says so."""
        return list(dict.fromkeys(int(step) for step in re.findall(r"resuming at step (\d+) of", self.said())))

    def ended(self) -> Artifact:
        """The run, once it is trained."""
        assert self.process.wait(LONG_S) == 0, self.said()[-5000:]
        (match,) = self._stored(r"([^/]*)/manifest\.json")
        run = Artifact(f"{self.root}/runs/{match[1]}", "run")
        run.verify()
        return run

    def stop(self) -> None:
        """Ask it for a final checkpoint, and wait for its end."""
        self.send(signal.SIGTERM)
        assert self.process.wait(LONG_S) == 130, self.said()[-5000:]
        assert f"checkpoint of step {self.saved_step()} saved" in self.said()

    def waiting(self) -> str:
        """What it tells those who follow it of its waiting."""
        return str(json.loads(self._watched.read_text("utf-8"))["facts"].get("waiting", ""))


def lose_a_node(made: Box, training: Training, numbers: Sequence[int]) -> tuple[int, int]:
    """Unplug a machine on which a worker trains; return its number and the newest step that was saved before."""
    victim = next(number for number in numbers if workers(made, number))
    saved = training.saved_step()  # a checkpoint that is being written may still come after the workers have resumed
    made.unplug(victim)
    return victim, saved


def changed_copy(made: Box, number: int) -> str:
    """Put the package, with another loss, onto a machine's disk; return where the machine sees it."""
    place = made.disk(number) / "tmp" / "other" / "zsbir"
    shutil.copytree(CHECKOUT / "zsbir", place, ignore=shutil.ignore_patterns("__pycache__"))
    file = place / "losses" / "quadruplet.py"
    file.write_text(file.read_text("utf-8") + "\n# another loss\n", "utf-8")
    return "/tmp/other"
