"""The database behind the store: SQLite in a file, or PostgreSQL. In both, one transaction writes at a time."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, func, select
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from services.common.credentials import hide_secrets
from services.common.private import FILE_MODE
from zsbir.base.errors import DiskFull, InputError, RunError
from zsbir.base.outages import outage_of

WRITER_LOCK = 0x7A736269
"""The key of PostgreSQL's advisory lock for writers: "zsbi" in ASCII, so that no other program in this database uses the same."""

BUSY_S = 30.0
"""Seconds that SQLite lets a writer wait for a writer of another process."""

WAIT_S = 2 * BUSY_S
"""Seconds that a thread waits for this process's other threads, to write or for a connection: longer than one of these may wait."""


class Database:
    """Transactions of one database. RunError, with nothing changed, where it does not answer."""

    def __init__(self, url: str):
        self.engine = open_engine(url)
        self.shown_url = hide_secrets(url)
        snapshot = {"isolation_level": "REPEATABLE READ"} if self.engine.dialect.name == "postgresql" else {}
        self._readers = self.engine.execution_options(reading=True, **snapshot)
        self._writers = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes; one at a time. Do not open a second one inside it."""
        # Threads wait here and not in the database: there each would hold a connection, which readers may need, and SQLite lets
        # waiting writers poll, so that one among many can starve.
        if not self._writers.acquire(timeout=WAIT_S):
            raise self._too_many()
        try:
            with self._translated_errors(), self.engine.begin() as connection:
                yield connection
        finally:
            self._writers.release()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads one snapshot, and never waits for writers."""
        with self._translated_errors(), self._readers.connect() as connection:
            yield connection

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # another transaction came first: the store knows what that means
        except DatabaseError as error:
            if outage_of(error.orig or error) is DiskFull:
                raise DiskFull(f"the disk of the job store at {self.shown_url} is full; nothing was changed: make room") from error
            raise RunError(f"the job store at {self.shown_url} failed ({first_line(error)}); nothing was changed") from error
        except PoolTimeout:
            raise self._too_many() from None

    def _too_many(self) -> RunError:
        return RunError(f"the job store at {self.shown_url} is asked by too many at once; nothing was changed")


def now_in(database: Connection) -> float:
    """Return the time by the one clock that all users of a database share, in seconds since 1970, within a transaction.

    Not the time at which the transaction began: it may have waited for another writer since.
    """
    if database.dialect.name == "postgresql":
        return float(database.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
    return time.time()


def first_line(error: DatabaseError) -> str:
    """Return the first line of the driver's message."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def storable(value: Any) -> Any:
    """Return a JSON value as every database takes it: PostgreSQL stores neither NaN nor infinity, nor the character 0 in text."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(name): storable(each) for name, each in value.items()}
    return [storable(each) for each in value] if isinstance(value, list | tuple) else value


def open_engine(url: str) -> Engine:
    """Return the engine of a database URL. InputError for text that is not one, or for a database that is not supported."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its message may hold a part of the password
        raise InputError("the job store must be a database URL, sqlite:///path or postgresql://user@host/name") from None
    name = parsed.get_backend_name()
    if name not in ("sqlite", "postgresql"):
        raise InputError(f"the job store must be sqlite:/// or postgresql://, got {name}://")
    if name == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_timeout=WAIT_S)
        event.listen(engine, "begin", _lock_writers)
        return engine
    if not parsed.database:
        raise InputError("the job store must be a file, sqlite:///path: one in memory would be another one for each process")
    _make_private(Path(parsed.database))
    engine = create_engine(parsed, pool_timeout=WAIT_S, connect_args={"timeout": BUSY_S, "isolation_level": None})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_private(file: Path) -> None:
    """Make an empty database that only its owner can read, where there is none: SQLite's own further files get the same rights."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if str(file).startswith("file:"):  # SQLite's own form of an address
        return
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))


def _set_pragmas(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _lock_writers(database: Connection) -> None:
    """Take PostgreSQL's lock for writers until the transaction ends, so that what a writer has read stays true while it writes."""
    if not database.get_execution_options().get("reading"):
        database.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


def _begin_sqlite(database: Connection) -> None:
    """Begin a transaction: a writer takes SQLite's lock before it reads what it decides by."""
    database.exec_driver_sql("BEGIN" if database.get_execution_options().get("reading") else "BEGIN IMMEDIATE")
