"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from zsbir.base import events
from zsbir.base.errors import InputError


@contextmanager
def connected(*, cpus: float, gpus: float = 0) -> Iterator[None]:
    """Connect to the cluster of this job (`RAY_ADDRESS`, set by `ray job submit`), else to one started on this machine.

    A process that was connected before stays connected afterwards. Raises InputError when the whole cluster has fewer CPUs or GPUs
    than asked for; Ray itself would wait for ever.
    """
    ours = not ray.is_initialized()
    if ours:
        ray.init(logging_level=logging.WARNING, **_address())
    try:
        have = ray.cluster_resources()
        for name, wanted in (("CPU", cpus), ("GPU", gpus)):
            if wanted > have.get(name, 0):
                raise InputError(
                    f"{wanted:g} {name}s are needed, the Ray cluster has {have.get(name, 0):g}; "
                    f"use fewer workers, or smaller --{name.lower()}s-per-worker"
                )
        yield
    finally:
        if ours:
            ray.shutdown()


def _address() -> dict[str, Any]:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        events.say(f"joining Ray at {address}")
        return {"address": address}
    events.say("starting Ray on this machine")
    # Ray puts sockets below this folder, and the path of a socket may have 107 characters: the system's own folder is short.
    return {"include_dashboard": True, "dashboard_port": 0, "_temp_dir": str(Path(tempfile.gettempdir()) / "ray")}
