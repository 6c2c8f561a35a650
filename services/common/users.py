"""Where a service knows its users from: the tokens of a job store, one token in a file, or nobody but one local user."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from services.common.auth import User
from services.common.private import private_folder, write_private
from services.common.tokens import LOGIN_S, PREFIX, SESSION_S, Tokens


class TokenUsers:
    """The users of the job store's tokens: a services.common.auth.UserSource."""

    def __init__(self, tokens: Tokens):
        self._tokens = tokens

    def user_of(self, token: str | None) -> User | None:
        """Return the user whose token this is, or None for one that is unknown or revoked."""
        found = self._tokens.bearer(token) if token is not None else None
        return found.user(by_token=True) if found else None

    def user_of_session(self, secret: str) -> User | None:
        """Return the user for whom a browser's session was opened, or None for one that is unknown or over."""
        found = self._tokens.session(secret)
        return found.user() if found else None

    def open_session(self, code: str) -> str | None:
        """Return the secret of a new session for a login code; None where the code is unknown, used, or too old."""
        return self._tokens.open_session(code)

    def end_session(self, secret: str) -> None:
        """End a session; do nothing for one that is unknown."""
        self._tokens.end_session(secret)


class LocalUser:
    """The one user of a service without tokens, who may do everything: a services.common.auth.UserSource."""

    def user_of(self, token: str | None) -> User:  # noqa: ARG002 - the protocol's argument
        """Return that user, whatever the token."""
        return User("local", "operator")

    def user_of_session(self, secret: str) -> User:  # noqa: ARG002 - the protocol's argument
        """Return that user, whatever the session."""
        return User("local", "operator")


class OwnerToken:
    """The one token of a service, in a file that only its owner can read: a services.common.auth.UserSource.

    The file is made where there is none. Login codes and sessions are forgotten when the service ends. InputError where the file's
    folder cannot be closed to others. clock: monotonic seconds, replaced in tests.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic):
        private_folder(file.parent)
        if not file.exists() or not file.read_text("utf-8").strip():
            write_private(file, PREFIX + secrets.token_urlsafe(32))
        self._text, self._clock = file.read_text("utf-8").strip().encode(), clock
        self._codes: dict[str, float] = {}
        self._sessions: dict[str, float] = {}

    def user_of(self, token: str | None) -> User | None:
        """Return the owner for their token, None for any other."""
        known = token is not None and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._text)
        return User("local", "operator", by_token=True) if known else None

    def user_of_session(self, secret: str) -> User | None:
        """Return the owner for a session that is open, None for any other."""
        return User("local", "operator") if self._sessions.get(_hashed(secret), 0.0) > self._clock() else None

    def make_login(self) -> str:
        """Return a code that lets one browser in, once, within `LOGIN_S` seconds."""
        code = secrets.token_urlsafe(32)
        self._codes[_hashed(code)] = self._clock() + LOGIN_S
        return code

    def open_session(self, code: str) -> str | None:
        """Return the secret of a new session for a login code; None where the code is unknown, used, or too old."""
        if self._codes.pop(_hashed(code), 0.0) <= self._clock():
            return None
        secret = secrets.token_urlsafe(32)
        self._sessions[_hashed(secret)] = self._clock() + SESSION_S
        return secret

    def end_session(self, secret: str) -> None:
        """End a session; do nothing for one that is unknown."""
        self._sessions.pop(_hashed(secret), None)


def _hashed(text: str) -> str:
    """Return what a secret is looked up by, so that the time of a comparison tells nothing about it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
