"""The fields of a comparison. Importing this module loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zsbir.base.config import Config
from zsbir.evaluation.metrics import METRICS

Format = Literal["markdown", "csv", "latex"]


class CompareConfig(Config):
    """What the table shows, and as what it is written."""

    format: Format = Field(
        "markdown", description="form of the table; csv has all digits, latex needs the packages booktabs and amsmath"
    )
    metric: tuple[str, ...] = Field(
        ("map_all",), min_length=1, description=f"metrics, of {', '.join(METRICS)}; with /macro after it: the mean over classes"
    )
    level: float = Field(0.95, gt=0, lt=1, description="of all intervals")
