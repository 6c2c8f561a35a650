"""What the API's routes work with: settings, and the parts that `create_app` puts together; and whose token is whose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import Field

from services.common.tokens import Tokens
from services.jobs.http.metrics import DispatcherMonitor, Metrics
from services.jobs.http.patience import HealthProbe
from services.jobs.http.permissions import Permissions
from services.jobs.http.service import JobService
from services.jobs.queue.store import Store
from zsbir.base.config import Config


class ApiSettings(Config):
    """Where the service runs, and who may use it."""

    store: str = Field(description="the job store, sqlite:///path or postgresql://user@host/name")
    root: str = Field(description="the storage root")
    places: tuple[str, ...] = Field((), description="what jobs may read besides the storage root")
    auth: Literal["tokens", "off"] = Field("tokens", description="off: everybody is operator, on a loopback host only")
    host: str = Field("127.0.0.1", description="the address that it listens on")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides that one and this machine's own")
    mlflow_url: str = Field("", description="where people see MLflow's pages")
    search_url: str = Field("", description="where people search")
    allow_commands: bool = Field(False, description="operators may submit any program as a job")
    promotion: Literal["operators", "submitters"] = Field("operators", description="who may submit jobs that promote a model")


@dataclass(frozen=True)
class AppState:
    """The parts of one application. Routes ask `service`; `store` is there for whoever must close it or look behind the service."""

    settings: ApiSettings
    store: Store
    service: JobService
    monitor: DispatcherMonitor
    metrics: Metrics
    pages: Mapping[str, bytes]
    tokens: Tokens
    health: HealthProbe
    permissions: Permissions


def app_state(request: Request) -> AppState:
    """Return the state of the application that serves this request."""
    state: AppState = request.app.state.jobs
    return state


App = Annotated[AppState, Depends(app_state)]
