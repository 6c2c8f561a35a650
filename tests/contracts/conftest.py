"""Every kind of store that artifacts may lie in, and processes that work there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.crew import Crew
from servers.s3 import S3Server

from zsbir.base.storage import Folder, join, open_folder

WHO_AND_WHERE = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_CA_BUNDLE",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


def enter(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the environment at this server, and at no settings of the user."""
    for name in WHO_AND_WHERE:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Provide processes that are cheap to start."""
    with Crew() as crew:
        yield crew


@pytest.fixture(params=["moto", "rgw"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Provide an S3 server, and the environment that leads there."""
    server: S3Server = request.getfixturevalue(request.param)
    enter(server, monkeypatch)
    return server


@pytest.fixture(params=["disk", "moto", "rgw"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Provide an empty storage root in each of the three kinds of stores."""
    if request.param == "disk":
        return str(tmp_path / "root")
    server: S3Server = request.getfixturevalue(request.param)
    enter(server, monkeypatch)
    return f"s3://{server.new_bucket()}/root"


@pytest.fixture
def folder(root: str) -> Folder:
    """Provide an empty folder of that root."""
    return open_folder(join(root, "a place"))
