"""The database behind the store: SQLite in a file, or PostgreSQL. In both, writers come one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from zsbir.base.errors import InputError, RunError

WRITER = 0x7A736269
"""The number of PostgreSQL's lock for the one writer: "zsbi", so that nobody else's in this database is the same."""

BUSY_S = 30.0
"""Seconds that a writer waits for another one before SQLite gives up."""


class Database:
    """Transactions of one database. RunError, with nothing changed, where it does not answer."""

    def __init__(self, url: str):
        self.engine = open_engine(url)
        self.shown = shown(url)
        one_view = {"isolation_level": "REPEATABLE READ"} if self.engine.dialect.name == "postgresql" else {}
        self._readers = self.engine.execution_options(reading=True, **one_view)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of the one writer."""
        with self._plain_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One view of everything; waits for nobody."""
        with self._plain_errors(), self._readers.connect() as connection:
            yield connection

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # somebody came first: the store knows what that means
        except DatabaseError as error:
            raise RunError(f"the job store at {self.shown} failed ({reason_of(error)}); nothing was changed") from error
        except PoolTimeout:
            raise RunError(f"the job store at {self.shown} is asked by too many at once; nothing was changed") from None


def reason_of(error: DatabaseError) -> str:
    """The first line of what the driver says."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def shown(url: str) -> str:
    """A database URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def plain(value: Any) -> Any:
    """As every database takes it: PostgreSQL knows neither NaN nor infinity in JSON, nor the character 0 in text."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(name): plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def open_engine(url: str) -> Engine:
    """The engine of a database URL. InputError for one that is none, or of another database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its words may hold a part of the password
        raise InputError("the job store must be a database URL, sqlite:///path or postgresql://user@host/name") from None
    name = parsed.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        raise InputError(f"the job store must be sqlite:/// or postgresql://, got {name}://")
    if name == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        event.listen(engine, "begin", _one_writer)
        return engine
    if not parsed.database:
        raise InputError("the job store must be a file, sqlite:///path: one in memory would be another one for each process")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": BUSY_S, "isolation_level": None})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _one_writer(database: Connection) -> None:
    """What SQLite does by itself: who decides by what he reads must not be overtaken. Kept until the transaction's end."""
    if not database.get_execution_options().get("reading"):
        database.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER})")


def _begin(database: Connection) -> None:
    """Writers queue up before they read what they decide by; readers wait for nobody."""
    database.exec_driver_sql("BEGIN" if database.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
