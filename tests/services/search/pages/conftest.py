"""A search service for the tests of its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.pages import served
from servers.search_pages import Search, application, made


@pytest.fixture(scope="module")
def search(module_path: Path) -> Iterator[Search]:
    """A service where everybody is operator; a file's tests share it."""
    root = str(module_path / "root")
    catalogue = made(root)
    app = application(catalogue, root)
    with served(app) as address:
        yield Search(app, catalogue, address)
