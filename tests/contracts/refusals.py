"""Stores that refuse requests, never answer, or cannot be trusted."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from servers.answering import answering
from servers.processes import HOST
from servers.s3 import S3Server


@contextlib.contextmanager
def store_that_says(
    status: int,
    body: str,
    headers: Mapping[str, str] | None = None,
    only: tuple[str, ...] = ("GET", "PUT", "HEAD", "DELETE", "POST"),
) -> Iterator[str]:
    """Serve one answer to requests of these methods, to HEAD without the body, and 200 to all others; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            refused = self.command in only
            data = body.encode() if refused else b""
            self.send_response(status if refused else 200)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with answering(Handler) as address:
        yield address


def error(code: str, message: str = "", more: str = "") -> str:
    """Return the body of a refusal as S3 words it."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'


@contextlib.contextmanager
def dead_end(backlog: int = 16) -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers; with a backlog of 0 it soon accepts none either."""
    with contextlib.ExitStack() as held:
        listening = held.enter_context(socket.socket())
        listening.bind((HOST, 0))
        listening.listen(backlog)
        if not backlog:  # fill the queue: from now on the kernel drops new connections, as a firewall does
            for _ in range(3):
                knocking = held.enter_context(socket.socket())
                knocking.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    knocking.connect(listening.getsockname())
        yield f"http://{HOST}:{listening.getsockname()[1]}"


def nobody() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return f"http://{HOST}:{taken.getsockname()[1]}"


@contextlib.contextmanager
def https(upstream: S3Server, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (address, file of the certificate) of that server behind TLS, with a self-signed certificate."""
    certificate = _self_signed(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, folder / "key.pem")
    address = urlsplit(upstream.endpoint)
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.wait(
            [asyncio.ensure_future(_pipe(reader, to_writer)), asyncio.ensure_future(_pipe(to_reader, writer))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        writer.close()
        to_writer.close()

    server = loop.run_until_complete(asyncio.start_server(serve, HOST, 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"https://{HOST}:{server.sockets[0].getsockname()[1]}", certificate
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


def _self_signed(folder: Path) -> Path:
    """cert.pem, with key.pem beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a store of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem"
