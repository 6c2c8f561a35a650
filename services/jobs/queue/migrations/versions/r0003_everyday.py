"""Names, arrays, dependencies and notifications of jobs; jobs that promote, export and run commands."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision, down_revision = "0003", "0002"

KINDS_ALLOWED = "ck_jobs_ck_jobs_kind"
"""The constraint on kinds, as the tables' convention for names has called it since version 0001."""

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
    _allow_kinds(KINDS_BEFORE, KINDS)


def downgrade() -> None:
    """Remove them. RuntimeError, with nothing changed, where there are jobs of the kinds that earlier versions do not know."""
    newer = op.get_bind().execute(sa.text("select count(*) from jobs where kind in ('promote', 'export', 'command')")).scalar_one()
    if newer:
        raise RuntimeError(f"{newer} jobs are of a kind that the earlier version does not know")
    _allow_kinds(KINDS, KINDS_BEFORE)
    op.drop_index("ix_jobs_retry_of", "jobs")
    op.drop_index("ix_jobs_array_of", "jobs")
    for column in ("notified_s", "notify", "after", "array_of", "name"):
        op.drop_column("jobs", column)


def _allow_kinds(before: str, now: str) -> None:
    """Change which kinds the table takes.

    SQLite has no statement for that. Its documentation allows to edit the text of a table's definition for changes that leave what
    is stored as it is (https://www.sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes"). The other way, a
    new table with a copy of the rows, needs foreign keys to be off, which cannot be done inside the migration's transaction.
    """
    database = op.get_bind()
    if database.dialect.name == "postgresql":
        op.drop_constraint(op.f(KINDS_ALLOWED), "jobs")
        op.create_check_constraint(op.f(KINDS_ALLOWED), "jobs", f"kind in ({now})")
        return
    version = database.exec_driver_sql("PRAGMA schema_version").scalar_one()
    database.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = database.execute(
        sa.text("update sqlite_master set sql = replace(sql, :before, :now) where type = 'table' and name = 'jobs'"),
        {"before": f"kind in ({before})", "now": f"kind in ({now})"},
    )
    database.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    database.exec_driver_sql("PRAGMA writable_schema = OFF")
    assert changed.rowcount == 1
