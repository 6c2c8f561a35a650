"""Brings a database's tables to a revision, up or down, with alembic."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from services.common.credentials import hide_secrets
from zsbir.base.errors import InputError

ONE_THREAD = threading.Lock()
"""Alembic's context is global, so one thread of a process migrates at a time. Processes wait for each other in the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate up to a revision. Several processes may call it at once: one of them migrates.

    InputError, with nothing changed, for a store that a newer version has migrated.
    """
    with ONE_THREAD:
        _refuse_newer(engine)
        command.upgrade(_config(engine), revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Migrate down to a revision. What only newer tables and columns hold is lost."""
    with ONE_THREAD:
        command.downgrade(_config(engine), revision)


def _refuse_newer(engine: Engine) -> None:
    with engine.execution_options(reading=True).connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config(engine)).walk_revisions()}
    if found is not None and found not in known:
        where = hide_secrets(engine.url.render_as_string(hide_password=True))
        raise InputError(
            f"the job store at {where} was migrated by a newer version (schema {found}; this one knows {max(known)}), and nothing"
            " was changed: run that version, or restore the copy that was made before the update (docs/compatibility.md)"
        )
