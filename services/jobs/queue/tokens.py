"""API tokens: made once, shown once, kept as a sha256. 256 random bits need no slow hash: nobody can guess through them."""

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
"""How every token begins, so that one in a log or a repository can be found by looking for it."""


class Tokens:
    """The tokens of a job store."""

    def __init__(self, store: Store):
        self._store = store

    def make(self, name: str, role: Role, actor: str) -> str:
        """A new token's text. The name is who its bearer is: the owner of what he submits."""
        is_text = name.encode("utf-8", "replace").decode() == name  # what a shell passes on may be none
        if not name.strip() or len(name) > 100 or not is_text:
            raise InputError("a token needs a name of 1 to 100 characters: whose it is")
        text = PREFIX + secrets.token_urlsafe(32)
        with self._store.writing() as database:
            database.execute(insert(TOKENS).values(name=name, role=role, sha256=_sha256(text), made_s=self._store.now()))
            self._store.note(database, actor, "token made", None, {"name": name, "role": role})
        return text

    def bearer(self, text: str) -> Token | None:
        """Whose it is; None for one that is unknown or revoked."""
        found = select(TOKENS).where((TOKENS.c.sha256 == _sha256(text)) & TOKENS.c.revoked_s.is_(None))
        with self._store.reading() as database:
            row = database.execute(found).one_or_none()
        return Token.of(row) if row else None

    def all(self) -> list[Token]:
        """Revoked ones too."""
        with self._store.reading() as database:
            return [Token.of(row) for row in database.execute(select(TOKENS).order_by(TOKENS.c.id))]

    def revoke(self, token_id: int, actor: str) -> None:
        """It opens nothing from now on. InputError where there is none."""
        with self._store.writing() as database:
            mine = (TOKENS.c.id == token_id) & TOKENS.c.revoked_s.is_(None)
            done = database.execute(update(TOKENS).where(mine).values(revoked_s=self._store.now()))
            if not done.rowcount:
                raise InputError(f"there is no token {token_id} that could be revoked; see python -m services.jobs tokens")
            self._store.note(database, actor, "token revoked", None, {"id": token_id})


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
