"""Targets are told of ends by a real HTTP server and a real program: at least once, and an event says why one was not."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.jobs.queue.limits import Limits
from services.jobs.queue.records import JobRequest
from services.jobs.queue.store import open_store
from services.jobs.queue.targets import Target, Targets, read_targets, set_targets
from services.jobs.runs import delivery
from services.jobs.runs.delivery import deliver
from services.jobs.runs.notifications import GIVE_UP_S, PAGE, Notifier
from zsbir.base.errors import InputError, RunError

SECRET = "hooks/T0123/secret"


class Hook:
    """A server that keeps what is posted to it. status: what it answers; others: what was asked of it by other methods or paths."""

    def __init__(self):
        self.got, self.others, self.status, self.location = [], [], 200, ""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                (hook.got if self.path == f"/{SECRET}" else hook.others).append(body)
                self.send_response(hook.status)
                if hook.location:
                    self.send_header("Location", hook.location)
                self.end_headers()

            def do_GET(self):
                hook.others.append(self.path)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook():
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


class World:
    """A store with targets, a dispatcher's lease, and a notifier by a clock that tests move."""

    def __init__(self, folder, targets):
        self.now_s = 1000.0
        self.store = open_store(f"sqlite:///{folder}/jobs.db", clock=lambda: 1e9 + self.now_s)
        set_targets(self.store, Targets.of({"targets": targets}), "test")
        self.lease = self.store.take_lease("test", None)
        self.restart()

    def restart(self):
        self.notifier = Notifier(self.store, lambda: self.lease, "http://page", clock=lambda: self.now_s)

    def end(self, cause, notify, **fields):
        job = self.store.submit(JobRequest(kind="ingest", config={}, notify=notify))
        attempt = self.store.claim(self.lease, Limits(running=9))
        self.store.end(self.lease, attempt, cause, **fields)
        return job.id

    def told(self, job_id):
        return [(event["what"], event["detail"]) for event in self.store.events(job_id) if "told" in event["what"]]


@pytest.fixture
def world(tmp_path):
    made = []

    def make(**targets):
        made.append(World(tmp_path, targets))
        return made[-1]

    yield make
    for each in made:
        each.store.engine.dispose()


def test_a_webhook_is_told_once_of_an_end_in_words_and_as_data(world, hook):
    there = world(team={"webhook": hook.url})
    job_id = there.end("user_error", [{"to": "team", "on": "end"}], message="error: no such run")
    quiet = there.end("succeeded", [], result="/a/b")
    for _ in range(3):
        there.notifier.round()
    (message,) = hook.got
    assert message["text"] == f"job {job_id} (ingest) has failed: error: no such run"
    assert {"id": job_id, "kind": "ingest", "state": "failed", "link": f"http://page/jobs/{job_id}"}.items() <= message.items()
    assert there.told(job_id) == [("told", {"targets": "team"})]
    assert there.store.job(job_id).notified_s == 1e9 + there.now_s
    assert there.store.job(quiet).notified_s is None


def test_who_wants_to_hear_of_failures_alone_is_not_told_of_success(world, hook):
    there = world(team={"webhook": hook.url})
    for cause in ("succeeded", "user_error"):
        there.end(cause, [{"to": "team", "on": "failure"}])
        there.notifier.round()
    assert [message["state"] for message in hook.got] == ["failed"]
    assert all(there.store.job(number).notified_s for number in (1, 2))


def test_a_program_reads_the_message_and_gets_none_of_the_dispatchers_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_JOBS_STORE", "postgresql://zsbir:password@host/db")
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read() + repr(sorted(os.environ)))"
    deliver(Target(command=(sys.executable, "-c", code, str(tmp_path / "told"))), {"text": "ümlaut", "id": 1})
    text, _, names = (tmp_path / "told").read_text().partition("\n")
    assert json.loads(text) == {"text": "ümlaut", "id": 1}
    assert "ZSBIR_JOBS_STORE" not in names
    assert "PATH" in names


