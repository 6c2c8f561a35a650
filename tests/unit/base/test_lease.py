from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
from filelock import Timeout

from zsbir.base import lease
from zsbir.base.errors import RunError
from zsbir.base.lease import alone
from zsbir.base.storage import open_folder

HOLD = """
import sys, time
from zsbir.base import lease
lease.HEARTBEAT_S = 0.1
with lease.alone(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.1)


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path, quick):
    """Provide a folder on disk, and one in a real S3 server."""
    return str(tmp_path / "run") if request.param == "disk" else f"{request.getfixturevalue('s3_root')}/run"


@pytest.fixture
def remote(request, quick):
    return f"{request.getfixturevalue('s3_root')}/run"


def hold(uri):
    process = subprocess.Popen([sys.executable, "-c", HOLD, uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    return process


@pytest.mark.parametrize("error", [ConnectionError("ray is away"), OSError(5, "Input/output error"), Timeout("another lock")])
def test_an_error_of_the_work_that_is_done_alone_passes_unchanged(folder, error):
    with pytest.raises(type(error)) as caught, alone(folder):
        raise error
    assert caught.value is error
    with alone(folder):
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(RunError, match=rf"^cannot write {tmp_path}/file/run: Not a directory$"),
        alone(str(tmp_path / "file" / "run")),
    ):
        pass


def test_a_second_process_is_refused_at_once_and_the_third_gets_its_turn(folder):
    other = hold(folder)
    try:
        with pytest.raises(RunError, match=r"another process is working on .*run"), alone(folder):
            pass
    finally:
        other.kill()
        other.communicate()
    with alone(folder):
        pass
    with alone(folder):
        pass


def test_of_many_at_once_one_works_at_a_time(folder):
    inside, most, start = [], [], threading.Barrier(4)

    def work(number):
        start.wait()
        try:
            with alone(folder):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.3)
                inside.remove(number)
        except RunError:
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most, "somebody got it"
    assert max(most) == 1


def test_the_lease_of_a_dead_process_of_another_machine_is_taken_when_it_no_longer_beats(remote):
    folder = open_folder(remote)
    folder.create(".lease-000007", json.dumps({"host": "elsewhere", "pid": 1, "id": "x", "beats": 3}).encode())
    began = time.monotonic()
    with alone(remote):
        assert folder.names() == [".lease-000008"]
    assert time.monotonic() - began >= lease.PATIENCE_HEARTBEATS * lease.HEARTBEAT_S * 0.9
    assert folder.names() == []


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(remote):
    other = hold(remote)
    other.kill()
    other.communicate()
    began = time.monotonic()
    with alone(remote):
        pass
    assert time.monotonic() - began < 0.5


def test_a_living_process_of_another_machine_is_not_disturbed(remote):
    folder, stop = open_folder(remote), threading.Event()

    def beat():
        for number in range(1000):
            folder.replace(".lease-000001", json.dumps({"host": "elsewhere", "pid": 1, "id": "x", "beats": number}).encode())
            if stop.wait(0.1):
                return

    beating = threading.Thread(target=beat)
    beating.start()
    time.sleep(0.2)
    try:
        with pytest.raises(RunError, match=r"another process is working on .* \(elsewhere, process 1\)"), alone(remote):
            pass
    finally:
        stop.set()
        beating.join()


@pytest.mark.parametrize(
    "text", [b"{", b"[" * 5000, b'{"host": "x", "pid": 1e30, "id": []}', b'{"pid": 99999999999999999999, "id": "a"}']
)
def test_a_lease_that_says_nonsense_is_treated_like_any_other(remote, text):
    open_folder(remote).create(".lease-000001", text)
    with alone(remote):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=r"cannot write .*: (Not a directory|File exists)"), alone(str(tmp_path / "file")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_lease_that_a_late_request_of_its_own_process_brings_back_is_not_held(remote, monkeypatch):
    folder = open_folder(remote)
    with alone(remote):
        late = folder.read(".lease-000001")
    folder.create(".lease-000001", late)
    began = time.monotonic()
    with alone(remote):
        assert folder.names() == [".lease-000002"]
    folder.create(".lease-000001", late)
    turns = iter([1, 2])  # it arrives between the look and the attempt to take it
    monkeypatch.setattr(lease, "_wait_for_turn", lambda folder: next(turns))
    with alone(remote):
        assert folder.names() == [".lease-000002"]
    assert time.monotonic() - began < lease.PATIENCE_HEARTBEATS * lease.HEARTBEAT_S * 5, "nobody waited for it to beat"
    assert folder.names() == []
