"""What the client commands share: the options that name service and token, and how arguments are read."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from services.jobs.cli.client import Client
from services.jobs.cli.format import PROGRAM
from services.jobs.local.paths import TOKEN_VARIABLE, URL_VARIABLE, owner_token, server_url
from zsbir.base.cli import Parser
from zsbir.base.errors import InputError, Interrupted

MOST_IDS = 1000
"""How many jobs one range of numbers may name."""

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def service_parser(name: str, description: str, *, usage: str | None = None, as_json: bool = False) -> Parser:
    """Return the parser of one client command, with the options that name service and token."""
    parser = Parser(f"services.jobs {name}", description)
    parser.usage = usage
    group = parser.add_argument_group("service")
    group.add_argument(
        "--server",
        default="",
        metavar="URL",
        help=f"address of the job service, also {URL_VARIABLE} [that of the service started by `up`]",
    )
    group.add_argument(
        "--token-file",
        default="",
        metavar="FILE",
        help=f"file that contains your token; or set {TOKEN_VARIABLE} to the token itself [that of `up`, for its user]",
    )
    group.add_argument("--root", default="", help="use the service that `up` has started for this storage root, also ZSBIR_ROOT")
    if as_json:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def client_of(parsed: argparse.Namespace) -> Client:
    """Return a client of the service that was named, or that `up` has started.

    Its token is the one that is named, else that of the user who started the service here. InputError where no service is known, or
    the token file cannot be read.
    """
    url = parsed.server or server_url(parsed.root)  # a root that is named wins over the address in the environment
    token = os.environ.get(TOKEN_VARIABLE, "")
    if parsed.token_file:
        try:
            token = Path(parsed.token_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the token file {parsed.token_file!r}: {error}") from None
    return Client(url, token.strip() or owner_token(url, parsed.root))


@contextmanager
def interruptible_watch(job_id: int) -> Iterator[None]:
    """Turn Ctrl-C into an Interrupted error which says that the job itself continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped watching; job {job_id} itself continues: {PROGRAM} logs -f {job_id}") from None


# --- argparse types


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def job_id(text: str) -> int:
    """Return the job number that an argument of the command line gives. Raises ArgumentTypeError for anything else."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"must be a job's number (see {PROGRAM} list), got {text!r}")
    return int(text)


def job_ids(text: str) -> list[int]:
    """Read job numbers: `12`, `12-14`, `12,15-17`."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        start = job_id(first)
        end = job_id(last) if dash else start
        if not start <= end < start + MOST_IDS:
            raise argparse.ArgumentTypeError(f"must be job numbers like 12 or 12-14, at most {MOST_IDS}, got {text!r}")
        found += range(start, end + 1)
    return found


def duration_s(text: str) -> float:
    """Read a duration like `90`, `90s`, `30m`, `1h30m` or `2d` as seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"must be a time like 90s, 30m, 1h30m or 2d, got {text!r}")
    return sum(float(number) * UNITS_S[unit or "s"] for number, unit in parts)


def deadline(text: str) -> dict[str, float]:
    """Read a duration from now, or an ISO date (this machine's time zone where it names none), as fields of a submission.

    A duration stays one: the clock of the job store, by which it ends, may differ from this machine's.
    """
    if re.fullmatch(r"[\d.smhd]+", text):
        return {"start_within_s": duration_s(text)}
    try:
        return {"start_by_s": datetime.fromisoformat(text).timestamp()}
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"must be a time from now like 30m, or a date like 2030-01-31T12:00, got {text!r}"
        ) from None


def key(text: str) -> str:
    """Read a key that an HTTP header can carry."""
    if not (text.isascii() and text.isprintable() and text == text.strip() and 1 <= len(text) <= 200):
        raise argparse.ArgumentTypeError(f"must be 1 to 200 plain characters, got {text!r}")
    return text
