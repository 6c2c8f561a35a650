"""API tokens: shown once, when they are made, and kept as a sha256. 256 random bits cannot be guessed: no slow hash is needed.

A browser is let in by a login code, which opens one session and holds for minutes; the session's secret is kept as a cookie.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Row, delete, insert, select, update

from services.common.auth import ProjectName, Role, User, check_token_name
from services.common.database import Database, now_in
from services.common.tables import EVENTS, SESSIONS, TOKENS
from zsbir.base.errors import InputError

PREFIX = "zsbir_"
"""How every token begins, so that a search finds tokens that were left in a log or a repository."""

LOGIN_S = 600.0
"""Seconds in which a login code must be used."""

SESSION_S = 7 * 86400.0
"""Seconds that a browser's session lasts."""


@dataclass(frozen=True)
class Token:
    """A row of TOKENS, without the token's hash."""

    id: int
    name: str
    role: Role
    made_s: float
    revoked_s: float | None
    projects: list[str] | None = None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the token of a row."""
        return cls(**{field.name: row._mapping[field.name] for field in fields(cls)})

    def user(self, *, by_token: bool = False) -> User:
        """Return the user whose token this is."""
        return User(self.name, self.role, tuple(self.projects or ()), by_token)


class TokenStore(Protocol):
    """The transactions, the clock and the audit trail that tokens need: the job queue's store has them, and `UserStore`."""

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that writes."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a transaction that reads."""

    def time_in(self, database: Connection) -> float:
        """Return the time by the store's clock."""

    def note(self, database: Connection, actor: str, what: str, job_id: int | None, detail: Mapping[str, Any]) -> None:
        """Record who did what."""


class UserStore:
    """The tokens' part of a job store, for services that have nothing to do with jobs: a TokenStore."""

    def __init__(self, url: str):
        self._database = Database(url)
        self.reading, self.writing = self._database.reading, self._database.writing

    def time_in(self, database: Connection) -> float:
        """Return the time by the store's clock, in seconds since 1970."""
        return now_in(database)

    def note(self, database: Connection, actor: str, what: str, job_id: int | None, detail: Mapping[str, Any]) -> None:
        """Record who did what, in the transaction that does it."""
        write_note(database, at_s=self.time_in(database), actor=actor, what=what, job_id=job_id, detail=detail)

    def close(self) -> None:
        """Close all connections."""
        self._database.engine.dispose()


def write_note(database: Connection, *, at_s: float, actor: str, what: str, job_id: int | None, detail: Mapping[str, Any]) -> None:
    """Record who did what, in the transaction that does it."""
    values = {"at_s": at_s, "job_id": job_id, "actor": actor, "what": what, "detail": dict(detail)}
    database.execute(insert(EVENTS).values(**values))


class Tokens:
    """The tokens of a job store."""

    def __init__(self, store: TokenStore):
        self._store = store

    def make(self, name: str, role: Role, actor: str, projects: Sequence[str] = ()) -> str:
        """Make a token and return its text. Its bearer's jobs have this name as owner.

        projects: the only ones for which its bearer may submit; none: any, until limits name some; then these, and `default`.
        InputError for an empty or long name, or a project that cannot have its name.
        """
        check_token_name(name)
        text = PREFIX + secrets.token_urlsafe(32)
        bound = _checked(projects) or None
        with self._store.writing() as database:
            made_s = self._store.time_in(database)
            database.execute(insert(TOKENS).values(name=name, role=role, sha256=_sha256(text), made_s=made_s, projects=bound))
            detail = {"name": name, "role": role, **({"projects": bound} if bound else {})}
            self._store.note(database, actor, "token made", None, detail)
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
        """Revoke a token, and with it the sessions that it opened. InputError where no such token is valid."""
        with self._store.writing() as database:
            valid = (TOKENS.c.id == token_id) & TOKENS.c.revoked_s.is_(None)
            done = database.execute(update(TOKENS).where(valid).values(revoked_s=self._store.time_in(database)))
            if not done.rowcount:
                raise InputError(f"there is no valid token {token_id} to revoke; see python -m services.jobs tokens")
            self._store.note(database, actor, "token revoked", None, {"id": token_id})

    # --- browsers

    def make_login(self, token: Token) -> str:
        """Return a code that lets one browser in as the bearer of a token, once, within `LOGIN_S` seconds."""
        with self._store.writing() as database:
            now_s = self._store.time_in(database)
            database.execute(delete(SESSIONS).where(SESSIONS.c.expires_s < now_s))
            return self._insert(database, token.id, "login", LOGIN_S)

    def open_session(self, code: str) -> str | None:
        """Return the secret of a new session for a login code; None where the code is unknown, used, or too old."""
        with self._store.writing() as database:
            now_s = self._store.time_in(database)
            is_code = (SESSIONS.c.sha256 == _sha256(code)) & (SESSIONS.c.kind == "login") & SESSIONS.c.ended_s.is_(None)
            used = update(SESSIONS).where(is_code & (SESSIONS.c.expires_s >= now_s)).values(ended_s=now_s)
            token_id = database.execute(used.returning(SESSIONS.c.token_id)).scalar_one_or_none()
            if token_id is None:
                return None
            token = Token.of(database.execute(select(TOKENS).where(TOKENS.c.id == token_id)).one())
            self._store.note(database, token.name, "session opened", None, {})
            return self._insert(database, token_id, "session", SESSION_S)

    def session(self, secret: str) -> Token | None:
        """Return the token for which a session stands; None where the session is unknown or over."""
        with self._store.reading() as database:
            is_open = (SESSIONS.c.sha256 == _sha256(secret)) & (SESSIONS.c.kind == "session") & SESSIONS.c.ended_s.is_(None)
            is_valid = is_open & (SESSIONS.c.expires_s >= self._store.time_in(database)) & TOKENS.c.revoked_s.is_(None)
            row = database.execute(select(TOKENS).select_from(SESSIONS.join(TOKENS)).where(is_valid)).one_or_none()
        return Token.of(row) if row else None

    def end_session(self, secret: str) -> None:
        """End a session; do nothing for one that is unknown."""
        with self._store.writing() as database:
            is_open = (SESSIONS.c.sha256 == _sha256(secret)) & SESSIONS.c.ended_s.is_(None)
            database.execute(update(SESSIONS).where(is_open).values(ended_s=self._store.time_in(database)))

    def _insert(self, database: Connection, token_id: int, kind: str, lasts_s: float) -> str:
        text, now_s = secrets.token_urlsafe(32), self._store.time_in(database)
        values = {"token_id": token_id, "kind": kind, "sha256": _sha256(text), "made_s": now_s, "expires_s": now_s + lasts_s}
        database.execute(insert(SESSIONS).values(**values))
        return text


def _checked(projects: Sequence[str]) -> list[str]:
    """Return names of projects, each once. InputError for one that no project can have."""
    try:
        return sorted(set(TypeAdapter(list[ProjectName]).validate_python(list(projects))))
    except ValidationError:
        raise InputError(
            f"a project's name has small letters, digits, - and _, at most 63; got {', '.join(map(repr, projects))}"
        ) from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
