"""Stores without `If-None-Match`: one ignores it, one refuses it. And one that forgets multipart uploads that have ended."""

from __future__ import annotations

import asyncio
import re

from servers.faults import FaultProxy
from servers.s3 import S3Server
from servers.wire import Peer

CONDITION = re.compile(rb"\r\nif-none-match:[^\r]*", re.IGNORECASE)


class ForgetfulStore(FaultProxy):
    """The server behind it, which must not check signatures: it never hears of a condition."""

    async def _connect(self, old: Peer | None) -> Peer:
        peer = await super()._connect(old)
        return _Forgetful(peer.reader, peer.writer)


class RefusingStore(FaultProxy):
    """The server behind it, in front of which a condition is refused with 501."""

    async def _connect(self, old: Peer | None) -> Peer:
        peer = await super()._connect(old)
        return _Refusing(peer.reader, peer.writer)


class _Forgetful(Peer):
    async def send(self, data: bytes) -> None:
        await super().send(CONDITION.sub(b"", data, count=1) if data.startswith(b"PUT ") else data)


class _Answers(Peer):
    """Answers some requests in the server's place."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._refused = False

    async def send(self, data: bytes) -> None:
        is_head = data.startswith((b"PUT ", b"GET ", b"HEAD ", b"DELETE ", b"POST "))
        if is_head:
            answer = self.answer(data)
            self._refused = answer is not None
            if answer is not None:
                self.reader.feed_data(answer)
        if not self._refused:
            await super().send(data)

    def answer(self, head: bytes) -> bytes | None:
        """Return the answer to a request, or None where the server is to give it."""
        raise NotImplementedError


class _Refusing(_Answers):
    def answer(self, head: bytes) -> bytes | None:
        return _refusal("501 Not Implemented", "NotImplemented") if CONDITION.search(head) else None


class UploadForgettingStore(FaultProxy):
    """The server behind it; of an upload in parts that was ended once it says that there is none, as MinIO does."""

    def __init__(self, upstream: S3Server) -> None:
        super().__init__(upstream)
        self.ended: set[bytes] = set()

    async def _connect(self, old: Peer | None) -> Peer:
        peer = await super()._connect(old)
        return _UploadForgetting(peer.reader, peer.writer, self.ended)


class _UploadForgetting(_Answers):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: set[bytes]) -> None:
        super().__init__(reader, writer)
        self._ended = ended

    def answer(self, head: bytes) -> bytes | None:
        ending = re.match(rb"POST \S*uploadId=(\S+)", head)
        if ending is None:
            return None
        known = ending[1] not in self._ended
        self._ended.add(ending[1])
        return None if known else _refusal("404 Not Found", "NoSuchUpload")


def _refusal(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>as this store says it</Message></Error>"
    return f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def stores(server: S3Server) -> dict[str, FaultProxy]:
    """Return both stores in front of a server, by what they do with a condition."""
    return {"ignores": ForgetfulStore(server), "refuses": RefusingStore(server)}
