"""Slow clients, and those that never finish: over real sockets, with short deadlines."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from services.common import server as serving
from services.common.server import Crowd, Repeats, SeldomFilter, make_server

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
HALF_HEADERS = b"GET / HTTP/1.1\r\nHost: here\r\nX-Slow: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf"
LARGE = b"x" * (32 << 20)


async def app(scope, receive, send):
    """Read the body, then answer; the path says with what, and how late."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": LARGE if scope["path"] == "/large" else b"hello"})


@contextmanager
def served(**limits: float) -> Iterator[tuple[str, int]]:
    server = make_server(app, "127.0.0.1", 0, **limits)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()
    server.should_exit = server.force_exit = True
    thread.join(10)


def opened(address, data=b"", timeout_s=10.0):
    connection = socket.create_connection(address, timeout=timeout_s)
    connection.sendall(data)
    return connection


def answer(connection) -> bytes:
    """Everything until the server closes the connection."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(("sent", "status"), [(b"", b"408"), (HALF_HEADERS, b"408"), (HALF_BODY, b"")])
def test_what_never_becomes_a_request_is_ended_in_time(sent, status):
    with served(receipt_s=0.3) as address, opened(address, sent) as connection:
        assert answer(connection)[9:12] == status


def test_a_byte_now_and_then_does_not_move_the_deadline():
    with served(receipt_s=0.5) as address, opened(address, HALF_HEADERS) as connection:
        until = time.monotonic() + 5
        with suppress(OSError):
            while time.monotonic() < until:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < until


def test_a_second_request_on_a_connection_has_a_deadline_of_its_own():
    with served(receipt_s=0.3) as address, opened(address, REQUEST) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(HALF_HEADERS)
        assert b"408" in answer(connection)


def test_an_application_that_takes_its_time_is_waited_for():
    with served(receipt_s=0.3) as address, opened(address, REQUEST.replace(b"/ ", b"/slow ")) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_its_answer_is_cut_off():
    with served(send_s=0.3) as address, opened(address, REQUEST.replace(b"/ ", b"/large ")) as connection:
        time.sleep(1.5)
        assert len(answer(connection)) < len(LARGE)


def test_a_client_that_reads_slowly_gets_all_of_it():
    with served(send_s=1.0) as address, opened(address, REQUEST.replace(b"/ ", b"/large ")) as connection:
        got = 0
        while got < len(LARGE):
            data = connection.recv(4 << 20)
            assert data
            got += len(data)
            time.sleep(0.01)


def test_hundreds_of_half_sent_requests_stop_nobody(capfd):
    with served(receipt_s=30.0) as address, ExitStack() as stack:
        half = [stack.enter_context(opened(address, HALF_HEADERS)) for _ in range(600)]
        with opened(address, REQUEST) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        half[0].settimeout(5)
        assert answer(half[0]) == b"", "the oldest made room"
        half[-1].sendall(b"fast\r\n\r\n")
        assert half[-1].recv(65536).startswith(b"HTTP/1.1 200"), "the newest is still served"
    assert len(capfd.readouterr().err) < 1000


def test_the_limit_on_connections_leaves_files_for_the_service():
    assert Crowd(1024).most + serving.FILES_BESIDE + 2 * serving.BACKLOG == 1024
    assert Crowd(2**31).most == serving.MAX_CONNECTIONS


def test_the_same_line_is_logged_once_a_minute_with_the_number_left_out():
    now = [0.0]
    repeats = Repeats(lambda: now[0])
    assert [repeats.remark("a"), repeats.remark("a"), repeats.remark("b"), repeats.remark("a")] == ["", None, "", None]
    now[0] = 61.0
    assert repeats.remark("a") == " (2 more like this before it)"
    assert repeats.remark("b") == ""


def test_invalid_requests_fill_no_log(capfd):
    with served() as address:
        for _ in range(200):
            with opened(address, b"\x00nonsense\r\n\r\n") as connection:
                answer(connection)
    assert capfd.readouterr().err.count("Invalid HTTP request") <= 1


def test_a_server_without_file_descriptors_says_so_in_one_line(capfd):
    handle = serving._seldom()
    loop = asyncio.new_event_loop()
    for _ in range(1000):
        handle(loop, {"message": "socket.accept() out of system resource", "exception": OSError(24, os.strerror(24))})
    loop.close()
    assert capfd.readouterr().err.splitlines() == ["warning: socket.accept() out of system resource: Too many open files"]


def test_a_filter_of_repeated_lines_lets_different_ones_pass():
    records = [logging.LogRecord("x", logging.WARNING, "", 1, text, (), None) for text in ("a", "a", "b")]
    passes = SeldomFilter()
    assert [passes.filter(record) for record in records] == [True, False, True]
