"""The job queue on the command line.

    python -m services.jobs up                                  start the service on this machine, and print its page's address
    python -m services.jobs submit train --recipe toy ...       submit a job, and print its number
    python -m services.jobs list | show ID | logs -f ID | cancel ID | retry ID | queue
    python -m services.jobs down                                end the service; running jobs continue with the next `up`

For a team, run `serve` (API and page) and `dispatch` (which starts jobs) beside a Ray cluster, with PostgreSQL as the job store;
its operator sets `limits` and makes `tokens`.
"""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Sequence
from typing import Any, get_args

from pydantic import Field

from services.common.auth import Role
from services.jobs.local.paths import PORT, absolute_root, default_store
from zsbir.base import cli, events
from zsbir.base.config import Config, read_yaml, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.signals import on_signals
from zsbir.base.storage import default_root

Command = Callable[[Sequence[str]], str | None]


class ServiceSettings(Config):
    """Where the service stores its jobs and their artifacts."""

    root: str = Field(default_factory=default_root, description="storage root of all jobs, also ZSBIR_ROOT")
    store: str = Field("", description="job store, sqlite:///file or postgresql://user@host/name, also ZSBIR_JOBS_STORE")

    def resolved(self) -> ServiceSettings:
        """Return these settings with an absolute root and a job store."""
        root = absolute_root(self.root)
        return ServiceSettings(root=root, store=self.store or default_store(root))


class ServeSettings(Config):
    """Where the API listens, and whom it serves."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(PORT, ge=0, le=65535, description="port to listen on")
    auth: str = Field(
        "tokens",
        pattern="^(tokens|off)$",
        description="tokens, or off: every caller is operator, which only a loopback host allows",
    )
    hosts: tuple[str, ...] = Field((), description="further host names under which browsers may open the page")
    places: tuple[str, ...] = Field((), description="further folders and s3:// prefixes that jobs may read, besides the root")
    mlflow_url: str = Field("", description="address of MLflow's pages, to which the page links")


class RayDispatch(Config):
    """Where the dispatcher runs jobs."""

    ray: str = Field("", description="address of Ray's job API, http://host:8265, also RAY_API_SERVER_ADDRESS")
    executor: str = Field(
        "ray",
        pattern="^(ray|kuberay)$",
        description="ray: each attempt is a job of a Ray cluster; kuberay: each is a RayJob on Kubernetes, created with kubectl",
    )


def _up(argv: Sequence[str]) -> str:
    """Start the service on this machine: Ray, MLflow, dispatcher, API and page."""
    from services.jobs.local.settings import UpSettings

    text = (
        "Start the job service on this machine: Ray, MLflow, the dispatcher, and the API with its page. Print the page's address.\n"
    )
    parser = cli.Parser("services.jobs up", text + "A service that is up already stays as it is.")
    parser.add_argument(
        "--foreground",
        action="store_true",
        help="stay in the foreground, for a service manager; Ctrl-C ends the service, a second one without waiting for jobs",
    )
    parser.add_fields(UpSettings, title="service")
    parsed, values = parser.values(argv)

    from services.jobs.local.keeper import up

    return up(UpSettings.of(values), foreground=parsed.foreground)


def _down(argv: Sequence[str]) -> None:
    """End what `up` has started; running jobs save a checkpoint and continue with the next `up`."""
    text = "End what `up` has started, and nothing else. Running jobs save a checkpoint first and continue with the next `up`."
    parser = cli.Parser("services.jobs down", text)
    parser.add_argument(
        "--root", default=default_root(), help=f"storage root whose service is ended, also ZSBIR_ROOT [{_shown_root()}]"
    )
    parser.add_argument("--now", action="store_true", help="end running jobs without waiting for their checkpoints")
    parser.add_argument(
        "--grace-s", type=float, metavar="X", help="seconds that running jobs have for their checkpoints [that of `up`: 120]"
    )
    parsed, _ = parser.values(argv)

    from services.jobs.local.keeper import down

    down(parsed.root, now=parsed.now, grace_s=parsed.grace_s)


def _keep(argv: Sequence[str]) -> None:
    """Keep the service running: the background process that `up` starts."""
    parser = cli.Parser(
        "services.jobs keep", "Keep the service running until SIGTERM or SIGINT. `up` starts this in the background."
    )
    parser.add_argument("--settings", required=True, help="the settings of `up`, as JSON")
    parsed, _ = parser.values(argv)

    from services.jobs.local.keeper import keep
    from services.jobs.local.settings import UpSettings

    keep(UpSettings.model_validate_json(parsed.settings))


def _serve(argv: Sequence[str]) -> None:
    """Serve the API and the page."""
    parser = cli.Parser("services.jobs serve", "Serve the API and the page of the job queue.")
    parser.add_fields(ServiceSettings, title="service")
    parser.add_fields(ServeSettings, title="API and page")
    _, values = parser.values(argv)
    service, serve = cli.split_fields(values, ServiceSettings, ServeSettings)
    storage, listen = ServiceSettings.of(service).resolved(), ServeSettings.of(serve)

    import gc

    import uvicorn

    from services.jobs.http.api import create_app
    from services.jobs.http.state import ApiSettings

    settings = {**listen.model_dump(exclude={"port"}), "store": storage.store, "root": storage.root}
    app = create_app(ApiSettings.of(settings))
    # Imported modules are never garbage. Without this, every fiftieth request waited 0.25 s for a collection that searched them.
    gc.collect()
    gc.freeze()
    events.say(f"the job service listens at http://{listen.host}:{listen.port}")
    uvicorn.run(app, host=listen.host, port=listen.port, log_level="warning", access_log=False)


def _dispatch(argv: Sequence[str]) -> None:
    """Run the dispatcher, which starts jobs; of several, one works and the others stand by."""
    from services.jobs.runs.settings import DispatcherSettings

    parser = cli.Parser(
        "services.jobs dispatch",
        "Start jobs when it is their turn, watch them, and record how they end. Of several dispatchers, one works.",
    )
    parser.add_argument("--root", default=default_root(), help=f"storage root of all jobs, also ZSBIR_ROOT [{_shown_root()}]")
    parser.add_argument("--store", default="", help="job store, also ZSBIR_JOBS_STORE [that of the root]")
    parser.add_fields(RayDispatch, title="executor")
    parser.add_fields(DispatcherSettings, title="dispatcher", skip=frozenset({"root"}))
    parsed, values = parser.values(argv)
    executor, settings = cli.split_fields(values, RayDispatch, DispatcherSettings)
    config = DispatcherSettings.of({**settings, "root": absolute_root(parsed.root or default_root())})
    from services.jobs.queue.store import open_store  # the database takes long to load, and the help needs none
    from services.jobs.runs.dispatcher import Dispatcher
    from services.jobs.runs.mlflow_cleanup import MlflowCleanup

    store = open_store(parsed.store or default_store(config.root))
    dispatcher = Dispatcher(store, _executor(RayDispatch.of(executor)), config)
    stop = threading.Event()
    on_signals(lambda _: stop.set())
    cleanup = MlflowCleanup(store, config.tracking_uri, lambda: dispatcher.leadership.lease)
    threading.Thread(target=cleanup.run, args=(stop,), daemon=True, name="mlflow-cleanup").start()
    dispatcher.run(stop)


def _shown_root() -> str:
    """Return the default root as argparse's help texts need it."""
    return default_root().replace("%", "%%")


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
    """Show or set what the queue and each project may use."""
    parser = cli.Parser(
        "services.jobs limits",
        "Show what the queue and each project may use, or set it. New limits hold for jobs that have not started yet.",
    )
    parser.add_argument(
        "--set",
        metavar="FILE",
        help="set the limits from a YAML file: running, cpus, gpus, projects: {name: {cpus, gpus, gpu_hours}}",
    )
    parser.add_fields(ServiceSettings, title="service")
    parsed, values = parser.values(argv)

    from services.jobs.queue.limits import Limits
    from services.jobs.queue.store import open_store

    store = open_store(ServiceSettings.of(values).resolved().store)
    if parsed.set:
        store.set_limits(Limits.of(read_yaml(parsed.set), where="limits"), getpass.getuser())
    return store.limits().model_dump_json(indent=2, exclude_none=True)


