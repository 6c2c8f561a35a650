"""A search service whose page a real browser opens: two untrained models over drawn photos; and hands that draw on the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from axe_playwright_python.sync_playwright import Axe
from building import put
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from servers.pages import TOO_FAINT, UNUSABLE
from services.common.users import LocalUser
from services.search.http.api import create_app
from services.search.http.state import ApiSettings
from services.search.serving.catalogue import Catalogue, Served
from zsbir import index, ingest
from zsbir.base.artifact import Artifact
from zsbir.model.encoder import Encoder
from zsbir.search_run.engine import Engine

ANY_PHOTO = ".found [data-open]"
"""A photo that was found."""

Strokes = Sequence[tuple[Sequence[float], Sequence[float]]]
"""As Quick, Draw! has them: x and y of every point of a stroke, from 0 to 255."""

HOUSE: Strokes = [
    ((40, 40, 215, 215, 40), (230, 110, 110, 230, 230)),
    ((20, 128, 235), (115, 20, 115)),
    ((105, 105, 150, 150), (230, 160, 160, 230)),
]


@dataclass
class Search:
    """A service that runs, and what it serves."""

    app: FastAPI
    catalogue: Catalogue
    address: str = ""

    @contextmanager
    def serving(self, *served: Served) -> Iterator[None]:
        """Serve these for a while."""
        before = self.catalogue.now
        self.catalogue.put(served)
        try:
            yield
        finally:
            self.catalogue.put(before)


def toy_index(root: str, seed: int, *, dataset: str = "", **facts: Any) -> tuple[str, str]:
    """Return the URIs of a toy data set and of an index of its photos, by an encoder that nobody trained. facts: of its run."""
    sizes = ["--toy-photos-per-class", "2", "--toy-sketches-per-class", "2", "--toy-px", "48"]
    dataset = dataset or ingest._parse(["toy", *sizes, "--root", root])
    torch.manual_seed(seed)
    file = Path(root) / f"encoder-{seed}"
    Encoder("resnet18", 16, 32).save(file)
    files = {"encoder.safetensors": file.read_bytes()}
    inputs, digest = {"dataset": Artifact(dataset, "dataset")}, f"{seed:064x}"
    run = put(root, "run", f"toy-{seed}", inputs=inputs, files=files, digest=digest, facts=facts)
    return dataset, index._parse([run.uri, "--split", "all", "--precision", "fp32", "--root", root])


def made(root: str) -> Catalogue:
    """Serve a champion and a challenger over the same drawn photos."""
    dataset, champion = toy_index(root, 1)
    _, challenger = toy_index(root, 2, dataset=dataset)
    served = [
        Served(alias, f"models:/toy/{version}", Engine(uri, threads=1))
        for alias, version, uri in (("champion", 1, champion), ("challenger", 2, challenger))
    ]
    return Catalogue(served)


def application(catalogue: Catalogue, root: str, **settings: Any) -> FastAPI:
    """Return the service's application, where everybody is operator."""
    return create_app(ApiSettings.of({"root": root, "auth": "off", **settings}), catalogue, LocalUser())


class Hand:
    """Draws on the page's canvas: with a mouse or a pen, or with fingers where the page is a phone's.

    at_s: when fingers and pens do what follows, in seconds since 1970; None: now, which on a busy machine is later than a hand
    would be.
    """

    def __init__(self, page: Page, *, touch: bool = False):
        self.page, self.touch = page, touch
        self.at_s: float | None = None
        self.screen = page.context.new_cdp_session(page)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of a drawing lies in the window, in pixels."""
        box = self.page.locator("canvas").bounding_box()
        assert box
        scale = box["width"] / 300
        return box["x"] + (x + 22) * scale, box["y"] + (y + 22) * scale

    def draw(self, strokes: Strokes) -> None:
        """Draw every stroke, point by point, and lift the hand after each."""
        for xs, ys in strokes:
            self.down(xs[0], ys[0])
            for x, y in zip(xs[1:], ys[1:], strict=True):
                self.move(x, y)
            self.up()

    def down(self, x: float, y: float) -> None:
        """Put the hand on the canvas."""
        if self.touch:
            self.fingers("touchStart", (x, y))
            return
        self.page.mouse.move(*self.place(x, y))
        self.page.mouse.down()

    def move(self, x: float, y: float) -> None:
        """Move the hand to a point."""
        if self.touch:
            self.fingers("touchMove", (x, y))
        else:
            self.page.mouse.move(*self.place(x, y))

    def up(self) -> None:
        """Lift the hand."""
        if self.touch:
            self.fingers("touchEnd")
        else:
            self.page.mouse.up()

    def fingers(self, kind: str, *points: tuple[float, float]) -> None:
        """Tell the browser where fingers are: all of them. kind: touchStart, touchMove, touchEnd or touchCancel."""
        places = [self.place(*point) for point in points]
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        self.screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches, **self._when})

    def pen(self, kind: str, x: float, y: float) -> None:
        """Tell the browser what a pen does. kind: mousePressed, mouseMoved or mouseReleased."""
        left, top = self.place(x, y)
        held = {"pointerType": "pen", "button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        self.screen.send("Input.dispatchMouseEvent", {"type": kind, "x": left, "y": top, **held, **self._when})

    @property
    def _when(self) -> dict[str, float]:
        return {} if self.at_s is None else {"timestamp": self.at_s}


STROKES = """() => {
    const drawn = new URLSearchParams(location.hash.slice(1)).get("drawing");
    return import("/static/link.js").then(({ unpacked }) => unpacked(drawn) ?? []);
}"""
"""The strokes that the page has written into its address."""


def strokes_of(page: Page) -> list[list[list[float]]]:
    """Return the drawing on the page, as its address has it."""
    found: list[list[list[float]]] = page.evaluate(STROKES)
    return found


def found_by(page: Page) -> list[str]:
    """Return the keys of the photos on the page, the best first."""
    return [key or "" for key in page.locator(".found [data-open]").evaluate_all("nodes => nodes.map(node => node.dataset.open)")]


def drawn(page: Page, *, photos: bool = True) -> None:
    """Draw a house, and wait for the answer. photos: whether it must have some."""
    Hand(page).draw(HOUSE)
    if photos:
        expect(page.locator(ANY_PHOTO).first).to_be_visible()
    expect(page.locator(".found")).to_have_attribute("aria-busy", "false")


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


def found_with(search: Search, page: Page, options: dict[str, Any], **more: Any) -> list[str]:
    """Return the keys of the photos that the API finds by the drawing on the page."""
    body = {"strokes": strokes_of(page), "canvas": {"width": 1000, "height": 1000}, "k": 24, "options": options, **more}
    answer = httpx.post(f"{search.address}/api/search", json=body).json()
    return [f"{answer['index']}/{hit['id']}" for hit in answer["hits"]]
