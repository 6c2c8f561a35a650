"""The tables of the job queue, for SQLite and PostgreSQL alike. Times are in seconds since 1970 UTC, by the writer's clock."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Float, ForeignKey, Index, Integer, Table, Text

from services.common.tables import EVENTS, JSON_VALUE, METADATA, SESSIONS, TOKENS, one_of
from services.jobs.queue.resources import LABELS
from services.jobs.queue.states import KINDS, LIVE, STATES

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, CheckConstraint(one_of("kind", KINDS), name="kind"), nullable=False),
    Column("config", JSON_VALUE, nullable=False),
    Column("project", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    *[Column(name, Float, nullable=False) for name in LABELS],
    Column("state", Text, CheckConstraint(one_of("state", STATES), name="state"), nullable=False),
    Column("message", Text, nullable=False, server_default=""),
    Column("cancelling", Boolean, nullable=False),
    Column("result", Text, nullable=False, server_default=""),
    Column("progress", JSON_VALUE, nullable=False),
    Column("idempotency_key", Text),
    Column("retry_of", Integer, ForeignKey("jobs.id")),
    Column("submitted_s", Float, nullable=False),
    Column("not_before_s", Float, nullable=False),
    Column("start_by_s", Float),
    Column("time_limit_s", Float),
    Column("ended_s", Float),
    Column("name", Text, nullable=False, server_default=""),
    Column("array_of", Integer),
    Column("after", JSON_VALUE, nullable=False, server_default="[]"),
    Column("notify", JSON_VALUE, nullable=False, server_default="[]"),
    Column("notified_s", Float),
    sqlite_autoincrement=True,
)
"""message: why the job waits or how it ended, for people. result: URI of what it made. start_by_s: deadline for its first start.
name: what people call it. array_of: the first job of the array that it belongs to, also on that job itself. after: the jobs that
must have ended before it starts, [{"job": 12, "on": "success"}] (`services.jobs.queue.dependencies`). notify: who is told of its
end, and notified_s: when they were told.

The columns of `services.jobs.queue.resources` say what it holds while it runs.
"""

Index("ix_jobs_turn", JOBS.c.state, JOBS.c.priority.desc(), JOBS.c.id)
Index("ix_jobs_state", JOBS.c.state, JOBS.c.id)
Index("ix_jobs_array_of", JOBS.c.array_of, JOBS.c.id)
Index("ix_jobs_retry_of", JOBS.c.retry_of)
Index("uq_jobs_owner_key", JOBS.c.owner, JOBS.c.idempotency_key, unique=True)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", Integer, ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("submission_id", Text, nullable=False, unique=True),
    Column("claimed_s", Float, nullable=False),
    Column("started_s", Float),
    Column("ended_s", Float),
    Column("cause", Text),
    Column("message", Text, nullable=False, server_default=""),
    Column("resumed_from", Text, nullable=False, server_default=""),
    Column("stop_reason", Text),
    Column("stop_asked_s", Float),
    Column("untidy", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
Index("uq_attempts_number", ATTEMPTS.c.job_id, ATTEMPTS.c.number, unique=True)
Index(
    "uq_attempts_live",
    ATTEMPTS.c.job_id,
    unique=True,
    sqlite_where=ATTEMPTS.c.ended_s.is_(None),
    postgresql_where=ATTEMPTS.c.ended_s.is_(None),
)
Index("ix_attempts_untidy", ATTEMPTS.c.untidy)
"""The unique index lets at most one attempt of a job be live, whatever the code does. untidy: the attempt has ended, and MLflow may
still show its run as running."""

LEASE = Table(
    "lease",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("beats", Integer, nullable=False),
)
"""Which process dispatches. Each new holder has a higher epoch, so that what an older one writes matches no row. A process that
sees `beats` stand still for long enough by its own clock may take over: no two clocks are compared."""

META = Table(
    "meta",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""limits: the queue's limits, as JSON. store_id: a part of every submission id, so that two queues on one Ray cluster never use the
same id."""

__all__ = ["ATTEMPTS", "EVENTS", "JOBS", "JSON_VALUE", "LEASE", "LIVE_STATES", "META", "METADATA", "SESSIONS", "TOKENS"]

LIVE_STATES = sorted(LIVE)
