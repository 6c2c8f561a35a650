"""The ports of one machine's service: the same at each `up`, whatever the file that remembers them holds."""

from __future__ import annotations

import json
import socket
from dataclasses import astuple

import pytest
from servers.processes import free_ports

from services.jobs.local.machine import Machine
from services.jobs.local.paths import make_state_folder
from services.jobs.local.ports import HIGHEST, choose_ports, is_free
from services.jobs.local.settings import UpSettings
from zsbir.base.errors import RunError

HOST = "127.0.0.1"


@pytest.fixture
def state(tmp_path):
    return make_state_folder(str(tmp_path / "root"))


@pytest.fixture
def asked():
    """A port that is free, as are the six behind it."""
    candidates = (port for port in iter(lambda: free_ports(1)[0], None) if port < HIGHEST - 6)
    return next(port for port in candidates if all(is_free(HOST, port + number) for number in range(7)))


@pytest.fixture
def taken():
    """A function that lets another program listen on a port."""
    listening = []
    yield lambda port: listening.append(socket.create_server((HOST, port)))
    for sock in listening:
        sock.close()


def test_the_first_up_takes_the_ports_behind_that_of_the_page(state, asked):
    assert astuple(choose_ports(state, HOST, asked)) == tuple(range(asked, asked + 7))


@pytest.mark.parametrize("anywhere", [False, True])
def test_the_next_up_has_the_same_ports(state, asked, anywhere):
    asked = 0 if anywhere else asked
    first = choose_ports(state, HOST, asked)
    assert len(set(astuple(first))) == 7
    assert choose_ports(state, HOST, asked) == first


def test_a_port_that_was_taken_meanwhile_is_replaced_in_one_line_and_the_others_stay(state, asked, taken, capsys):
    first = choose_ports(state, HOST, asked)
    taken(first.mlflow)
    second = choose_ports(state, HOST, asked)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"port {first.mlflow} is taken by another program: MLflow is on port {second.mlflow} from now on"]
    assert [new for new, old in zip(astuple(second), astuple(first), strict=True) if new != old] == [second.mlflow]
    assert choose_ports(state, HOST, asked) == second


def test_a_page_that_had_to_move_stays_where_it_is_until_up_is_told_another_port(state, asked, taken, capsys):
    taken(asked)
    moved = choose_ports(state, HOST, asked).api
    assert moved != asked
    assert f"port {asked} is taken by another program: the page is on port {moved} from now on" in capsys.readouterr().err
    assert choose_ports(state, HOST, asked).api == moved
    (other,) = free_ports(1)
    assert choose_ports(state, HOST, other).api == other


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"api": "80", "mlflow": true, "gcs": -1, "agent": 70000, "x": 1}',
        '{"api": 1e400}',
        "[" * 9_999,
        '{"api": 8270' + " " * 20_000 + "}",
    ],
)
def test_a_file_that_something_else_has_written_is_as_none(state, asked, text):
    (state / "ports.json").write_text(text)
    assert choose_ports(state, HOST, asked).api == asked
    assert json.loads((state / "ports.json").read_text())["asked"] == asked


def test_an_address_that_this_machine_does_not_have_is_one_line(state):
    with pytest.raises(RunError, match=r"no port of 192\.0\.2\.1 .* is free: does this machine have that address"):
        choose_ports(state, "192.0.2.1", 0)


def test_every_program_is_where_it_was(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, second = (Machine(UpSettings(root=str(tmp_path / "root"), port=0)) for _ in range(2))
    assert [program.address for program in first.programs] == [program.address for program in second.programs]
    assert first.summary["ray"]["address"] == second.summary["ray"]["address"]
    assert first.tracking_uri == second.tracking_uri
