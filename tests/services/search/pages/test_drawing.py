"""Drawing on the search page in a real browser, with a mouse, a pen and fingers, over the real service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from servers.pages import PHONE, Visit
from servers.search_pages import HOUSE, Hand, Search, found_by, strokes_of

pytestmark = pytest.mark.slow

TOUCH: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
ANY_PHOTO = ".found [data-open]"


def answer(search: Search, page: Page, **more: Any) -> list[str]:
    """Return what the service itself answers to the drawing on the page, as keys of photos."""
    body = {"strokes": strokes_of(page), "canvas": {"width": 1000, "height": 1000}, **more}
    found = httpx.post(f"{search.address}/api/search", json=body).raise_for_status().json()
    return [f"{found['index']}/{hit['id']}" for hit in found["hits"]]


def shown(page: Page) -> None:
    """Wait for the answer to what was drawn last."""
    expect(page.locator(ANY_PHOTO).first).to_be_visible()
    expect(page.locator(".found")).to_have_attribute("aria-busy", "false")


@pytest.mark.everyday
def test_photos_appear_while_a_drawing_grows_and_are_those_that_the_service_finds(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    hand = Hand(page)
    hand.down(40, 40)
    hand.move(200, 60)
    hand.move(120, 200)
    expect(page.locator(ANY_PHOTO).first).to_be_visible()  # the pen is still down
    assert strokes_of(page) == []
    hand.up()
    hand.draw(HOUSE)
    shown(page)
    assert len(strokes_of(page)) == 4
    assert found_by(page) == answer(search, page)
    expect(page.get_by_role("status").filter(has_text="24 photos, the first is")).to_be_attached()
    picture = page.locator(f"{ANY_PHOTO} img").first
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    there.check()


@pytest.mark.parametrize("touch", [False, True], ids=["desktop", "phone"])
def test_recorded_drawings_are_drawn_point_by_point(search: Search, visit, shared: Path, touch: bool) -> None:
    there = visit(search, **(TOUCH if touch else {}))
    page = there.open()
    hand = Hand(page, touch=touch)
    for name in ("giraffe", "scissors"):
        file = shared / "data" / "strokes" / f"{name}.ndjson"
        recorded = json.loads(file.read_text("utf-8").splitlines()[0])["drawing"]
        hand.draw(recorded)
        shown(page)
        drawn = strokes_of(page)
        assert len(drawn) == len(recorded)
        scale = 1000 / 300
        for stroke, points in zip(drawn, recorded, strict=True):
            for ends, made in ((0, 0), (-1, -1)):
                for axis in (0, 1):
                    assert stroke[axis][made] == pytest.approx((points[axis][ends] + 22) * scale, abs=6)
        assert found_by(page) == answer(search, page)
        assert page.evaluate("scrollY") == 0  # nothing scrolls under the finger
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(ANY_PHOTO)).to_have_count(0)
    there.check()


def test_strokes_and_the_picture_of_them_have_the_same_scores(search: Search, visit) -> None:
    """The page sends strokes, a program may send the picture that Python draws of them: one embedding."""
    there = visit(search)
    page = there.open()
    Hand(page).draw(HOUSE)
    shown(page)
    drawn = httpx.post(f"{search.address}/api/drawing", json={"strokes": strokes_of(page)}).raise_for_status()
    by_picture = httpx.post(
        f"{search.address}/api/search/image", content=drawn.content, headers={"Content-Type": "image/png"}
    ).json()
    titles = page.locator(".found .likeness").evaluate_all("nodes => nodes.map(node => node.title)")
    assert found_by(page) == [f"{by_picture['index']}/{hit['id']}" for hit in by_picture["hits"]]
    assert [float(title.split()[-1]) for title in titles] == pytest.approx([hit["score"] for hit in by_picture["hits"]], abs=0.001)


def test_a_cancelled_finger_leaves_no_line_and_two_fingers_draw_nothing(search: Search, visit) -> None:
    there = visit(search, **TOUCH)
    page = there.open()
    hand = Hand(page, touch=True)
    hand.draw(HOUSE[:1])
    shown(page)
    before = strokes_of(page)
    hand.down(20, 20)
    hand.move(90, 90)
    hand.fingers("touchCancel")
    hand.at_s = time.time()
    hand.fingers("touchStart", (50, 50))
    hand.at_s += 0.1
    hand.fingers("touchStart", (50, 50), (200, 200))
    hand.fingers("touchMove", (70, 70), (180, 180))
    hand.fingers("touchEnd")
    hand.at_s = None
    shown(page)
    assert strokes_of(page) == before
    assert found_by(page) == answer(search, page)
    hand.draw(HOUSE[1:2])
    assert len(strokes_of(page)) == 2
    there.check()


def test_a_palm_draws_nothing_before_during_and_after_a_pen(search: Search, visit) -> None:
    there = visit(search, **TOUCH)
    page = there.open()
    hand = Hand(page, touch=True)
    hand.at_s = time.time()
    hand.fingers("touchStart", (200, 220))  # the palm comes first
    hand.at_s += 0.2
    hand.pen("mousePressed", 40, 40)
    hand.fingers("touchMove", (205, 222))
    for x in (80, 120, 160):
        hand.pen("mouseMoved", x, 40 + x / 8)
    hand.pen("mouseReleased", 160, 60)
    hand.fingers("touchEnd")
    hand.at_s += 0.9
    hand.draw(HOUSE[:1])  # it rests a moment longer than the pen
    shown(page)
    (stroke,) = strokes_of(page)
    assert stroke[0][0] == pytest.approx((40 + 22) * 1000 / 300, abs=3)
    assert stroke[0][-1] == pytest.approx((160 + 22) * 1000 / 300, abs=3)
    hand.at_s += 0.2
    hand.draw(HOUSE[:1])  # a hand that comes later was meant
    assert len(strokes_of(page)) == 2
    there.check()


def test_turning_the_phone_keeps_the_drawing(search: Search, visit) -> None:
    there = visit(search, **TOUCH)
    page = there.open()
    Hand(page, touch=True).draw(HOUSE)
    shown(page)
    before, ink = (strokes_of(page), found_by(page)), ink_of(page)
    page.set_viewport_size({"width": PHONE["height"], "height": PHONE["width"]})
    page.wait_for_function("document.querySelector('canvas').clientWidth < 380")
    assert (strokes_of(page), found_by(page)) == before
    assert ink_of(page) == pytest.approx(ink, rel=0.1)
    box = page.locator("canvas").bounding_box()
    assert box
    assert box["height"] < PHONE["width"]
    Hand(page, touch=True).draw(HOUSE[:1])
    assert strokes_of(page)[-1][0] == pytest.approx(before[0][0][0], abs=8)
    there.check()


def ink_of(page: Page) -> float:
    """Return the share of the canvas that is inked."""
    share: float = page.evaluate("""() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => {
        const canvas = document.querySelector("canvas");
        const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        pen.drawImage(canvas, 0, 0);
        const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
        resolve(data.filter((_, place) => place % 4 === 3).reduce((sum, alpha) => sum + alpha / 255, 0) / (data.length / 4));
    })))""")
    return share


def test_undo_redo_and_clear(search: Search, visit) -> None:
    there = visit(search)
    page = there.open()
    Hand(page).draw(HOUSE)
    shown(page)
    whole, found = strokes_of(page), found_by(page)
    page.keyboard.press("Control+z")
    shown(page)
    assert strokes_of(page) == whole[:2]
    page.keyboard.press("Control+y")
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    shown(page)
    assert (strokes_of(page), found_by(page)) == (whole, found)
    there.check()


def test_an_older_answer_never_replaces_a_newer_one(search: Search, visit: Callable[..., Visit]) -> None:
    there = visit(search)
    page = there.open()
    hand = Hand(page)
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)
        if len(held) > 1:
            route.continue_()

    page.route("**/api/search", hold)
    with page.expect_request("**/api/search"):
        hand.draw(HOUSE[:1])
    hand.draw(HOUSE[1:])
    shown(page)
    newest = found_by(page)
    assert newest == answer(search, page)
    late = httpx.post(f"{search.address}/api/search", json={"strokes": [[[0, 999], [500, 500]]]}).text
    held[0].fulfill(status=200, content_type="application/json", body=late)
    page.wait_for_timeout(300)
    assert found_by(page) == newest
    there.check(refusals=True)


LOST = """() => {
    const canvas = document.querySelector("canvas");
    const at = canvas.getBoundingClientRect();
    const how = { pointerId: 77, pointerType: "touch", isPrimary: true, button: 0, bubbles: true, cancelable: true };
    canvas.dispatchEvent(new PointerEvent("pointerdown", { ...how, clientX: at.x + 9, clientY: at.y + 9 }));
}"""
"""A finger comes down, and the browser never says that it was lifted."""


def test_a_finger_whose_end_was_lost_does_not_keep_others_from_drawing(search: Search, visit) -> None:
    there = visit(search, **TOUCH)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    page.evaluate(LOST)
    Hand(page, touch=True).draw(HOUSE)
    shown(page)
    assert len(strokes_of(page)) == 1 + len(HOUSE)
    there.check()


def test_a_browser_that_refuses_to_change_the_address_searches_all_the_same(search: Search, visit) -> None:
    """Safari does after a hundred changes in half a minute, and each line that is drawn is one."""
    there = visit(search)
    there.context.add_init_script("history.replaceState = () => { throw new DOMException('too often', 'SecurityError'); };")
    page = there.open()
    Hand(page).draw(HOUSE)
    shown(page)
    there.check()


def test_photos_that_are_far_below_are_loaded_when_they_come_near(search: Search, visit) -> None:
    there = visit(search, **TOUCH)
    loaded: list[str] = []
    there.context.on("request", lambda request: loaded.append(request.url) if "/api/thumbnails/" in request.url else None)
    page = there.open()
    expect(page.get_by_role("heading", name="Draw something")).to_be_visible()
    page.evaluate("document.querySelector('.sides').style.marginTop = '15000px'")
    Hand(page, touch=True).draw(HOUSE)
    shown(page)
    assert not loaded
    first = page.locator(f"{ANY_PHOTO} img").first
    first.scroll_into_view_if_needed()
    assert first.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    assert loaded
    there.check()
