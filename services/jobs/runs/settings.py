"""What the dispatcher may be told, in a file that its help can read without the database."""

from __future__ import annotations

from pydantic import Field

from zsbir.base.config import Config


class DispatcherSettings(Config):
    """Where the dispatcher works, and how long it waits for what."""

    root: str = Field(description="storage root of all jobs: absolute, and reachable from every node")
    tracking_uri: str = Field("", description="MLflow of all jobs, also MLFLOW_TRACKING_URI; none: a database under the root")
    places: tuple[str, ...] = Field(
        (), description="what jobs may read besides the root, as `serve` has it: for addresses of registered models"
    )
    poll_s: float = Field(1.0, gt=0, description="seconds between two rounds")
    lease_s: float = Field(15.0, gt=0, description="seconds of another dispatcher's silence before its lease is taken")
    patience_s: float = Field(20.0, gt=0, description="seconds of an attempt's silence before it may be lost")
    begin_s: float = Field(600.0, gt=0, description="seconds that a started attempt may take to begin")
    grace_s: float = Field(120.0, gt=0, description="seconds for a final checkpoint before the executor is told to end it")
