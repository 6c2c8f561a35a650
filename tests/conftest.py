"""Shared by all tests: shape annotations are checked at run time, and nothing touches the user's own cache or storage."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from playwright.sync_api import Browser
from servers.chromium import chromium
from servers.debian import Unavailable
from servers.moto import Moto, moto_server
from servers.postgres import postgres as postgres_server
from servers.rgw import Rgw, rgw_server

pytest_plugins = ["tiers", "pipeline", "promotable"]

# Before zsbir is imported anywhere: every annotated shape of these packages is checked in every test.
install_import_hook(["zsbir.losses", "zsbir.model", "zsbir.retrieval", "zsbir.evaluation", "zsbir.data"], "beartype.beartype")

SHARED = Path(os.environ.get("ZSBIR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""Real images and weights, where they are there: beside the checkout, or where ZSBIR_SHARED says."""


def pytest_sessionstart() -> None:
    """Where a full disk is going to fail every test, the first line says so."""
    folder = tempfile.gettempdir()
    print(f"disk: {shutil.disk_usage(folder).free / 1e9:.0f} GB free in {folder}; a full run takes up to ten")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it are skipped, with the reason, where it is not there."""
    if not (SHARED / "data" / "caltech_qd60").is_dir():
        pytest.skip(f"no real data at {SHARED} (set ZSBIR_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def own_storage(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test run has its own cache; no root and no tracking server of the user's, nor of the test before: MLflow sets it."""
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("ZSBIR_ROOT", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for what a file's tests share, gone with the last of them: kept to the end, a suite of trainings fills a disk."""
    folder = tmp_path_factory.mktemp(Path(request.module.__file__).stem)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """moto, shared by all tests: each makes its own bucket."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def rgw() -> Iterator[Rgw]:
    """A real Ceph RGW in memory, shared by all tests: each makes its own bucket, and one that kills it starts its own."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(rgw_server())
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser without a window, shared by a file's tests: each opens its own page.

    Not by all: as long as it is open, Playwright's event loop counts as running, and nothing else in this thread can start one.
    """
    with ExitStack() as stack:
        try:
            program = stack.enter_context(chromium())
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield program


@pytest.fixture
def s3_root(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in object storage, and the environment that leads there."""
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return f"s3://{moto.new_bucket()}/zsbir"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL, shared by all tests: each makes its own database."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(postgres_server())
        except Unavailable as reason:
            pytest.skip(str(reason))
