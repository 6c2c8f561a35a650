"""The models that are served at this moment, each with its index: replaced as a whole, so that no answer mixes two."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from services.common.errors import Busy, NotFound
from services.search.serving.choices import Choices, Count, choices_of, class_counts

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

KEPT = 2
"""Indexes that stay open after they were replaced: pages still ask for the thumbnails of what they have found."""


@dataclass(frozen=True)
class Served:
    """An opened index and the model that it belongs to.

    alias: how callers choose it. model: address of the version in the registry, `models:/NAME/VERSION`; empty for an index that
    belongs to no version. note: what people should know of it, in a sentence.
    """

    alias: str
    model: str
    engine: Engine
    note: str = ""

    @property
    def digest(self) -> str:
        """The digest of the index that is served."""
        return self.engine.index.digest

    @cached_property
    def classes(self) -> list[Count]:
        """How many photos each class has, by name."""
        return class_counts(self.engine.files)

    @cached_property
    def choices(self) -> Choices:
        """What photos can be chosen by, besides their classes."""
        return choices_of(self.engine.files)


class Catalogue:
    """What is served, by alias; the first one is the default. Thread-safe."""

    def __init__(self, served: Sequence[Served] = ()):
        self._lock = threading.Lock()
        self._now: dict[str, Served] = {}
        self._replaced: list[Served] = []
        self.put(served)

    @property
    def now(self) -> tuple[Served, ...]:
        """All that is served, the default first."""
        return tuple(self._now.values())

    def put(self, served: Sequence[Served]) -> None:
        """Serve these and nothing else, from one moment to the next. What they replace stays open for thumbnails for a while."""
        with self._lock:
            before, self._now = self._now, {each.alias: each for each in served}
            digests = {each.digest for each in served}
            old = {each.digest: each for each in (*self._replaced, *before.values()) if each.digest not in digests}
            self._replaced = list(old.values())[-KEPT:]

    def find(self, alias: str = "") -> Served:
        """Return what is served under an alias; the default for none. NotFound for an unknown one, Busy while nothing is served."""
        now = self._now
        if not now:
            raise Busy("no index is served at the moment; /api/models says why", retry_after_s=5)
        if alias and alias not in now:
            raise NotFound(f"no model is served as {alias[:100]!r}, only as {', '.join(now)}")
        return now[alias or next(iter(now))]

    def of_digest(self, digest: str) -> Served:
        """Return what has this index, also where it was replaced not long ago. NotFound for any other."""
        found = [each for each in (*self._now.values(), *self._replaced) if each.digest == digest]
        if not found:
            raise NotFound(f"no index {digest[:100]!r} is served here any more; search again")
        return found[0]
