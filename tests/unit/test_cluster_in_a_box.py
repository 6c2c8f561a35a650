"""The command line of the cluster in a box: what is documented is understood, and what cannot be done is said in one line."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from infra.cluster_in_a_box import clock, namespaces
from infra.cluster_in_a_box.__main__ import NEXT, main, number_of, parser
from infra.cluster_in_a_box.box import Box
from infra.cluster_in_a_box.notes import Facts

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "rehearsal.md").read_text("utf-8")


def documented() -> list[str]:
    blocks = [*re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL), NEXT]
    text = "\n".join(blocks).replace("\\\n", " ").replace("python -m infra.cluster_in_a_box", "box")
    found = re.findall(r"^\s*(?:\w+=\$\()?(?:timeout \d+ )?box (.*?)\)?$", text, re.MULTILINE)
    return sorted(set(found))


def test_there_are_commands_in_the_page():
    assert len(documented()) > 12


@pytest.mark.parametrize("words", documented())
def test_a_documented_command_is_understood(words):
    asked = parser().parse_args(shlex.split(words))
    assert not (asked.verb == "on" and asked.command[0].startswith("-")), "an option behind the machine is the command's"


@pytest.mark.parametrize(("words", "why"), [(["--ahead-s", "600", "date"], "come before the machine"), ([], "name a command")])
def test_on_a_machine_without_a_command_says_how(tmp_path, capsys, words, why):
    assert main(["--folder", str(tmp_path), "on", "node2", *words]) == 2
    assert why in capsys.readouterr().err


def test_the_page_and_what_up_prints_start_the_same_training():
    trainings = re.findall(r"zsbir\.train toy (.*?--no-tracking)", (PAGE + NEXT).replace("\\\n", " "), re.DOTALL)
    assert len({" ".join(words.split()) for words in trainings}) == 1 < len(trainings)


@pytest.mark.parametrize(("text", "number"), [("head", 0), ("node1", 1), ("3", 3)])
def test_a_machine_is_named_or_numbered(text, number):
    assert number_of(text) == number


@pytest.mark.parametrize("text", ["node0", "-1", "store", ""])
def test_what_is_no_machine_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["kill", text])
    assert "NODE" in capsys.readouterr().err


def test_without_a_box_every_command_says_how_to_start_one(tmp_path, capsys):
    assert main(["--folder", str(tmp_path), "status"]) == 2
    assert capsys.readouterr().err == f"error: no box is up in {tmp_path}; start one with `up`\n"


def test_a_store_behind_tls_or_without_keys_is_refused(tmp_path, monkeypatch, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for endpoint, why in (
        ("https://s3.example.org", "must begin with http://"),
        ("http://127.0.0.1:1", "set AWS_ACCESS_KEY_ID and"),
    ):
        if not namespaces.reason_why_not():
            assert main(["--folder", str(tmp_path / "box"), "up", "--s3-endpoint", endpoint]) == 2
            assert why in capsys.readouterr().err


def test_a_wrong_clock_needs_a_library_that_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "none.so"))
    assert clock.library() is None
    file = tmp_path / "some.so"
    file.touch()
    monkeypatch.setenv(clock.VARIABLE, str(file))
    assert clock.library() == file
    assert clock.wrong_clock(-600, file)["FAKETIME"] == "-600s"


def test_connections_pass_both_ways_and_through_a_socket_in_the_file_system(tmp_path):
    def echo(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            while data := peer.recv(1 << 16):
                peer.sendall(data.upper())

    forward = [sys.executable, str(REPOSITORY / "infra" / "cluster_in_a_box" / "forward.py")]
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        found.close()
        threading.Thread(target=echo, args=(server,), daemon=True).start()
        pair = [
            [*forward, f"unix:{tmp_path}/s", f"tcp:127.0.0.1:{server.getsockname()[1]}"],
            [*forward, f"tcp:127.0.0.1:{port}", f"unix:{tmp_path}/s"],
        ]
        running = [subprocess.Popen(words, stdout=subprocess.PIPE) for words in pair]
        try:
            assert [process.stdout.readline() for process in running] == [b"ready\n"] * 2
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"a" * 300_000)
                client.shutdown(socket.SHUT_WR)
                got = b"".join(iter(lambda: client.recv(1 << 16), b""))
            assert got == b"A" * 300_000
        finally:
            for process in running:
                process.kill()
                process.wait()


@pytest.fixture
def machines(tmp_path):
    """A holder with two machines on its bridge, without Ray."""
    if reason := namespaces.reason_why_not():
        pytest.skip(reason)
    box = Box(
        tmp_path, Facts(nodes=1, cpus=1, token="t" * 64, store={"bucket": "b", "endpoint": "http://x", "key": "k", "secret": "s"})
    )
    box.holder = namespaces.Holder.start()
    box.facts.holder = (box.holder.pid, box.holder.began_s)
    for number in (0, 1):
        box.boot(number)
    yield box
    box.end()


def python(box: Box, number: int, code: str) -> str:
    return box.ask(number, ["python", "-c", code]).strip()


def test_machines_have_names_addresses_processes_and_disks_of_their_own(machines, tmp_path):
    names = [
        python(machines, number, "import socket; print(socket.gethostname(), socket.gethostbyname('node1'))") for number in (0, 1)
    ]
    assert names == ["head 10.77.0.2", "node1 10.77.0.2"]
    python(machines, 0, "open('/tmp/mine', 'w'); open('/dev/shm/mine', 'w'); open('mine', 'w')")
    for path in ("/tmp/mine", "/dev/shm/mine", "/tmp/home/mine"):
        assert (machines.disk(0) / path[1:]).exists()
        assert not (machines.disk(1) / path[1:]).exists()
        assert not Path(path).exists()
    assert python(machines, 0, "import os; print(len([name for name in os.listdir('/proc') if name.isdigit()]) < 10)") == "True"
    assert "Read-only" in python(machines, 0, f"try: open('{REPOSITORY}/x', 'w')\nexcept OSError as error: print(error)")
    assert (machines.disk(0) / "tmp/home/.ray/auth_token").read_text() == "t" * 64


def test_a_machine_that_is_cut_off_is_heard_again_and_one_that_is_unplugged_is_gone_with_its_processes(machines):
    knock = "import socket; print(socket.socket().connect_ex(('node1', 9)))"
    assert python(machines, 0, knock) == "111", "refused: it answers"
    machines.cut(1)
    assert machines.holder.is_cut(1)
    silent = (
        "import socket; s = socket.socket(); s.settimeout(0.5)\ntry: s.connect(('node1', 9))\nexcept TimeoutError: print('silent')"
    )
    assert python(machines, 0, silent) == "silent"
    machines.mend(1)
    assert not machines.holder.is_cut(1)
    assert python(machines, 0, knock) == "111"
    sleeper = psutil.Popen(machines.command(1, ["sleep", "1000"]))
    until = time.monotonic() + 30
    while not sleeper.children() and time.monotonic() < until:
        time.sleep(0.01)
    (asleep,) = sleeper.children()
    machines.unplug(1)
    assert sleeper.wait(30) in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert not asleep.is_running()
    assert not machines.alive(1)
    machines.boot(1)
    assert python(machines, 0, knock) == "111"


def test_what_is_noted_leads_the_next_command_to_the_same_machines_and_the_end_ends_all(machines, tmp_path):
    machines._save()
    again = Box.open(tmp_path)
    assert again.alive(0)
    assert again.first(1) == machines.first(1)
    assert (tmp_path / "box.json").stat().st_mode & 0o777 == 0o600, "it holds Ray's token"
    again.end()
    assert not machines.alive(0)
    assert not machines.alive(1)
    assert main(["--folder", str(tmp_path), "kill", "node1"]) == 2
