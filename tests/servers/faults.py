"""A proxy in front of an S3 server that passes requests on byte by byte and fails on the one it was told to.

The head of a request goes on unchanged, Host included, so its signature stays valid. Every answer is the real server's, up to the
fault. With `FaultProxy(moto)` as `proxy`, `proxy.arm(3, Fault.DROP_AFTER)` has the fourth request done and its answer lost.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from urllib.parse import urlsplit

from servers.processes import HOST, free_ports
from servers.s3 import S3Server
from servers.wire import HEAD_LIMIT, PIECE, Head, Peer, chunk_size, shut


class Fault(Enum):
    """What goes wrong with one request."""

    DROP_BEFORE = "the connection closes, the server never hears of it"
    DROP_AFTER = "the server does it, the answer is lost"
    TRUNCATE_REQUEST = "the server gets half of the body, then both connections close"
    TRUNCATE_RESPONSE = "the client gets half of the body that Content-Length announces, then the connection closes"
    CORRUPT_RESPONSE = "one bit in the middle of the answer's body is flipped"
    HANG = "accepted and never answered, until the client goes away"
    ERROR_500 = "answered with InternalError by the proxy, the server never hears of it"
    ERROR_503 = "the same with ServiceUnavailable"
    SLOW_DOWN = "the same with SlowDown"


@dataclass(frozen=True)
class Delay:
    """The request is passed on so much later, also where the client has given it up by then."""

    seconds: float


@dataclass(frozen=True)
class Refuse:
    """The server looks killed: every connection closes and new ones are refused; so much later it is back on the same port."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """A function is called, for example one that kills the server, and then the request is passed on."""

    function: Callable[[], object]


AnyFault = Fault | Delay | Refuse | Call | None
ERRORS = {
    Fault.ERROR_500: ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    Fault.ERROR_503: ("503 Service Unavailable", "ServiceUnavailable", "Service is unable to handle request."),
    Fault.SLOW_DOWN: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}


class FaultProxy(S3Server):
    """The server behind it at another address, with `arm` to say which request fails and how; any thread may use it."""

    def __init__(self, upstream: S3Server) -> None:
        self.upstream = upstream
        self._port = free_ports(1)[0]
        super().__init__(f"http://{HOST}:{self._port}", upstream.access_key, upstream.secret_key)
        self._lock = threading.Lock()
        self._log: list[tuple[str, str]] = []
        self._at: dict[int, AnyFault] = {}
        self._from: dict[int, AnyFault] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._back: asyncio.TimerHandle | None = None
        self._opening = asyncio.Lock()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def log(self) -> list[tuple[str, str]]:
        """(method, path and query) of every request since the last `reset`, in order of arrival, failed ones included."""
        with self._lock:
            return list(self._log)

    def arm(self, position: int, fault: AnyFault) -> None:
        """Let the request at this position since the last `reset`, counted from 0, fail; it takes precedence over `arm_from`."""
        with self._lock:
            self._at[position] = fault

    def arm_from(self, position: int, fault: AnyFault) -> None:
        """Let every request from this position on fail, or with None succeed, until the next position armed so takes over."""
        with self._lock:
            self._from[position] = fault

    def reset(self) -> None:
        """Forget all faults and requests, count from 0, and be reachable."""
        with self._lock:
            self._log.clear()
            self._at.clear()
            self._from.clear()
        self.heal()

    def cut(self) -> None:
        """Close every connection and refuse new ones, as if the server were down, until `heal`."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def heal(self) -> None:
        """Accept connections, on the same port as ever."""
        asyncio.run_coroutine_threadsafe(self._heal(), self._loop).result()

    def new_bucket(self) -> str:
        """A bucket made behind the proxy's back: no request in the log, no fault."""
        return self.upstream.new_bucket()

    async def _cut(self) -> None:
        async with self._opening:
            if self._back:
                self._back.cancel()
            if self._listener:
                for sock in self._listener.sockets:
                    shut(sock)
                self._listener.close()
            self._listener = None
        others = [task for task in self._clients if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _heal(self) -> None:
        async with self._opening:
            if self._back:
                self._back.cancel()
            if self._listener is None:
                self._listener = await asyncio.start_server(self._serve, HOST, self._port, limit=HEAD_LIMIT)

    async def _refuse(self, seconds: float) -> None:
        await self._cut()
        self._back = self._loop.call_later(seconds, lambda: self._loop.create_task(self._heal()))

    def _admit(self, head: Head) -> AnyFault:
        """Note a request and say what is to go wrong with it."""
        with self._lock:
            position = len(self._log)
            self._log.append((head.words[0], head.words[1]))
            if position in self._at:
                return self._at[position]
            starts = [start for start in self._from if start <= position]
            return self._from[max(starts)] if starts else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with a connection of its own to the server."""
        client, server = Peer(reader, writer), None
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            while self._listener and (head := await client.head()):
                fault = self._admit(head)
                if isinstance(fault, Refuse):
                    await self._refuse(fault.seconds)
                    break
                if not await _before(client, head, fault):
                    break
                if server is None or server.reader.at_eof():
                    server = await self._connect(server)
                if not await _exchange(client, server, head, fault):
                    break
        except (OSError, EOFError, ValueError, asyncio.CancelledError):
            pass  # A side that went away, or speaks no HTTP, takes the other with it.
        finally:
            self._clients.discard(task)
            for peer in (client, server):
                if peer:
                    peer.hang_up()

    async def _connect(self, old: Peer | None) -> Peer:
        if old:
            old.hang_up()
        address = urlsplit(self.upstream.endpoint)
        return Peer(*await asyncio.open_connection(address.hostname, address.port, limit=HEAD_LIMIT))


async def _before(client: Peer, head: Head, fault: AnyFault) -> bool:
    """What goes wrong before the server hears of a request; False ends the connection."""
    match fault:
        case Fault.DROP_BEFORE:
            return False
        case Fault.HANG:
            while await client.reader.read(PIECE):
                pass
            return False
        case Fault.ERROR_500 | Fault.ERROR_503 | Fault.SLOW_DOWN:
            if not head.expects:  # with Expect the client does not send the body before it is asked to
                async for _ in client.body(head):
                    pass
            await client.send(_error(*ERRORS[fault], head))
            return False
        case Delay(seconds):
            await asyncio.sleep(seconds)
        case Call(function):
            await asyncio.to_thread(function)
    return True


def _error(status: str, code: str, message: str, head: Head) -> bytes:
    """An answer as S3 gives it; to HEAD without the body."""
    words = f"<Code>{code}</Code><Message>{message}</Message><Resource>{head.words[1].partition('?')[0]}</Resource>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{words}<RequestId>fault-proxy</RequestId></Error>'.encode()
    fields = f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return f"HTTP/1.1 {status}\r\n{fields}".encode() + (b"" if head.words[0] == "HEAD" else body)


async def _exchange(client: Peer, server: Peer, head: Head, fault: AnyFault) -> bool:
    """Pass one request on and its answer back; False where the connections are at an end."""
    truncate = fault is Fault.TRUNCATE_REQUEST
    heard = server.sent
    # At the same time, because a server may answer before it has the whole body, and ask for it with "100 Continue".
    sending = asyncio.ensure_future(_send_half(client, server, head) if truncate else _send(client, server, head))
    answering = asyncio.ensure_future(_answer(client, server))
    try:
        await asyncio.wait([sending, answering], return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        if truncate:
            await asyncio.wait([answering], timeout=2)  # until the server has understood that no more comes
            return False
        answer, asked = await answering
        if answer is None or not await _pass_back(client, server, answer, head, fault):
            return False
        refused = head.expects and not asked and server.sent == heard + len(head.raw)  # then the body never comes
        return (refused or await sending) and not head.last and not answer.last
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(client: Peer, server: Peer, head: Head) -> bool:
    """Send a request on; False where the server closed the connection, which it may do after an answer."""
    try:
        await server.send(head.raw)
    except OSError:
        return False
    async for piece in client.body(head):
        try:
            await server.send(piece)
        except OSError:
            return False
    return True


async def _send_half(client: Peer, server: Peer, head: Head) -> bool:
    """Send a request on with half of its body (of its first chunk, where it comes in chunks) and nothing after that."""
    await server.send(head.raw)
    left = (head.length or 0) // 2
    async for piece in client.body(head):
        part = piece[: len(piece) // 2 if head.chunked else left]
        await server.send(part)
        left -= len(part)
        if head.chunked or not left:
            break
    server.writer.write_eof()
    return False


async def _answer(client: Peer, server: Peer) -> tuple[Head | None, bool]:
    """The head of the server's answer, and whether it asked for the body before: a "100 Continue" is passed on at once."""
    asked = False
    while (answer := await server.head()) and answer.words[1].startswith("1"):
        await client.send(answer.raw)
        asked = True
    return answer, asked


async def _pass_back(client: Peer, server: Peer, answer: Head, request: Head, fault: AnyFault) -> bool:
    """Pass an answer back; False where that ends the client's connection."""
    bare = request.words[0] == "HEAD" or answer.words[1] in ("204", "304")
    if fault in (Fault.DROP_AFTER, Fault.TRUNCATE_RESPONSE, Fault.CORRUPT_RESPONSE):
        body = b"" if bare else b"".join([piece async for piece in server.body(answer, until_closed=True)])
        if fault is Fault.DROP_AFTER:
            return False
        if fault is Fault.TRUNCATE_RESPONSE:
            await client.send(answer.raw + body[: len(body) // 2])
            return False
        await client.send(answer.raw + _flipped(body, answer))
    else:
        await client.send(answer.raw)
        if not bare:
            async for piece in server.body(answer, until_closed=True):
                await client.send(piece)
    return bare or answer.chunked or answer.length is not None


def _flipped(body: bytes, answer: Head) -> bytes:
    """A body with one bit in its middle flipped, or in the middle of its first chunk."""
    start = body.index(b"\n") + 1 if answer.chunked else 0
    size = chunk_size(body[:start]) if answer.chunked else len(body)
    if not size:
        return body
    at = start + size // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
