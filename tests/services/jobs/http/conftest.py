"""Services for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers.job_pages import Queue, opened


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue where everybody is operator."""
    yield from opened(tmp_path, auth="off")


@pytest.fixture
def closed_queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue that needs tokens."""
    yield from opened(tmp_path)
