"""A search service for the tests of its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from building import session_root
from servers.pages import served
from servers.search_pages import Search, application, made
from servers.search_service import make_known_index

from services.search.serving.catalogue import Served
from zsbir.search_run.engine import Engine


@pytest.fixture(scope="session")
def pages_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A storage root."""
    with session_root(tmp_path_factory, "search-pages") as root:
        yield root


@pytest.fixture(scope="session")
def search(pages_root: Path) -> Iterator[Search]:
    """A service where everybody is operator. Who serves something else there puts back what was served."""
    root = str(pages_root)
    catalogue = made(root)
    app = application(catalogue, root)
    with served(app) as address:
        yield Search(app, catalogue, address)


@pytest.fixture(scope="session")
def known(pages_root: Path) -> Served:
    """An index whose photos lie in folders, and of which something is known."""
    return Served("champion", "models:/toy/5", Engine(make_known_index(pages_root / "known").uri, threads=1))
