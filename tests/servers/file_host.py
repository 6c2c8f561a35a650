"""A host of files over HTTP, with ranges and ETags as public hosts have them, and with the faults that tests ask for.

`python -m servers.file_host FOLDER` serves a folder until it is ended, and prints its address.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

PIECE = 1 << 16


@dataclass
class Asked:
    """A request, and how many bytes of the file were sent in answer to it."""

    path: str
    range: str
    if_range: str
    sent: int


class FileHost:
    """Files by path. `faults[path]` is a list of functions of the handler: each answers one request in place of the host."""

    def __init__(self, files: dict[str, bytes] | Path, piece_s: float = 0.0):
        self.files, self.piece_s = files, piece_s
        self.faults: dict[str, list[Callable[[Handler], None]]] = defaultdict(list)
        self.tags = True
        self.url = ""
        self._asked: list[Asked] = []
        self._busy, self._changed = 0, threading.Condition()

    @property
    def asked(self) -> list[Asked]:
        """The requests in their order, once each is answered: a client has the last byte before its handler has counted it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._busy == 0, timeout=30), "a request is still being answered"
            return self._asked

    @contextmanager
    def answering(self, asked: Asked) -> Iterator[Asked]:
        """Note a request as long as it is being answered, and from then on."""
        with self._changed:
            self._busy += 1
            self._asked.append(asked)
        try:
            yield asked
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def read(self, path: str) -> bytes | None:
        """Return the file at a path of the address, None where there is none."""
        if isinstance(self.files, dict):
            return self.files.get(path)
        file = self.files / path.lstrip("/")
        return file.read_bytes() if file.is_file() and file.resolve().is_relative_to(self.files.resolve()) else None

    def sent(self, path: str) -> int:
        """Return how many bytes of a file were sent, all requests together."""
        return sum(one.sent for one in self.asked if one.path == path)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    host: FileHost

    def do_GET(self) -> None:
        path = unquote(self.path)
        faults = self.host.faults[path]
        if faults:
            faults.pop(0)(self)
        else:
            self.serve()

    def serve(self, *, stop_after: int | None = None, says: int | None = None, data: bytes | None = None) -> None:
        """Answer with the file, or the part of it that was asked for.

        stop_after: close the connection after so many bytes; says: the size that the head gives of the whole file; data: in place
        of the file.
        """
        path = unquote(self.path)
        data = self.host.read(path) if data is None else data
        if data is None:
            self.answer(404)
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        asked, if_range = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if found and int(found[1]) >= len(data) and (not if_range or if_range == tag):
            self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
            return
        head = {"ETag": tag} if self.host.tags else {}
        with self.host.answering(Asked(path, asked, if_range, 0)) as noted:
            if found and (not if_range or if_range == tag):
                first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
                body = data[first : last + 1]
                self.head(
                    206, {**head, "Content-Range": f"bytes {first}-{last}/{says or len(data)}", "Content-Length": str(len(body))}
                )
            else:
                body = data
                self.head(200, {**head, "Content-Length": str(says or len(data))})
            noted.sent = self.body(body if stop_after is None else body[:stop_after])
        if stop_after is not None or says:
            self.close_connection = True

    def head(self, status: int, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, fields: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer without a file."""
        with self.host.answering(Asked(unquote(self.path), self.headers.get("Range", ""), "", 0)):
            self.head(status, {"Content-Length": str(len(body)), **(fields or {})})
            self.wfile.write(body)

    def body(self, data: bytes) -> int:
        """Send the bytes piece by piece, and return how many the client took."""
        sent = 0
        try:
            for start in range(0, len(data), PIECE):
                self.wfile.write(data[start : start + PIECE])
                sent += len(data[start : start + PIECE])
                time.sleep(self.host.piece_s)
        except OSError:  # the client has gone
            self.close_connection = True
        return sent

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """A server whose clients may leave at any time."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print what went wrong, unless a client closed its connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def file_host(files: dict[str, bytes] | Path, *, piece_s: float = 0.0, port: int = 0) -> Iterator[FileHost]:
    """Serve files (by path, or below a folder) on this machine. piece_s: the pause after each 64 KiB."""
    host = FileHost(files, piece_s)
    server = Server(("127.0.0.1", port), type("Handler", (Handler,), {"host": host}))
    host.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve a folder until the process is ended."""
    with file_host(Path(sys.argv[1]), port=int(sys.argv[2]) if len(sys.argv) > 2 else 0) as host:
        print(host.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
