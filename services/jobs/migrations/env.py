"""How alembic runs the migrations: in one transaction, on the engine that `services.jobs.schema` hands it, one at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from services.jobs.tables import METADATA

LOCK = 7235801
"""Any number that no other user of the database takes for an advisory lock."""

with context.config.attributes["engine"].connect() as connection:
    # SQLite can change tables inside a transaction too; alembic only does not take it for granted.
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":  # SQLite's transactions begin with the lock
            connection.execute(text(f"select pg_advisory_xact_lock({LOCK})"))
        context.run_migrations()
    connection.commit()
