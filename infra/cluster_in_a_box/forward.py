"""Passes connections on, byte by byte: `forward.py tcp:ADDRESS:PORT unix:PATH` takes them at the first, makes them to the second.

Two of these, joined by a socket in the file system, lead from one network namespace into another.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

PIECE = 1 << 16
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(place: str) -> Streams:
    """Connect to a place, "tcp:10.77.0.1:8265" or "unix:/path"."""
    kind, _, where = place.partition(":")
    if kind == "unix":
        return await asyncio.open_unix_connection(where)
    address, _, port = where.rpartition(":")
    return await asyncio.open_connection(address, int(port))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what one side says until it has said all."""
    with suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def forward(taken: str, made: str) -> None:
    """Take connections at one place and make each of them to another, for ever. OSError where the first cannot be listened at."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await connect(made)
            await asyncio.gather(pump(reader, back), pump(there, writer))
            back.close()
        writer.close()

    kind, _, where = taken.partition(":")
    if kind == "unix":
        Path(where).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(serve, where)
    else:
        address, _, port = where.rpartition(":")
        server = await asyncio.start_server(serve, address, int(port))
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(*sys.argv[1:3]))
