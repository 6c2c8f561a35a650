"""The search page by keyboard alone, and what axe says of it, on desktop and phone, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import drawing, encoded
from playwright.sync_api import Page, expect
from servers.pages import DESKTOP, PHONE
from servers.search_pages import ANY_PHOTO, Search, drawn, fine

from services.search.serving.catalogue import Served

pytestmark = pytest.mark.slow


def test_everything_can_be_done_by_keyboard(search: Search, visit, tmp_path: Path) -> None:
    file = tmp_path / "sketch.png"
    file.write_bytes(encoded(drawing()))
    there = visit(search)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    with page.expect_file_chooser() as chooser:  # before the button is looked for: the browser takes a moment until it listens
        to(page, "Picture")
        page.keyboard.press("Enter")
    chooser.value.set_files(file)
    expect(page.locator(ANY_PHOTO)).to_have_count(24)
    to(page, "Options", "summary")
    page.keyboard.press("Enter")
    to(page, "1. ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator("[data-open]")).to_have_count(12)
    page.keyboard.press("Escape")
    expect(page.locator(ANY_PHOTO).nth(1)).to_be_focused()
    there.check()


def to(page: Page, name: str, kind: str = "button") -> None:
    """Press Tab until something of that name has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        text = page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        if text.startswith(name) and page.evaluate("document.activeElement.localName") == kind:
            return
    pytest.fail(f"{name} cannot be reached by Tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_axe_finds_nothing_in_any_state(
    search: Search, visit, known: Served, tmp_path: Path, scheme: str, name: str, size: dict[str, int]
) -> None:
    there = visit(search, viewport=size, color_scheme=scheme)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    fine(page, tmp_path / f"empty-{name}-{scheme}.png")
    page.get_by_label("Model").select_option("champion beside challenger")
    drawn(page)
    fine(page, tmp_path / f"beside-{name}-{scheme}.png")
    page.get_by_label("Model").select_option("champion")
    page.get_by_text("Options", exact=True).click()
    fine(page, tmp_path / f"options-{name}-{scheme}.png")
    page.locator(ANY_PHOTO).first.click()
    expect(page.get_by_role("dialog").locator("[data-open]")).to_have_count(12)
    fine(page, tmp_path / f"photo-{name}-{scheme}.png")
    with search.serving(known):
        page.goto(f"{search.address}/#folder=2025")
        page.reload()
        drawn(page)
        page.get_by_text("Filter", exact=True).click()
        page.get_by_label("colour").select_option("red")
        expect(page.locator(ANY_PHOTO)).to_have_count(2)
        fine(page, tmp_path / f"filter-{name}-{scheme}.png")
    there.check()
