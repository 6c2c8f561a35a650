"""The store's tables, brought to a revision by alembic, up and down."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Engine

ONE = threading.Lock()
"""Alembic's context is global: one thread of a process at a time. Processes wait for each other in the database."""

MIGRATIONS = Path(__file__).parent / "migrations"


def _config(engine: Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Up to a revision. Several processes may call it at once: one does it."""
    with ONE:
        command.upgrade(_config(engine), revision)


def downgrade(engine: Engine, revision: str = "base") -> None:
    """Down to a revision; what only newer ones could hold is lost."""
    with ONE:
        command.downgrade(_config(engine), revision)
