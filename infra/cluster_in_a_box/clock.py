"""Clocks that are wrong.

The kernel has one clock for all namespaces (time namespaces shift only those that measure durations), so no machine of the box has
its own. What can be wrong is the clock that one command and its children see: libfaketime answers when they ask for the time.
Durations stay right, as they do on a machine whose clock is set wrong.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ZSBIR_FAKETIME"


def library() -> Path | None:
    """Return libfaketime's file: what ZSBIR_FAKETIME names, or where Debian and Fedora have it. None where there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named) if Path(named).is_file() else None
    places = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr").glob("lib*/faketime/libfaketime.so.1")]
    return next(iter(places), None)


def wrong_clock(ahead_s: float, file: Path) -> dict[str, str]:
    """Return the variables with which a command sees a clock that is so many seconds ahead (behind where negative)."""
    return {
        "LD_PRELOAD": str(file),
        "FAKETIME": f"{ahead_s:+.0f}s",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
