"""Opens what the settings name, and builds the application around it."""

from __future__ import annotations

import socket

from fastapi import FastAPI

from services.common.auth import UserSource
from services.common.users import LocalUser, OwnerToken
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Catalogue, Served
from services.search.settings import SearchSettings
from zsbir.base import events
from zsbir.base.cores import usable_cores
from zsbir.base.layout import service_dir
from zsbir.edge.model_address import artifact_address
from zsbir.search_run.engine import Engine

TOKEN_FILE = "search.token"  # noqa: S105 - the name of a file


def open_app(settings: SearchSettings) -> tuple[FastAPI, int]:
    """Return the application, and the port that it is to listen on. InputError for what cannot be served."""
    uri = artifact_address(settings.index or f"models:/zsbir@{settings.model}", "index", settings.root)
    engine = Engine(uri, threads=settings.threads or usable_cores())
    catalogue = Catalogue([Served("champion", "", engine)])
    fields = settings.model_dump(include={"root", "auth", "host", "hosts", "jobs_url"})
    return create_app(ApiSettings.of(fields), catalogue, _users(settings)), settings.port or _free_port(settings.host)


def _users(settings: SearchSettings) -> UserSource:
    if settings.auth == "off":
        return LocalUser()
    file = service_dir(settings.root) / TOKEN_FILE
    users = OwnerToken(file)
    events.say(f"your token is in {file}")
    return users


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
