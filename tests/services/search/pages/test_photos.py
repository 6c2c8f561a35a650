"""The photos of the search page in a real browser: their neighbours, two models, links, pictures and examples as queries."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from pictures import drawing, encoded
from playwright.sync_api import Route, expect
from servers.search_pages import ANY_PHOTO, HOUSE, Hand, Search, drawn, found_by, strokes_of

pytestmark = pytest.mark.slow

LINKS = Path(__file__).parents[3] / "compat" / "links.json"


def test_a_photo_opens_larger_with_its_neighbours_and_each_leads_on(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    drawn(page)
    second = page.locator(ANY_PHOTO).nth(1)
    key = second.get_attribute("data-open")
    second.click()
    dialog = page.get_by_role("dialog")
    near = dialog.get_by_role("list", name="Photos near this one").get_by_role("button")
    expect(near).to_have_count(12)
    index, _, number = (key or "").partition("/")
    answer = httpx.get(f"{search.address}/api/neighbours/{index}/{number}", params={"k": 12}).json()
    assert near.evaluate_all("nodes => nodes.map(node => node.dataset.open)") == [f"{index}/{hit['id']}" for hit in answer["hits"]]
    title = dialog.get_by_role("heading", level=2)
    first = title.inner_text()
    near.first.click()
    expect(dialog.get_by_role("button", name="Back")).to_be_focused()
    expect(near).to_have_count(12)
    page.keyboard.press("Enter")
    expect(title).to_have_text(first)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(second).to_be_focused()
    there.check()


def test_two_models_answer_the_same_drawing_side_by_side(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    page.get_by_label("Model").select_option("champion beside challenger")
    drawn(page)
    for alias, version in (("champion", 1), ("challenger", 2)):
        side = page.get_by_role("region", name=f"Photos found by {alias}")
        expect(side.get_by_text(f"models:/toy/{version}")).to_be_visible()
        body = {"strokes": strokes_of(page), "canvas": {"width": 1000, "height": 1000}, "model": alias}
        answer = httpx.post(f"{search.address}/api/search", json=body).json()
        keys = side.locator("[data-open]").evaluate_all("nodes => nodes.map(node => node.dataset.open)")
        assert keys == [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
    there.check()


def test_a_link_opens_the_same_drawing_and_no_server_sees_it(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    page.get_by_text("Options", exact=True).click()
    page.get_by_role("combobox", name="Photos").select_option("12")
    drawn(page)
    asked: list[str] = []
    other = visit(search)
    other.context.on("request", lambda request: asked.append(request.url))
    again = other.open(page.url.removeprefix(search.address))
    expect(again.locator(ANY_PHOTO)).to_have_count(12)
    assert (strokes_of(again), found_by(again)) == (strokes_of(page), found_by(page))
    assert not [url for url in asked if "drawing=" in url]
    again.evaluate("location.hash = '#drawing=AAAA____&k=77&min=NaN&options=[[1'")
    expect(again.get_by_role("heading", name="Draw something")).to_be_visible()
    other.check()
    there.check()


def test_a_link_that_was_kept_opens_the_same(search: Search, visit) -> None:
    """Recorded once, and not to be recorded again: a page that does not open it breaks links in people's notes and bookmarks."""
    kept = json.loads(LINKS.read_text("utf-8"))["search"]
    there = visit(search)
    page = there.open(kept["link"])
    expect(page.locator(ANY_PHOTO)).to_have_count(kept["photos"])
    assert strokes_of(page) == kept["strokes"]
    body = {"strokes": kept["strokes"], "canvas": {"width": 1000, "height": 1000}, "model": kept["model"], "k": kept["photos"]}
    answer = httpx.post(f"{search.address}/api/search", json=body).json()
    keys = page.locator(ANY_PHOTO).evaluate_all("nodes => nodes.map(node => node.dataset.open)")
    assert keys == [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
    there.check()


def test_a_picture_is_uploaded_pasted_or_dropped(search: Search, visit, tmp_path: Path) -> None:
    file = tmp_path / "sketch.png"
    file.write_bytes(encoded(drawing()))
    (tmp_path / "none.png").write_bytes(b"no picture")
    answer = httpx.post(
        f"{search.address}/api/search/image", content=file.read_bytes(), headers={"Content-Type": "image/png"}
    ).json()
    expected = [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
    there = visit(search)
    for way in ("upload", "paste", "drop"):
        page = there.open()
        expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
        if way == "upload":
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Picture").press("Enter")
            chooser.value.set_files(file)
        else:
            page.evaluate(BROUGHT, [way, list(file.read_bytes())])
        expect(page.locator(ANY_PHOTO)).to_have_count(24)
        assert found_by(page) == expected
    page.locator("input[type=file]").set_input_files(tmp_path / "none.png")
    expect(page.get_by_text("None.png is no picture that this browser can read.")).to_be_visible()
    assert found_by(page) == expected
    Hand(page).draw(HOUSE[:1])  # a new drawing, not one over the picture
    expect(page.locator("canvas:not(.pictured)")).to_be_visible()
    there.check()


BROUGHT = """([way, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "sketch.png", { type: "image/png" }));
    const how = { bubbles: true, cancelable: true };
    if (way === "paste") document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...how }));
    else for (const type of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, ...how }));
}"""


def test_an_example_sketch_is_searched_with(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    examples = httpx.get(f"{search.address}/api/examples").json()["examples"]
    assert len(examples) == 12
    example = examples[3]
    page.get_by_role("button", name=f"Search with the example {example['class_name']}").press("Enter")
    expect(page.locator(ANY_PHOTO)).to_have_count(24)
    file = httpx.get(search.address + example["image"]).content
    answer = httpx.post(f"{search.address}/api/search/image", content=file, headers={"Content-Type": "image/png"}).json()
    assert found_by(page) == [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
    there.check()


def test_below_the_photos_stands_that_some_may_be_missing(search: Search, visit) -> None:
    there = visit(search)

    def by_graph(route: Route) -> None:
        route.fulfill(json=route.fetch().json() | {"ranking": "graph, recall 0.98"})

    page = there.open()
    drawn(page)
    expect(page.locator(".origin")).to_contain_text(" photos")
    expect(page.locator(".origin")).not_to_contain_text("exact")
    there.context.route("**/api/search", by_graph)
    Hand(page).draw(HOUSE[:1])
    expect(page.locator(".origin")).to_contain_text("graph, recall 0.98")
    there.check()
