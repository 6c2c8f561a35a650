"""What the tests of every service's pages share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, expect
from servers.pages import DESKTOP, SEEN_MS, Visit


class HasAddress(Protocol):
    """A service that runs."""

    address: str


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Make visits to a service, and close them."""
    expect.set_options(timeout=SEEN_MS)
    made: list[Visit] = []

    def to(service: HasAddress, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", "locale": "en-GB", **options})
        made.append(Visit(context, service.address))
        return made[-1]

    yield to
    for each in made:
        each.close()
