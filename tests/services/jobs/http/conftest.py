"""Services and visits for the tests of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect
from servers.job_pages import DESKTOP, SEEN_MS, Queue, Visit, opened


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue where everybody is operator."""
    yield from opened(tmp_path, auth="off")


@pytest.fixture
def closed_queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue that needs tokens."""
    yield from opened(tmp_path)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Make visits to an address, and close them."""
    expect.set_options(timeout=SEEN_MS)
    made: list[BrowserContext] = []

    def to(queue: Queue, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", "locale": "en-GB", **options})
        made.append(context)
        return Visit(context, queue.address)

    yield to
    for context in made:
        context.close()
