"""Changing which values a column takes, on PostgreSQL and SQLite."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def replace_values(table: str, column: str, before: str, now: str) -> None:
    """Change which values a column takes; what is stored stays as it is. before, now: the values as they stand in SQL, `'a', 'b'`.

    SQLite has no statement for that. Its documentation allows to edit the text of a table's definition for changes that leave what
    is stored as it is (https://www.sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes"). The other way, a
    new table with a copy of the rows, needs foreign keys to be off, which cannot be done inside the migration's transaction.
    """
    database = op.get_bind()
    if database.dialect.name == "postgresql":
        name = op.f(f"ck_{table}_ck_{table}_{column}")  # as the tables' convention for names has called it since version 0001
        op.drop_constraint(name, table)
        op.create_check_constraint(name, table, f"{column} in ({now})")
        return
    version = database.exec_driver_sql("PRAGMA schema_version").scalar_one()
    database.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = database.execute(
        sa.text("update sqlite_master set sql = replace(sql, :before, :now) where type = 'table' and name = :table"),
        {"before": f"{column} in ({before})", "now": f"{column} in ({now})", "table": table},
    )
    database.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    database.exec_driver_sql("PRAGMA writable_schema = OFF")
    assert changed.rowcount == 1
