"""What the job queue costs: its HTTP API over 10,000 jobs, its store, and a dispatcher that has nothing to do.

Latencies and CPU times are printed; asserted are ratios to bare work of the same run, measured in turn.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil
import psycopg
import pytest
from servers.postgres import new_database
from servers.processes import HOST, free_ports, kill
from sqlalchemy import insert

from services.jobs.cli.client import Client
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.states import State
from services.jobs.queue.store import Store, open_store
from services.jobs.queue.tables import ATTEMPTS, EVENTS, JOBS
from services.jobs.runs.attempt_dir import End, attempt_dir_of
from zsbir.base.errors import RunError

MANY, FEW = 10_000, 100
TOY = {"kind": "ingest", "config": {"layout": "toy"}}
ENDED: dict[State, int] = {"succeeded": 75, "failed": 5, "cancelled": 5, "timed_out": 5}
MIXED: dict[State, int] = {"queued": 10, **ENDED}
"""Jobs of each state, in 100 or in 90."""

WATCHED_S = 60.0
"""Seconds for which a dispatcher's use of the machine is added up."""


# --- a store, a service


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """A function that makes a new empty database; its URL."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / uuid.uuid4().hex}.db"
    server = request.getfixturevalue("postgres")
    return lambda: new_database(server)


def filled(url: str, count: int, shares: dict[State, int]) -> Store:
    """A store of so many jobs, their states mixed evenly, each that has ended with an attempt."""
    store, now_s = open_store(url), time.time()
    states = [state for state, share in shares.items() for _ in range(share)]
    config = {"recipe": "toy", "dataset": "s3://bucket/root/datasets/toy/0123456789abcdef", "steps": 1000, "seed": 1}
    jobs, attempts, events = [], [], []
    for number in range(1, count + 1):
        state = states[number * 37 % len(states)]
        ended_s = None if state == "queued" else now_s
        fixed = {"kind": "train", "config": config, "project": "default", "owner": "local", "priority": 0, "cpus": 1.0, "gpus": 0.0}
        times = {"submitted_s": now_s, "not_before_s": now_s, "ended_s": ended_s}
        jobs.append({"id": number, "state": state, "cancelling": False, "progress": {}, **fixed, **times})
        events.append({"at_s": now_s, "job_id": number, "actor": "local", "what": "submitted", "detail": {"kind": "train"}})
        if ended_s:
            whose = {"job_id": number, "number": 1, "submission_id": f"bench-{number}-a1", "untidy": False}
            attempts.append({**whose, "claimed_s": now_s, "started_s": now_s, "ended_s": now_s, "cause": "succeeded"})
    with store.writing() as connection:
        for table, rows in ((JOBS, jobs), (ATTEMPTS, attempts), (EVENTS, events)):
            if rows:
                connection.execute(insert(table), rows)
        if store.engine.name == "postgresql":
            for table in (JOBS, ATTEMPTS, EVENTS):
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}"
                )
    if store.engine.name == "postgresql":  # as its autovacuum does within a minute
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
    return store


@contextmanager
def served(url: str, root: Path) -> Iterator[str]:
    """The address of a real service over that store, in a process of its own."""
    (port,) = free_ports(1)
    words = [f"--root={root}", f"--store={url}", f"--port={port}", "--auth=off"]
    process = subprocess.Popen([sys.executable, "-m", "services.jobs", "serve", *words], start_new_session=True)
    try:
        address, until = f"http://{HOST}:{port}", time.monotonic() + 60
        with Client(address) as client:
            while True:
                try:
                    client.health()
                    break
                except RunError:
                    assert process.poll() is None
                    assert time.monotonic() < until
        yield address
    finally:
        kill(process)


# --- times


@dataclass(frozen=True)
class Times:
    """Seconds of many calls."""

    seconds: Sequence[float]

    @property
    def p50(self) -> float:
        return median(self.seconds)

    @property
    def p99(self) -> float:
        return quantiles(self.seconds, n=100, method="inclusive")[98]

    def row(self, name: str) -> str:
        return f"{name:<58}{1000 * self.p50:9.2f}{1000 * self.p99:9.2f} ms"


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(works: dict[str, Callable[[], object]], count: int) -> dict[str, Times]:
    """So many calls of each, one of each after the other, so that a noisy machine disturbs all alike."""
    for work in works.values():
        work()
    rounds = [{name: seconds_of(work) for name, work in works.items()} for _ in range(count)]
    return {name: Times([each[name] for each in rounds]) for name in works}


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[..., None]:
    """Prints a table's lines as they come."""

    def tell(*lines: str) -> None:
        with capsys.disabled():
            load = "load " + " ".join(f"{value:.1f}" for value in os.getloadavg())
            print("\n" + "\n".join([f"-- {request.node.name}, {load}", *lines]), flush=True)

    return tell


@contextmanager
def bare_insert(url: str, tmp_path: Path) -> Iterator[Callable[[], object]]:
    """One row of a job's size into a table without any rules, committed to disk."""
    row, table = json.dumps(TOY) * 4, "CREATE TABLE bare (id INTEGER PRIMARY KEY, said TEXT)"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / "bare.db", isolation_level=None)) as connection:
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; {table}")
            yield lambda: connection.execute("INSERT INTO bare (said) VALUES (?)", (row,))
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(table.replace("INTEGER", "SERIAL"))
            yield lambda: connection.execute("INSERT INTO bare (said) VALUES (%s)", (row,))


