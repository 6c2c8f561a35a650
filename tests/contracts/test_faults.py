"""Faults at the requests of small runs: what is there afterwards is whole, and the same command again finishes the work.

Four runs, in front of moto, (b) of RGW too: (a) a data set whose shards are published one by one, (b) knowledge of one file, (c) a
best encoder and a checkpoint where older ones are, (d) `zsbir.ingest` itself with three blocks. Each is done once through the
proxy to count its requests. Then it is done as by a new process with a fault at one position: once (it has to succeed: boto3 or the
project tries again), and from there on (it has to end with one line in bounded time); then with SIGKILL of the writing process at
that position, its last request done or not.

The everyday form has each fault once, at positions spread over the run, and a kill at its beginning, middle and end. The long form
(`-m long`) has every position of every run: (b) with every fault both ways, the others and readers with faults in rotation.

Pauses between tries are cut short, boto3 waits a twentieth of a second instead of one to be told to send a body, and its budget of
retries is that of a new process each time; the rest is as users have it. A teacher's own requests are those of (b); with its
network it would take too long here.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from types import SimpleNamespace

import botocore.endpoint
import botocore.retries.quota
import PIL.Image
import pytest
import urllib3.util
from contracts.conftest import enter
from contracts.crew import Crew, outcome
from contracts.workers import content, dataset, image, ingest_images, knowledge, modules, save, shards
from servers.faults import AnyFault, Call, Delay, Fault, FaultProxy, Refuse
from servers.s3 import S3Server

from zsbir.base import s3
from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.lease import alone
from zsbir.base.storage import WORKSPACE, Folder, open_folder
from zsbir.data import blocks
from zsbir.data.samples import load_samples
from zsbir.data.schema import shard_name
from zsbir.data.shards import Images
from zsbir.training import writer
from zsbir.training.checkpoint import Checkpoints, TrainState
from zsbir.training.checkpoint_names import newest_checkpoint

PAUSE_S, AWAY_S = 0.02, 0.1
"""How long is waited between tries, and how long a server that was restarted is away; then the pause is longer than that."""
TIMEOUT_S, LATE_S, CONTINUE_S = 0.25, 0.4, 0.05
"""How long is waited for an answer, how late a request may arrive after that, and for how long boto3 waits to be sent on."""
BOUND_S = 15.0
ATTEMPTS = 6
"""Tries that a request gets where the fault passes: on a busy machine a healthy answer may come later than TIMEOUT_S, too."""

FAULTS: dict[str, AnyFault] = {
    **{fault.name.lower(): fault for fault in Fault},
    "delay": Delay(LATE_S),
    "refuse": Refuse(AWAY_S),
}
SLOW = ("hang", "delay")
"""Faults that are noticed by waiting."""


@dataclass
class Bench:
    """The proxy, and the two ways to the server behind it."""

    proxy: FaultProxy
    server: S3Server
    bucket: str
    monkeypatch: pytest.MonkeyPatch

    def through(self, *, attempts: int, fault: str = "") -> None:
        """Behave from now on like a new process, whose requests pass the proxy."""
        enter(self.proxy, self.monkeypatch)
        self.monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", str(attempts))
        self.monkeypatch.setenv("ZSBIR_S3_TIMEOUT_S", str(TIMEOUT_S) if fault in SLOW else "10")
        pause_s = AWAY_S * 1.5 if fault == "refuse" else PAUSE_S
        quick = SimpleNamespace(sleep=lambda seconds: time.sleep(pause_s))
        self.monkeypatch.setattr(botocore.endpoint, "time", quick)
        self.monkeypatch.setattr(s3, "time", quick)
        s3._known.clear()
        s3._conditional.clear()

    def direct(self) -> None:
        """Send requests from now on to the server itself, without faults."""
        self.proxy.reset()
        enter(self.server, self.monkeypatch)
        self.monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "5")
        self.monkeypatch.setenv("ZSBIR_S3_TIMEOUT_S", "60")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four classes of eight images: three blocks."""
    root = tmp_path_factory.mktemp("images") / "tiny"
    for number in range(32):
        file = root / ("photo", "sketch")[number // 4 % 2] / ("ant", "bee", "cat", "dog")[number % 4] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.effect_noise((16, 16), 50 + number).convert("RGB").save(file)
    return str(root)


@pytest.fixture
def bench(request, images: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Bench]:
    """In front of moto, unless a test says otherwise."""
    server: S3Server = request.getfixturevalue(getattr(request, "param", "moto"))
    wait_for_read = urllib3.util.wait_for_read
    monkeypatch.setattr(urllib3.util, "wait_for_read", lambda sock, timeout: wait_for_read(sock, CONTINUE_S))
    monkeypatch.setattr(botocore.retries.quota.RetryQuota, "acquire", lambda self, amount: True)
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TINY_IMAGES", images)
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", blocks.BLOCK_IMAGES)  # the job sets it
    monkeypatch.setattr(s3, "_known", set())
    monkeypatch.setattr(s3, "_conditional", {})
    for name, value in {"RETRY_S": (0.01,), "CLOSING_S": 0.0, "GIVE_UP_S": 0.0}.items():
        monkeypatch.setattr(writer, name, value)
    with FaultProxy(server) as proxy:
        yield Bench(proxy, server, server.new_bucket(), monkeypatch)


class Run:
    """A run in a folder of its own: how it is done, and what may be there."""

    job: Callable[..., object]

    def __init__(self, uri: str):
        self.uri = uri

    @property
    def words(self) -> tuple[str, ...]:
        """What the job is told."""
        return (self.uri,)

    def prepare(self) -> None:
        """Make what is there before the run."""

    def do(self) -> None:
        """Do the run in this process."""
        type(self).job(*self.words)

    def check_whole(self) -> bool:
        """Assert that nothing half is to be seen; return whether the new one is."""
        raise NotImplementedError

    def check_tidy(self) -> None:
        """Assert that after it nothing is left but what it made, and marks of writers that were cut off."""
        raise NotImplementedError


class Stage(Run):
    """A stage that makes one artifact."""

    files: dict[str, bytes]

    def check_whole(self) -> bool:
        if not exists(self.uri):
            return False
        artifact = Artifact(self.uri)
        artifact.verify()
        assert {name: artifact.folder.read(artifact.key(name)) for name in artifact.manifest.files} == self.files
        return True

    def check_tidy(self) -> None:
        assert unmarked(self.uri) == {MANIFEST, *self.files}


class Shards(Stage):
    job = staticmethod(shards)
    files = {f"shards/{number}.parquet": content(str(number), 0) for number in range(3)} | {
        "samples.parquet": content("samples", 0)
    }


class Knowledge(Stage):
    job = staticmethod(knowledge)
    files = {"knowledge.parquet": content("knowledge", 0)}


class Saving(Run):
    """A checkpoint of step 2 with its best encoder, where that of step 1 is."""

    job = staticmethod(save)

    def prepare(self) -> None:
        save(self.uri, 1)

    def check_whole(self) -> bool:
        checkpoints = Checkpoints(self.uri)
        newest = newest_checkpoint(checkpoints.folder)
        assert newest, "the older one stays until the newer is there"
        newest.verify()
        loaded, optimiser = modules(0)
        state = checkpoints.load(loaded, optimiser)
        assert newest.folder_name == f"step-{state.step:06d}"
        assert state == TrainState(state.step, state.best, [{"step": float(state.step)}])
        assert state.best
        assert (state.best.step, state.best.score) == (state.step, state.step / 10)
        assert (loaded["encoder"].weight == state.step).all()
        assert (state.best.tensors["weight"] == state.step).all()
        return state.step == 2

    def check_tidy(self) -> None:
        names = ("best_encoder.safetensors", "progress.json", "state.safetensors", MANIFEST)
        assert unmarked(self.uri) == {f"checkpoints/step-000002/{name}" for name in names}


def unmarked(uri: str) -> set[str]:
    """Return the files below a folder, without the marks of writers that were cut off."""
    return {entry.key for entry in open_folder(uri).walk() if WORKSPACE not in entry.key}


class Ingest(Run):
    """The real verb on a few tiny images; what it makes is the same, byte by byte, each time."""

    job = staticmethod(ingest_images)
    files: dict[str, str] = {}
    """Name and checksum of each file, from the first whole run."""

    @property
    def words(self) -> tuple[str, ...]:
        return self.uri, os.environ["TINY_IMAGES"]

    def check_whole(self) -> bool:
        folder = open_folder(f"{self.uri}/datasets/tiny")
        made = [f"{folder.uri}/{name}" for name in folder.names() if exists(f"{folder.uri}/{name}")]
        for uri in made:
            artifact = Artifact(uri, "dataset")
            artifact.verify()
            assert len(load_samples(artifact)) == 32
            found = {name: entry.sha256 for name, entry in artifact.manifest.files.items()}
            assert found == (Ingest.files or found)
            Ingest.files = found
        return len(made) == 1

    def check_tidy(self) -> None:
        (name,) = open_folder(f"{self.uri}/datasets/tiny").names()
        assert unmarked(f"{self.uri}/datasets/tiny/{name}") == {MANIFEST, *Ingest.files}
        assert unmarked(f"{self.uri}") == {f"datasets/tiny/{name}/{key}" for key in (MANIFEST, *Ingest.files)}


RUNS: dict[str, type[Run]] = {"shards": Shards, "knowledge": Knowledge, "saving": Saving, "ingest": Ingest}
NUMBERS = count()


def new(bench: Bench, kind: str) -> Run:
    run = RUNS[kind](f"s3://{bench.bucket}/root/{kind}/{next(NUMBERS)}")
    bench.direct()
    run.prepare()
    return run


def requests(bench: Bench, kind: str) -> int:
    """Return how many requests a run takes without a fault; assert that it leaves nothing that it should not.

    The second run counts: what the first one has read is in the cache of this machine, as it is in all later ones.
    """
    for run in (new(bench, kind), new(bench, kind)):
        bench.through(attempts=3)
        bench.proxy.reset()
        run.do()
        number = len(bench.proxy.log)
        bench.direct()
        assert run.check_whole()
        run.check_tidy()
        assert unmarked(run.uri) == {entry.key for entry in open_folder(run.uri).walk()}, "and no mark"
    return number


LARGER = pytest.mark.slow
"""The mark of runs whose everyday form is left to `make test-all`: the quick tests have two smaller ones."""

FEW = 0
EVERY = 11
FORMS = [pytest.param(False, id="few"), pytest.param(True, id="every", marks=pytest.mark.long)]
"""Whether a test tries every position, or only some."""


def forms(**ways: int) -> list[object]:
    """Parameters (server, run, faults for each position): the everyday form of each run, and behind it the long one."""
    few = [pytest.param("moto", kind, FEW, id=f"{kind}-few", marks=LARGER if kind in ("saving", "ingest") else ()) for kind in RUNS]
    few.append(pytest.param("rgw", "knowledge", FEW, id="rgw-knowledge-few", marks=LARGER))
    every = [pytest.param("moto", kind, number, id=f"{kind}-every", marks=pytest.mark.long) for kind, number in ways.items()]
    every.append(pytest.param("rgw", "knowledge", 3, id="rgw-knowledge-every", marks=pytest.mark.long))
    return few + every


def cases(number: int, ways: int) -> list[tuple[int, str]]:
    """Positions and names of faults: so many in rotation for each position; with FEW, each fault once in the whole run."""
    names = list(FAULTS)
    if ways == FEW:
        return [(turn * number // len(names), name) for turn, name in enumerate(names)]
    return [(position, names[(position * ways + step) % len(names)]) for position in range(number) for step in range(ways)]


@pytest.mark.parametrize(("bench", "kind", "ways"), forms(shards=3, knowledge=EVERY, saving=2, ingest=1), indirect=["bench"])
def test_a_fault_at_any_request_is_got_over_by_trying_again(bench: Bench, capsys, kind: str, ways: int):
    late: list[Run] = []
    for position, name in cases(requests(bench, kind), ways):
        run = new(bench, kind)
        bench.through(attempts=ATTEMPTS, fault=name)
        bench.proxy.arm(position, FAULTS[name])
        try:
            run.do()
        except (RunError, InputError) as error:
            pytest.fail(f"{name} at {position} of {bench.proxy.log}: {error}")
        what = (position, name, bench.proxy.log)
        bench.direct()
        assert run.check_whole(), what
        assert "another process" not in capsys.readouterr().err, "a lost answer of its own is not taken for another writer's work"
        if name == "delay":
            late.append(run)
        elif kind != "saving" or name != "corrupt_response":  # of a damaged list nobody knows; the next checkpoint tidies up
            run.check_tidy()
    time.sleep(LATE_S)
    for run in late:
        assert run.check_whole()
        run.check_tidy()


@pytest.mark.slow
@pytest.mark.parametrize(("bench", "kind", "ways"), forms(shards=2, knowledge=EVERY, saving=1, ingest=1), indirect=["bench"])
def test_a_fault_that_stays_ends_in_one_line_and_the_same_command_finishes_later(bench: Bench, kind: str, ways: int):
    late: list[Run] = []
    for position, name in cases(requests(bench, kind), ways):
        run = new(bench, kind)
        bench.through(attempts=2, fault=name)
        bench.proxy.arm_from(position, Refuse(3600) if name == "refuse" else FAULTS[name])
        began, failed = time.monotonic(), ""
        try:
            run.do()
        except (RunError, InputError) as error:
            failed = str(error)
        what = (position, name, failed, bench.proxy.log)
        assert time.monotonic() - began < BOUND_S, what
        assert "\n" not in failed, what
        bench.direct()
        assert run.check_whole() or failed, what
        run.do()
        assert run.check_whole(), what
        late.append(run)
        if name != "corrupt_response":
            run.check_tidy()
    time.sleep(LATE_S)
    for run in late:
        assert run.check_whole()


@pytest.mark.parametrize("every", FORMS)
def test_a_lease_is_taken_and_given_back_through_any_fault_that_passes(bench: Bench, every: bool):
    """A request that was given up may arrive later and leave a lease that nobody holds: its own process takes the next one."""
    bench.through(attempts=3)
    with alone(f"s3://{bench.bucket}/root/runs/r"):
        pass
    for position, name in cases(len(bench.proxy.log), EVERY if every else FEW):
        run = f"s3://{bench.bucket}/root/runs/{next(NUMBERS)}"
        bench.proxy.reset()
        bench.through(attempts=ATTEMPTS, fault=name)
        bench.proxy.arm(position, FAULTS[name])
        worked = False
        try:
            with alone(run):
                worked = True
        except (RunError, InputError) as error:
            pytest.fail(f"{name} at {position} of {bench.proxy.log}: {error}")
        assert worked
        bench.direct()
        assert name == "delay" or open_folder(run).names() == [], (position, name)
        with alone(run):
            pass


def killing(bench: Bench, crew: Crew, run: Run, position: int, *, done: bool) -> None:
    """Let a process do the run, and kill it when its request at that position has arrived, which is done or not done."""
    bench.through(attempts=1)
    started: list[BaseProcess] = []
    known = threading.Event()

    def kill() -> None:
        known.wait()
        started[0].kill()
        started[0].join()
        if not done:
            raise OSError("and its connections with it")

    bench.proxy.arm(position, Call(kill))
    process, connection = crew.start(type(run).job, *run.words)
    started.append(process)
    known.set()
    assert outcome(connection).error == "killed", position
    bench.direct()


@pytest.mark.slow
@pytest.mark.parametrize("every", FORMS)
@pytest.mark.parametrize("kind", [kind if kind == "knowledge" else pytest.param(kind, marks=LARGER) for kind in RUNS])
def test_a_writer_killed_at_any_request_leaves_nothing_half_and_the_same_command_finishes(
    bench: Bench, crew: Crew, kind: str, every: bool
):
    number = requests(bench, kind)
    for position in range(0, number, 2 if kind == "ingest" else 1) if every else (0, number // 2, number - 1):
        for done in (True, False) if every and kind == "knowledge" else (position % 4 < 2,):
            run = new(bench, kind)
            killing(bench, crew, run, position, done=done)
            run.check_whole()
            run.do()
            assert run.check_whole(), (position, done)
            run.check_tidy()


@pytest.mark.slow
@pytest.mark.parametrize("every", FORMS)
def test_a_fault_at_any_request_of_an_upload_in_parts_is_got_over_by_trying_again(bench: Bench, tmp_path, server, every: bool):
    """In front of RGW too: once the parts are joined it no longer knows the upload that a second try asks it to end."""
    bench.monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 5 * 2**20)
    parts = s3.TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20, max_concurrency=1)
    bench.monkeypatch.setattr(s3, "_TRANSFERS", parts)
    data, bucket = os.urandom(2**20) * 11, server.new_bucket()
    sha256 = hashlib.sha256(data).hexdigest()
    names = ["drop_after", "error_503", "truncate_request", "drop_before", "truncate_response"]
    with FaultProxy(server) as proxy:
        bench = Bench(proxy, server, bucket, bench.monkeypatch)

        def publish(number: int) -> tuple[Folder, str]:
            bench.through(attempts=3)
            folder = open_folder(f"s3://{bucket}/root/{number}")
            assert folder._honours_conditions()
            (tmp_path / "file").write_bytes(data)
            return folder, folder.publish("part.bin", tmp_path / "file", sha256)

        publish(0)
        methods = [method for method, _ in proxy.log]
        first, last = methods.index("POST"), len(methods)
        assert methods[first:] == ["POST", "PUT", "PUT", "PUT", "POST", "HEAD"]
        positions = range(first, last)
        chosen = [(p, n) for p in positions for n in names] if every else [*zip(positions, [*names, "drop_after"], strict=True)]
        for number, (position, name) in enumerate(chosen, start=1):
            bench.direct()
            proxy.arm(position, FAULTS[name])
            try:
                folder, key = publish(number)
            except (RunError, InputError) as error:
                pytest.fail(f"{name} at {position} of {proxy.log}: {error}")
            bench.direct()
            assert folder.read(key) == data
            assert [entry.key for entry in folder.walk()] == [key]


@pytest.fixture(params=["fetched", "read piece by piece"])
def reading(request, bench: Bench, tmp_path) -> Callable[[], None]:
    """Provide a reader of a data set with an empty cache: with room in it for the shards, and without."""
    bench.direct()
    made, caches = dataset(f"s3://{bench.bucket}/root/datasets/0"), count()

    def read() -> None:
        bench.monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / f"cache-{next(caches)}"))
        bench.monkeypatch.setenv("ZSBIR_CACHE_GB", "1" if request.param == "fetched" else "1e-7")
        artifact = Artifact(made.uri, "dataset")
        assert artifact.manifest == made.manifest
        samples = load_samples(artifact)
        images = Images(artifact, samples)
        for position in range(len(samples)):
            assert images.read(position) == image(position), position

    return read