def test_a_target_that_is_away_is_told_when_it_is_back_and_the_others_are_told_once(world, hook):
    other = Hook()
    there = world(team={"webhook": hook.url}, boss={"webhook": other.url})
    hook.status = 503
    job_id = there.end("succeeded", [{"to": "team", "on": "end"}, {"to": "boss", "on": "end"}])
    for _ in range(5):
        there.notifier.round()
    assert (len(hook.got), len(other.got)) == (1, 1), "with a pause before the next try"
    there.now_s += 60
    there.notifier.round()
    hook.status = 204
    there.now_s += 600
    there.notifier.round()
    there.notifier.round()
    assert (len(hook.got), len(other.got)) == (3, 1)
    assert there.told(job_id) == [("told", {"targets": "boss, team"})]
    other.server.shutdown()
    other.server.server_close()


def test_a_target_that_stays_away_is_given_up_after_an_hour_with_the_reason_and_without_its_address(world, hook):
    there = world(team={"webhook": hook.url})
    hook.status = 500
    job_id = there.end("succeeded", [{"to": "team", "on": "end"}])
    for _ in range(60):
        there.notifier.round()
        there.now_s += 100
    assert there.told(job_id) == [("not told", {"target": "team", "why": "its server answered 500"})]
    assert 5 <= len(hook.got) < 20
    assert there.now_s - 1000 > GIVE_UP_S
    assert SECRET not in str(there.store.audit())


def test_a_dispatcher_that_follows_another_tells_what_was_not_recorded(world, hook):
    there = world(team={"webhook": hook.url})
    hook.status = 500
    job_id = there.end("succeeded", [{"to": "team", "on": "end"}])
    there.notifier.round()
    there.restart()
    hook.status = 200
    there.notifier.round()
    assert there.told(job_id) == [("told", {"targets": "team"})]
    there.restart()
    there.notifier.round()
    assert len(hook.got) == 2


def test_a_target_that_was_removed_meanwhile_is_named(world):
    there = world(team={"command": ["true"]})
    job_id = there.end("succeeded", [{"to": "team", "on": "end"}])
    set_targets(there.store, Targets(), "test")
    there.notifier.round()
    assert there.told(job_id) == [("not told", {"target": "team", "why": "the operator has removed it"})]


def test_who_does_not_hold_the_lease_tells_nobody(world, hook):
    there = world(team={"webhook": hook.url})
    there.end("succeeded", [{"to": "team", "on": "end"}])
    there.lease = None
    there.notifier.round()
    assert hook.got == []


def test_a_redirection_leads_nowhere(hook):
    hook.status, hook.location = 302, f"http://127.0.0.1:{hook.server.server_port}/elsewhere"
    with pytest.raises(RunError, match="its server answered 302"):
        deliver(Target(webhook=hook.url), {"text": "x"})
    assert hook.others == []


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ({"webhook": "http://127.0.0.1:9/secret"}, r"its server does not answer \(ConnectError\)"),
        ({"webhook": "http://nobody.invalid/secret"}, "its server does not answer"),
        ({"command": ["/no/such/program", "secret"]}, r"its program cannot be started \(No such file or directory\)"),
        ({"command": ["sh", "-c", "echo secret >&2; exit 3"]}, "its program ended with exit code 3$"),
        ({"command": ["sleep", "600"]}, "its program was not done within 0.2 s"),
    ],
)
def test_each_failure_is_a_line_without_what_may_be_secret(monkeypatch, target, line):
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.2 if "sleep" in str(target) else 20.0)
    with pytest.raises(RunError, match=line) as told:
        deliver(Target.of(target), {"text": "x"})
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ({}, "give either a webhook or a command"),
        ({"webhook": "http://x", "command": ["y"]}, "give either a webhook or a command"),
        ({"webhook": "ftp://x/y"}, "must begin with http"),
        ({"webhook": "file:///etc/passwd"}, "must begin with http"),
        ({"webhook": "http:///y"}, "name a host"),
        ({"webhook": "http://x/ y"}, "no blanks"),
        ({"command": [""]}, "the first one a program"),
        ({"command": ["a\0b"]}, "words of a command line"),
    ],
)
def test_a_target_is_one_web_address_or_the_words_of_a_program(target, line):
    with pytest.raises(InputError, match=line):
        Target.of(target)


