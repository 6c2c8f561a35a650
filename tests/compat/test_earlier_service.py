"""Today's client at work with the service of version 0.1.0: what it shows, and what it says where that service lacks something.

The service is its recorded answers (before.tar.xz): what it would answer to today's other requests is known by its rules alone.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from servers.earlier_service import earlier_service

from services.jobs.cli.client import Client
from services.jobs.cli.commands import COMMANDS
from zsbir.base.errors import InputError

PACKED = Path(__file__).with_name("before.tar.xz")


@pytest.fixture(scope="module")
def calls():
    with tarfile.open(PACKED) as tar:
        recorded = json.load(tar.extractfile("calls.json"))
    return [*recorded["looks"], *recorded["changes"]]


@pytest.fixture
def command(calls, monkeypatch):
    """A function that runs a command of today's client on that service, and returns its result."""
    with earlier_service(calls) as address:
        monkeypatch.setenv("ZSBIR_JOBS_URL", address)
        yield lambda *words: COMMANDS[words[0]](words[1:])


def answer(calls, path):
    return json.loads(next(call["answer"] for call in calls if call["path"] == path))


def test_the_list_shows_every_job_that_it_has(command, calls):
    lines = command("list").splitlines()[1:]
    jobs = answer(calls, "/api/jobs?limit=100")["jobs"]
    assert [int(line.split()[0]) for line in lines] == [job["id"] for job in jobs]
    assert [line.split()[2] for line in lines] == [job["state"] for job in jobs]
    assert json.loads(command("list", "--json"))[0]["id"] == 6


@pytest.mark.parametrize("job", range(1, 7))
def test_each_job_is_shown_with_its_state_and_its_log_is_read(command, calls, job):
    then = answer(calls, f"/api/jobs/{job}")
    shown = command("show", str(job))
    assert shown.startswith(f"job {job}")
    assert then["state"] in shown.splitlines()[0]
    assert then["result"] in shown


def test_a_log_is_the_same(calls, capfd, command):
    command("logs", "1")
    recorded = next(call["answer"] for call in calls if call["path"] == "/api/jobs/1/log?offset=0")
    assert capfd.readouterr().out.strip() == recorded.strip()


def test_the_queue_and_its_limits_are_shown(command, calls):
    assert "dispatcher" in command("queue")
    assert json.loads(command("limits"))["running"] == answer(calls, "/api/queue")["limits"]["running"]


def test_a_job_is_submitted_cancelled_and_tried_again(command):
    assert command("submit", "train", "--recipe", "toy", "--dataset", "/x", "--knowledge", "/y") == "1"
    command("cancel", "4")
    assert command("retry", "2") == "6"


def test_what_that_service_lacks_is_refused_with_the_reason_and_not_shown_as_something_else(calls):
    refused = pytest.raises(InputError, match="is of an earlier version and has no arrays; update it")
    with earlier_service(calls) as address, Client(address) as client, refused:
        client.jobs(array=1)