def _tokens(argv: Sequence[str]) -> str | None:
    """List, make and revoke API tokens: tokens [list | make NAME --role ROLE | revoke NUMBER]."""
    parser = cli.Parser(
        "services.jobs tokens",
        "List, make and revoke the tokens by which the service knows its users. A token is shown only once, when it is made.",
    )
    parser.add_argument("action", nargs="?", default="list", choices=["list", "make", "revoke"], help="what to do [list]")
    parser.add_argument("name", nargs="?", default="", help="make: the user's name; revoke: the token's number")
    parser.add_argument("--role", choices=get_args(Role), default="submitter", help="make: what the user may do [submitter]")
    parser.add_fields(ServiceSettings, title="service")
    parsed, values = parser.values(argv)

    from services.jobs.queue.store import open_store
    from services.jobs.queue.tokens import Tokens

    tokens = Tokens(open_store(ServiceSettings.of(values).resolved().store))
    if parsed.action == "make":
        return tokens.make(parsed.name, parsed.role, getpass.getuser())
    if parsed.action == "revoke":
        if not parsed.name.isdecimal() or len(parsed.name) > 10 or int(parsed.name) >= 2**31:
            raise InputError("revoke needs a token's number; see python -m services.jobs tokens")
        tokens.revoke(int(parsed.name), getpass.getuser())
        return None
    rows = [f"{each.id:>4}  {each.role:<10} {each.name}{'  (revoked)' if each.revoked_s else ''}" for each in tokens.all()]
    return "\n".join(rows) or "no tokens yet; python -m services.jobs tokens make NAME --role submitter"


SERVICE_COMMANDS: dict[str, Command] = {
    "up": _up,
    "down": _down,
    "serve": _serve,
    "dispatch": _dispatch,
    "limits": _limits,
    "tokens": _tokens,
    "keep": _keep,
}


def _commands() -> dict[str, Command]:
    """Return all commands. Those of clients are imported here, so that the service's own programs do without them."""
    from services.jobs.cli.commands import COMMANDS

    return {**COMMANDS, **SERVICE_COMMANDS}


def _help() -> str:
    lines = [
        f"    {name:<10}{(command.__doc__ or '').strip().splitlines()[0]}"
        for name, command in _commands().items()
        if name != "keep"
    ]
    return "\n".join([__doc__ or "", "commands (COMMAND --help explains each):", *lines, ""])


def _parse(argv: Sequence[str]) -> str | None:
    if not argv or argv[0] in ("-h", "--help"):
        raise cli.HelpAsked(_help())
    command = SERVICE_COMMANDS.get(argv[0]) or _commands().get(argv[0])
    if command is None:
        raise InputError(unknown_name("command", argv[0], _commands()) + "; see python -m services.jobs --help")
    return command(argv[1:])


if __name__ == "__main__":
    cli.main(_parse)