def test_what_a_target_holds_comes_back_to_the_dispatcher_alone(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/jobs.db")
    targets = {
        "a": {"webhook": "https://user:pw@chat.example.org:8443/hooks/secret?key=secret"},
        "b": {"command": ["mail", "secret"]},
    }
    set_targets(store, Targets.of({"targets": targets}), "test")
    found = read_targets(store)
    assert found["a"].webhook == targets["a"]["webhook"]
    shown = Targets(targets=found).shown()
    assert shown == {"a": {"webhook": "https://chat.example.org:8443/***"}, "b": {"command": ["mail", "***"]}}
    assert "secret" not in str(store.audit())
    store.engine.dispose()


def test_the_question_for_ended_jobs_stays_small_however_many_there_were(world, hook):
    there = world(team={"webhook": hook.url})
    for _ in range(3):
        there.end("succeeded", [])
    live = there.store.submit(JobRequest(kind="ingest", config={}, notify=[{"to": "team", "on": "end"}]))
    assert there.store.unnotified(0, 10) == ([], live.id)
    attempt = there.store.claim(there.lease, Limits(running=9))
    there.store.end(there.lease, attempt, "succeeded")
    there.notifier.round()
    assert len(hook.got) == 1
    assert there.store.unnotified(0, 10) == ([], live.id + 1)


@pytest.fixture
def dripping():
    """The port of a server that never ends its answer: a byte of a header every 50 ms."""

    def answer():
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not over.wait(0.05):
                connection.sendall(b"a")

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()


def test_a_server_that_keeps_answering_a_byte_at_a_time_is_not_waited_for_longer(monkeypatch, dripping):
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.3)
    began_s = time.monotonic()
    with pytest.raises(RunError, match=r"its server was not done within 0\.3 s"):
        deliver(Target(webhook=f"http://127.0.0.1:{dripping}/secret"), {"text": "x"})
    assert time.monotonic() - began_s < 2


def test_a_program_has_told_when_it_ends_well_whatever_it_leaves_in_the_background(monkeypatch):
    monkeypatch.setattr(delivery, "TIMEOUT_S", 2.0)
    deliver(Target(command=("sh", "-c", "sleep 3 & exit 0")), {"text": "x" * 10**6})


def test_a_program_that_is_not_done_in_time_is_ended_with_what_it_has_started(monkeypatch, tmp_path):
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.5)
    with pytest.raises(RunError, match="not done within"):
        deliver(Target(command=("sh", "-c", f"sleep 60 & echo $! > {tmp_path / 'pid'}; wait")), {"text": "x"})
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = pathlib.Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("it still runs")


def test_what_a_program_says_of_its_failure_is_in_the_log_and_in_no_event(world, capfd):
    there = world(
        mail={"command": ["sh", "-c", "yes secret | head -c 9999 >&2; echo >&2; echo '/hooks/secret is away' >&2; exit 1"]}
    )
    job_id = there.end("succeeded", [{"to": "mail", "on": "end"}])
    there.notifier.round()
    there.now_s += GIVE_UP_S + 1
    there.notifier.round()
    assert there.told(job_id) == [("not told", {"target": "mail", "why": "its program ended with exit code 1"})]
    assert "secret" not in str(there.store.audit())
    err = capfd.readouterr().err
    assert "the program sh of a notification target ended with exit code 1: /hooks/secret is away\n" in err


@pytest.mark.parametrize("on", ["end", "failure"])
def test_an_array_is_told_of_once_when_its_last_job_has_ended(world, hook, on):
    there = world(team={"webhook": hook.url})
    request = JobRequest(kind="ingest", config={}, name="toy seed=0", notify=[{"to": "team", "on": on}])
    jobs, _ = there.store.submit_or_find([request, request.replace(name="toy seed=1"), request.replace(name="toy seed=2")])
    attempts = [there.store.claim(there.lease, Limits(running=9)) for _ in jobs]
    there.store.end(there.lease, attempts[0], "user_error")
    there.notifier.round()
    assert hook.got == []
    there.now_s += 5
    for attempt in attempts[1:]:
        there.store.end(there.lease, attempt, "succeeded")
    for _ in range(2):
        there.notifier.round()
    (message,) = hook.got
    assert message["text"] == "array 1 of 3 jobs (toy) has ended: 2 succeeded, 1 failed"
    assert message["array"] == {"ids": [1, 2, 3], "counts": {"failed": 1, "succeeded": 2}}
    assert all(there.store.job(job.id).notified_s for job in jobs)


