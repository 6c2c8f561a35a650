"""Jobs, their attempts, the dispatcher's lease, who did what, and who may."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision, down_revision = "0001", None

KINDS = "'ingest', 'pretrain', 'teacher', 'train', 'evaluate', 'sweep', 'index', 'pipeline'"
STATES = "'queued', 'starting', 'running', 'succeeded', 'failed', 'cancelled', 'timed_out'"
ROLES = "'viewer', 'submitter', 'operator'"
PLAIN = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Make them, with an id for this queue."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, sa.CheckConstraint(f"kind in ({KINDS})", name="ck_jobs_kind"), nullable=False),
        sa.Column("config", PLAIN, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("cpus", sa.Float, nullable=False),
        sa.Column("gpus", sa.Float, nullable=False),
        sa.Column("state", sa.Text, sa.CheckConstraint(f"state in ({STATES})", name="ck_jobs_state"), nullable=False),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("result", sa.Text, nullable=False, server_default=""),
        sa.Column("progress", PLAIN, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("retry_of", sa.Integer, sa.ForeignKey("jobs.id", name="fk_jobs_retry_of")),
        sa.Column("submitted_s", sa.Float, nullable=False),
        sa.Column("not_before_s", sa.Float, nullable=False),
        sa.Column("start_by_s", sa.Float),
        sa.Column("time_limit_s", sa.Float),
        sa.Column("ended_s", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_turn", "jobs", ["state", sa.text("priority DESC"), "id"])
    op.create_index("ix_jobs_state", "jobs", ["state", "id"])
    op.create_index("uq_jobs_owner_key", "jobs", ["owner", "idempotency_key"], unique=True)
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id", name="fk_attempts_job_id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("submission_id", sa.Text, nullable=False),
        sa.Column("claimed_s", sa.Float, nullable=False),
        sa.Column("started_s", sa.Float),
        sa.Column("ended_s", sa.Float),
        sa.Column("cause", sa.Text),
        sa.Column("message", sa.Text, nullable=False, server_default=""),
        sa.Column("resumed_from", sa.Text, nullable=False, server_default=""),
        sa.Column("stop_reason", sa.Text),
        sa.Column("stop_asked_s", sa.Float),
        sa.Column("untidy", sa.Boolean, nullable=False),
        sa.UniqueConstraint("submission_id", name="uq_attempts_submission_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempts_untidy", "attempts", ["untidy"])
    op.create_index("uq_attempts_number", "attempts", ["job_id", "number"], unique=True)
    live = sa.text("ended_s IS NULL")
    op.create_index("uq_attempts_live", "attempts", ["job_id"], unique=True, sqlite_where=live, postgresql_where=live)
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("beats", sa.Integer, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at_s", sa.Float, nullable=False),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id", name="fk_events_job_id")),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("detail", PLAIN, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job_id", "events", ["job_id", "id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, sa.CheckConstraint(f"role in ({ROLES})", name="ck_tokens_role"), nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("made_s", sa.Float, nullable=False),
        sa.Column("revoked_s", sa.Float),
        sa.UniqueConstraint("sha256", name="uq_tokens_sha256"),
        sqlite_autoincrement=True,
    )
    meta = op.create_table("meta", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.bulk_insert(meta, [{"name": "store_id", "value": uuid.uuid4().hex[:6]}])


def downgrade() -> None:
    """Remove them, and every job."""
    for table in ("meta", "tokens", "events", "lease", "attempts", "jobs"):
        op.drop_table(table)
