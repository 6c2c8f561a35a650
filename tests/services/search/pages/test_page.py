"""The search page in a real browser, over the real service: photos, neighbours, settings, links, refusals, tokens, keyboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from pictures import drawing, encoded
from playwright.sync_api import Page, Route, expect
from servers.pages import DESKTOP, PHONE, TOO_FAINT, UNUSABLE, served
from servers.search_pages import HOUSE, Hand, Search, found_by, strokes_of
from servers.search_service import make_index

from services.common.users import OwnerToken
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Served
from zsbir.retrieval.options import SearchOptions
from zsbir.search_run.engine import Engine

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror='window.cracked=1'><script>window.cracked=1</script>\"'><svg onload=window.cracked=1>"
ANY_PHOTO = ".found [data-open]"


def drawn(page: Page) -> None:
    """Draw a house, and wait for the photos."""
    Hand(page).draw(HOUSE)
    expect(page.locator(ANY_PHOTO).first).to_be_visible()
    expect(page.locator(".found")).to_have_attribute("aria-busy", "false")


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
    page.locator("summary").click()
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
    before = search.catalogue.now
    search.catalogue.put([])
    try:
        page = there.open()
        expect(
            page.get_by_text("no index is served at the moment").or_(page.get_by_text("No photos are served yet"))
        ).to_be_visible()
        search.catalogue.put(before)
        expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    finally:
        search.catalogue.put(before)
    there.check(refusals=True)


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


def test_everything_can_be_done_by_keyboard(search: Search, visit, tmp_path: Path) -> None:
    file = tmp_path / "sketch.png"
    file.write_bytes(encoded(drawing()))
    there = visit(search)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    to(page, "Picture")
    with page.expect_file_chooser() as chooser:
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
    there, before = visit(search), search.catalogue.now
    search.catalogue.put(with_options)
    try:
        page = there.open()
        drawn(page)
        origin = page.locator(".origin")
        expect(origin).to_contain_text("whiten, smooth 3, expand 2")
        page.locator("summary").click()
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
        page.locator("summary").click()
        page.get_by_role("button", name="Back to the defaults").click()
        expect(origin).to_contain_text("whiten, smooth 3, expand 2")
        page.get_by_label("Model").select_option("challenger")
        expect(page.get_by_text("Plain search: the index has no statistics")).to_be_visible()
        expect(page.get_by_label("Better answers")).to_have_count(0)
    finally:
        search.catalogue.put(before)
    there.check()


def found_with(search: Search, page: Page, options: dict[str, bool]) -> list[str]:
    """Return the keys of the photos that the API finds by the drawing on the page."""
    body = {"strokes": strokes_of(page), "canvas": {"width": 1000, "height": 1000}, "k": 24, "options": options}
    answer = httpx.post(f"{search.address}/api/search", json=body).json()
    return [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_axe_finds_nothing_in_any_state(
    search: Search, visit, tmp_path: Path, scheme: str, name: str, size: dict[str, int]
) -> None:
    there = visit(search, viewport=size, color_scheme=scheme)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    fine(page, tmp_path / f"empty-{name}-{scheme}.png")
    page.get_by_label("Model").select_option("champion beside challenger")
    drawn(page)
    fine(page, tmp_path / f"beside-{name}-{scheme}.png")
    page.get_by_label("Model").select_option("champion")
    page.locator("summary").click()
    fine(page, tmp_path / f"options-{name}-{scheme}.png")
    page.locator(ANY_PHOTO).first.click()
    expect(page.get_by_role("dialog").locator("[data-open]")).to_have_count(12)
    fine(page, tmp_path / f"photo-{name}-{scheme}.png")
    there.check()


def fine(page: Page, picture: Path) -> None:
    """Check that axe finds nothing, that texts can be read, and that nothing is wider than the window."""
    page.screenshot(path=picture, animations="disabled")
    found = Axe().run(page).response["violations"]
    assert not found, json.dumps([(each["id"], [node["html"] for node in each["nodes"]]) for each in found], indent=1)
    assert page.evaluate(TOO_FAINT) == []
    assert page.evaluate(UNUSABLE) == []
    size = page.viewport_size
    assert size
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


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
    page.locator("summary").click()
    page.get_by_label("Least score").fill("0.95")
    page.get_by_role("combobox", name="Photos").select_option("96")
    body = {"strokes": strokes_of(page), "k": 96, "min_score": 0.95}
    expect(page.locator(".photos li")).to_have_count(len(httpx.post(f"{search.address}/api/search", json=body).json()["hits"]))
    there.check()


def test_an_example_sketch_is_searched_with(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    examples = httpx.get(f"{search.address}/api/examples").json()["examples"]
    if not examples:
        pytest.skip("the index was built without examples")
    example = examples[0]
    page.get_by_role("button", name=f"Search with the example {example['class_name']}").press("Enter")
    expect(page.locator(ANY_PHOTO)).to_have_count(24)
    file = httpx.get(search.address + example["image"]).content
    answer = httpx.post(f"{search.address}/api/search/image", content=file, headers={"Content-Type": "image/png"}).json()
    assert found_by(page) == [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
    there.check()


def test_verdicts_are_kept_only_after_consent_and_can_be_deleted(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    drawn(page)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.url.endswith("/feedback") else None)
    page.locator("summary").click()
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
