"""Sessions of browsers, and the projects of tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision, down_revision = "0002", "0001"

PLAIN = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Make them. Tokens that exist name no projects."""
    op.add_column("tokens", sa.Column("projects", PLAIN))
    op.create_table(
        "sessions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("token_id", sa.Integer, sa.ForeignKey("tokens.id", name="fk_sessions_token_id"), nullable=False),
        sa.Column("kind", sa.Text, sa.CheckConstraint("kind in ('login', 'session')", name="ck_sessions_kind"), nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("made_s", sa.Float, nullable=False),
        sa.Column("expires_s", sa.Float, nullable=False),
        sa.Column("ended_s", sa.Float),
        sa.UniqueConstraint("sha256", name="uq_sessions_sha256"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Remove them. A token that names projects then holds for all: revoke it first where that matters."""
    op.drop_table("sessions")
    op.drop_column("tokens", "projects")
