"""How the sketches of a data set are drawn: strokes are drawn in the same way before they meet an encoder that learned from those.

An encoder that was trained on the pictures of one renderer knows its lines: drawn twice as thick, or in another part of the
picture, the same strokes find less (docs/benchmarks/2026-11-30-strokes.md). The sketches' ink is measured when a data set is made
(`zsbir.data.measured_ink`). A run and its indexes carry it in the facts of their manifests, since a search has nothing but the
index.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from zsbir.base.artifact import Artifact
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.data.images import BLANK_SPREAD

FACT = "ink"
"""The name of the ink among the facts of a manifest."""


class Ink(Config):
    """How strokes become a picture. Lengths are shares of the picture's side, grey levels go from 0, black, to 255, white.

    The extent of a drawing, along the middle of its lines, fills the picture but for the margin. Where proportions are kept its
    longer side does, and `across` and `down` say where the shorter one lies: 0 at the left or at the top, .5 in the middle.
    """

    line_width: float = Field(3 / 256, ge=1 / 1024, le=0.25, description="width of the lines")
    margin: float = Field(14 / 256, ge=0, le=0.45, description="distance of the drawing from each edge")
    across: float = Field(0.5, ge=0, le=1, description="where a narrow drawing lies: 0 left, 1 right")
    down: float = Field(0.5, ge=0, le=1, description="where a low drawing lies: 0 at the top, 1 at the bottom")
    keeps_proportions: bool = Field(True, description="False: drawings are stretched to fill the picture both ways")
    paper: int = Field(255, ge=0, le=255, description="grey level of the ground")
    level: int = Field(0, ge=0, le=255, description="grey level of the lines")

    @model_validator(mode="after")
    def _check_visible(self) -> Ink:
        if abs(self.paper - self.level) <= BLANK_SPREAD:
            raise ValueError(f"lines of level {self.level} on paper of level {self.paper} cannot be seen")
        return self


QUICKDRAW = Ink()
"""How ingest draws QuickDraw's strokes, and what stands in where no sketches were measured: this project's choice."""


def stated_ink(artifact: Artifact) -> Ink | None:
    """Return the ink that a manifest states, None where it states none. Raises InputError for one that nobody can draw with."""
    return _ink(artifact.manifest.facts.get(FACT), artifact.uri)


def _ink(value: Any, uri: str) -> Ink | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InputError(f"{uri}: its manifest states an ink that is no mapping")
    return Ink.of(value, where=f"{uri}: the ink in its manifest")


def ink_of(artifact: Artifact) -> Ink:
    """Return how strokes are drawn for a data set, a run or an index: as its sketches were, QUICKDRAW where that is not known.

    Raises InputError where its manifest states an ink that nobody can draw with.
    """
    return stated_ink(artifact) or QUICKDRAW


def ink_facts(ink: Ink | None) -> dict[str, Any]:
    """Return an ink as facts of a manifest; none where it is not known."""
    return {} if ink is None else {FACT: ink.model_dump(mode="json")}
