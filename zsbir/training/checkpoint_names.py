"""Which checkpoints a run has, by the names of their folders. Without torch, for programs that only look."""

from __future__ import annotations

import re
from collections.abc import Iterable

from zsbir.base.artifact import Artifact, exists
from zsbir.base.storage import Folder, join


def newest_checkpoint(folder: Folder) -> Artifact | None:
    """Return the newest complete checkpoint in a run's `checkpoints` that can be resumed from."""
    numbers = numbered(folder.names(), "step")
    steps = sorted(numbers, key=lambda name: numbers[name], reverse=True)
    whole = next((uri for name in steps if exists(uri := join(folder.uri, name))), None)
    return Artifact(whole, "checkpoint") if whole else None


def numbered(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Return those of the names that are like "step-000500", and their numbers."""
    found = {name: re.fullmatch(rf"{prefix}-(\d+)", name) for name in names}
    return {name: int(match[1]) for name, match in found.items() if match}