@pytest.mark.parametrize("every", FORMS)
def test_a_reader_gets_the_right_bytes_through_any_fault_that_passes(bench: Bench, reading: Callable[[], None], every: bool):
    bench.through(attempts=3)
    reading()
    for position, name in cases(len(bench.proxy.log), 4 if every else FEW):
        bench.proxy.reset()
        bench.through(attempts=ATTEMPTS, fault=name)
        bench.proxy.arm(position, FAULTS[name])
        try:
            reading()
        except (RunError, InputError) as error:
            pytest.fail(f"{name} at {position} of {bench.proxy.log}: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("every", FORMS)
def test_a_reader_never_gets_wrong_bytes_and_a_fault_that_stays_is_an_error(bench: Bench, reading: Callable[[], None], every: bool):
    bench.through(attempts=2)
    reading()
    for position, name in cases(len(bench.proxy.log), 4 if every else FEW):
        bench.proxy.reset()
        bench.through(attempts=2, fault=name)
        bench.proxy.arm_from(position, Refuse(3600) if name == "refuse" else FAULTS[name])
        began, told = time.monotonic(), ""
        try:
            reading()
        except (RunError, InputError) as error:
            told = str(error)
        assert time.monotonic() - began < BOUND_S, (position, name)
        assert "\n" not in told
        assert told or (name in ("corrupt_response", "truncate_response") and position == 0), "a HEAD has nothing to be damaged"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gigabytes", "bits", "rows"),
    [
        pytest.param("1", 8, 1, id="fetched-few"),
        pytest.param("1e-7", 24, 7, id="read piece by piece-few"),
        pytest.param("1", 40, 1, id="fetched-many", marks=pytest.mark.long),
        pytest.param("1e-7", 150, 7, id="read piece by piece-many", marks=pytest.mark.long),
    ],
)
def test_a_bit_that_is_flipped_anywhere_in_a_shard_is_never_handed_out(bench: Bench, tmp_path, gigabytes, bits, rows):
    bench.direct()
    artifact = dataset(f"s3://{bench.bucket}/root/datasets/1")
    key, samples = artifact.key(shard_name(1)), load_samples(artifact)
    whole = artifact.folder.read(key)
    bench.monkeypatch.setenv("ZSBIR_CACHE_GB", gigabytes)
    right, refused = 0, []
    for bit in random.Random(0).sample(range(len(whole) * 8), bits):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        artifact.folder.replace(key, bytes(damaged))
        bench.monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / f"cache-{bit}"))
        images = Images(artifact, samples)
        for position in range(len(samples) - rows, len(samples)):
            try:
                assert images.read(position) == image(position), bit
            except InputError as error:
                refused.append(str(error))
            else:
                right += 1
    assert all(shard_name(1) in line and "\n" not in line for line in refused)
    assert len(refused) > bits / 5
    assert right == 0 if gigabytes == "1" else right > bits * 2 / 3, "a shard is refused whole, or the damaged image alone"
