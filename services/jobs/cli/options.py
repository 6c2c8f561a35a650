"""What the commands of the queue's clients have in common: which service, which token, and how their words are read."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from services.jobs.cli.client import Client
from services.jobs.cli.format import US
from services.jobs.local.paths import TOKEN_VARIABLE, URL_VARIABLE, server_url
from zsbir.base.cli import Parser
from zsbir.base.errors import InputError, Interrupted

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def service_parser(name: str, card: str, *, usage: str | None = None, as_json: bool = False) -> Parser:
    """The parser of one client command, with the options that say whom to ask."""
    parser = Parser(f"services.jobs {name}", card)
    parser.usage = usage
    group = parser.add_argument_group("service")
    group.add_argument(
        "--server", default="", metavar="URL", help=f"address of the job service, also {URL_VARIABLE} [what `up` started]"
    )
    group.add_argument(
        "--token-file", default="", metavar="FILE", help=f"file that holds your token; also {TOKEN_VARIABLE}, the token itself"
    )
    group.add_argument("--root", default="", help="storage root whose service `up` has started, also ZSBIR_ROOT")
    if as_json:
        parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    return parser


def client_of(parsed: argparse.Namespace) -> Client:
    """Of the service that was named, or that `up` has started. InputError where there is none, or no token in a token's file."""
    url = parsed.server or server_url(parsed.root)  # a root that is named goes before the environment's address
    token = os.environ.get(TOKEN_VARIABLE, "")
    if parsed.token_file:
        try:
            token = Path(parsed.token_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the token file {parsed.token_file!r}: {error}") from None
    return Client(url, token.strip())


@contextmanager
def standing_aside(job_id: int) -> Iterator[None]:
    """Ctrl-C ends the looking on, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"no longer watched; job {job_id} itself goes on: {US} logs -f {job_id}") from None


# --- words as values: argparse types


def count(text: str) -> int:
    """From 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def job_id(text: str) -> int:
    """As the service counts them."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"must be a job's number (see {US} list), got {text!r}")
    return int(text)


def span_s(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `1h30m`, `2d`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"must be a time like 90s, 30m, 1h30m or 2d, got {text!r}")
    return sum(float(number) * UNITS_S[unit or "s"] for number, unit in parts)


def moment_s(text: str) -> float:
    """Seconds since 1970 of a time from now on, or of a date in ISO form, this machine's time where it names no zone."""
    if re.fullmatch(r"[\d.smhd]+", text):
        return time.time() + span_s(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a time from now like 30m, or a date like 2030-01-31T12:00, got {text!r}"
        ) from None


def key(text: str) -> str:
    """As a header can carry it."""
    if not (text.isascii() and text.isprintable() and text == text.strip() and 1 <= len(text) <= 200):
        raise argparse.ArgumentTypeError(f"must be 1 to 200 plain characters, got {text!r}")
    return text
