"""A small real index and a service over it, shared by the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from building import session_root
from fastapi import FastAPI
from fastapi.testclient import TestClient
from servers.search_service import client, make_app, make_index, served

from services.search.serving.catalogue import Catalogue, Served
from zsbir.base.artifact import Artifact


@pytest.fixture(scope="session")
def index_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A storage root with indexes."""
    with session_root(tmp_path_factory, "search") as root:
        yield root


@pytest.fixture(scope="session")
def index(index_root: Path) -> Artifact:
    """An index of fifteen photos in three folders."""
    return make_index(index_root)


@pytest.fixture(scope="session")
def other_index(index_root: Path, index: Artifact) -> Artifact:
    """An index of the same photos by another encoder."""
    return make_index(index_root, 1, index_root / "photos")


@pytest.fixture(scope="session")
def opened(index: Artifact) -> Served:
    """That index, opened as the champion."""
    return served(index)


@pytest.fixture(scope="session")
def other_opened(other_index: Artifact) -> Served:
    """The other index, opened as the champion that follows."""
    return served(other_index, model="models:/zsbir/2")


@pytest.fixture
def app(index_root: Path, opened: Served) -> Iterator[FastAPI]:
    app = make_app(index_root, Catalogue([opened]))
    yield app
    app.state.search.batcher.close()


@pytest.fixture
def searcher(app: FastAPI) -> Iterator[TestClient]:
    with client(app) as asking:
        yield asking
