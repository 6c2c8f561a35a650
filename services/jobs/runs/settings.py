"""What the dispatcher may be told, in a file that its help can read without the database."""

from __future__ import annotations

from pydantic import Field

from services.jobs.queue.retries import FIRST_PAUSE_S, OUTAGE_S
from zsbir.base.config import Config


class DispatcherSettings(Config):
    """Where the dispatcher works, and how long it waits for what."""

    root: str = Field(description="storage root of all jobs: absolute, and reachable from every node")
    tracking_uri: str = Field("", description="MLflow of all jobs, also MLFLOW_TRACKING_URI; none: a database under the root")
    page_url: str = Field("", description="address of the page, for the links in notifications; none: they have none")
    poll_s: float = Field(1.0, gt=0, description="seconds between two rounds")
    lease_s: float = Field(15.0, gt=0, description="seconds of another dispatcher's silence before its lease is taken")
    patience_s: float = Field(20.0, gt=0, description="seconds of an attempt's silence before it may be lost")
    begin_s: float = Field(600.0, gt=0, description="seconds that a started attempt may take to begin")
    grace_s: float = Field(120.0, gt=0, description="seconds for a final checkpoint before the executor is told to end it")
    outage_pause_s: float = Field(
        FIRST_PAUSE_S, gt=0, description="seconds before a job is tried again that a network or a full disk has ended; they double"
    )
    outage_s: float = Field(OUTAGE_S, ge=0, description="seconds for which such a job is tried again before it fails")
