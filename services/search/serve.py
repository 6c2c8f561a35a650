"""The search service on many replicas, as a Ray Serve deployment of the same application.

    serve run services.search.serve:build model=champion root=s3://bucket/zsbir replicas=4 cpus=2

Each replica opens the index, gathers its own batches and follows the registry by itself: after a promotion, replicas switch within
one interval of polling, and every answer says by which model and index it was made, and its header X-Replica by which replica.
Tokens are those of a job store that all nodes reach (ZSBIR_JOBS_STORE).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.search.settings import SearchSettings
from zsbir.base.config import Config


class Replicas(Config):
    """How many replicas there are, and what each may use."""

    replicas: int = Field(1, ge=1, le=1000, description="processes that serve")
    cpus: float = Field(1, gt=0, description="CPUs that each reserves, and threads that torch computes with")
    queries: int = Field(64, ge=1, description="requests that are sent to a replica at a time; others wait for one that is free")


def build(args: Mapping[str, Any]) -> Application:
    """Return the deployment. args: the settings of `python -m services.search`, and those of `Replicas`. InputError for others."""
    own = {name: value for name, value in args.items() if name in Replicas.model_fields}
    replicas = Replicas.of(own)
    given = {name: value for name, value in args.items() if name not in own}
    settings = SearchSettings.of({"threads": max(1, int(replicas.cpus)), **given})
    deployed = serve.deployment(
        _Search,
        name="search",
        num_replicas=replicas.replicas,
        max_ongoing_requests=replicas.queries,
        ray_actor_options={"num_cpus": replicas.cpus},
        health_check_period_s=10,
    )
    return deployed.bind(settings.model_dump())


@serve.ingress()
class _Search:
    """One replica."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = SearchSettings.of(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from services.search.start import open_app

        app = open_app(self._settings)
        app.add_middleware(_ReplicaHeader, name=serve.get_replica_context().replica_id.unique_id)
        return app


class _ReplicaHeader:
    """ASGI middleware that says which replica has answered."""

    def __init__(self, app: ASGIApp, name: str):
        self._app, self._name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Replica"] = self._name
            await send(message)

        await self._app(scope, receive, send_named)
