"""What an index's manifest says of its graph: how it was built, and how many of the right photos it finds."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.retrieval.graph_file import LINKS

FACT = "graph"
"""The name of these among the facts of a manifest."""

MOST_EFFORT = 4096
"""The most candidates that a manifest may have a search keep: with more, a scan would be as fast."""


class GraphFacts(Config):
    """How the photos of an index are linked (`zsbir.retrieval.graph`), and the recall that was measured when they were."""

    links: int = Field(ge=LINKS[0], le=LINKS[1], description="links of a photo on the upper levels, twice as many on the lowest")
    build_effort: int = Field(ge=1, le=1_000_000, description="candidates kept while a photo was linked")
    effort: int = Field(ge=1, le=MOST_EFFORT, description="candidates kept in a search, with which recall was measured")
    recall_at_10: float = Field(ge=0, le=1, description="share of the first 10 photos found that belong there, ties included")
    recall_at_100: float = Field(ge=0, le=1, description="the same of the first 100")
    measured_on: str = Field(max_length=200, description="the queries that recall was measured on, as a phrase")
    build_s: float = Field(ge=0, description="seconds that linking took")
    threads: int = Field(ge=1, description="threads that linked")

    @property
    def text(self) -> str:
        """How a search by the graph ranks, in a few words. Recall is rounded down, so that 1.00 means all."""
        return f"graph, recall {math.floor(self.recall_at_10 * 100) / 100:.2f}"

    def as_facts(self) -> dict[str, Any]:
        """Return these as facts of a manifest."""
        return {FACT: self.model_dump(mode="json")}


def graph_facts_of(index: Artifact) -> GraphFacts:
    """Return what the manifest of an index says of its graph. Raises InputError where it says nothing, or something else."""
    stated = index.manifest.facts.get(FACT)
    if not isinstance(stated, dict):
        raise InputError(f"{index.uri} holds a graph, but its manifest does not say how it was built: make the index again")
    return GraphFacts.of(stated, where=f"{index.uri}: the graph in its manifest")
