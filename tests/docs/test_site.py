"""The site builds, all pages are in its navigation, its links and anchors lead somewhere, and it loads nothing from other hosts."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from documentation.site import CONFIG, ROOT, build, copy_pages, pages
from servers.pages import DESKTOP, PHONE, SEEN_MS, Visit

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOOKED_AT = (
    "index.html",
    "docs/guides/own-pictures.html",
    "docs/guides/when-something-is-wrong.html",
    "docs/reference/configuration.html",
    "docs/reference/http-jobs.html",
    "docs/method.html",
)


@dataclass
class Document(HTMLParser):
    """What a built page links to, loads, and can be linked to by."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag in ("script", "img", "link", "iframe", "source") and (url := values.get("src") or values.get("href")):
            self.loads.append(url)


@pytest.fixture(scope="module")
def site(module_path):
    """Build the site in a folder of its own, by the configuration of the repository. Return the folder."""
    copied, built = module_path / "pages", module_path / "site"
    copy_pages(copied)
    text = CONFIG.read_text("utf-8").replace("docs_dir: build/pages", "docs_dir: pages")
    assert text.count("docs_dir: pages") == text.count("site_dir: site") == 1
    (module_path / "mkdocs.yml").write_text(text, "utf-8")
    build(module_path / "mkdocs.yml")
    return built


@pytest.fixture(scope="module")
def documents(site):
    """Return each built page, read, by its path below the site."""
    found = {}
    for file in sorted(site.rglob("*.html")):
        found[file.relative_to(site).as_posix()] = document = Document()
        document.feed(file.read_text("utf-8"))
    return found


def names(entries):
    """Yield the files of a navigation."""
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from names(value) if isinstance(value, list) else [value]


class Plain(yaml.SafeLoader):
    """Reads the configuration without making the objects that it names."""


Plain.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_every_page_has_its_place_in_the_navigation():
    listed = list(names(yaml.load(CONFIG.read_text("utf-8"), Plain)["nav"]))
    assert len(listed) == len(set(listed))
    assert {page.relative_to(ROOT).as_posix() for page in pages()} == set(listed), "add the page to nav in mkdocs.yml"


def test_links_and_anchors_lead_somewhere(site, documents):
    lost = []
    for path, document in documents.items():
        for link in document.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path == "404.html":
                continue
            target = (site / path).parent / unquote(parts.path) if parts.path else site / path
            target = target / "index.html" if target.is_dir() else target
            there = target.resolve()
            known = documents.get(there.relative_to(site.resolve()).as_posix()) if there.is_relative_to(site.resolve()) else None
            if not there.exists() or (parts.fragment and known and unquote(parts.fragment) not in known.anchors):
                lost.append((path, link))
    assert lost == []


def test_pages_load_files_of_their_own_alone(site, documents):
    for path, document in documents.items():
        for url in document.loads:
            assert not urlsplit(url).netloc, (path, url)
            if path != "404.html":
                assert ((site / path).parent / unquote(urlsplit(url).path)).exists(), (path, url)


def test_messages_can_be_searched_for(site):
    index = (site / "search.json").read_text("utf-8")
    assert "training has diverged" in index
    assert "ZSBIR_CACHE_GB" in index


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_fit_a_desktop_and_a_phone_and_ask_nobody_else(address, browser, window):
    """ZSBIR_SCREENSHOTS names a folder for pictures of the pages."""
    visit = Visit(browser.new_context(viewport=window), address)
    for path in LOOKED_AT:
        page = visit.open(f"/{path}")
        assert page.evaluate(WIDER) <= 0, path
        assert page.locator("img").evaluate_all("images => images.every((image) => image.complete && image.naturalWidth > 0)"), path
        if folder := os.environ.get("ZSBIR_SCREENSHOTS"):
            name = f"{path.replace('/', '-').removesuffix('.html')}-{window['width']}.png"
            page.screenshot(path=Path(folder) / name, full_page=False)
    visit.check()
    visit.close()


@pytest.mark.slow
def test_the_search_finds_a_symptom_by_its_message(address, browser):
    visit = Visit(browser.new_context(viewport=DESKTOP), address)
    page = visit.open("/index.html")
    question = page.locator("input[aria-label=Search]")
    until = time.monotonic() + SEEN_MS / 1000
    while not question.is_visible():  # a key is lost as long as the page's scripts have not run
        assert time.monotonic() < until
        page.keyboard.press("/")
        page.wait_for_timeout(100)
    question.fill("another process is working on")
    page.get_by_text("Another process works on the run").first.wait_for()
    visit.check()
    visit.close()
