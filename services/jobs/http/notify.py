"""The routes by which an operator sets whom jobs may tell of their ends. What a target holds is never in an answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi import Path as InPath
from pydantic import BaseModel

from services.common.answers import error_responses
from services.common.errors import BadGateway, NotFound
from services.common.routes import GuardedRoute, Operator
from services.jobs.http.models import Health
from services.jobs.http.state import App
from services.jobs.queue.targets import Targets, read_targets, set_targets
from services.jobs.runs.delivery import deliver
from services.jobs.runs.notifications import test_message
from zsbir.base.errors import RunError

NOTIFY = APIRouter(route_class=GuardedRoute)
Name = Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="a target's name")]
NewTargets = Annotated[Targets, Body(examples=[{"targets": {"team": {"webhook": "https://chat.example.org/hooks/1"}}}])]


class ShownTargets(BaseModel):
    """Targets by name, without what may be secret: the host of a webhook, the program of a command."""

    targets: dict[str, dict[str, Any]]


@NOTIFY.get("/api/notify-targets", responses=error_responses(401, 403, 503))
def targets(app: App, _user: Operator) -> ShownTargets:
    """Return the targets that jobs may name."""
    return ShownTargets(targets=Targets(targets=read_targets(app.store)).shown())


@NOTIFY.put("/api/notify-targets", responses=error_responses(400, 401, 403, 413, 422, 503))
def put_targets(app: App, user: Operator, wanted: NewTargets) -> ShownTargets:
    """Replace all targets. One that is a command needs what a job of kind command needs."""
    if any(target.command for target in wanted.targets.values()):
        app.permissions.require_code(user, "a notification target that is a command")
    set_targets(app.store, wanted, user.name)
    return ShownTargets(targets=wanted.shown())


@NOTIFY.post("/api/notify-targets/{name}/test", responses=error_responses(401, 403, 404, 422, 502, 503))
def try_target(app: App, user: Operator, name: Name) -> Health:
    """Tell one target that this is a test. It is told by this process: a command is run where the API runs."""
    found = read_targets(app.store)
    if name not in found:
        raise NotFound(f"there is no target {name!r}; there are {', '.join(sorted(found)) or 'none'}")
    if found[name].command:
        app.permissions.require_code(user, "a notification target that is a command")
    try:
        deliver(found[name], test_message(user.name))
    except RunError as error:
        raise BadGateway(f"the target {name!r} was not told: {error}") from error
    return Health()
