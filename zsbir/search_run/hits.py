"""What a search finds, and what its caller may choose. Imports neither torch nor an index: command lines use it, too."""

from __future__ import annotations

from dataclasses import dataclass

AUTO_PHOTOS = 20_000
"""Photos up to which an index is prepared for search options without being asked: each takes a search of its own, so that 10,000
take some 7 seconds and 20,000 four times as long (docs/benchmarks/2026-11-30-search-quality.md)."""


@dataclass(frozen=True)
class Hit:
    """A photo that was found: rank from 1, cosine similarity to the query, row in the index, class and path."""

    rank: int
    score: float
    item_id: int
    class_name: str
    path: str