# --- the API


def test_a_submission_costs_a_few_bare_inserts_and_round_trips(told, database, tmp_path):
    """At most 6 times as long as one insert that is on disk and one empty round trip; behind 1,000 others at most 3 times
    as long as into an empty queue. Ours are two rows that obey the rules, checked and answered with the place in line.
    """
    url = database()
    with served(url, tmp_path) as address, Client(address) as client, bare_insert(url, tmp_path) as bare:
        works = {"submit": lambda: client.submit(TOY, uuid.uuid4().hex), "bare insert": bare, "healthz": client.health}
        times = in_turn(works, 1000)
        first, last = (Times(part) for part in (times["submit"].seconds[:100], times["submit"].seconds[-100:]))

        def one_of_many(_: int) -> list[float]:
            with Client(address) as own:
                own.health()
                return [seconds_of(lambda: own.submit(TOY, uuid.uuid4().hex)) for _ in range(125)]

        with ThreadPoolExecutor(8) as clients:
            began = time.perf_counter()
            at_once = Times([each for found in clients.map(one_of_many, range(8)) for each in found])
            rate = 1000 / (time.perf_counter() - began)
    over_bare = times["submit"].p50 / (times["bare insert"].p50 + times["healthz"].p50)
    told(
        *(times[name].row(name) for name in works),
        first.row("submit, the first 100"),
        last.row("submit, behind 900 to 1,000 queued ones"),
        at_once.row(f"submit, 8 clients at once ({rate:.0f} a second)"),
        f"submit over bare insert and healthz: {over_bare:.2f}; behind 1,000 over the first: {last.p50 / first.p50:.2f}",
    )
    assert over_bare <= 6
    assert last.p50 <= 3 * first.p50


def test_lists_do_not_grow_with_the_jobs_there_are(told, database, tmp_path):
    """A page of 100 of 10,000 takes at most 3 times as long as 100 of 100, filtered, and as the last page, too."""
    few, many = database(), database()
    filled(few, FEW, MIXED), filled(many, MANY, MIXED)
    with ExitStack() as stack:
        small, large = (stack.enter_context(Client(stack.enter_context(served(url, tmp_path)))) for url in (few, many))
        times = in_turn(
            {
                "100 of 100": small.jobs,
                "100 of 10,000": large.jobs,
                "that have succeeded, of 100": lambda: small.jobs(states=["succeeded"]),
                "100 that have succeeded, of 10,000": lambda: large.jobs(states=["succeeded"]),
                "100 that have failed or timed out, of 10,000": lambda: large.jobs(states=["failed", "timed_out"]),
                "100 queued ones, of 10,000": lambda: large.jobs(states=["queued"]),
                "a project that there is not, of 10,000": lambda: large.jobs(project="none"),
                "the last page of 10,000": lambda: large.jobs(before=FEW + 1),
                "healthz": large.health,
            },
            100,
        )
    told(*(each.row(name) for name, each in times.items()))
    for name, each in times.items():
        assert each.p50 <= 3 * times["100 of 100"].p50, name


def test_what_is_shown_of_one_job_costs_no_more_than_a_list(told, database, tmp_path):
    """A job of three attempts with its folders, at most as long as a page of 100; the queue, of what 1,000 wait in, 5 times."""
    url = database()
    store = filled(url, MANY, MIXED)
    job_id = with_three_attempts(store, str(tmp_path))
    newest = store.jobs(states=["queued"], limit=1)[0].id
    with served(url, tmp_path) as address, Client(address) as client:
        assert len(client.job(job_id)["attempts_made"]) == 3
        assert len(client.curve(job_id)["rows"]) == 500
        line = client.queue()["line"]
        size = len(json.dumps(client.queue()))
        times = in_turn(
            {
                "list of 100 of 10,000": client.jobs,
                "show, three attempts": lambda: client.job(job_id),
                "show, the last in line": lambda: client.job(newest),
                "curve of 500 rows": lambda: client.curve(job_id),
                "log, 64 KiB": lambda: client.log(job_id),
                f"queue, a line of {len(line)} ({size / 1000:.0f} kB)": client.queue,
                "metrics": client.metrics,
                "healthz": client.health,
            },
            100,
        )
    told(*(each.row(name) for name, each in times.items()))
    listed = times["list of 100 of 10,000"].p50
    assert times["show, three attempts"].p50 <= listed
    assert times["show, the last in line"].p50 <= listed
    assert all(each.p50 <= 5 * listed for name, each in times.items() if name.startswith("queue"))


