"""What processes of a crew do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from threading import Barrier

from zsbir.base.artifact import Draft, draft
from zsbir.base.storage import folder


def create_each(uri: str, keys: Sequence[str], data: bytes, barrier: Barrier) -> list[bool]:
    """Try to create each of the files, all processes at the same moment."""
    place, won = folder(uri), []
    for key in keys:
        barrier.wait(60)
        won.append(place.create(key, data))
    return won


FILES = ("a/first.bin", "second.parquet", "third.json")


def content(name: str, seed: int) -> bytes:
    """What a writer of that seed puts into a file."""
    return f"{name} of {seed}. ".encode() * 500


def write_files(work: Draft, seed: int) -> None:
    """The files of an artifact, the first one published at once."""
    for name in FILES:
        work.file(name).write_bytes(content(name, seed))
        if name == FILES[0]:
            work.publish(name)


def commit_each(uris: Sequence[str], seed: int, barrier: Barrier) -> list[tuple[str, str]]:
    """Write each of the artifacts, all processes at the same moment: address and writer of what they then find there.

    In every second round they begin together, in the others they commit together.
    """
    found = []
    for number, uri in enumerate(uris):
        barrier.wait(60)
        with draft(uri, "index", "test") as work:
            write_files(work, seed)
            if number % 2:
                barrier.wait(60)
            artifact = work.commit(digest="d" * 64)
        artifact.verify()
        found.append((artifact.uri, artifact.manifest.written_by))
    return found


def hang_after_publishing(uri: str, seed: int, files: int, told: Connection) -> None:
    """Publish so many files, say so, and wait to be killed."""
    with draft(uri, "index", "test") as work:
        for name in FILES[:files]:
            work.file(name).write_bytes(content(name, seed))
            work.publish(name)
        work.file("half.bin").write_bytes(bytes(10))
        told.send("now")
        time.sleep(60)
