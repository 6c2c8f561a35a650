"""The role of those who search, and see no jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.jobs.queue.migrations.values import replace_values

revision, down_revision = "0004", "0003"

ROLES_BEFORE = "'viewer', 'submitter', 'operator'"
ROLES = "'searcher', 'viewer', 'submitter', 'operator'"


def upgrade() -> None:
    """Allow it."""
    replace_values("tokens", "role", ROLES_BEFORE, ROLES)


def downgrade() -> None:
    """Allow it no more. RuntimeError, with nothing changed, where there are tokens of that role."""
    newer = op.get_bind().execute(sa.text("select count(*) from tokens where role = 'searcher'")).scalar_one()
    if newer:
        raise RuntimeError(f"{newer} tokens are of a role that the earlier version does not know")
    replace_values("tokens", "role", ROLES, ROLES_BEFORE)
