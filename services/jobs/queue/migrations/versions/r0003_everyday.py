"""Names, arrays, dependencies and notifications of jobs; jobs that promote, export and run commands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from services.jobs.queue.migrations.values import replace_values

revision, down_revision = "0003", "0002"

PLAIN = sa.JSON().with_variant(JSONB(), "postgresql")
KINDS_BEFORE = "'ingest', 'pretrain', 'teacher', 'train', 'evaluate', 'sweep', 'index', 'pipeline'"
KINDS = "'ingest', 'pretrain', 'teacher', 'train', 'evaluate', 'sweep', 'index', 'pipeline', 'promote', 'export', 'command'"


def upgrade() -> None:
    """Make them. Jobs that exist have no name, belong to no array, wait for no other job and notify nobody."""
    op.add_column("jobs", sa.Column("name", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("array_of", sa.Integer))
    op.add_column("jobs", sa.Column("after", PLAIN, nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("notify", PLAIN, nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("notified_s", sa.Float))
    op.create_index("ix_jobs_array_of", "jobs", ["array_of", "id"])
    op.create_index("ix_jobs_retry_of", "jobs", ["retry_of"])
    replace_values("jobs", "kind", KINDS_BEFORE, KINDS)


def downgrade() -> None:
    """Remove them. RuntimeError, with nothing changed, where there are jobs of the kinds that earlier versions do not know."""
    newer = op.get_bind().execute(sa.text("select count(*) from jobs where kind in ('promote', 'export', 'command')")).scalar_one()
    if newer:
        raise RuntimeError(f"{newer} jobs are of a kind that the earlier version does not know")
    replace_values("jobs", "kind", KINDS, KINDS_BEFORE)
    op.drop_index("ix_jobs_retry_of", "jobs")
    op.drop_index("ix_jobs_array_of", "jobs")
    for column in ("notified_s", "notify", "after", "array_of", "name"):
        op.drop_column("jobs", column)
