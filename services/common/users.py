"""The one user of a service without tokens, and the owner of a service that has no store of tokens."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from services.common.auth import User
from services.common.private import private_folder, write_private

TOKEN_PREFIX = "zsbir_"  # noqa: S105 - how every token begins
"""How every token begins, so that a search finds tokens that were left in a log or a repository."""


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
            write_private(file, TOKEN_PREFIX + secrets.token_urlsafe(32))
        self._text = file.read_text("utf-8").strip().encode()

    def user_of(self, token: str | None) -> User | None:
        """Return the owner for their token, None for any other."""
        known = token is not None and hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._text)
        return User("local", "operator", by_token=True) if known else None

    def user_of_session(self, secret: str) -> User | None:  # noqa: ARG002 - the protocol's argument
        """Return None: there are no sessions without a store."""
        return None
