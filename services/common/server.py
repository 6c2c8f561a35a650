"""Serves an ASGI application over HTTP, with limits on clients that are slow, or that never finish what they began.

uvicorn waits for a request's headers without a limit, and its limit on concurrency counts connections that have sent nothing: a
few hundred of them stop a service, and each connection that finds no file descriptor left is a traceback in the log. Here a request
must arrive within `RECEIPT_S`, an answer must be taken within `SEND_S`, and of the connections that have not sent a whole request
the oldest ones make room for new ones.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from zsbir.base import events

RECEIPT_S = 20.0
"""Seconds in which a whole request must arrive, headers and body."""

SEND_S = 60.0
"""Seconds without progress after which a client that does not read its answer is cut off."""

MAX_WAITING = 400
"""Connections that may be without a whole request at a time."""

MAX_CONNECTIONS = 2000
"""Connections at a time, where the limit on open files allows as many."""

BACKLOG = 256
"""Connections that the kernel keeps for the server, which may accept all of them before it looks at the first."""

FILES_BESIDE = 200
"""File descriptors that a service needs besides its connections: its database, its storage, its libraries."""

LINGER_S = 5.0
"""Seconds after which a closed connection is cut off, if its last bytes have not been taken by then."""

REPEAT_S = 60.0
"""Seconds in which the same line is logged once."""


class Repeats:
    """Tells which of many equal events deserve a line in a log: one in `REPEAT_S` seconds, with the number of those left out.

    clock: monotonic seconds, replaced in tests.
    """

    MOST_KINDS = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def remark(self, kind: str) -> str | None:
        """Return what to add to the line about this event; None where it is to be left out."""
        now_s = self._clock()
        logged_s, left_out = self._seen.get(kind, (float("-inf"), 0))
        if now_s - logged_s < REPEAT_S:
            self._seen[kind] = logged_s, left_out + 1
            return None
        if len(self._seen) >= self.MOST_KINDS:
            self._seen.clear()
        self._seen[kind] = now_s, 0
        return f" ({left_out} more like this before it)" if left_out else ""


class SeldomFilter(logging.Filter):
    """Lets each message pass once in `REPEAT_S` seconds, whatever its arguments: clients can cause any number of them."""

    def __init__(self) -> None:
        super().__init__()
        self._repeats = Repeats()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be logged, with a remark on those left out."""
        remark = self._repeats.remark(f"{record.name} {record.msg}")
        if remark:
            record.msg = f"{record.msg}{remark}"
        return remark is not None


class Crowd:
    """The connections of one server that have not sent a whole request yet, the oldest first, and limits on these and on all.

    open_files: the limit on the process. asyncio does not survive reaching it: it then tries to accept again and again.
    """

    def __init__(self, open_files: int):
        self.most = max(50, min(MAX_CONNECTIONS, open_files - FILES_BESIDE - 2 * BACKLOG))
        self._most_waiting = min(MAX_WAITING, self.most // 2)
        self._waiting: dict[PatientProtocol, None] = {}

    def add(self, connection: PatientProtocol) -> None:
        """Count a connection in; where there are too many, the oldest of those that wait is cut off."""
        self._waiting[connection] = None
        if len(self._waiting) > self._most_waiting or len(connection.connections) > self.most:
            oldest = next(iter(self._waiting))
            self.discard(oldest)
            oldest.transport.abort()

    def discard(self, connection: PatientProtocol) -> None:
        """Count a connection out: its request has arrived, or it is closed."""
        self._waiting.pop(connection, None)


class PatientProtocol(H11Protocol):
    """uvicorn's protocol with a deadline for each request's arrival, and one for each stretch of an answer.

    The time in which the server itself does not read, because the application is busy, counts for nobody.
    """

    receipt_s, send_s = RECEIPT_S, SEND_S
    crowd: Crowd

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        self._receipt: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and note whether the request is whole by now."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing():
            if self._receipt is None:
                self._await_request()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadlines of a connection that has ended: nothing is to be received or sent on it any more."""
        self._stop_waiting()
        self._stop_sending()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.send_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read something."""
        super().resume_writing()
        self._stop_sending()

    def _await_request(self) -> None:
        self._receipt = self.loop.call_later(self.receipt_s, self._end_late)
        self.crowd.add(self)

    def _stop_waiting(self) -> None:
        self.crowd.discard(self)
        if self._receipt is not None:
            self._receipt.cancel()
            self._receipt = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _end_late(self) -> None:
        """Answer 408 to a request that is late, and close; wait again where this server is what it waits for."""
        if self.flow.read_paused:
            self._receipt = self.loop.call_later(self.receipt_s, self._end_late)
            return
        self._stop_waiting()
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self._close()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that has been idle after an answer."""
        super().timeout_keep_alive_handler()
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)


class _Server(uvicorn.Server):
    """uvicorn's server, whose log cannot be filled by clients."""

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start to listen, with bounds on what is logged."""
        asyncio.get_running_loop().set_exception_handler(_seldom())
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addFilter(SeldomFilter())
        await super().startup(sockets)


def _seldom() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Return a handler of the event loop's errors that writes one line for those of `accept` where descriptors run out."""
    repeats = Repeats()

    def handle(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError):
            loop.default_exception_handler(dict(context))
            return
        line = f"{context.get('message')}: {error.strerror or error}"
        remark = repeats.remark(line)
        if remark is not None:
            events.warn(f"{line}{remark}")

    return handle


def raise_file_limit() -> int:
    """Raise this process's limit on open files as far as it may, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 2**31


def make_server(app: ASGIApp, host: str, port: int, *, receipt_s: float = RECEIPT_S, send_s: float = SEND_S) -> uvicorn.Server:
    """Return a server of an application, with these limits. `serve` runs it."""
    own = {"receipt_s": receipt_s, "send_s": send_s, "crowd": Crowd(raise_file_limit())}
    protocol = type("ServerProtocol", (PatientProtocol,), own)
    config = uvicorn.Config(
        app, host=host, port=port, http=protocol, ws="none", loop="asyncio", log_level="warning", access_log=False, backlog=BACKLOG
    )
    return _Server(config)


def serve(app: ASGIApp, host: str, port: int, *, receipt_s: float = RECEIPT_S) -> None:
    """Serve an application until a signal ends this process. receipt_s: seconds in which a whole request must arrive."""
    # Imported modules are never garbage. Without this, every fiftieth request waited 0.25 s for a collection that searched them.
    gc.collect()
    gc.freeze()
    make_server(app, host, port, receipt_s=receipt_s).run()
