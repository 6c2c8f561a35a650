"""Addresses of databases and servers: built from paths, read, and shown without the secrets in them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

HIDDEN = "***"

SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables whose values are secrets, which the libraries that read them might put into a message."""

URL_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "ZSBIR_JOBS_STORE")
"""Variables with addresses that may hold a password, which a message may have without the rest of the address."""

SHORTEST = 4
"""Characters from which on a secret is looked for in text: shorter ones would hide half of it."""

_USER_INFO = re.compile(r"(?P<start>[A-Za-z][\w+.-]*://[^\s/:@]*):[^\s]*@")
_BARE_TOKEN = re.compile(r"(?P<start>https?://)[^\s/:@]{16,}@")
_FIELD = re.compile(
    r"(?P<start>\b(?:password|passwd|pwd|secret|token|api_?key|access_?key|sslpassword)=)[^\s&;,'\")]+", re.IGNORECASE
)


def sqlite_url(file: Path) -> str:
    """Return the SQLAlchemy URL of a database file, whatever characters its path has."""
    from sqlalchemy import URL  # most commands do without a database

    path = str(file)
    url = URL.create("sqlite", database=path)
    # MLflow makes a folder by the text of a plain `sqlite:///` address, escapes and all; with a named driver it does not.
    return url.set(drivername="sqlite+pysqlite").render_as_string() if url.render_as_string() != f"sqlite:///{path}" else str(url)


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite database by its URL; None for any other URL, and for a database in memory."""
    if not url.startswith("sqlite"):
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if is_file else None


def redacted(text: object) -> str:
    """Return text in which no password or token of an address, a connection string or this process's environment is readable.

    For everything that is printed, logged, tagged, linked or answered. The rule: a secret stands in no argument, log, link, tag or
    answer, and in no file that others can read.

    >>> redacted("cannot reach http://ann:secret@host:5000/api")
    'cannot reach http://ann:***@host:5000/api'
    """
    shown = _USER_INFO.sub(rf"\g<start>:{HIDDEN}@", str(text))
    shown = _BARE_TOKEN.sub(rf"\g<start>{HIDDEN}@", shown)
    shown = _FIELD.sub(rf"\g<start>{HIDDEN}", shown)
    for secret in _secrets():
        shown = shown.replace(secret, HIDDEN)
    return shown


def _secrets() -> list[str]:
    """Return the secrets of this process's environment, the longest first."""
    found = {os.environ.get(name, "") for name in SECRET_VARIABLES}
    for name in URL_VARIABLES:
        password = _password(os.environ.get(name, ""))
        found |= {password, unquote(password)}
    return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:  # no address that anybody could use
        return ""
