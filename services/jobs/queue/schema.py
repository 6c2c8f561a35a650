"""Brings a database's tables to a revision, up or down, with alembic."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Engine

ONE_THREAD = threading.Lock()
"""Alembic's context is global, so one thread of a process migrates at a time. Processes wait for each other in the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate up to a revision. Several processes may call it at once: one of them migrates."""
    with ONE_THREAD:
        command.upgrade(_config(engine), revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Migrate down to a revision. What only newer tables and columns hold is lost."""
    with ONE_THREAD:
        command.downgrade(_config(engine), revision)
