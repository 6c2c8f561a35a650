"""What the search service's routes work with: settings, and the parts that `create_app` puts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import Field

from services.search.http.admission import Admission
from services.search.http.metrics import Metrics
from services.search.serving.batches import Batcher
from services.search.serving.catalogue import Catalogue
from services.search.serving.feedback import Feedback
from services.search.serving.originals import Originals
from zsbir.base.config import Config


class ApiSettings(Config):
    """Where the service runs, and who may use it."""

    root: str = Field(description="the storage root")
    auth: Literal["tokens", "off"] = Field("tokens", description="off: everybody is operator, on a loopback host only")
    host: str = Field("127.0.0.1", description="the address that it listens on")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides that one and this machine's own")
    places: tuple[str, ...] = Field((), description="where photos may be shown from in full size, besides the storage root")
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
    originals: Originals
    feedback: Feedback
    problem: Callable[[], str]
    """What keeps the newest version of a registered model from being served; empty where nothing does."""


def app_state(request: Request) -> AppState:
    """Return the state of the application that serves this request."""
    state: AppState = request.app.state.search
    return state


App = Annotated[AppState, Depends(app_state)]
