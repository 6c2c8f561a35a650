"""`up` and `down` on one machine: the lock of a root's keeper, the grace period of jobs, addresses and secrets."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from services.common.tokens import Tokens
from services.jobs.__main__ import _parse as main_parse
from services.jobs.local import lock
from services.jobs.local.addresses import announce
from services.jobs.local.keeper import _keep_owner_token, down, up
from services.jobs.local.machine import Machine
from services.jobs.local.ownership import MARKER, start_of
from services.jobs.local.paths import make_state_folder, state_folder, write_state
from services.jobs.local.settings import UpSettings
from services.jobs.local.shutdown import RUNNER_MODULES, Service, pause_jobs, running_attempts
from services.jobs.queue.store import open_store
from services.jobs.runs.attempt_dir import attempt_dir_of
from services.jobs.runs.steps import Step
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join

KEEPER = """
import signal, sys, threading
from services.jobs.local import lock
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with lock.hold_lock(sys.argv[1]):
    print("locked", flush=True)
    stop.wait()
    print(lock.read_grace_s(sys.argv[1], 7.0), flush=True)
"""
NOTHING = {"programs": [], "ray": {"temp": "/nowhere/of/this/test"}}
"""The state of a service without programs, as the version before markers wrote it."""

LONG = {"layout": "toy", "toy_photos_per_class": 500, "toy_sketches_per_class": 2, "toy_px": 256, "threads": 1}
"""An ingest that draws photos for minutes."""


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "root")


@pytest.fixture
def keeper(root):
    """A process that holds the lock, and prints the grace period that it was given."""
    process = subprocess.Popen([sys.executable, "-c", KEEPER, root], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def marker():
    return uuid.uuid4().hex


@pytest.fixture(params=[RUNNER_MODULES[0]])
def at_work(request, root, marker):
    """An attempt of that root in a process of its own, as Ray would have started it for that service, and its folder."""
    attempt_dir = attempt_dir_of(root, "zsbir-test-1-a1")
    steps = [Step("ingest", LONG).as_json()]
    memo = join(root, "jobs", "steps", "zsbir-test-1")
    attempt_dir.write_spec({"job": 1, "submission_id": "zsbir-test-1-a1", "root": root, "memo": memo, "env": {}, "steps": steps})
    process = subprocess.Popen(
        [sys.executable, "-m", request.param, attempt_dir.uri],
        env={**os.environ, MARKER: marker},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    write_state(root, {**NOTHING, "marker": marker})
    until = time.monotonic() + 60
    while not attempt_dir.status("ingest")["progress"].get("done"):
        assert time.monotonic() < until
        time.sleep(0.05)
    yield process, attempt_dir
    process.kill()
    process.wait()


def test_one_process_holds_the_lock_of_a_root_until_it_ends(root, keeper):
    assert lock.is_locked(root)
    with pytest.raises(RunError, match="kept by another process"), lock.hold_lock(root):
        pass
    keeper.kill()
    keeper.wait()
    assert not lock.is_locked(root)
    with lock.hold_lock(root):
        assert lock.is_locked(root)
    assert not lock.is_locked(root)


def test_child_processes_do_not_hold_the_lock(root):
    with lock.hold_lock(root):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    assert not lock.is_locked(root)
    child.kill()
    child.wait()


@pytest.mark.parametrize(("words", "waits_s"), [({"grace_s": 600.0}, "600.0"), ({"grace_s": None}, "33.0"), ({"now": True}, "0.0")])
def test_the_grace_period_is_that_of_down_else_that_of_up(root, keeper, words, waits_s):
    write_state(root, {"grace_s": 33.0, **NOTHING})
    down(root, **{"now": False, **words})
    assert keeper.stdout.read() == f"{waits_s}\n"
    assert keeper.wait(10) == 0
    assert not (state_folder(root) / "up.json").exists()


@pytest.mark.slow
def test_a_second_down_shortens_the_wait_of_the_first(root, marker, at_work):
    """The number of seconds is read again while it waits."""
    process, attempt_dir = at_work
    os.kill(process.pid, signal.SIGSTOP)  # it cannot save a checkpoint
    asked = [600.0]
    waiting = threading.Thread(target=pause_jobs, args=(Service(root, [], marker), lambda: asked[0]))
    waiting.start()
    waiting.join(1.5)
    assert waiting.is_alive()
    assert attempt_dir.stop_reason() == "preempted"
    asked[0] = 0.0
    waiting.join(5)
    assert not waiting.is_alive()


@pytest.mark.slow
def test_jobs_that_a_killed_keeper_left_behind_save_their_work_first(root, at_work, marker, capfd):
    process, attempt_dir = at_work
    dispatcher = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER: marker}, start_new_session=True)
    programs = [{"name": "dispatcher", "pid": dispatcher.pid, "start": start_of(dispatcher.pid)}]
    programs += [{"name": "api", "pid": os.getpid(), "start": "another boot 1"}]  # a number that another process has by now
    write_state(root, {"grace_s": 60.0, **NOTHING, "programs": programs, "marker": marker})
    down(root, now=False)
    assert attempt_dir.read_end().cause == "preempted"
    assert capfd.readouterr().err.count("job 1 (ingest) had no training under way; done: nothing yet; it goes on with") == 1
    process.wait(10)
    assert dispatcher.wait(10) == -signal.SIGKILL


def test_now_means_without_a_checkpoint(root, at_work, marker):
    process, attempt_dir = at_work
    write_state(root, {"grace_s": 600.0, **NOTHING, "marker": marker})
    down(root, now=True)
    process.wait(10)
    assert attempt_dir.read_end() is None, "it had time to write how it ended"


def test_the_number_of_an_earlier_keeper_gets_no_signal(root, keeper):
    """It stands in the file until the new holder of the lock has written its own."""
    file = state_folder(root) / "keeper.lock"
    written = file.read_text()
    other = subprocess.Popen(["sleep", "600"])
    for stale in ("", f"{other.pid}", f"{other.pid} another boot 1"):
        file.write_text(stale)
        assert lock.keeper_pid(root) == 0
        assert not lock.is_ready(root)
    threading.Timer(0.5, file.write_text, (written,)).start()
    write_state(root, {"grace_s": 33.0, **NOTHING})
    down(root, now=False)
    assert other.poll() is None
    assert keeper.wait(10) == 0
    other.kill()
    other.wait()


@pytest.mark.slow
@pytest.mark.parametrize("at_work", RUNNER_MODULES, indirect=True)
def test_a_command_line_that_names_an_attempt_is_no_running_attempt(root, marker, at_work):
    """A process counts by its environment; a stranger's is neither waited for nor ended."""
    process, attempt_dir = at_work
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", RUNNER_MODULES[0], f"{root}/jobs/other"])
    assert [found.uri for found in running_attempts(Service(root, [], marker))] == [attempt_dir.uri]
    down(root, now=True)
    process.wait(10)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_nothing_is_ended_where_nothing_is_up(root, capfd):
    down(root, now=False)
    assert "nothing is up" in capfd.readouterr().err


