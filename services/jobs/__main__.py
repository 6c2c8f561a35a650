"""The job queue on the command line.

    python -m services.jobs up                                  Ray, MLflow, dispatcher, API and page of this machine
    python -m services.jobs submit train --recipe toy ...       a job; prints its id
    python -m services.jobs list | show ID | logs -f ID | cancel ID | retry ID | queue
    python -m services.jobs down                                end what `up` has started; running jobs go on with the next `up`

For a team: `serve` (API and page) and `dispatch` beside a Ray cluster, over PostgreSQL; `limits`, `tokens` for its operator.
"""

from __future__ import annotations

import getpass
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import Field

from services.jobs.local.paths import PORT, absolute_root, default_store
from services.jobs.queue.states import Role
from zsbir.base import cli, events
from zsbir.base.config import Config, read_yaml, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.storage import default_root

Command = Callable[[Sequence[str]], str | None]


class ServiceSettings(Config):
    """Where the service keeps its truth, and everything else."""

    root: str = Field(default_factory=default_root, description="storage root of all jobs, also ZSBIR_ROOT")
    store: str = Field("", description="job store, sqlite:///file or postgresql://user@host/name, also ZSBIR_JOBS_STORE")

    def resolved(self) -> ServiceSettings:
        """With an absolute root, and a store."""
        root = absolute_root(self.root)
        return ServiceSettings(root=root, store=self.store or default_store(root))


