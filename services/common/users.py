"""Where a service knows its users from: the tokens of a job store, one token in a file, or nobody but one local user."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from services.common.auth import User
from services.common.private import private_folder, write_private
from services.common.tokens import PREFIX, Tokens


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

    The file is made where there is none. InputError where its folder cannot be closed to others.
    """

    def __init__(self, file: Path):
        private_folder(file.parent)
        if not file.exists() or not file.read_text("utf-8").strip():
            write_private(file, PREFIX + secrets.token_urlsafe(32))
        self._text = file.read_text("utf-8").strip().encode()

    def user_of(self, token: str | None) -> User | None:
        """Return the owner for their token, None for any other."""
        known = token is not None and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._text)
        return User("local", "operator", by_token=True) if known else None

    def user_of_session(self, secret: str) -> User | None:  # noqa: ARG002 - the protocol's argument
        """Return None: there are no sessions without a store."""
        return None
