"""The tables that every service with users keeps in the job store: tokens, sessions of browsers, and who did what.

For SQLite and PostgreSQL alike. Times are in seconds since 1970 UTC, by the writer's clock. `services.jobs.queue` has the others,
and makes and migrates all of them.
"""

from __future__ import annotations

from sqlalchemy import JSON, CheckConstraint, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from services.common.auth import ROLES

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
JSON_VALUE = JSON().with_variant(JSONB(), "postgresql")

SESSION_KINDS = ("login", "session")


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return the condition that a column has one of some values."""
    return f"{column} in ({', '.join(repr(value) for value in values)})"


EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at_s", Float, nullable=False),
    Column("job_id", Integer, ForeignKey("jobs.id")),
    Column("actor", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("detail", JSON_VALUE, nullable=False),
    sqlite_autoincrement=True,
)
Index("ix_events_job_id", EVENTS.c.job_id, EVENTS.c.id)
"""Who did what, in order. Rows are never changed."""

TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("role", Text, CheckConstraint(one_of("role", ROLES), name="role"), nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("made_s", Float, nullable=False),
    Column("revoked_s", Float),
    Column("projects", JSON_VALUE),
    sqlite_autoincrement=True,
)
"""Who may use the service. A token's text is shown once, when it is made; only its sha256 is kept.

projects: the only ones for which its bearer may submit; null: it names none.
"""

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("token_id", Integer, ForeignKey("tokens.id"), nullable=False),
    Column("kind", Text, CheckConstraint(one_of("kind", SESSION_KINDS), name="kind"), nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("made_s", Float, nullable=False),
    Column("expires_s", Float, nullable=False),
    Column("ended_s", Float),
    sqlite_autoincrement=True,
)
"""How browsers are let in without a token. A login is a code that opens one session, once; a session's secret is a cookie. Both end
with the token of the user who asked for the code. Not rows of TOKENS: an earlier version would take them for tokens."""
