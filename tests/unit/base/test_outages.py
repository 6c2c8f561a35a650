"""Which errors pass by themselves: told by their class and number, with real ones where a machine without a network has them."""

from __future__ import annotations

import errno
import http.client
import socket
import sqlite3
import ssl
import urllib.request
from email.message import Message
from urllib.error import HTTPError, URLError

import filelock
import pytest
from servers.processes import free_ports

from zsbir.base import files
from zsbir.base.draft import draft
from zsbir.base.errors import Busy, DiskFull, InputError, PermanentError, RunError, Unreachable
from zsbir.base.outages import outage_of, reported_name


def http_error(status):
    return HTTPError("http://x", status, "said so", Message(), None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (OSError(errno.EDQUOT, "Quota exceeded", "/a/file"), DiskFull),
        (OSError(errno.EFBIG, "File too large"), None),
        (OSError(errno.EACCES, "Permission denied"), None),
        (socket.gaierror(-3, "Temporary failure in name resolution"), Unreachable),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), Unreachable),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), Unreachable),
        (TimeoutError("timed out"), Unreachable),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), None),
        (filelock.Timeout("a.lock"), None),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), Unreachable),
        (http.client.IncompleteRead(b""), Unreachable),
        (URLError(socket.gaierror(-2, "Name or service not known")), Unreachable),
        (URLError("unknown url type: x"), None),
        (http_error(404), None),
        (http_error(429), Unreachable),
        (http_error(503), Unreachable),
        (RunError("the disk is full, it says, and does not answer"), None),
    ],
    ids=repr,
)
def test_an_outage_is_told_by_class_and_number_never_by_words(error, expected):
    assert outage_of(error) is expected
    assert reported_name(error) == (expected or type(error)).__name__


def test_a_name_that_nobody_knows_and_a_port_where_nobody_listens_are_outages():
    (port,) = free_ports(1)
    for address in ("http://nobody.invalid/weights.pth", f"http://127.0.0.1:{port}/"):
        with pytest.raises(URLError) as told:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=20)
        assert outage_of(told.value) is Unreachable


def test_a_database_that_has_no_room_is_a_full_disk(tmp_path):
    database = sqlite3.connect(tmp_path / "x.db")
    database.execute("CREATE TABLE t (x)")
    database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as told:
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    database.close()
    assert outage_of(told.value) is DiskFull


def test_an_error_is_named_for_what_it_was_raised_from_unless_its_class_says_more():
    def raised(kind, cause):
        try:
            try:
                raise cause
            except OSError as error:
                raise kind("in other words") from error
        except (RunError, InputError) as error:
            return error

    full = OSError(errno.ENOSPC, "No space left on device")
    assert reported_name(raised(RunError, full)) == "DiskFull"
    assert [reported_name(raised(kind, full)) for kind in (InputError, Busy, PermanentError)] == [
        "InputError",
        "Busy",
        "PermanentError",
    ]


def test_an_artifact_that_finds_no_room_says_so_by_its_class_also_where_a_library_tells_it_in_words(tmp_path):
    for error in (OSError(errno.ENOSPC, "No space left on device"), OSError("200000 requested and 12375 written")):
        assert files.is_full(error)
        with pytest.raises(DiskFull, match="cannot write the dataset"), draft(tmp_path / "x", "dataset", "x"):
            raise error
