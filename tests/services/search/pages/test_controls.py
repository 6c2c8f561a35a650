"""The fields above the photos, in a real browser: classes, folders, metadata, options, and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from servers.search_pages import ANY_PHOTO, Hand, Search, drawn, fine, found_by, found_with, strokes_of
from servers.search_service import make_index

from services.search.serving import choices
from services.search.serving.catalogue import Served
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.engine import Engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def with_options(module_path: Path) -> list[Served]:
    """A champion that is searched with options, each of which changes what is found, and a challenger without statistics."""
    champion = make_index(module_path / "new", 0, statistics=True)
    challenger = make_index(module_path / "old", 0)
    options = SearchOptions(flip=False, smooth=3, expand=2, caution=0)
    return [
        Served("champion", "models:/toy/3", Engine(champion.uri, threads=1, wanted=options)),
        Served("challenger", "models:/toy/4", Engine(challenger.uri, threads=1, wanted="auto")),
    ]


def test_switches_choose_the_options_of_a_search_and_of_a_photos_neighbours(
    search: Search, visit, with_options: list[Served], tmp_path: Path
) -> None:
    there = visit(search)
    with search.serving(*with_options):
        page = there.open()
        drawn(page)
        origin = page.locator(".origin")
        expect(origin).to_contain_text("whiten, smooth 3, expand 2")
        page.get_by_text("Options", exact=True).click()
        better, again = page.get_by_label("Better answers"), page.get_by_label("Search again")
        expect(better).to_be_checked()
        again.uncheck()
        expect(origin).to_contain_text("whiten, smooth 3, caution 0")
        assert found_by(page) == found_with(search, page, {"expand": False})
        better.uncheck()
        expect(origin).not_to_contain_text("smooth")
        expect(again).to_be_disabled()
        assert found_by(page) == found_with(search, page, {"improve": False}) != found_with(search, page, {})
        fine(page, tmp_path / "switches.png")
        page.reload()
        expect(page.locator(ANY_PHOTO).first).to_be_visible()
        assert found_by(page) == found_with(search, page, {"improve": False})
        page.locator(ANY_PHOTO).first.click()
        near = page.get_by_role("dialog").get_by_role("list", name="Photos near this one").locator("[data-open]")
        expect(near).to_have_count(12)
        index, _, number = found_by(page)[0].partition("/")
        plain = {"k": 12, "options": '{"improve": false}'}
        answer = httpx.get(f"{search.address}/api/neighbours/{index}/{number}", params=plain).json()
        assert near.evaluate_all("nodes => nodes.map(node => node.dataset.open)") == [
            f"{index}/{hit['id']}" for hit in answer["hits"]
        ]
        page.keyboard.press("Escape")
        page.get_by_text("Options", exact=True).click()
        page.get_by_role("button", name="Back to the defaults").click()
        expect(origin).to_contain_text("whiten, smooth 3, expand 2")
        page.get_by_label("Model").select_option("challenger")
        expect(page.get_by_text("Plain search: the index has no statistics")).to_be_visible()
        expect(page.get_by_label("Better answers")).to_have_count(0)
    there.check()


def test_only_photos_of_the_chosen_classes_are_shown(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    drawn(page)
    assert page.locator("datalist option[value=cactus]").inner_text() == "2 photos"
    field = page.get_by_role("combobox", name="Only")
    field.fill("cact")
    field.press("Enter")
    expect(page.locator(".photos li")).to_have_count(2)
    field.fill("umbr")
    field.press("Enter")
    expect(page.locator(".photos li")).to_have_count(4)
    assert {text.strip() for text in page.locator(".photos .name").all_inner_texts()} == {"cactus", "umbrella"}
    field.fill("nothing of that name")
    field.press("Enter")
    expect(page.locator(".photos li")).to_have_count(4)
    assert field.evaluate("node => node.validationMessage") == "There is no class “nothing of that name”"
    field.fill("")
    for name in ("cactus", "umbrella"):
        page.get_by_role("button", name=f"Remove the class {name}").click()
    expect(page.locator(".photos li")).to_have_count(24)
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Least score").fill("0.95")
    page.get_by_role("combobox", name="Photos").select_option("96")
    body = {"strokes": strokes_of(page), "k": 96, "min_score": 0.95}
    expect(page.locator(".photos li")).to_have_count(len(httpx.post(f"{search.address}/api/search", json=body).json()["hits"]))
    there.check()


def test_verdicts_are_kept_only_after_consent_and_can_be_deleted(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    drawn(page)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.url.endswith("/feedback") else None)
    page.get_by_text("Options", exact=True).click()
    judging = page.get_by_label("Say which photos are right or wrong")
    judging.check()
    page.get_by_role("button", name="Go back").click()
    expect(judging).not_to_be_checked()
    expect(page.locator(".verdict")).to_have_count(0)
    judging.check()
    page.get_by_role("button", name="I agree").click()
    first = page.locator(".photos li").first
    expect(first.locator(".verdict")).to_have_count(2)
    assert not sent
    first.locator(".verdict").first.click()
    expect(first).to_have_class("right")
    (kept,) = httpx.get(f"{search.address}/api/feedback").text.splitlines()
    assert json.loads(kept)["right"] is True
    assert [len(xs) for xs, _ in json.loads(kept)["strokes"]] == [len(xs) for xs, _ in strokes_of(page)]
    page.get_by_role("button", name="Delete what I said").click()
    page.get_by_role("button", name="Delete them").click()
    expect(page.locator(".verdict")).to_have_count(0)
    assert not httpx.get(f"{search.address}/api/feedback").text
    there.check()


def test_a_verdict_is_kept_with_what_its_photo_was_found_by(search: Search, visit) -> None:
    """A photo of the drawing before stays as long as the service is slow or refuses; a sketch is one of its own index."""
    there = visit(search)
    page = there.open()
    drawn(page)
    answered = strokes_of(page)
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Say which photos are right or wrong").check()
    page.get_by_role("button", name="I agree").click()
    page.route("**/api/search", lambda route: route.abort())
    Hand(page).draw([((60, 80), (60, 80))])
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert len(strokes_of(page)) == len(answered) + 1
    first = page.locator(".photos li").first
    first.locator(".verdict").first.click()
    expect(first).to_have_class("right")
    (kept,) = httpx.get(f"{search.address}/api/feedback").text.splitlines()
    assert [len(xs) for xs, _ in json.loads(kept)["strokes"]] == [len(xs) for xs, _ in answered]
    page.unroute("**/api/search")
    expect(page.locator(".photos li.right")).to_have_count(0)

    page.get_by_label("Model").select_option("champion beside challenger")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Search with the example").first.click()
    expect(page.get_by_label("Photos found by champion").locator(".verdict").first).to_be_visible()
    expect(page.get_by_label("Photos found by challenger").locator(".photos li").first).to_be_visible()
    expect(page.get_by_label("Photos found by challenger").locator(".verdict")).to_have_count(0)
    httpx.delete(f"{search.address}/api/feedback")
    there.check(refusals=True)


def only(page: Page, search: Search, **chosen: Any) -> list[str]:
    """Wait for the photos that a filter leaves, and check that they are those that the API finds; their files, sorted."""
    expected = found_with(search, page, {}, **({"filter": chosen} if chosen else {}))
    expect(page.locator(ANY_PHOTO)).to_have_count(len(expected))
    expect(page.locator(".found")).to_have_attribute("aria-busy", "false")
    assert found_by(page) == expected
    return sorted(page.locator(ANY_PHOTO).evaluate_all("nodes => nodes.map(node => node.title)"))


def test_only_photos_of_a_folder_or_with_some_metadata_are_shown(search: Search, visit, known: Served) -> None:
    there = visit(search)
    with search.serving(known):
        page = there.open()
        drawn(page)
        assert len(only(page, search)) == 6
        page.get_by_text("Filter", exact=True).click()
        folder = page.get_by_label("Folder")
        assert page.locator("#folders option").evaluate_all("nodes => nodes.map(node => [node.value, node.textContent])") == [
            ["2025", "3 photos"],
            ["2025/summer", "2 photos"],
            ["2025/winter", "1 photo"],
            ["2026", "2 photos"],
        ]
        folder.fill("SUMM")
        folder.press("Enter")
        assert only(page, search, folder="2025/summer") == ["2025/summer/bear-0.png", "2025/summer/bear-1.png"]
        folder.fill("nowhere")
        folder.press("Enter")
        assert folder.evaluate("node => node.validationMessage") == "No single folder is called “nowhere”"
        page.get_by_role("button", name="Remove in 2025/summer").click()
        page.get_by_label("colour").select_option("red")
        assert len(only(page, search, columns={"colour": "red"})) == 3
        page.get_by_label("sold").select_option("no")
        columns: dict[str, Any] = {"colour": "red", "sold": False}
        assert only(page, search, columns=columns) == ["2025/summer/bear-1.png", "lone.png"]
        least = page.get_by_role("spinbutton", name="price, at least")
        assert least.get_attribute("placeholder") == "-4"
        least.fill("2")
        least.press("Enter")
        columns["price"] = {"min": 2}
        assert only(page, search, columns=columns) == ["2025/summer/bear-1.png"]
        page.reload()
        expect(page.get_by_role("button", name="Remove price: from 2")).to_be_visible()
        assert only(page, search, columns=columns) == ["2025/summer/bear-1.png"]
        page.get_by_text("Filter", exact=True).click()
        page.get_by_role("spinbutton", name="price, at most").fill("10")
        page.keyboard.press("Tab")
        only(page, search, columns={**columns, "price": {"min": 2, "max": 10}})
        expect(page.get_by_text("No photo is left by the filter or the least score.")).to_be_visible()
        for chosen in ("colour: red", "sold: no", "price: 2 to 10"):
            page.get_by_role("button", name=f"Remove {chosen}").click()
        assert len(only(page, search)) == 6
        page.get_by_label("colour").select_option("<b>green</b>")
        assert only(page, search, columns={"colour": "<b>green</b>"}) == ["2026/cup-1.png"]
    there.check()


def test_of_many_values_one_is_typed(search: Search, visit, known: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "MOST_VALUES", 1)
    there = visit(search)
    with search.serving(Served("champion", known.model, known.engine)):
        page = there.open()
        drawn(page)
        page.get_by_text("Filter", exact=True).click()
        field = page.get_by_role("combobox", name="colour")
        assert page.locator("datalist[id^=column] option").first.evaluate("node => node.value") == "red"
        field.fill("blue")
        field.press("Enter")
        assert only(page, search, columns={"colour": "blue"}) == ["2025/winter/cup-0.png"]
    there.check()


def test_a_filter_that_an_index_does_not_know_can_be_taken_away(search: Search, visit) -> None:
    """An address may ask for what is not there, or for nonsense; and another index may become champion."""
    there = visit(search)
    page = there.open('/#columns={"price":{"min":1},"__proto__":"x","nonsense":[1]}')
    drawn(page, photos=False)
    expect(page.get_by_role("alert")).to_contain_text("there is no column 'price'")
    expect(page.get_by_text("Filter", exact=True)).to_have_count(0)
    expect(page.locator(".chip")).to_have_count(2)
    for name in ("price: from 1", "__proto__: x"):
        page.get_by_role("button", name=f"Remove {name}").click()
    expect(page.locator(ANY_PHOTO)).to_have_count(24)
    there.check(refusals=True)
