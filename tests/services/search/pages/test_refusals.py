"""The search page when the service refuses, has nothing, lies, or asks for a token."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Route, expect
from servers.pages import served
from servers.search_pages import ANY_PHOTO, HOUSE, Hand, Search, drawn, found_by, found_with

from services.common.users import OwnerToken
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Served
from services.search.serving.following import NO_CHAMPION

pytestmark = pytest.mark.slow


EVIL = "<img src=x onerror='window.cracked=1'><script>window.cracked=1</script>\"'><svg onload=window.cracked=1>"


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (503, {"Retry-After": "1"}), (0, {})])
def test_a_service_that_refuses_is_asked_again_when_it_said(search: Search, visit, status: int, headers: dict[str, str]) -> None:
    there = visit(search)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    refused: list[float] = []

    def refuse(route: Route) -> None:
        refused.append(1)
        if status:
            route.fulfill(status=status, headers=headers, json={"error": "more searches are under way than can be answered"})
        else:
            route.abort()

    page.route("**/api/search", refuse)
    Hand(page).draw(HOUSE[:1])
    said = (
        "More searches are under way than can be answered: trying again in 1 s"
        if status
        else "The service cannot be reached: trying again in"
    )
    expect(page.get_by_role("alert")).to_contain_text(said)
    page.unroute("**/api/search")
    expect(page.locator(ANY_PHOTO)).to_have_count(24)
    expect(page.get_by_role("alert")).to_have_count(0)
    there.check(refusals=True)


def test_a_service_without_an_index_says_how_to_get_one(search: Search, visit) -> None:
    there = visit(search)
    with search.serving():
        page = there.open()
        expect(
            page.get_by_text("no index is served at the moment").or_(page.get_by_text("No photos are served yet"))
        ).to_be_visible()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    there.check(refusals=True)


def test_the_page_says_that_there_is_no_champion_yet_until_there_is_one(search: Search, visit) -> None:
    there = visit(search)
    note = "There is no champion yet: searching the newest index"
    with search.serving(Served("index", "", search.catalogue.find("challenger").engine, NO_CHAMPION)):
        page = there.open()
        expect(page.get_by_text(note)).to_be_visible()
        drawn(page)
        expect(page.get_by_text(note)).to_be_visible()
        assert found_by(page) == found_with(search, page, {})
    expect(page.locator(".origin")).to_contain_text("models:/toy/1")
    expect(page.get_by_text(note)).to_have_count(0)
    assert found_by(page) == found_with(search, page, {})
    there.check()


def test_names_of_classes_and_files_are_never_run_as_code(search: Search, visit) -> None:
    there = visit(search)

    def spoil_models(route: Route) -> None:
        answer = route.fetch().json()
        answer["models"][0] |= {"model": EVIL, "alias": EVIL, "options": {EVIL: True}}
        answer["models"][0]["classes"] = [{"name": EVIL, "photos": 3}]
        route.fulfill(json=answer)

    for path in ("search", "neighbours/**"):
        there.context.route(f"**/api/{path}", lambda route: route.fulfill(json=hostile_answer(search)))
    there.context.route("**/api/models", spoil_models)
    page = there.open(f"/#class={EVIL.replace('#', '')}")
    expect(page.locator("datalist option")).to_have_count(1)
    Hand(page).draw(HOUSE[:1])
    page.locator(ANY_PHOTO).first.click()
    expect(page.get_by_role("dialog").get_by_text("window.cracked=1").first).to_be_visible()
    page.wait_for_timeout(300)
    there.check(refusals=True)


def hostile_answer(search: Search) -> dict[str, Any]:
    digest = search.catalogue.find().digest
    hit = {"id": 0, "rank": 1, "score": 0.5, "probability": None, "class_name": EVIL, "path": EVIL, "original": None}
    return {
        "model": EVIL,
        "alias": EVIL,
        "index": digest,
        "options": EVIL,
        "ranking": EVIL,
        "took_ms": 1,
        "no_match": True,
        "hits": [hit | {"thumbnail": f"/api/thumbnails/{digest}/0"}],
    }


def test_a_token_lets_one_in_and_loads_the_pictures(search: Search, visit, tmp_path: Path) -> None:
    users = OwnerToken(tmp_path / "own" / "token")
    root = str(tmp_path / "root")
    app = create_app(ApiSettings.of({"root": root, "jobs_url": "http://queue.test/"}), search.catalogue, users)
    with served(app) as address:
        there = visit(Search(app, search.catalogue, address))
        page = there.open(f"/#{urlsplit(page_with_a_house(search, visit)).fragment}")
        page.get_by_label("Token").fill("zsbir_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("unknown here, or was revoked")).to_be_visible()
        page.get_by_label("Token").fill((tmp_path / "own" / "token").read_text())
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(ANY_PHOTO)).to_have_count(24)  # the drawing of the link has waited
        picture = page.locator(f"{ANY_PHOTO} img[src^='data:image/jpeg']").first
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        expect(page.get_by_role("link", name="Queue")).to_have_attribute("href", "http://queue.test/")
        there.check(refusals=True)


def page_with_a_house(search: Search, visit) -> str:
    """Return the address of a page on which a house is drawn."""
    page = visit(search).open()
    drawn(page)
    return page.url
