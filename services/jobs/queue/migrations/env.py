"""Alembic's entry point: it runs the migrations in one transaction, on the engine that `services.jobs.queue.schema` passes on.

Processes that migrate at the same time wait for each other, because every transaction of that engine takes the lock for writers
(see `services.common.database`).
"""

from __future__ import annotations

from alembic import context

from services.jobs.queue.tables import METADATA

with context.config.attributes["engine"].connect() as connection:
    # SQLite can change tables inside a transaction, too; alembic does not assume it.
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