def test_without_tokens_it_listens_on_this_machine_alone(root):
    with pytest.raises(InputError, match="would be operator"):
        up(UpSettings(root=root, host="0.0.0.0", auth="off"))


@pytest.mark.parametrize(
    ("host", "url", "auth"),
    [("127.0.0.1", "http://127.0.0.1:", ""), ("::1", "http://[::1]:", "off"), ("0.0.0.0", "http://127.0.0.1:", "tokens")],
)
def test_the_address_is_one_that_works_and_tokens_are_asked_for_unless_they_are_switched_off(root, host, url, auth):
    machine = Machine(UpSettings(root=root, host=host, port=0, hosts=("jobs.example.org",), auth=auth))
    api = next(program for program in machine.programs if program.name == "api")
    (names,) = [word.partition("=")[2].split(",") for word in api.command if word.startswith("--hosts=")]
    assert machine.summary["url"].startswith(url)
    assert machine.auth == (auth or "tokens")
    assert "jobs.example.org" in names
    assert ("127.0.0.1" in names) == (host == "0.0.0.0")


def test_a_password_is_on_no_command_line_and_in_no_file(root, tmp_path):
    machine = Machine(UpSettings(root=root, store="postgresql://ann:hush@db.example.org/zsbir"))
    assert all("hush" not in " ".join(program.command) for program in machine.programs)
    assert [program.name for program in machine.programs if "hush" in str(program.env)] == ["dispatcher", "search", "api"]
    assert "hush" not in str(machine.summary)


@pytest.mark.parametrize(
    ("given", "link"),
    [
        ("https://ann:hush@mlflow.example.org/x", "https://mlflow.example.org/x"),
        ("https://mlflow.example.org/x?token=hush", ""),
        ("postgresql://ann:hush@db.example.org/mlflow", ""),
        ("postgresql:///mlflow?host=db&password=hush", ""),
    ],
)
def test_the_password_of_an_mlflow_reaches_the_programs_that_ask_it_by_their_environment_alone(root, monkeypatch, given, link):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    machine = Machine(UpSettings(root=root))
    assert [program.name for program in machine.programs] == ["ray", "dispatcher", "search", "api"]
    assert all("hush" not in " ".join(program.command) for program in machine.programs)
    assert [program.name for program in machine.programs if "hush" in str(program.env)] == ["ray", "dispatcher", "search", "api"]
    assert "hush" not in str(machine.summary)
    shown = [word.partition("=")[2] for word in machine.programs[-1].command if word.startswith("--mlflow-url=")]
    assert shown == ([link] if link else [])


