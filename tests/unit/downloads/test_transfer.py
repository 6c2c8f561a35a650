"""One file over HTTP against a real server on this machine: resumed, tried again, bounded, refused."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from servers.file_host import Handler, file_host

from zsbir.base.errors import DiskFull, InputError, RunError, Unreachable
from zsbir.downloads.config import Sources
from zsbir.downloads.transfer import Job, Patience, Remote, check_size, look, part_of, transfer
from zsbir.downloads.web import LONGEST_PAUSE_S, Web, checked_address, origin_of

DATA = np.random.default_rng(0).bytes(1_500_000)
FILE = "/file.bin"
NOW = Patience(tries=3, pause_s=0)


@pytest.fixture
def host():
    with file_host({FILE: DATA}) as running:
        yield running


@pytest.fixture
def web(host):
    with Web([origin_of(host.url)], silence_s=5) as client:
        yield client


def fetched(web, host, folder, *, amount=0, patience=NOW, checked=False):
    """Ask for the size and bring the file. Returns its bytes, and what `advance` was told."""
    url, told = host.url + FILE, []
    remote = look(web, url, patience)
    file = folder / "file.bin"
    transfer(web, Job(url, file, remote, amount or remote.size, checked), patience, told.append)
    return file.read_bytes(), sum(told)


def cut(after):
    return lambda handler: handler.serve(stop_after=after)


def test_a_file_arrives_whole_and_a_range_of_it_alone(web, host, tmp_path):
    assert fetched(web, host, tmp_path) == (DATA, len(DATA))
    assert fetched(web, host, tmp_path, amount=1000) == (DATA[:1000], 1000)
    assert [one.sent for one in host.asked] == [1, len(DATA), 1, 1000]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_lost_connection_goes_on_where_it_broke_and_asks_for_no_byte_twice(web, host, tmp_path):
    host.faults[FILE] = [Handler.serve, cut(300_000), cut(1), cut(600_000)]
    assert fetched(web, host, tmp_path) == (DATA, len(DATA))
    assert host.sent(FILE) == 1 + len(DATA)
    assert [one.range for one in host.asked][1:3] == ["bytes=0-1499999", "bytes=300000-1499999"]
    tags = [one.if_range for one in host.asked]
    assert tags[:2] == ["", ""]
    assert all(tags[2:])


CHILD = """
import sys
from pathlib import Path
from zsbir.downloads.transfer import Job, Patience, look, transfer
from zsbir.downloads.web import Web, origin_of

url, file = sys.argv[1], Path(sys.argv[2])
with Web([origin_of(url)]) as web:
    remote = look(web, url, Patience())
    transfer(web, Job(url, file, remote, remote.size, False), Patience(), lambda count: print(count, flush=True))
