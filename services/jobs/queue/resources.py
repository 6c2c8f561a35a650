"""What jobs hold while they run, defined once: limits, usage, records, columns and reasons loop over these fields.

A further resource is a field in each of the three classes here, a column in a migration, its amount in
`services.jobs.runs.steps.resources_of`, and what the executors ask their cluster for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from pydantic import Field

from zsbir.base.config import Config

MOST = 1_000_000
"""The largest amount that is taken: no cluster has more, so a larger one is a typing mistake."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Amounts of each resource. label: what messages to people call it."""

    cpus: float = field(default=0.0, metadata={"label": "CPUs"})
    gpus: float = field(default=0.0, metadata={"label": "GPUs"})

    def amount(self, name: str) -> float:
        """Return the amount of one resource, by its field's name."""
        return float(getattr(self, name))


LABELS = {each.name: str(each.metadata["label"]) for each in fields(Resources)}
"""Each resource's field name, with what messages call it."""


class ResourceRequest(Config):
    """What a job asks for."""

    cpus: float = Field(1, ge=0, le=MOST, description="CPUs that it holds while it runs")
    gpus: float = Field(0, ge=0, le=MOST, description="GPUs that it holds while it runs")


class ResourceLimits(Config):
    """What may be held at a time."""

    cpus: float | None = Field(None, ge=0, le=MOST, description="CPUs at a time; none: no limit")
    gpus: float | None = Field(None, ge=0, le=MOST, description="GPUs at a time; none: no limit")

    def limits(self) -> dict[str, float]:
        """Return each limit that is set, by its resource's field name."""
        return {name: float(limit) for name in LABELS if (limit := getattr(self, name)) is not None}
