import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zsbir.base import cache
from zsbir.base.cache import cache_bytes, cache_dir, cache_name, cached, drafts_dir
from zsbir.base.errors import InputError, RunError

KB = 1024


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))


def filled(size):
    return lambda path: path.write_bytes(bytes(size))


def kept():
    return sorted(path.name for path in (cache_dir() / "objects").rglob("*") if path.is_file())


def test_what_is_there_is_not_made_again():
    made = []

    def make(path):
        made.append(path)
        path.write_bytes(b"once")

    first, second = cached("aa11.bin", make), cached("aa11.bin", make)
    assert first == second
    assert second.read_bytes() == b"once"
    assert len(made) == 1


def test_a_making_that_fails_leaves_nothing_and_is_tried_again():
    def half(path):
        path.write_bytes(b"half")
        raise InputError("arrived damaged")

    with pytest.raises(InputError):
        cached("aa11.bin", half)
    assert kept() == []
    assert cached("aa11.bin", filled(3)).read_bytes() == bytes(3)


@pytest.mark.parametrize(
    "error", [OSError("a library's own words"), ConnectionError("away"), FileNotFoundError(2, "gone", "/store/x")]
)
def test_an_error_of_what_makes_the_file_is_not_blamed_on_the_cache(error):
    def fails(path):
        raise error

    with pytest.raises(type(error)) as caught:
        cached("aa11.bin", fails)
    assert caught.value is error
    assert kept() == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("10 requested and 3 written")])
def test_a_full_disk_under_the_cache_is_one_line_with_the_way_out(error):
    def fails(path):
        raise error

    with pytest.raises(RunError, match=r"cannot write the cache .*; set ZSBIR_CACHE to a larger disk"):
        cached("aa11.bin", fails)


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/cron.d/x", "a" * 64 + "/../x", "", ".", "..", "a" * 65, "aa.b/c", "aa\0", "aa.\n"]
)
def test_a_name_that_is_no_checksum_is_refused_before_anything_is_made(name, tmp_path):
    with pytest.raises(InputError, match="is not the name of a file in the cache"):
        cached(name, filled(3))
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("name", "ending"),
    [("encoder.safetensors", ".safetensors"), ("a/b.tar.gz", ".gz"), ("bare", ""), ("odd.\x1b[2J", ""), ("x.a/b", "")],
)
def test_a_cached_file_keeps_a_plain_ending(name, ending):
    assert cache_name("0" * 64, name) == "0" * 64 + ending


def test_other_users_of_the_cache_can_read_what_is_in_it():
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(cached("aa11.bin", filled(3)).stat().st_mode) == 0o666 & ~mask


def test_the_least_recently_used_go_first_and_the_bound_holds(monkeypatch):
    monkeypatch.setattr(cache, "IN_USE_S", 0.0)
    monkeypatch.setenv("ZSBIR_CACHE_GB", str(100 * KB / 1e9))
    for number in range(4):
        path = cached(f"{number:02d}", filled(30 * KB))
        os.utime(path, (1000 + number, 1000 + number))
        if number == 1:
            cached("00", filled(1))  # used again: now the youngest
    assert kept() == ["00", "02", "03"]
    assert sum((path.stat().st_size for path in (cache_dir() / "objects").rglob("*") if path.is_file()), 0) <= 100 * KB


def test_what_was_asked_for_a_moment_ago_is_not_thrown_out(monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE_GB", str(50 * KB / 1e9))
    for number in range(3):
        cached(f"{number:02d}", filled(30 * KB))
    assert kept() == ["00", "01", "02"], "each of them may be about to be opened"


def test_an_open_file_survives_being_thrown_out(monkeypatch):
    monkeypatch.setattr(cache, "IN_USE_S", 0.0)
    monkeypatch.setenv("ZSBIR_CACHE_GB", str(50 * KB / 1e9))
    path = cached("00", lambda path: path.write_bytes(b"x" * 30 * KB))
    os.utime(path, (1, 1))
    with path.open("rb") as file:
        cached("01", filled(30 * KB))
        assert not path.exists()
        assert file.read() == b"x" * 30 * KB


def test_many_threads_that_want_one_file_make_it_once():
    made, start = [], threading.Barrier(8)

    def make(path):
        made.append(path)
        time.sleep(0.05)
        path.write_bytes(b"whole")

    def ask():
        start.wait()
        assert cached("aa11", make).read_bytes() == b"whole"

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


ASK = """
import sys, time
from pathlib import Path
from zsbir.base.cache import cached
def make(path):
    with Path(sys.argv[1]).open("a") as log:
        log.write("made\\n")
    time.sleep(0.3)
    path.write_bytes(b"whole" * 1000)
assert cached("aa11", make).read_bytes() == b"whole" * 1000
"""


def test_processes_share_one_copy(tmp_path):
    log = tmp_path / "log"
    processes = [subprocess.Popen([sys.executable, "-c", ASK, str(log)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert log.read_text() == "made\n"


@pytest.mark.parametrize("text", ["much", "0", "-3", "nan"])
def test_a_bound_that_is_not_a_size_is_an_input_error(monkeypatch, text):
    monkeypatch.setenv("ZSBIR_CACHE_GB", text)
    with pytest.raises(InputError, match="ZSBIR_CACHE_GB must be a positive number"):
        cache_bytes()


def test_the_bound_is_never_more_than_the_disk_has(monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE_GB", "1e9")
    assert cache_bytes() < 1e18


DRAFT = """
import sys, time
from zsbir.base.cache import drafts_dir
folder = drafts_dir()
(folder / "half.bin").write_bytes(bytes(10))
print(folder, flush=True)
time.sleep(60)
"""


def test_drafts_of_killed_processes_are_removed_and_those_of_living_ones_stay():
    processes = [subprocess.Popen([sys.executable, "-c", DRAFT], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    killed, alive = [Path(process.stdout.readline().strip()) for process in processes]
    try:
        processes[0].kill()
        processes[0].wait()
        subprocess.run([sys.executable, "-c", "from zsbir.base.cache import drafts_dir; drafts_dir()"], check=True)
        assert not killed.exists()
        assert (alive / "half.bin").exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert drafts_dir() == drafts_dir()
