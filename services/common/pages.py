"""The files of a service's pages: read once when the service starts, served from memory, so no name leads to another file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import HTTPException, Response
from fastapi.responses import PlainTextResponse

SHARED = Path(__file__).parent / "pages"
"""The styles and modules that the pages of all services use."""

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


def load_pages(folder: Path) -> dict[str, bytes]:
    """Return the shared files and those of a service's own folder by name; of two with one name, the service's own."""
    files = [path for each in (SHARED, folder) for path in each.glob("*") if path.suffix in MEDIA_TYPES]
    return {path.name: path.read_bytes() for path in files}


def html_page(pages: Mapping[str, bytes]) -> Response:
    """Return the service's page, index.html; it asks the API for everything in it."""
    html = pages.get("index.html")
    if html:
        return Response(html, media_type="text/html")
    return PlainTextResponse("This service was installed without its pages.", 503)


def static_file(pages: Mapping[str, bytes], name: str) -> Response:
    """Return a file of the pages. HTTPException 404 for a name that was not loaded."""
    if name not in pages:
        raise HTTPException(404)
    return Response(pages[name], media_type=MEDIA_TYPES[Path(name).suffix])
