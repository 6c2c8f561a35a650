"""`python -m zsbir.ingest` with blocks of a few images, so that a small data set has many. No test in itself: tests run it.

ZSBIR_TEST_KILL_AT=n: SIGKILL just before the n-th time that something is changed in a store. ZSBIR_TEST_KILLS=ROOT: once for
each n, below a root of its own, until one comes to its end; each in a fork, since imports are the slowest part of an ingest.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from typing import Any

from zsbir.base import cli
from zsbir.base.disk import DiskFolder
from zsbir.base.s3 import S3Folder
from zsbir.data import blocks
from zsbir.ingest import _parse

BLOCK_IMAGES = 12
CHANGES = ("publish", "create", "replace", "delete")


def die_at(fatal: int) -> None:
    """Let this process be killed before the `fatal`-th change of any store, counted from 1."""
    calls, lock = itertools.count(1), threading.Lock()

    def deadly(change: Any) -> Any:
        def call(*arguments: Any) -> Any:
            with lock:
                if next(calls) == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments)

        return call

    for kind in (DiskFolder, S3Folder):
        for name in CHANGES:
            setattr(kind, name, deadly(getattr(kind, name)))


def in_a_fork(fatal: int, argv: list[str]) -> int:
    """Exit status of one ingest, negative for the signal that killed it."""
    child = os.fork()
    if not child:
        die_at(fatal)
        cli.main(_parse, argv)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """See the module."""
    blocks.BLOCK_IMAGES = BLOCK_IMAGES
    root = os.environ.get("ZSBIR_TEST_KILLS")
    if root is None:
        die_at(int(os.environ.get("ZSBIR_TEST_KILL_AT", "0")))
        cli.main(_parse)
    for fatal in itertools.count(1):
        argv = [*sys.argv[1:], "--root", f"{root}/{fatal}"]
        if in_a_fork(fatal, argv) == 0:
            return
        assert in_a_fork(0, argv) == 0, f"killed before change {fatal}, it does not go on"


if __name__ == "__main__":
    main()
