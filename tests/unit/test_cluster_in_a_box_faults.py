"""The cluster in a box, where others have been at its folder, where something fails, and where somebody interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infra.cluster_in_a_box import box as box_module
from infra.cluster_in_a_box import namespaces, notes
from infra.cluster_in_a_box.__main__ import main
from infra.cluster_in_a_box.box import Box
from infra.cluster_in_a_box.notes import BoxError, Facts

REPOSITORY = Path(__file__).resolve().parents[2]
STORE = {"bucket": "b", "endpoint": "http://127.0.0.1:1", "key": "k", "secret": "s"}
SOMEBODY = 12345


@pytest.fixture
def sleeper() -> Iterator[psutil.Popen]:
    with psutil.Popen(["sleep", "1000"]) as process:
        yield process
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def noted(tmp_path, sleeper) -> Path:
    """A folder in which a process that is no box is noted as one."""
    folder = tmp_path / "box"
    notes.make_folder(folder)
    notes.save(folder, Facts(1, 1, "t", STORE, holder=(sleeper.pid, sleeper.create_time())))
    return folder


def give_away(path: Path, monkeypatch) -> None:
    if os.geteuid() == 0:
        os.chown(path, SOMEBODY, SOMEBODY)
    else:  # it cannot be given away: then we are somebody else
        monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)


def moved(path: Path, make: Callable[[Path, Path], None]) -> None:
    """Move a file away, and make something else in its place."""
    other = path.rename(path.with_name("elsewhere"))
    make(path, other)


def changed(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


FAULTS: dict[str, tuple[str, Callable]] = {
    "a folder of somebody else": ("belongs to somebody else", give_away),
    "a file of somebody else": ("belongs to somebody else", lambda folder, patch: give_away(folder / "box.json", patch)),
    "a folder that a group may change": ("can be changed by others", lambda folder, _: folder.chmod(0o770)),
    "a file that all may change": ("can be changed by others", lambda folder, _: (folder / "box.json").chmod(0o606)),
    "a link to a folder": ("is not a folder itself", lambda folder, _: moved(folder, Path.symlink_to)),
    "a link to a file": ("cannot be read", lambda folder, _: moved(folder / "box.json", Path.symlink_to)),
    "a pipe": ("is not what it should be", lambda folder, _: moved(folder / "box.json", lambda path, _: os.mkfifo(path, 0o600))),
    "a large file": ("bytes", lambda folder, _: changed(folder / "box.json", token="t" * 70_000)),
    "no JSON": ("Invalid JSON", lambda folder, _: (folder / "box.json").write_text("{")),
    "a field too many": ("more", lambda folder, _: changed(folder / "box.json", more=1)),
    "a number as text": ("holder.0", lambda folder, _: changed(folder / "box.json", holder=["7", 1.0])),
    "a time that is none": ("holder.1", lambda folder, _: changed(folder / "box.json", holder=[7, float("nan")])),
    "half a store": ("store", lambda folder, _: changed(folder / "box.json", store={"key": "k"})),
    "too many nodes": ("nodes", lambda folder, _: changed(folder / "box.json", nodes=99)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_others_may_have_noted_kills_nothing(name, noted, sleeper, monkeypatch, capsys):
    why, spoil = FAULTS[name]
    spoil(noted, monkeypatch)
    for verb in ("down", "status"):
        assert main(["--folder", str(noted), verb]) == 2
        said = capsys.readouterr().err
        assert why in said
        assert said.count("\n") == 1
    with pytest.raises(BoxError, match=why):
        Box.make(noted, store=STORE)
    assert sleeper.is_running()


def test_what_is_noted_in_a_folder_of_ones_own_is_believed(noted, sleeper):
    """Else the test above would prove nothing."""
    assert main(["--folder", str(noted), "down"]) == 0
    assert sleeper.wait(10) == -signal.SIGKILL


def test_the_folder_is_one_that_only_this_user_can_have_made_where_the_system_has_such(tmp_path, monkeypatch):
    monkeypatch.delenv("ZSBIR_BOX", raising=False)
    user = os.geteuid() or SOMEBODY
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    os.chown(tmp_path, user, -1)
    assert notes.default_folder() == tmp_path / "zsbir-box"
    tmp_path.chmod(0o777)
    assert notes.default_folder().name == f"zsbir-box-{user}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert notes.default_folder().name == f"zsbir-box-{user}"
    monkeypatch.setenv("ZSBIR_BOX", "here")
    assert notes.default_folder() == Path("here")


def test_an_error_of_the_system_is_one_line(capsys):
    assert main(["--folder", "/dev/null/box", "status"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children(recursive=True))
    return []


def in_folder(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder."""
    return [each for each in psutil.process_iter(["cwd"]) if (each.info["cwd"] or "") == str(folder)]


