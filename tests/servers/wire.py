"""HTTP/1.1 as bytes on a connection: heads that are kept as they came, bodies that stream through."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

PIECE = 1 << 16
HEAD_LIMIT = 1 << 20


class Head(NamedTuple):
    """The head of a request or an answer, as it came and as understood."""

    raw: bytes
    words: list[str]
    fields: dict[str, str]

    @property
    def length(self) -> int | None:
        """What Content-Length says."""
        value = self.fields.get("content-length")
        return None if value is None else int(value)

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks that say their own length."""
        return self.fields.get("transfer-encoding", "").lower() == "chunked"

    @property
    def expects(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body."""
        return self.fields.get("expect", "").lower() == "100-continue"

    @property
    def last(self) -> bool:
        """Whether the sender closes the connection after this."""
        return self.fields.get("connection", "").lower() == "close" or "HTTP/1.0" in (self.words[0], self.words[-1])


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent = 0
        writer.transport.set_write_buffer_limits(high=0)  # so that what was sent is with the kernel when the connection is closed

    async def head(self) -> Head | None:
        """The next head, or None where the connection ended before one; what is no head raises ValueError."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError as error:
            raise ValueError("no HTTP") from error
        first, *lines = raw.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2:
            raise ValueError("no HTTP")
        pairs = (line.partition(":") for line in lines if line)
        return Head(raw, words, {name.strip().lower(): value.strip() for name, _, value in pairs})

    async def body(self, head: Head, *, until_closed: bool = False) -> AsyncIterator[bytes]:
        """The body that goes with a head as it comes over the wire, chunk marks included; one cut short raises EOFError."""
        if head.chunked:
            size = -1
            while size:
                mark = await self.reader.readuntil(b"\r\n")
                size = chunk_size(mark)
                yield mark + (await self.reader.readexactly(size + 2) if size else b"")
            line = b""
            while line != b"\r\n":  # the trailer
                line = await self.reader.readuntil(b"\r\n")
                yield line
        elif head.length is not None:
            left = head.length
            while left:
                data = await self.reader.read(min(left, PIECE))
                if not data:
                    raise EOFError
                left -= len(data)
                yield data
        elif until_closed:
            while data := await self.reader.read(PIECE):
                yield data

    async def send(self, data: bytes) -> None:
        """Send at the pace of the receiver."""
        self.sent += len(data)
        self.writer.write(data)
        await self.writer.drain()

    def hang_up(self) -> None:
        """Close for good."""
        shut(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


def chunk_size(mark: bytes) -> int:
    """The length of a chunk from the line before it, which may carry more."""
    return int(mark.partition(b";")[0], 16)


def shut(sock: socket.socket) -> None:
    """End a connection, or listening, also where a forked process still holds a copy of the socket."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
