"""How alembic runs the migrations: in one transaction, on the engine that `services.jobs.queue.schema` hands it.

One at a time, as every transaction of that engine begins with the lock of the one writer (services.jobs.queue.database).
"""

from __future__ import annotations

from alembic import context

from services.jobs.queue.tables import METADATA

with context.config.attributes["engine"].connect() as connection:
    # SQLite can change tables inside a transaction too; alembic only does not take it for granted.
    context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