class ServeSettings(Config):
    """What the API is told besides."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(PORT, ge=0, le=65535, description="port to listen on")
    auth: str = Field("tokens", pattern="^(tokens|off)$", description="off: everybody is operator, on a loopback host only")
    hosts: tuple[str, ...] = Field((), description="names that browsers know it by, besides the host's own")
    places: tuple[str, ...] = Field((), description="folders and s3:// prefixes that jobs may read besides the root")
    mlflow_url: str = Field("", description="where people see MLflow's pages")


class RayDispatch(Config):
    """Whom the dispatcher tells to run jobs."""

    ray: str = Field("", description="Ray's job API, http://host:8265, also RAY_API_SERVER_ADDRESS")
    executor: str = Field(
        "ray", pattern="^(ray|kuberay)$", description="ray: jobs of a Ray cluster; kuberay: a RayJob each, by kubectl"
    )


def _up(argv: Sequence[str]) -> str:
    """Start all that one machine needs, and say what runs where."""
    from services.jobs.local.keeper import up
    from services.jobs.local.machine import UpSettings

    parser = cli.Parser("services.jobs up", up.__doc__ or "")
    parser.add_argument(
        "--foreground", action="store_true", help="stay here, for a service manager; Ctrl-C ends it, a second one at once"
    )
    parser.add_fields(UpSettings, title="service")
    parsed, values = parser.values(argv)
    return up(UpSettings.of(values), foreground=parsed.foreground)


def _down(argv: Sequence[str]) -> None:
    """End exactly that; running jobs save a checkpoint and go on with the next up."""
    from services.jobs.local.keeper import down

    parser = cli.Parser("services.jobs down", down.__doc__ or "")
    parser.add_argument("--root", default=default_root(), help="storage root, also ZSBIR_ROOT")
    parser.add_argument("--now", action="store_true", help="without waiting for checkpoints")
    parser.add_argument("--grace-s", type=float, metavar="X", help="seconds for checkpoints [as `up` was told: 120]")
    parsed, _ = parser.values(argv)
    down(parsed.root, now=parsed.now, grace_s=parsed.grace_s)


def _keep(argv: Sequence[str]) -> None:
    """What `up` leaves running: it keeps the others alive."""
    from services.jobs.local.keeper import keep
    from services.jobs.local.machine import UpSettings

    parser = cli.Parser("services.jobs keep", keep.__doc__ or "")
    parser.add_argument("--settings", required=True, help="as JSON")
    parsed, _ = parser.values(argv)
    keep(UpSettings.model_validate_json(parsed.settings))


def _serve(argv: Sequence[str]) -> None:
    """API and page."""
    parser = cli.Parser("services.jobs serve", "API and page of the queue.")
    parser.add_fields(ServiceSettings, title="service")
    parser.add_fields(ServeSettings, title="where it listens")
    _, values = parser.values(argv)
    service, serve = cli.split_fields(values, ServiceSettings, ServeSettings)
    where, how = ServiceSettings.of(service).resolved(), ServeSettings.of(serve)

    import gc

    import uvicorn

    from services.jobs.http.api import create_app
    from services.jobs.http.auth import ApiSettings

    told = how.model_dump(exclude={"port"})
    app = create_app(ApiSettings.of({**told, "store": where.store, "root": where.root}))
    # What was imported stays for good: looking through it again and again for garbage made one request in fifty wait 0.25 s.
    gc.collect()
    gc.freeze()
    events.say(f"the queue is at http://{how.host}:{how.port}")
    uvicorn.run(app, host=how.host, port=how.port, log_level="warning", access_log=False)


def _dispatch(argv: Sequence[str]) -> None:
    """The dispatcher; several may be started, one works."""
    from services.jobs.queue.store import open_store
    from services.jobs.runs.dispatcher import Dispatcher, DispatcherSettings
    from services.jobs.runs.mlflow_cleanup import MlflowCleanup

    parser = cli.Parser("services.jobs dispatch", "Start jobs whose turn it is, watch them, write down what became of them.")
    parser.add_argument("--store", default="", help="job store, also ZSBIR_JOBS_STORE")
    parser.add_fields(RayDispatch, title="executor")
    parser.add_fields(DispatcherSettings, title="dispatcher")
    parsed, values = parser.values(argv)
    executor, settings = cli.split_fields(values, RayDispatch, DispatcherSettings)
    settings["root"] = absolute_root(settings.get("root") or default_root())
    told = DispatcherSettings.of(settings)
    store = open_store(parsed.store or default_store(told.root))
    dispatcher = Dispatcher(store, _executor(RayDispatch.of(executor)), told)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    cleanup = MlflowCleanup(store, told.tracking_uri, lambda: dispatcher.leadership.lease)
    threading.Thread(target=cleanup.run, args=(stop,), daemon=True, name="tidying").start()
    dispatcher.run(stop)


def _executor(settings: RayDispatch) -> Any:
    if settings.executor == "kuberay":
        from services.jobs.runs.kuberay import KubeRay
        from services.jobs.runs.rayjob import load_config

        return KubeRay(load_config())
    import os

    from services.jobs.runs.ray_jobs import RayJobs

    address = settings.ray or os.environ.get("RAY_API_SERVER_ADDRESS", "")
    if not address:
        raise InputError("no Ray: pass --ray http://host:8265, or set RAY_API_SERVER_ADDRESS")
    return RayJobs(address)


def _limits(argv: Sequence[str]) -> str:
    """Show or set what the queue, and each project, may use."""
    from services.jobs.queue.limits import Limits
    from services.jobs.queue.store import open_store

    parser = cli.Parser("services.jobs limits", "Show what the queue may use, or set it: from now on, what runs goes on.")
    parser.add_argument("--set", metavar="FILE", help="YAML: running, cpus, gpus, projects: {name: {cpus, gpus, gpu_hours}}")
    parser.add_fields(ServiceSettings, title="service")
    parsed, values = parser.values(argv)
    store = open_store(ServiceSettings.of(values).resolved().store)
    if parsed.set:
        store.set_limits(Limits.of(read_yaml(parsed.set), where="limits"), getpass.getuser())
    return store.limits().model_dump_json(indent=2, exclude_none=True)


def _tokens(argv: Sequence[str]) -> str | None:
    """List, make and revoke API tokens: tokens [list | make NAME --role ROLE | revoke ID]."""
    from services.jobs.queue.store import open_store
    from services.jobs.queue.tokens import Tokens

    parser = cli.Parser("services.jobs tokens", "Who may speak to the service. A token is shown once, when it is made.")
    parser.add_argument("what", nargs="?", default="list", choices=["list", "make", "revoke"], help="[list]")
    parser.add_argument("name", nargs="?", default="", help="make: whose it is; revoke: its number")
    parser.add_argument("--role", choices=get_args(Role), default="submitter", help="[submitter]")
    parser.add_fields(ServiceSettings, title="service")
    parsed, values = parser.values(argv)
    tokens = Tokens(open_store(ServiceSettings.of(values).resolved().store))
    if parsed.what == "make":
        return tokens.make(parsed.name, parsed.role, getpass.getuser())
    if parsed.what == "revoke":
        if not parsed.name.isdecimal() or len(parsed.name) > 10 or int(parsed.name) >= 2**31:
            raise InputError("revoke needs a token's number; see python -m services.jobs tokens")
        tokens.revoke(int(parsed.name), getpass.getuser())
        return None
    rows = [f"{each.id:>4}  {each.role:<10} {each.name}{'  (revoked)' if each.revoked_s else ''}" for each in tokens.all()]
    return "\n".join(rows) or "no tokens yet; python -m services.jobs tokens make NAME --role submitter"


OWN: dict[str, Command] = {
    "up": _up,
    "down": _down,
    "serve": _serve,
    "dispatch": _dispatch,
    "limits": _limits,
    "tokens": _tokens,
    "keep": _keep,
}


def _commands() -> dict[str, Command]:
    """The clients' too, which the service's own programs need not load."""
    from services.jobs.cli.commands import COMMANDS

    return {**COMMANDS, **OWN}


def _help() -> str:
    lines = [
        f"    {name:<10}{(command.__doc__ or '').strip().splitlines()[0]}"
        for name, command in _commands().items()
        if name != "keep"
    ]
    return "\n".join([__doc__ or "", "commands (each with --help):", *lines, ""])


def _parse(argv: Sequence[str]) -> str | None:
    if not argv or argv[0] in ("-h", "--help"):
        raise cli.HelpAsked(_help())
    command = OWN.get(argv[0]) or _commands().get(argv[0])
    if command is None:
        raise InputError(unknown_name("command", argv[0], _commands()) + "; see python -m services.jobs --help")
    return command(argv[1:])


if __name__ == "__main__":
    cli.main(_parse)
