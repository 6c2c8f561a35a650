"""The newest index of a storage root that opens: what is searched as long as there is no champion."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zsbir.base import events
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import ARTIFACT_FOLDERS
from zsbir.base.manifest import MANIFEST
from zsbir.base.storage import is_remote, join, local_path, open_folder
from zsbir.base.text import clean

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

INDEXES = next(name for name, folder in ARTIFACT_FOLDERS.items() if folder.kind == "index")
"""The folder of a root with its indexes."""

AGAIN_S = 300.0
"""Seconds after which an index that did not open is tried again: it may have been copied while it was read."""


class Found(NamedTuple):
    """An index of a root: when its manifest was written, in seconds since 1970, and its address. Later ones are larger."""

    written_s: float
    uri: str


def indexes_of(root: str) -> list[Found]:
    """Return the indexes of a root, the newest first, by one listing of their names: nothing of them is read.

    On disk only manifests are looked at; in object storage it is one request for each thousand files.
    """
    where, depth = join(root, INDEXES), ARTIFACT_FOLDERS[INDEXES].depth
    if is_remote(root):
        entries = [(entry.modified_s, entry.key.split("/")) for entry in open_folder(where).walk()]
        found = [
            Found(written_s, join(where, *parts[:-1]))
            for written_s, parts in entries
            if len(parts) == depth + 1 and parts[-1] == MANIFEST
        ]
    else:
        manifests = local_path(where).glob("/".join(["*"] * depth + [MANIFEST]))
        found = [Found(written_s, str(file.parent)) for file in manifests if (written_s := _written_s(file)) is not None]
    return sorted(found, reverse=True)


def _written_s(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:  # it is removed at this moment, or a link that leads nowhere
        return None


class NewestIndex:
    """Opens the newest index of a root. One that does not open is passed over, and said once. allowed: where indexes may lie."""

    def __init__(self, root: str, allowed: AllowedPaths, open_engine: Callable[[str], Engine]):
        self._root, self._allowed, self._open = root, allowed, open_engine
        self._failed: dict[Found, float] = {}
        self._now: tuple[Found, Engine] | None = None

    def look(self) -> Engine | None:
        """Return the newest index that opens, opened; None for none. RunError or OSError where the store does not answer."""
        found = indexes_of(self._root)
        self._failed = {each: since_s for each, since_s in self._failed.items() if time.monotonic() - since_s < AGAIN_S}
        for each in found:
            if self._now and self._now[0] == each:
                return self._now[1]
            if each in self._failed:
                continue
            try:
                self._now = each, self._opened(each.uri)
            except RunError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a damaged index raises, the others can be searched
                self._failed[each] = time.monotonic()
                told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                events.warn(clean(f"the index {each.uri} is passed over: {told}"))
            else:
                return self._now[1]
        return None

    def forget(self) -> None:
        """Keep the index no longer open from here."""
        self._now = None

    def _opened(self, uri: str) -> Engine:
        where = self._allowed.check("the index", uri)
        Artifact(where, "index")  # a manifest is read before anything else is loaded for it
        return self._open(where)
