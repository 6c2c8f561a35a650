"""What raises quality at search time, as fields that index, search and evaluation share. Importing this module loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zsbir.base.config import Added, Config

Centring = Literal["off", "centre", "whiten"]
"""Embeddings as they are, minus the mean of their domain, or mildly whitened besides (`zsbir.retrieval.whitening`)."""

MOST_NEIGHBOURS = 100
"""Neighbours and results that options may ask for at most."""


class SearchOptions(Config):
    """How the embeddings of queries and gallery become what is ranked.

    The defaults were chosen on dev classes (docs/benchmarks/2026-11-30-search-quality.md); PLAIN leaves everything out.
    """

    flip: Annotated[bool, Added(neutral=False)] = Field(
        True, description="embed each picture and its mirror image, and take the mean: twice the forward passes"
    )
    centring: Annotated[Centring, Added(neutral="off")] = Field(
        "whiten",
        description="subtract the mean training embedding of each domain (centre), and whiten mildly (whiten); off: neither",
    )
    smooth: Annotated[int, Added(neutral=0)] = Field(
        10, ge=0, le=MOST_NEIGHBOURS, description="nearest photos over which each photo of the gallery is smoothed at most; 0: off"
    )
    expand: Annotated[int, Added(neutral=0)] = Field(
        10, ge=0, le=MOST_NEIGHBOURS, description="first photos found towards which a query is moved at most; 0: off"
    )
    caution: Annotated[float, Added(neutral=0.0)] = Field(
        4.0,
        ge=0,
        le=1000,
        description="how much nearer than chance a neighbour must be to count, so that a gallery with a photo of each kind"
        " is left as it is; 0: all neighbours count, which ruins such a gallery",
    )

    @property
    def needs_statistics(self) -> bool:
        """Whether statistics of training embeddings are needed: for centring, and as decoys."""
        return self.centring != "off" or (self.needs_neighbours and self.caution > 0)

    @property
    def needs_neighbours(self) -> bool:
        """Whether the gallery's neighbours are needed: for smoothing, and for how many results to expand a query by."""
        return self.smooth > 0 or self.expand > 0

    @property
    def changes_ranking(self) -> bool:
        """Whether anything differs from a ranking of plain embeddings."""
        return self.flip or self.centring != "off" or self.needs_neighbours

    def text(self) -> str:
        """Return what is on, in a few words: "flip, centre, smooth 10, expand 10, caution 4"; "off" where nothing is."""
        numbers = [f"{name} {getattr(self, name):g}" for name in ("smooth", "expand") if getattr(self, name)]
        caution = [f"caution {self.caution:g}"] if self.needs_neighbours else []
        centring = [] if self.centring == "off" else [self.centring]
        return ", ".join([*(["flip"] if self.flip else []), *centring, *numbers, *caution]) or "off"


PLAIN = SearchOptions(flip=False, centring="off", smooth=0, expand=0, caution=0.0)
"""Everything off: queries and gallery are ranked by their embeddings as the network gives them."""