def with_three_attempts(store: Store, root: str) -> int:
    """A training that was lost twice and has then succeeded, with all that its attempts leave behind."""
    lease, limits = store.take_lease("bench", store.seen_lease()), Limits(running=10)
    assert lease
    job = store.submit(JobRequest(kind="train", config={"recipe": "toy"}, priority=100))
    for cause in ("preempted", "preempted", "succeeded"):
        attempt = store.claim(lease, limits)
        assert attempt
        assert attempt.job_id == job.id
        attempt_dir = attempt_dir_of(root, attempt.submission_id)
        attempt_dir.write_spec({"steps": [{"name": "train", "values": {}, "fed": {}}]})
        attempt_dir.claim_start("host 1")
        attempt_dir.write_log(0, b"step 1: loss 0.5 and a word more about it, 64 bytes in one line\n" * 1024)
        status = {"progress": {"label": "train", "done": 500, "total": 500}, "facts": {"mlflow_run": "abc"}, "updated_s": 1.0}
        rows = [{"step": float(step), "loss": 1 / (1 + step), "lr": 1e-4} for step in range(500)]
        folder = Path(root) / "jobs" / attempt.submission_id / "train"
        folder.mkdir(parents=True)
        for name, value in (("driver", status), ("worker", status), ("curve", {"rows": rows})):
            (folder / f"{name}.json").write_text(json.dumps(value))
        store.started(lease, attempt)
        attempt_dir.write_end(End(cause))
        store.end(lease, attempt, cause)
    return job.id


# --- the store


def test_claims_behind_a_thousand_queued_jobs(told, database, tmp_path):
    """A claim looks at all of 1,000 to say whose turn it is: at most 5 times as long as one that finds 200 there."""
    short, long = database(), database()
    few, many = filled(short, 200, {"queued": 1}), filled(long, MANY, MIXED)
    lease, same = few.take_lease("bench", None), many.take_lease("bench", None)
    assert lease
    assert same
    room, none = Limits(running=10_000), Limits(running=0)
    with bare_insert(long, tmp_path) as bare:
        times = in_turn(
            {
                "claim, 200 queued and fewer": lambda: few.claim(lease, room),
                "claim, 1,000 queued of 10,000": lambda: many.claim(same, room),
                "nobody's turn, 1,000 queued of 10,000": lambda: many.claim(same, none),
                "bare insert": bare,
            },
            150,
        )
    slow = times["claim, 1,000 queued of 10,000"].p50
    told(*(each.row(name) for name, each in times.items()), f"{1 / slow:.0f} claims a second")
    assert slow <= 5 * times["claim, 200 queued and fewer"].p50


# --- the dispatcher


@dataclass(frozen=True)
class Use:
    """What a dispatcher has used in a minute, and its memory at the end."""

    cpu_s: float
    written: int
    memory: int

    def row(self, name: str) -> str:
        figures = f"{self.cpu_s:6.2f} s CPU a minute ({self.cpu_s / 0.6:.1f} % of a core)"
        return f"{name:<34}{figures}, {self.written / 1000:8.0f} kB written, {self.memory / 1e6:6.0f} MB resident"


def use_of(process: psutil.Process, over: threading.Event) -> Use:
    """Of WATCHED_S seconds, scaled to a minute. written: all that it hands to the system, the WAL before all else."""

    def now() -> tuple[float, float, int]:
        cpu = process.cpu_times()
        return time.monotonic(), cpu.user + cpu.system, process.io_counters().write_chars

    began = now()
    over.wait(WATCHED_S)
    ended = now()
    scale = 60 / (ended[0] - began[0])
    return Use((ended[1] - began[1]) * scale, round((ended[2] - began[2]) * scale), process.memory_info().rss)


@contextmanager
def dispatching(url: str, root: Path) -> Iterator[psutil.Process]:
    """A real dispatcher whose Ray is away, which it does not ask as long as nothing runs; once it has the lease."""
    words = [f"--root={root}", f"--store={url}", f"--ray=http://{HOST}:9"]
    process = subprocess.Popen([sys.executable, "-m", "services.jobs", "dispatch", *words], start_new_session=True)
    try:
        store, until = open_store(url), time.monotonic() + 60
        while not store.seen_lease():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        store.engine.dispose()
        yield psutil.Process(process.pid)
    finally:
        kill(process)


def test_a_dispatcher_without_work_rests(told, database, tmp_path):
    """At most 3 % of a core, however many jobs have ended; at most 5 % with a line of 1,000 that all wait."""
    stores = {"nothing": database(), "10,000 ended": database(), "1,000 queued, none may run": database()}
    filled(stores["10,000 ended"], MANY, ENDED)
    filled(stores["1,000 queued, none may run"], 1000, {"queued": 1})
    open_store(stores["1,000 queued, none may run"]).set_limits(Limits(running=0), "bench")
    with ExitStack() as stack:
        processes = [stack.enter_context(dispatching(url, tmp_path)) for url in stores.values()]
        time.sleep(5)
        with ThreadPoolExecutor(len(processes)) as at_once:
            over = threading.Event()
            uses = dict(zip(stores, at_once.map(lambda process: use_of(process, over), processes), strict=True))
    told(*(use.row(name) for name, use in uses.items()))
    assert uses["nothing"].cpu_s <= 0.03 * 60
    assert uses["10,000 ended"].cpu_s <= 0.03 * 60
    assert uses["1,000 queued, none may run"].cpu_s <= 0.05 * 60
