"""A job service of an earlier version, as far as its recorded answers reach: each request gets the answer that it got then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers.answering import answering


@contextmanager
def earlier_service(calls: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Serve recorded calls; yields the address. What was not recorded is 404, as an unknown route is.

    A parameter that the version did not know changes nothing, as its FastAPI ignored it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer("POST")

        def _answer(self, method: str) -> None:
            call = nearest(calls, method, self.path)
            body = (call["answer"] if call else json.dumps({"error": "Not Found"})).encode()
            self.send_response(call["status"] if call else 404)
            self.send_header("Content-Type", call["type"] if call else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in log_headers(call).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as address:
        yield address


def log_headers(call: dict[str, Any] | None) -> dict[str, str]:
    """Return what stood in the headers of a log, which were not recorded: they follow from the answer."""
    if not call or not urlsplit(call["path"]).path.endswith("/log") or call["status"] != 200:
        return {}
    (offset,) = parse_qs(urlsplit(call["path"]).query).get("offset", ["0"])
    size = len(call["answer"].encode())
    return {"X-Next-Offset": str(max(0, int(offset)) + size), "X-Log-End": "true", "X-Attempt": "1"}


def nearest(calls: Sequence[dict[str, Any]], method: str, path: str) -> dict[str, Any] | None:
    """Return the recorded call of this path whose parameters agree with most of those asked for, and contradict none."""
    asked = urlsplit(path)
    wanted = parse_qs(asked.query)
    found = []
    for call in calls:
        then = urlsplit(call["path"])
        known = parse_qs(then.query)
        known.pop("limit", None)
        if call["method"] == method and then.path == asked.path and all(wanted.get(name) == value for name, value in known.items()):
            found.append((len(known), call))
    return max(found, key=lambda pair: pair[0])[1] if found else None
