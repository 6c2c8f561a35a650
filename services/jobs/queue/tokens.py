"""API tokens: shown once, when they are made, and kept as a sha256. 256 random bits cannot be guessed: no slow hash is needed."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import insert, select, update

from services.common.auth import Role
from services.jobs.queue.records import Token
from services.jobs.queue.store import Store
from services.jobs.queue.tables import TOKENS
from zsbir.base.errors import InputError

PREFIX = "zsbir_"
"""How every token begins, so that a search finds tokens that were left in a log or a repository."""


class Tokens:
    """The tokens of a job store."""

    def __init__(self, store: Store):
        self._store = store

    def make(self, name: str, role: Role, actor: str) -> str:
        """Make a token and return its text. Its bearer's jobs have this name as owner. InputError for an empty or long name."""
        is_text = name.encode("utf-8", "replace").decode() == name  # a shell may pass on bytes that are not text
        if not name.strip() or len(name) > 100 or not is_text:
            raise InputError("a token needs a name of 1 to 100 characters: whose it is")
        text = PREFIX + secrets.token_urlsafe(32)
        with self._store.writing() as database:
            database.execute(insert(TOKENS).values(name=name, role=role, sha256=_sha256(text), made_s=self._store.now()))
            self._store.note(database, actor, "token made", None, {"name": name, "role": role})
        return text

    def bearer(self, text: str) -> Token | None:
        """Return the token of this text; None where it is unknown or revoked."""
        found = select(TOKENS).where((TOKENS.c.sha256 == _sha256(text)) & TOKENS.c.revoked_s.is_(None))
        with self._store.reading() as database:
            row = database.execute(found).one_or_none()
        return Token.of(row) if row else None

    def all(self) -> list[Token]:
        """Return all tokens, also revoked ones, the oldest first."""
        with self._store.reading() as database:
            return [Token.of(row) for row in database.execute(select(TOKENS).order_by(TOKENS.c.id))]

    def revoke(self, token_id: int, actor: str) -> None:
        """Revoke a token. InputError where no such token is valid."""
        with self._store.writing() as database:
            valid = (TOKENS.c.id == token_id) & TOKENS.c.revoked_s.is_(None)
            done = database.execute(update(TOKENS).where(valid).values(revoked_s=self._store.now()))
            if not done.rowcount:
                raise InputError(f"there is no valid token {token_id} to revoke; see python -m services.jobs tokens")
            self._store.note(database, actor, "token revoked", None, {"id": token_id})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
