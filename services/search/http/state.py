"""What the search service's routes work with: settings, and the parts that `create_app` puts together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import Field

from services.search.http.admission import Admission
from services.search.http.metrics import Metrics
from services.search.serving.batches import Batcher
from services.search.serving.catalogue import Catalogue
from zsbir.base.config import Config


class ApiSettings(Config):
    """Where the service runs, and who may use it."""

    root: str = Field(description="the storage root")
    auth: Literal["tokens", "off"] = Field("tokens", description="off: everybody is operator, on a loopback host only")
    host: str = Field("127.0.0.1", description="the address that it listens on")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides that one and this machine's own")
    jobs_url: str = Field("", description="address of the job queue's page, to which the page links")


@dataclass(frozen=True)
class AppState:
    """The parts of one application."""

    settings: ApiSettings
    catalogue: Catalogue
    batcher: Batcher
    admission: Admission
    metrics: Metrics
    pages: Mapping[str, bytes]


def app_state(request: Request) -> AppState:
    """Return the state of the application that serves this request."""
    state: AppState = request.app.state.search
    return state


App = Annotated[AppState, Depends(app_state)]