def an_array(there, number, on="end"):
    """An array of running jobs, each with its attempt."""
    there.store.submit_or_find([JobRequest(kind="ingest", config={}, notify=[{"to": "team", "on": on}]) for _ in range(number)])
    return [there.store.claim(there.lease, Limits(running=9)) for _ in range(number)]


def tried_again(there, number, cause, on="end"):
    there.store.submit(JobRequest(kind="ingest", config={}, notify=[{"to": "team", "on": on}], retry_of=number, array_of=1))
    there.store.end(there.lease, there.store.claim(there.lease, Limits(running=9)), cause)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("rounds", ["between", "after"])
def test_an_array_is_told_of_also_where_its_last_end_to_be_recorded_was_not_the_last(world, hook, first, rounds):
    there = world(team={"webhook": hook.url})
    attempts = an_array(there, 2)
    for attempt in attempts:
        there.store.started(there.lease, attempt)
    there.now_s += 53
    there.store.end(there.lease, attempts[first], "succeeded", ran_s=52.0)
    if rounds == "between":
        there.notifier.round()
    there.now_s += 3
    there.store.end(there.lease, attempts[1 - first], "succeeded", ran_s=50.0)
    there.notifier.round()
    there.notifier.round()
    assert [message["array"]["counts"] for message in hook.got] == [{"succeeded": 2}]


@pytest.mark.parametrize("on", ["end", "failure"])
def test_an_array_is_told_of_without_the_jobs_whose_retries_took_their_place(world, hook, on):
    there = world(team={"webhook": hook.url})
    for attempt, cause in zip(an_array(there, 2, on), ("succeeded", "user_error"), strict=True):
        there.store.end(there.lease, attempt, cause)
    there.notifier.round()
    tried_again(there, 2, "succeeded", on)
    there.notifier.round()
    texts = [message["text"] for message in hook.got]
    ends = ["1 succeeded, 1 failed", "2 succeeded"][: 1 if on == "failure" else 2]
    assert texts == [f"array 1 of 2 jobs (ingest) has ended: {end}" for end in ends]
    assert hook.got[-1]["array"]["ids"] == ([1, 3] if on == "end" else [1, 2])
    assert there.store.job(3).notified_s is not None


def test_an_array_that_goes_on_before_its_target_is_back_is_told_of_at_its_new_end(world, hook):
    there = world(team={"webhook": hook.url})
    hook.status = 500
    for attempt in an_array(there, 2):
        there.store.end(there.lease, attempt, "user_error")
    there.notifier.round()
    tried_again(there, 2, "succeeded")
    hook.got.clear()
    hook.status = 200
    there.now_s += 60
    there.notifier.round()
    assert [message["array"] for message in hook.got] == [{"ids": [1, 3], "counts": {"failed": 1, "succeeded": 1}}]


def test_targets_that_are_away_keep_no_other_target_waiting_however_many_jobs_name_them(world, hook):
    there = world(team={"webhook": hook.url}, away={"webhook": "http://127.0.0.1:9/"})
    tries = []

    def deliver_and_count(target, message):
        tries.append(target.webhook)
        deliver(target, message)

    there.notifier = Notifier(there.store, lambda: there.lease, deliver=deliver_and_count, clock=lambda: there.now_s)
    for _ in range(PAGE + 1):
        there.end("succeeded", [{"to": "away", "on": "end"}])
    last = there.end("succeeded", [{"to": "team", "on": "end"}])
    there.notifier.round()
    assert [message["id"] for message in hook.got] == [last]
    assert len(tries) == 2, "who was away a moment ago is not tried again for the next job"


def test_a_message_that_its_target_refuses_keeps_no_later_one_from_it(world):
    there, told = world(team={"webhook": "http://h/"}), []

    def refuse_the_first(_target, message):
        if message["id"] == 1:
            raise RunError("its server answered 400")
        told.append(message["id"])

    there.notifier = Notifier(there.store, lambda: there.lease, deliver=refuse_the_first, clock=lambda: there.now_s)
    for _ in range(3):
        there.end("succeeded", [{"to": "team", "on": "end"}])
    for _ in range(30):
        there.notifier.round()
        there.now_s += 2
    assert told == [2, 3]
