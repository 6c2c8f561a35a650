"""Addresses are built from any path, and shown without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from zsbir.base.urls import redacted, sqlite_file, sqlite_url

NAMES = ["plain", "a b", "q?x=1", "h#y", "p%41", "100%", "\u00e9\u732b", "a+b&c", "at@b:c", "semi;x", "back\\slash", "quote'\""]


@pytest.mark.parametrize("name", NAMES)
def test_a_database_lies_where_its_path_says(name, tmp_path):
    file = tmp_path / name / "some.db"
    file.parent.mkdir()
    with create_engine(sqlite_url(file)).begin() as database:
        database.execute(text("create table t (a integer)"))
    assert file.is_file()
    assert sqlite_file(sqlite_url(file)) == file
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "url", ["postgresql://ann@host/db", "http://host:5000", "sqlite://", "sqlite:///:memory:", "a/path", "", "sqlite"]
)
def test_other_addresses_are_no_database_file(url):
    assert sqlite_file(url) is None


def test_a_plain_address_stays_as_people_write_it():
    assert sqlite_url(Path("/data/root/mlflow.db")) == "sqlite:////data/root/mlflow.db"
    assert sqlite_file("sqlite:///relative/mlflow.db") == Path("relative/mlflow.db")


SECRET = "s3cretpw"


@pytest.mark.parametrize(
    "message",
    [
        f"http://ann:{SECRET}@127.0.0.1:9",
        f"https://:{SECRET}@host/path?x=1",
        f"API request to http://ann:{SECRET}@127.0.0.1:9/api/2.0/mlflow failed with exception",
        f"postgresql+psycopg://ann:{SECRET}@db/x: could not connect",
        f"http://ann:{SECRET}@part@host",
        f"http://ann:a/{SECRET}@host",
        f"http://ann:{SECRET}%40x@host and http://bob:{SECRET}@other",
        f"connection failed: host=db password={SECRET} user=ann",
        f"postgresql://host/db?user=ann&password={SECRET}&sslmode=require",
        f"https://host/?token={SECRET};x",
        f"https://{SECRET}{SECRET}{SECRET}@host",
    ],
)
def test_no_password_of_an_address_is_shown(message):
    shown = redacted(message)
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_PASSWORD", SECRET),
        ("MLFLOW_TRACKING_TOKEN", SECRET),
        ("MLFLOW_TRACKING_URI", f"postgresql://ann:{SECRET}@db/x"),
        ("ZSBIR_JOBS_STORE", "postgresql://ann:s3cret%70w@db/x"),
    ],
)
def test_no_secret_of_the_environment_is_shown(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert SECRET not in redacted(f'FATAL: the password "{SECRET}" is wrong')


@pytest.mark.parametrize(
    "message",
    ["http://host:5000/x", "s3://bucket/a@b", "sqlite:////data/mlflow.db", "user@host", "12:30 a@b", "postgresql://ann@host/db"],
)
def test_text_without_a_secret_stays_as_it_is(message):
    assert redacted(message) == message