def needs_namespaces() -> None:
    if reason := namespaces.reason_why_not():
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("holder", signal.SIGINT, 130), ("moto", signal.SIGINT, 130), ("moto", signal.SIGTERM, 1)],
    ids=["an interrupt while the holder starts", "an interrupt while the store starts", "an end while the store starts"],
)
def test_whoever_interrupts_up_leaves_nothing_behind(moment, number, code, tmp_path):
    needs_namespaces()
    folder = tmp_path / "box"
    words = [sys.executable, "-m", "infra.cluster_in_a_box", "--folder", str(folder), "up", "--nodes", "1"]
    process = psutil.Popen(words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until, seen = time.monotonic() + 60, set()
    come = {"holder": lambda: folder.exists() and children(process), "moto": (folder / "s3.log").exists}[moment]
    while not come() and time.monotonic() < until:
        seen |= set(children(process))
    if moment == "moto":
        assert (folder / "box.json").exists(), "`down` finds it from the first on"
    seen |= {*children(process), *in_folder(folder)}
    process.send_signal(number)
    assert process.wait(60) == code, process.stderr.read()
    assert seen
    assert not [each for each in [*seen, *in_folder(folder)] if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not (folder / "box.json").exists()


def test_a_store_that_does_not_start_is_reported_at_once_and_nothing_stays(tmp_path, monkeypatch):
    needs_namespaces()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho No module named moto\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(box_module, "BINARIES", tmp_path)
    began = time.monotonic()
    with pytest.raises(BoxError, match="the S3 server did not come: No module named moto"):
        Box.make(tmp_path / "box", 1)
    assert time.monotonic() - began < 30
    assert not (tmp_path / "box" / "box.json").exists()
    assert not in_folder(tmp_path / "box")


def test_a_folder_with_a_long_path_will_do_and_a_port_that_is_taken_is_reported_at_once(tmp_path):
    """A socket in the file system has a name of 107 bytes at most."""
    needs_namespaces()
    folder = tmp_path / ("long" * 30)
    made = Box.make(folder, 1, store=STORE)
    try:
        assert made.s3_is_up()
        assert Box.open(folder).holder.alive
        port = int(subprocess.run([sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE, text=True, check=True).stdout)
        made.let_out(0, 8265, port)
        with pytest.raises(BoxError, match=r"a way from .* did not come: .*in use"):
            made.let_out(0, 8265, port)
    finally:
        made.end()


_LISTEN = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"


@pytest.fixture
def empty(tmp_path) -> Iterator[Box]:
    """A holder without machines."""
    needs_namespaces()
    made = Box(tmp_path, Facts(1, 1, "t" * 64, STORE))
    made.holder = namespaces.Holder.start()
    made.facts.holder = (made.holder.pid, made.holder.began_s)
    yield made
    made.end()


def test_a_machine_that_the_box_does_not_have_is_not_started(empty, capsys):
    notes.save(empty.folder, empty.facts)
    for number in (2, 99, 300):
        assert main(["--folder", str(empty.folder), "start", f"node{number}"]) == 2
        assert capsys.readouterr().err == f"error: there is no node{number}: there are head and node1 to node1\n"
    with pytest.raises(OSError, match="cannot be connected to the bridge"):
        empty.holder.boot(300, name="n", address="10.77.0.3", hosts="", stage=empty.folder, kept=[])
    left = [" ".join(each.cmdline()) for each in children(psutil.Process(empty.holder.pid))]
    assert not [words for words in left if "sleep" not in words], "nothing waits for a network that does not come"


def test_every_mount_is_read_only_but_what_the_machine_has_for_itself(empty, tmp_path):
    """A mount beside the root's, and a checkout below /tmp with a blank in its path."""
    enter = ["nsenter", "-t", str(empty.holder.pid), *empty.holder._user(), "-m"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "second", "/mnt"], check=True)
    (kept := tmp_path / "a checkout").mkdir()
    (kept / "file").write_text("seen")
    (stage := tmp_path / "stage").mkdir()
    first = empty.holder.boot(0, name="head", address="10.77.0.1", hosts="127.0.0.1 localhost", stage=stage, kept=[kept])
    empty.facts.machines["0"] = (first, psutil.Process(first).create_time())
    places = ["/", "/dev", "/mnt", "/etc", str(kept), "/tmp", "/var/tmp", "/dev/shm", "/run", "/tmp/home"]
    script = 'for place; do touch "$place/zsbir-touched" 2>/dev/null && echo "$place"; done; cat "$0/file"'
    said = empty.ask(0, ["sh", "-c", script, str(kept), *places])
    assert said == "/tmp\n/var/tmp\n/dev/shm\n/run\n/tmp/home\nseen"
    assert not [place for place in places if (Path(place) / "zsbir-touched").exists()], "nothing of it is on the host"
    variables = Path(f"/proc/{first}/environ").read_bytes().split(b"\0")
    assert {each.partition(b"=")[0] for each in variables} <= {b"PATH", b"LC_CTYPE", b"PWD", b""}, "nothing of the host's user"
    mounts = [line.split() for line in empty.ask(0, ["cat", "/proc/self/mountinfo"]).splitlines()]
    writable = {line[4] for line in mounts if "rw" in line[5].split(",")}
    assert writable <= {"/proc", "/etc/hosts", "/tmp", "/var/tmp", "/dev/shm", "/run"}
