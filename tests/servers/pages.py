"""A service's pages in a real browser: the service in a thread, and visits that record what must not happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI
from playwright.sync_api import BrowserContext, Page, Route

SEEN_MS = 15_000
"""Milliseconds within which a page must show what a test waits for."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
WATCHED = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

TOO_FAINT = """() => {
    const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const seen = (colour) => { const found = parts(colour); return found.length === 3 || found[3] > 0; };
    const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (node) => { while (node && !seen(getComputedStyle(node).backgroundColor)) node = node.parentElement;
        return node ? getComputedStyle(node).backgroundColor : "rgb(255, 255, 255)"; };
    const texts = [...document.querySelectorAll("body *")].filter((node) =>
        node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
    return texts.map((node) => {
        const style = getComputedStyle(node);
        const [one, other] = [light(node instanceof SVGElement ? style.fill : style.color), light(ground(node))].sort();
        return [node.textContent, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
    }).filter(([, contrast]) => contrast < 4.5);
}"""
"""Texts whose contrast to their background is below WCAG's AA."""

UNUSABLE = """() => {
    const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
    const twice = ids.filter((id, place) => ids.indexOf(id) !== place);
    const unnamed = [...document.querySelectorAll("input, select, textarea, button, a[href], summary, progress")].filter((node) =>
        node.checkVisibility() && !node.getAttribute("aria-label") && !node.labels?.length && !node.textContent.trim());
    const told = ["aria-describedby", "aria-labelledby"];
    const lost = [...document.querySelectorAll(told.map((name) => `[${name}]`))].filter((node) =>
        told.map((name) => node.getAttribute(name)).some((id) => id && !document.getElementById(id)));
    return [...twice, ...unnamed.map((node) => node.outerHTML), ...lost.map((node) => node.outerHTML)];
}"""
"""What a screen reader stumbles over: ids of two nodes, controls without a name, references to nodes that are not there."""


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve from a thread; the address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@dataclass
class Visit:
    """A new user's pages, and a record of what must not happen on them."""

    context: BrowserContext
    address: str
    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.add_init_script(WATCHED)
        self.context.route("**/*", self._stay)

    def _stay(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.address}/", "data:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.set_default_timeout(SEEN_MS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.address + path)
        return page

    def close(self) -> None:
        """Close the pages. An answer that a test has not waited for may be on its way through a handler of the test's: no error."""
        self.context.unroute_all(behavior="ignoreErrors")
        self.context.close()

    def check(self, *, refusals: bool = False) -> None:
        """Check that none of it happened. refusals: the browser's own lines about refused requests are expected."""
        for page in self.context.pages:
            assert page.evaluate("window.cracked") is None
            assert page.evaluate("window.violations") == []
        lines = [line for line in self.complaints if not (refusals and line.startswith("Failed to load resource"))]
        assert not lines
        assert not self.outside
