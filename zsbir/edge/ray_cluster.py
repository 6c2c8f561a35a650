"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import ray

from zsbir.base import events
from zsbir.base.errors import InputError


def connect(*, cpus: float, gpus: float = 0) -> None:
    """Join the cluster of this job (`RAY_ADDRESS`, set by `ray job submit`), else start one on this machine.

    Raises InputError when the whole cluster has fewer CPUs or GPUs than asked for: Ray itself would wait for ever.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        options = (
            {"address": address} if address else {"include_dashboard": True, "_temp_dir": _short_temp_dir(), "dashboard_port": 0}
        )
        events.say(f"joining Ray at {address}" if address else "starting Ray on this machine")
        ray.init(logging_level="warning", log_to_driver=True, **options)
    have = ray.cluster_resources()
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > have.get(name, 0):
            raise InputError(
                f"{wanted:g} {name}s are needed, the Ray cluster has {have.get(name, 0):g}; "
                f"use fewer workers, or smaller --{name.lower()}s-per-worker"
            )


def _short_temp_dir() -> str:
    """Ray puts sockets here, whose whole path may have 107 characters."""
    return str(Path(tempfile.gettempdir()) / "ray")
