"""What a search finds, and what its caller may choose. Imports neither torch nor an index: command lines use it, too."""

from __future__ import annotations

from dataclasses import dataclass

AUTO_PHOTOS = 20_000
"""Photos up to which an index is prepared for search options without being asked: each takes a search of its own, and
opening takes 3 CPU seconds for 10,000, 7 for 20,000 (docs/benchmarks/2026-11-30-search-quality.md)."""


@dataclass(frozen=True)
class Hit:
    """A photo that was found: rank from 1, cosine similarity to the query, row in the index, class and path.

    probability: that it is of what was drawn; None where the index's scores are not calibrated, and for photos found by a photo.
    """

    rank: int
    score: float
    item_id: int
    class_name: str
    path: str
    probability: float | None = None
