"""A small real index and a service over it, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from servers.search_service import client, make_app, make_index, served

from services.search.serving.catalogue import Catalogue
from zsbir.base.artifact import Artifact


@pytest.fixture(scope="session")
def index_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A storage root with indexes. Session fixtures run before `own_storage`, so the cache is set here, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield tmp_path_factory.mktemp("search") / "root"


@pytest.fixture(scope="session")
def index(index_root: Path) -> Artifact:
    """An index of fifteen photos in three folders."""
    return make_index(index_root)


@pytest.fixture(scope="session")
def other_index(index_root: Path, index: Artifact) -> Artifact:
    """An index of the same photos by another encoder."""
    return make_index(index_root, 1, index_root / "photos")


@pytest.fixture
def app(index_root: Path, index: Artifact) -> Iterator[FastAPI]:
    app = make_app(index_root, Catalogue([served(index)]))
    yield app
    app.state.search.batcher.close()


@pytest.fixture
def searcher(app: FastAPI) -> Iterator[TestClient]:
    with client(app) as asking:
        yield asking
