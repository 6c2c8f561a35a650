"""Stores that do not know `If-None-Match`: one that ignores it, one that says so."""

from __future__ import annotations

import asyncio
import re

from servers.faults import FaultProxy
from servers.s3 import S3Server
from servers.wire import Peer

CONDITION = re.compile(rb"\r\nif-none-match:[^\r]*", re.IGNORECASE)
REFUSAL = b"<Error><Code>NotImplemented</Code><Message>A header implies functionality that is not implemented</Message></Error>"


class ForgetfulStore(FaultProxy):
    """The server behind it, which must not check signatures: it never hears of a condition."""

    async def _connect(self, old: Peer | None) -> Peer:
        peer = await super()._connect(old)
        return _Forgetful(peer.reader, peer.writer)


class HonestStore(FaultProxy):
    """The server behind it, in front of which a condition is refused with 501."""

    async def _connect(self, old: Peer | None) -> Peer:
        peer = await super()._connect(old)
        return _Honest(peer.reader, peer.writer)


class _Forgetful(Peer):
    async def send(self, data: bytes) -> None:
        await super().send(CONDITION.sub(b"", data, count=1) if data.startswith(b"PUT ") else data)


class _Honest(Peer):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._refused = False

    async def send(self, data: bytes) -> None:
        is_head = data.startswith((b"PUT ", b"GET ", b"HEAD ", b"DELETE ", b"POST "))
        self._refused = bool(CONDITION.search(data)) if is_head else self._refused
        if not self._refused:
            await super().send(data)
        elif is_head:  # as if the server had said it
            head = f"HTTP/1.1 501 Not Implemented\r\nContent-Type: application/xml\r\nContent-Length: {len(REFUSAL)}\r\n\r\n"
            self.reader.feed_data(head.encode() + REFUSAL)


def stores(server: S3Server) -> dict[str, FaultProxy]:
    """Both in front of a server, by what they do with a condition."""
    return {"ignores": ForgetfulStore(server), "refuses": HonestStore(server)}