"""


def test_a_killed_process_is_followed_by_one_that_goes_on_where_it_stopped(tmp_path):
    file = tmp_path / "file.bin"
    with file_host({FILE: DATA}, piece_s=0.05) as host:
        child = subprocess.Popen([sys.executable, "-c", CHILD, host.url + FILE, str(file)], stdout=subprocess.PIPE, text=True)
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        kept = part_of(file).stat().st_size
        assert 0 < kept < len(DATA)
        assert not file.exists()
        host.piece_s = 0
        with Web([origin_of(host.url)]) as web:
            assert fetched(web, host, tmp_path) == (DATA, len(DATA) - kept)
        assert host.asked[-1].range == f"bytes={kept}-1499999"
        assert host.asked[-1].sent == len(DATA) - kept


def test_a_part_of_another_file_is_not_completed(web, host, tmp_path):
    host.faults[FILE] = [Handler.serve, *repeat(cut(1000), 3)]
    with pytest.raises(Unreachable, match="given up after 3 tries"):
        fetched(web, host, tmp_path)
    assert part_of(tmp_path / "file.bin").stat().st_size == 3000
    host.files = {FILE: DATA[::-1]}
    assert fetched(web, host, tmp_path)[0] == DATA[::-1]


def test_without_an_etag_a_part_is_kept_only_where_a_checksum_will_tell(web, host, tmp_path):
    host.tags = False
    for checked, first in ((False, 0), (True, 3000)):
        host.faults[FILE] = [Handler.serve, *repeat(cut(1000), 3)]
        with pytest.raises(Unreachable):
            fetched(web, host, tmp_path, checked=checked)
        assert fetched(web, host, tmp_path, checked=checked)[0] == DATA
        assert host.asked[-1].range == f"bytes={first}-1499999"
        (tmp_path / "file.bin").unlink()


def test_a_file_that_changes_on_the_way_is_fetched_anew_once(web, host, tmp_path, capsys):
    def change(handler):
        host.files[FILE] = DATA[::-1]
        handler.serve(data=DATA, stop_after=200_000)

    host.faults[FILE] = [Handler.serve, change]
    assert fetched(web, host, tmp_path) == (DATA[::-1], len(DATA))
    assert "the file on the server has changed; started again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "lie",
    [
        lambda handler: handler.serve(says=len(DATA) + 7),
        lambda handler: handler.serve(data=DATA[:1_000_000]),
        lambda handler: handler.answer(416, {"Content-Range": f"bytes */{len(DATA)}"}),
        lambda handler: handler.answer(416),
        lambda handler: handler.answer(206, {"Content-Range": "bytes 5-9/1500000"}, b"abcde"),
        lambda handler: handler.answer(206, {}, b"abcde"),
    ],
    ids=["other size", "shorter file", "no such range", "no such range, no size", "another range", "a range that is not named"],
)
def test_a_server_that_contradicts_itself_twice_is_given_up(web, host, tmp_path, lie):
    host.faults[FILE] = [Handler.serve, lie, Handler.serve, lie]
    with pytest.raises(RunError, match=r"http://127.0.0.1:\d+/file.bin: .*; try again later, or fetch it by hand"):
        fetched(web, host, tmp_path)
    assert not list(tmp_path.glob("*.bin*part"))


def test_a_server_without_ranges_is_read_from_the_start_as_far_as_wanted(web, host, tmp_path):
    def whole(handler):
        del handler.headers["Range"]
        handler.serve()

    def half(handler):
        del handler.headers["Range"]
        handler.serve(stop_after=700_000)

    host.faults[FILE] = [whole, half, *repeat(whole, 9)]
    assert fetched(web, host, tmp_path) == (DATA, len(DATA))
    assert fetched(web, host, tmp_path, amount=1000)[0] == DATA[:1000]


def test_an_answer_longer_than_its_range_is_cut_off(web, host, tmp_path):
    def longer(handler):
        handler.head(206, {"Content-Range": f"bytes 0-999/{len(DATA)}", "Connection": "close"})
        handler.body(DATA)
        handler.close_connection = True

    host.faults[FILE] = [Handler.serve, longer, Handler.serve, longer]
    with pytest.raises(RunError, match="the server sends more bytes than it said"):
        fetched(web, host, tmp_path, amount=1000)


def test_compressed_answers_are_refused(web, host, tmp_path):
    packed = gzip.compress(DATA[:1000])
    host.faults[FILE] = [
        lambda handler: handler.answer(200, {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}, packed)
    ]
    with pytest.raises(RunError, match="answers with 'gzip' bytes though plain ones were asked for"):
        fetched(web, host, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_silent_server_counts_as_lost(host, tmp_path):
    host.piece_s = 30
    with Web([origin_of(host.url)], silence_s=0.1) as web, pytest.raises(Unreachable, match="given up after 1 tries"):
        fetched(web, host, tmp_path, patience=Patience(1, 0))


def test_a_busy_server_is_asked_again_when_it_says(web, host, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    busy = [lambda handler, s=s: handler.answer(503, {"Retry-After": s}) for s in ("7", "86400", "soon")]
    host.faults[FILE] = [*busy]
    assert fetched(web, host, tmp_path, patience=Patience(tries=4, pause_s=2))[0] == DATA
    assert [pause for pause in pauses if pause] == [7, LONGEST_PAUSE_S, 8]


def test_a_file_that_is_not_there_is_not_asked_for_again(web, host, tmp_path):
    host.faults[FILE] = [lambda handler: handler.answer(404)]
    with pytest.raises(InputError, match=r"file.bin: the server answers 404 Not Found; if the file has moved"):
        fetched(web, host, tmp_path)
    assert len(host.asked) == 1


def redirect(target):
    return lambda handler: handler.answer(302, {"Location": target})


def test_redirects_lead_to_hosts_on_the_list_alone(web, host, tmp_path):
    host.faults[FILE] = [redirect("/elsewhere.bin")]
    host.files["/elsewhere.bin"] = DATA
    assert look(web, host.url + FILE, NOW).size == len(DATA)
    for target in (
        "https://files.example/x",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "https://[x",
    ):
        host.faults[FILE] = [redirect(target)]
        with pytest.raises(RunError, match="redirects to"):
            look(web, host.url + FILE, NOW)
    host.faults[FILE] = list(repeat(redirect(FILE), 9))
    with pytest.raises(RunError, match="redirects more than 5 times"):
        look(web, host.url + FILE, NOW)


def test_addresses_are_https_or_of_this_machine():
    for good in ("https://mirror.example/x.zip", "http://127.0.0.1:8000/x", "http://localhost/x", "http://[::1]:1/x"):
        assert checked_address(good) == good
    for bad in ("http://mirror.example/x.zip", "ftp://mirror.example/x", "file:///etc/passwd", "https:///x", "x.zip"):
        with pytest.raises(InputError, match="an address must begin with https://"):
            Sources.of({"photos_url": bad})
    assert Sources(redirect_hosts=("cdn.example",)).origins == {
        "https://data.caltech.edu:443",
        "https://storage.googleapis.com:443",
        "https://download.pytorch.org:443",
        "https://cdn.example:443",
    }


def test_sizes_are_bounded():
    check_size("https://x", Remote(10, ""), 10)
    for size in (0, 11):
        with pytest.raises(InputError, match="at most 10 B were expected"):
            check_size("https://x", Remote(size, ""), 10)


def test_a_full_disk_is_said_and_what_has_arrived_stays(web, host, tmp_path, monkeypatch):
    """The disk is full from the second piece on, as a quota is: by the error number of the write."""
    real, calls = Path.open, []

    def opened(path, *args, **options):
        file = real(path, *args, **options)
        if path.suffix == ".part":
            write = file.write
            file = FullFile(file, write, calls)
        return file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(DiskFull, match="No space left on device; the same command goes on where this one stopped"):
        fetched(web, host, tmp_path)
    monkeypatch.undo()
    kept = part_of(tmp_path / "file.bin").stat().st_size
    assert 0 < kept < len(DATA)
    assert fetched(web, host, tmp_path) == (DATA, len(DATA) - kept)


class FullFile:
    """A file whose second write fails for want of room."""

    def __init__(self, file, write, calls):
        self._file, self._write, self._calls = file, write, calls

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *error):
        return self._file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        self._calls.append(len(data))
        if len(self._calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(data)


def test_an_environment_with_an_unusable_proxy_is_said_in_one_line(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://x")
    with pytest.raises(InputError, match="the environment's settings for HTTPS cannot be used"):
        Web(["https://data.caltech.edu:443"])


def test_a_proxy_of_the_environment_is_asked(host, monkeypatch):
    """The stand-in answers as a proxy would: it is asked for the whole address."""
    monkeypatch.setenv("HTTP_PROXY", host.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    host.files["http://127.0.0.2:9/through.bin"] = DATA
    with Web(["http://127.0.0.2:9"]) as web:
        assert look(web, "http://127.0.0.2:9/through.bin", NOW).size == len(DATA)
