"""The job queue on the command line.

    python -m services.jobs up                                  start the service on this machine, and print its page's address
    python -m services.jobs submit train --recipe toy ...       submit a job, and print its number
    python -m services.jobs list | show ID | logs -f ID | cancel ID | retry ID | queue
    python -m services.jobs down                                end the service; running jobs continue with the next `up`

For a team, run `serve` (API and page) and `dispatch` (which starts jobs) beside a Ray cluster, with PostgreSQL as the job store;
its operator sets `limits` and makes `tokens`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field

from services.common.credentials import has_secret, hide_secrets, refuse_secrets, split_login
from services.jobs.local.paths import PORT, absolute_root, default_store
from zsbir.base import cli, events
from zsbir.base.config import Config, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.signals import on_signals
from zsbir.base.storage import default_root

Command = Callable[[Sequence[str]], str | None]

SECRETS_GO = (
    "set ZSBIR_JOBS_STORE or MLFLOW_TRACKING_URI instead, or use a password file (PGPASSFILE), "
    "or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)


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
    search_url: str = Field("", description="address of the search service's page, to which the page links")
    allow_commands: bool = Field(False, description="operators with a token may submit any program as a job")
    promotion: str = Field(
        "operators",
        pattern="^(operators|submitters)$",
        description="who may submit jobs that promote a model: operators, submitters",
    )


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

    from services.common.server import serve as serve_app
    from services.jobs.http.api import create_app
    from services.jobs.http.state import ApiSettings

    settings = {**listen.model_dump(exclude={"port"}), "store": storage.store, "root": storage.root}
    app = create_app(ApiSettings.of(settings))
    events.say(f"the job service listens at http://{listen.host}:{listen.port}; its job store is {hide_secrets(storage.store)}")
    serve_app(app, listen.host, listen.port)


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
    from services.jobs.runs.notifications import Notifier

    tracking_uri = _tracking_uri(config.tracking_uri)
    config = config.replace(tracking_uri=tracking_uri)
    store = open_store(parsed.store or default_store(config.root))
    events.say(f"the job store is {hide_secrets(store.url)}")
    dispatcher = Dispatcher(store, _executor(RayDispatch.of(executor)), config)
    stop = threading.Event()
    on_signals(lambda _: stop.set())
    notifier = Notifier(store, lambda: dispatcher.leadership.lease, config.page_url)
    threading.Thread(target=notifier.run, args=(stop,), daemon=True, name="notifications").start()
    cleanup = MlflowCleanup(store, config.tracking_uri, lambda: dispatcher.leadership.lease)
    threading.Thread(target=cleanup.run, args=(stop,), daemon=True, name="mlflow-cleanup").start()
    dispatcher.run(stop)


def _tracking_uri(given: str) -> str:
    """Return the address of the jobs' MLflow, without a name and password where it is a web address.

    Both are put where MLflow's client looks for them in this process. Jobs do not get them from here: Ray shows a job's variables
    to everybody who may look at its jobs.
    """
    import os

    address, user, password = split_login(given or os.environ.get("MLFLOW_TRACKING_URI", ""))
    if user:
        os.environ.update({"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password})
    if has_secret(address):
        events.say("jobs do not get MLflow's address from here, since it holds a password: set MLFLOW_TRACKING_URI on the nodes")
    elif user:
        events.say("set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the nodes: jobs do not get them from here")
    return address


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


SERVICE_COMMANDS: dict[str, Command] = {
    "up": _up,
    "down": _down,
    "serve": _serve,
    "dispatch": _dispatch,
    "keep": _keep,
}


OPERATOR_COMMANDS = ("limits", "tokens", "notify")
"""Client commands that may be told the address of a job store."""


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
    if argv[0] in (*SERVICE_COMMANDS, *OPERATOR_COMMANDS):
        refuse_secrets(argv[1:], SECRETS_GO)
    command = SERVICE_COMMANDS.get(argv[0]) or _commands().get(argv[0])
    if command is None:
        raise InputError(unknown_name("command", argv[0], _commands()) + "; see python -m services.jobs --help")
    return command(argv[1:])


if __name__ == "__main__":
    cli.main(_parse)