def test_an_mlflow_with_a_user_and_no_password_is_refused(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://hush@mlflow.example.org")
    with pytest.raises(InputError, match="set MLFLOW_TRACKING_TOKEN") as refused:
        Machine(UpSettings(root=root))
    assert "hush" not in str(refused.value)


def test_the_own_mlflows_password_is_new_each_time_and_in_a_private_file(root, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    machines = [Machine(UpSettings(root=root)) for _ in range(2)]
    passwords = {machine.tracking["MLFLOW_TRACKING_PASSWORD"] for machine in machines}
    assert len(passwords) == 2
    file = Path(machines[-1].summary["mlflow_password"])
    assert (file.read_text(), file.stat().st_mode & 0o777) == (machines[-1].tracking["MLFLOW_TRACKING_PASSWORD"], 0o600)
    assert not any(text in str(machines[-1].summary) + str([each.command for each in machines[-1].programs]) for text in passwords)


def test_rays_folder_lies_in_one_that_is_closed_and_its_sockets_have_short_names(root):
    machine = Machine(UpSettings(root=root))
    (temp,) = [word.removeprefix("--temp-dir=") for word in machine.programs[0].command if word.startswith("--temp-dir=")]
    assert Path(temp).parent == Path(machine.ray_temp)
    assert Path(machine.ray_temp).stat().st_mode & 0o777 == 0o700
    longest = f"{temp}/session_2026-11-29_16-35-27_138524_4194304/sockets/plasma_store.sock"
    assert len(longest) < 107, "the kernel's limit"


def test_the_lines_of_up_can_be_pasted_into_a_shell(root, tmp_path, capfd):
    folder = tmp_path / "a root; $(x)"
    state = {"url": "http://127.0.0.1:1", "store": "sqlite://", "auth": "off", "token": "", "programs": []}
    write_state(str(folder), {**state, "ray": {"token": str(folder / "ray.token"), "dashboard": "http://127.0.0.1:2"}})
    announce(str(folder))
    line = next(line for line in capfd.readouterr().err.splitlines() if "export " in line)
    words = shlex.split(line.partition("export ")[2])
    assert words[1] == f"RAY_AUTH_TOKEN_PATH={folder / 'ray.token'}"
    assert len(words) == 3


def test_without_tokens_up_says_what_that_means_before_it_starts(root, capfd, monkeypatch):
    monkeypatch.setattr("services.jobs.local.keeper._start_keeper", lambda *_: (_ for _ in ()).throw(RunError("not started")))
    with pytest.raises(RunError, match="not started"):
        up(UpSettings(root=root, auth="off"))
    assert "every user of this machine is operator" in capfd.readouterr().err


def test_the_owners_token_stays_while_it_is_valid(root):
    store = open_store(f"sqlite:///{make_state_folder(root) / 'jobs.db'}")
    tokens, file = Tokens(store), make_state_folder(root) / "operator.token"
    for _ in range(2):
        _keep_owner_token(file, tokens)
    (made,) = tokens.all()
    assert (made.name, made.role, tokens.bearer(file.read_text())) == ("local", "operator", made)
    tokens.revoke(made.id, "test")
    _keep_owner_token(file, tokens)
    assert tokens.bearer(file.read_text()).id == 2
    store.engine.dispose()


@pytest.mark.parametrize("command", ["up", "serve", "dispatch", "limits", "tokens"])
def test_a_password_as_an_argument_is_refused_with_the_way_out(command, capfd):
    with pytest.raises(InputError, match="set ZSBIR_JOBS_STORE or MLFLOW_TRACKING_URI") as refused:
        main_parse([command, "--store=postgresql://ann:hush@db/z"])
    assert "hush" not in str(refused.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process as another user")
def test_what_another_user_has_left_running_is_neither_ended_nor_forgotten(root):
    other = subprocess.Popen(["sleep", "600"], user=65534, start_new_session=True)
    program = {"name": "api", "pid": other.pid, "start": start_of(other.pid)}
    write_state(root, {**NOTHING, "programs": [program]})
    with pytest.raises(RunError, match=rf"api of this root's service \(process {other.pid}\) is another user's"):
        down(root, now=True)
    assert other.poll() is None
    assert (state_folder(root) / "up.json").exists()
    other.kill()
    other.wait()


def test_a_damaged_record_of_what_is_up_is_one_line_with_the_way_out(root):
    write_state(root, NOTHING)
    (state_folder(root) / "up.json").write_text("{")
    with pytest.raises(InputError, match=r"up\.json is damaged: end what it named by hand"):
        down(root, now=True)


def test_a_service_is_known_to_its_keeper_without_its_record(root, marker):
    """`up.json` may be removed by hand while the keeper lives."""
    mine = subprocess.Popen(["sleep", "600"], env={**os.environ, MARKER: marker}, start_new_session=True)
    until = time.monotonic() + 10
    while not Service(root, [], marker).processes():  # its environment can be read a moment after it has started
        assert time.monotonic() < until
    Service(root, [], marker).kill()
    assert mine.wait(10) == -signal.SIGKILL


def test_a_service_that_an_earlier_version_started_says_how_to_start_it_again(root, capsys):
    """It has tokens, and no file with the token of the user who started it."""
    state = {**NOTHING, "programs": [], "store": "sqlite:///x", "auth": "tokens", "url": "http://127.0.0.1:1"}
    write_state(root, {**state, "ray": {"token": "t", "dashboard": "http://127.0.0.1:2"}})
    assert announce(root) == "http://127.0.0.1:1"
    assert "an earlier version: end it with `down`" in capsys.readouterr().err
