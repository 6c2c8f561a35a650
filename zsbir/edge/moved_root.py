"""The addresses of MLflow's files in its database, after a storage root has moved or was copied. Loads no MLflow, which is slow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from zsbir.base.layout import MLFLOW_ARTIFACTS, mlflow_artifacts

_ADDRESSES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold addresses of its files."""


def relocate(database: Path) -> None:
    """Have the addresses in a database point to the files beside it, where they are after its root was moved or copied.

    MLflow stores absolute addresses, which lead to the old place: new files would go there, and models would not load. Nothing
    changes where the files are still at the old place and none are beside the database, as after a copy of the database alone.
    """
    if not database.is_file() or not database.stat().st_size:
        return
    new = mlflow_artifacts(database).as_uri()
    with closing(sqlite3.connect(database, timeout=60)) as opened, opened:
        for old in _moved_from(opened, database):
            _replace_prefix(opened, old, new)


def has_moved(database: Path) -> bool:
    """Return whether `relocate` would change a database. It is only read, so that a user who may not write it can ask."""
    if not database.is_file() or not database.stat().st_size:
        return False
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=60)) as opened:
        return bool(_moved_from(opened, database))


def _moved_from(opened: sqlite3.Connection, database: Path) -> set[str]:
    """Return the addresses of the folders of files that a database names, and that are now the one beside it.

    None where the old folder is the one beside it, by another path: one root may be mounted at two places.
    """
    if not opened.execute("select 1 from sqlite_master where name = 'experiments'").fetchone():
        return set()
    here = mlflow_artifacts(database)
    named = {_beside(location) for (location,) in opened.execute("select artifact_location from experiments")}
    found = set()
    for old in named - {here.as_uri(), ""}:
        there = local_path_of(old)
        is_same = there.is_dir() and here.is_dir() and there.samefile(here)
        if (here.is_dir() or not there.is_dir()) and not is_same:
            found.add(old)
    return found


def local_path_of(uri: str) -> Path:
    """Return the path that a `file:` address means."""
    return Path(unquote(urlsplit(uri).path))


def _beside(location: str | None) -> str:
    """Return the address of the folder of files beside the database by an experiment's location in it; "" for another location."""
    location = location or ""
    folder, _, last = location.rpartition("/")
    folder = folder if last.isdigit() else location  # a server gives each experiment a folder of its own, named by its number
    return folder if urlsplit(folder).scheme == "file" and folder.endswith(f"/{MLFLOW_ARTIFACTS}") else ""


def _replace_prefix(database: sqlite3.Connection, old: str, new: str) -> None:
    for table, columns in _ADDRESSES.items():
        there = {row[1] for row in database.execute(f"pragma table_info({table})")}
        for column in there.intersection(columns):
            database.execute(
                f"update {table} set {column} = ? || substr({column}, ?) where {column} = ? or substr({column}, 1, ?) = ?",  # noqa: S608 - names of our own
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
