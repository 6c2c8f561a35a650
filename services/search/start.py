"""Opens what the settings name, and builds the application around it."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from services.common.auth import UserSource
from services.common.tokens import Tokens, UserStore
from services.common.users import LocalUser, OwnerToken, TokenUsers
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Catalogue, Served
from services.search.serving.following import CHALLENGER, CHAMPION, INDEX_ALIAS, Followed, Following
from services.search.settings import SearchSettings
from zsbir.base import events
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.cores import usable_cores
from zsbir.base.errors import InputError, RunError
from zsbir.base.layout import service_dir
from zsbir.base.storage import is_remote, local_path
from zsbir.base.urls import sqlite_url
from zsbir.edge.model_address import artifact_address
from zsbir.promotion.address import DEFAULT_MODEL, is_model_name

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

TOKEN_FILE = "search.token"  # noqa: S105 - the name of a file
STORE_VARIABLE = "ZSBIR_JOBS_STORE"


def open_app(settings: SearchSettings) -> FastAPI:
    """Return the application over what the settings name. InputError for what cannot be served, RunError without the registry."""
    root = settings.root if is_remote(settings.root) else str(local_path(settings.root).resolve())
    settings = settings.replace(root=root)
    threads = settings.threads or usable_cores()
    fields = settings.model_dump(include={"root", "auth", "host", "hosts", "places", "jobs_url"})
    if settings.index:
        uri = artifact_address(settings.index, "index", root)
        catalogue = Catalogue([Served(INDEX_ALIAS, "", _engine(uri, threads, settings))])
        return create_app(ApiSettings.of(fields), catalogue, users_of(settings))
    catalogue = Catalogue()
    following = Following(_followed(settings), catalogue, lambda uri: _engine(uri, threads, settings))
    app = create_app(ApiSettings.of(fields), catalogue, users_of(settings), lambda: following.problem)
    if not settings.wait:
        following.look()
        if not catalogue.now:
            raise InputError(following.problem)
    following.start(settings.poll_s)
    app.state.following = following
    return app


def _engine(uri: str, threads: int, settings: SearchSettings) -> Engine:
    """Open an index. Torch is loaded here, so that a service that waits for its first index is small."""
    from zsbir.search_run.engine import Engine

    engine = Engine(uri, threads=threads, wanted=settings.options, exact=settings.exact)
    if engine.why_plain:
        events.say(f"{uri} is searched without search options: {engine.why_plain}")
    if engine.graph:
        events.say(f"plain searches of {uri} rank by {engine.graph.text}, measured on {engine.graph.measured_on}")
    return engine


def _followed(settings: SearchSettings) -> Followed:
    """Return which registered model is meant: `champion` and `challenger` are those of the model `zsbir`. InputError for none."""
    model, _, alias = settings.model.rpartition("@")
    model = model.removeprefix("models:/") or DEFAULT_MODEL
    if not is_model_name(model) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", alias):
        raise InputError(f"--model {settings.model[:100]!r}: write champion, or NAME@ALIAS such as {DEFAULT_MODEL}@{CHAMPION}")
    beside = (CHALLENGER,) if alias == CHAMPION else ()
    newest = (model, alias) == (DEFAULT_MODEL, CHAMPION)  # of any other model somebody asks for that one
    return Followed(model, (alias, *beside), settings.root, AllowedPaths([settings.root, *settings.places]), newest)


def users_of(settings: SearchSettings) -> UserSource:
    """Return who is known: the users of the job store, where there is one; else the owner of a token that is made here."""
    if settings.auth == "off":
        return LocalUser()
    own = service_dir(settings.root)
    url = settings.store or os.environ.get(STORE_VARIABLE, "")
    if url or (own / "jobs.db").is_file():
        return TokenUsers(_tokens(url or sqlite_url(own / "jobs.db")))
    events.say(f"your token is in {own / TOKEN_FILE}")
    return OwnerToken(own / TOKEN_FILE)


def _tokens(url: str) -> Tokens:
    """Return the tokens of a job store. InputError where it is a file that is not there, which SQLite would make."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its message may hold a part of the password
        raise InputError("the job store must be a database URL, sqlite:///path or postgresql://user@host/name") from None
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise InputError(f"there is no job store at {parsed.database}: start one with python -m services.jobs up")
    tokens = Tokens(UserStore(url))
    tokens.all()  # raises for a store that does not answer, or has no tokens
    return tokens


def port_for(host: str, port: int) -> int:
    """Return a port that can be listened on: that one, or for 0 any that is free. RunError where another program has it.

    It is asked for before an index is opened, which takes seconds.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise RunError(
                f"cannot listen on port {port} of {host}: {why}; pass another --port (make search PORT=...), 0 for any that is free"
            ) from None
        return int(sock.getsockname()[1])
