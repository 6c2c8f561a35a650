"""backup.sh and restore.sh as they are, with a stand-in for `docker` that leads to a real PostgreSQL and an S3 server."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from servers import stand_in_docker
from servers.compose import FOLDER
from servers.moto import Moto
from servers.postgres import new_database

pytestmark = pytest.mark.slow  # PostgreSQL, and Python's start for each container

FILES = {
    "store/datasets/toy/1/manifest.json": b"{}",
    "store/datasets/toy/1/samples.parquet": b"rows",
    "store/jobs/steps/1": b"one",
    "mlflow/1/model": b"weights",
}


@dataclass
class Site:
    """A deployment as the scripts see it: a folder with them and .env, two databases, a bucket."""

    folder: Path
    databases: dict[str, str]
    moto: Moto
    bucket: str
    fails: str = ""
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "log"
        (self.folder / ".env").write_text("POSTGRES_PASSWORD=secret\n", "utf-8")
        programs = self.folder / "bin"
        programs.mkdir()
        docker = programs / "docker"
        docker.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in_docker.__file__}" "$@"\n', "utf-8")
        docker.chmod(0o755)

    def runs(self, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run one of the two scripts."""
        self.log.write_text("", "utf-8")
        server = next(iter(self.databases.values())).rpartition("@")[2].partition("/")[0]
        host, _, port = server.partition(":")
        folders = [str(self.folder / "bin"), *map(str, Path("/usr/lib/postgresql").glob("*/bin")), os.environ["PATH"]]
        env = {**os.environ, **self.moto.env, "PATH": os.pathsep.join(folders), "PGHOST": host, "PGPORT": port}
        env |= {"ZSBIR_ROOT": f"s3://{self.bucket}/store", "STAND_IN_LOG": str(self.log), "STAND_IN_FAILS": self.fails}
        env["STAND_IN_DATABASES"] = json.dumps({name: url.rpartition("/")[2] for name, url in self.databases.items()})
        words = [self.folder / script, folder]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=120)

    def backs_up(self, folder: Path) -> Path:
        """Make a backup that must succeed; return its folder."""
        done = self.runs("backup.sh", folder)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.split(" has the databases")[0])

    def write(self, *texts: str) -> None:
        """More rows in each database."""
        for url in self.databases.values():
            with psycopg.connect(url) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS rows (id serial PRIMARY KEY, text text UNIQUE)")
                connection.cursor().executemany("INSERT INTO rows (text) VALUES (%s)", [(text,) for text in texts])

    def rows(self, name: str) -> list[str] | None:
        """The rows of a database, or None where it is empty."""
        with psycopg.connect(self.databases[name]) as connection:
            if not connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchall():
                return None
            return [text for (text,) in connection.execute("SELECT text FROM rows ORDER BY id")]

    def objects(self) -> dict[str, bytes]:
        client = self.moto.client()
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return {each["Key"]: client.get_object(Bucket=self.bucket, Key=each["Key"])["Body"].read() for each in listed}


@pytest.fixture
def new_site(postgres: str, moto: Moto, tmp_path: Path):
    """Makes deployments with nothing in them."""
    if not any(shutil.which("pg_restore", path=str(folder)) for folder in Path("/usr/lib/postgresql").glob("*/bin")):
        pytest.skip("no PostgreSQL is installed, with the programs that the scripts call")
    with psycopg.connect(postgres, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'postgres'").fetchone():
            connection.execute("CREATE ROLE postgres SUPERUSER LOGIN")

    def make(name: str) -> Site:
        folder = shutil.copytree(FOLDER, tmp_path / name, ignore=shutil.ignore_patterns(".env"))
        return Site(folder, {name: new_database(postgres) for name in ("jobs", "mlflow")}, moto, moto.new_bucket())

    return make


@pytest.fixture
def used(new_site, moto: Moto) -> Site:
    """A deployment with something in it."""
    site = new_site("used")
    site.write("first")
    for key, content in FILES.items():
        moto.client().put_object(Bucket=site.bucket, Key=key, Body=content)
    return site


def test_what_was_backed_up_is_there_after_a_restore_into_an_empty_deployment(used: Site, new_site, tmp_path: Path):
    first = used.backs_up(tmp_path / "backups")
    used.write("second")
    used.moto.client().put_object(Bucket=used.bucket, Key="store/jobs/steps/1", Body=b"two")
    second = used.backs_up(tmp_path / "backups")
    assert {path.name for path in (tmp_path / "backups").iterdir()} == {first.name, second.name, "lock"}
    for number, (backup, rows, step) in enumerate([(first, ["first"], b"one"), (second, ["first", "second"], b"two")]):
        empty = new_site(f"empty-{number}")
        done = empty.runs("restore.sh", backup)
        assert (done.returncode, done.stdout) == (0, "restored; next: docker compose up --detach\n"), done.stderr
        assert empty.rows("jobs") == empty.rows("mlflow") == rows
        assert empty.objects() == {**FILES, "store/jobs/steps/1": step}
        assert (backup / "env").read_text("utf-8") == (used.folder / ".env").read_text("utf-8")


def test_a_second_backup_stores_again_only_what_may_have_changed(used: Site, tmp_path: Path):
    first, second = used.backs_up(tmp_path), used.backs_up(tmp_path)
    same = {key for key in FILES if (first / "bucket" / key).samefile(second / "bucket" / key)}
    assert same == {key for key in FILES if key.startswith("store/datasets/")}
    assert all((second / "bucket" / key).read_bytes() == content for key, content in FILES.items())
    assert all(path.stat().st_mode & 0o077 == 0 for path in (first, second, second / "jobs.dump", second / "env"))


def test_a_second_backup_within_the_same_second_takes_the_name_of_the_next(used: Site, tmp_path: Path):
    clock = used.folder / "bin" / "date"  # each time is read three times, as a clock is within a second
    clock.write_text('#!/bin/sh\necho >>"$0.reads"\necho "2026-11-30T12000$(($(wc -l <"$0.reads") / 3))Z"\n', "utf-8")
    clock.chmod(0o755)
    made = [used.backs_up(tmp_path).name for _ in range(3)]
    assert made == ["2026-11-30T120000Z", "2026-11-30T120001Z", "2026-11-30T120002Z"]
    assert all((tmp_path / name / "complete").exists() for name in made)


def test_a_backup_whose_dump_was_cut_is_none_and_leaves_the_one_before_it_as_it_was(used: Site, new_site, tmp_path: Path):
    first = used.backs_up(tmp_path / "backups")
    before = held(first)
    used.write("second")
    used.fails = "--format=custom mlflow"
    assert used.runs("backup.sh", tmp_path / "backups").returncode == 1
    assert held(first) == before
    assert_refused(new_site("empty"), tmp_path / "backups" / "unfinished", "no complete")
    used.fails = ""
    assert held(used.backs_up(tmp_path / "backups")).keys() == before.keys()


def test_a_first_backup_that_stopped_within_the_bucket_is_none_and_the_next_run_goes_on_with_it(
    used: Site, new_site, tmp_path: Path
):
    in_the_way = tmp_path / "backups" / "unfinished" / "bucket" / "store" / "jobs" / "steps" / "1"
    in_the_way.mkdir(parents=True)
    stopped = used.runs("backup.sh", tmp_path / "backups")
    assert stopped.returncode == 1
    assert "IsADirectoryError" in stopped.stderr
    assert len(held(in_the_way.parents[3])) == 3
    assert_refused(new_site("empty"), tmp_path / "backups" / "unfinished", "no complete")
    in_the_way.rmdir()
    done = used.runs("backup.sh", tmp_path / "backups")
    assert done.stderr == "2 files copied\n"  # what never changes was there
    assert not (tmp_path / "backups" / "unfinished").exists()


@pytest.mark.parametrize("part", ["complete", "bucket", "mlflow.dump", "bucket/store/datasets/toy/1/samples.parquet"])
def test_a_backup_that_has_lost_a_part_is_refused_before_anything_is_touched(used: Site, new_site, tmp_path: Path, part: str):
    backup = used.backs_up(tmp_path / "backups")
    lost = backup / part
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    reason = f"no {part}" if part.count("/") < 2 else "had 4 files of the bucket when it was made, and has 3"
    assert_refused(new_site("empty"), backup, reason)


def test_a_restore_that_was_interrupted_within_the_bucket_can_be_repeated(used: Site, new_site, tmp_path: Path):
    backup = used.backs_up(tmp_path / "backups")
    empty = new_site("empty")
    empty.fails = "copy_bucket.py up"
    assert empty.runs("restore.sh", backup).returncode == 1
    assert empty.rows("jobs") is None
    empty.moto.client().put_object(Bucket=empty.bucket, Key="mlflow/1/model", Body=FILES["mlflow/1/model"])
    empty.fails = ""
    assert empty.runs("restore.sh", backup).returncode == 0
    assert (empty.rows("jobs"), empty.rows("mlflow"), empty.objects()) == (["first"], ["first"], FILES)


def test_a_dump_that_cannot_be_read_leaves_its_database_empty_and_the_next_restore_names_the_way_out(
    used: Site, new_site, tmp_path: Path
):
    used.write(*(uuid.uuid4().hex for _ in range(1000)))
    backup = used.backs_up(tmp_path / "backups")
    dump = backup / "mlflow.dump"
    dump.write_bytes(dump.read_bytes()[:-5000])
    empty = new_site("empty")
    assert empty.runs("restore.sh", backup).returncode == 1
    assert empty.rows("mlflow") is None
    assert len(empty.rows("jobs") or ()) == 1001
    again = empty.runs("restore.sh", backup)
    assert (again.returncode, again.stderr.startswith("error: the database jobs is not empty")) == (2, True)
    assert "docker compose down --volumes" in again.stderr


def test_both_databases_are_looked_at_before_either_is_touched(used: Site, new_site, tmp_path: Path):
    backup = used.backs_up(tmp_path / "backups")
    other = new_site("other")
    with psycopg.connect(other.databases["mlflow"]) as connection:
        connection.execute("CREATE TABLE rows (id serial PRIMARY KEY, text text)")
    assert_refused(other, backup, "the database mlflow is not empty")
    assert (other.rows("jobs"), other.rows("mlflow")) == (None, [])


def test_two_backups_at_a_time_do_not_mix(used: Site, tmp_path: Path):
    (tmp_path / "backups").mkdir()
    with (tmp_path / "backups" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = used.runs("backup.sh", tmp_path / "backups")
    assert (done.returncode, used.log.read_text("utf-8")) == (2, "")
    assert done.stderr == f"error: another backup to {tmp_path / 'backups'} is running\n"


def held(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(site: Site, backup: Path, reason: str) -> None:
    """A restore fails with this reason, and neither the databases nor the bucket got anything."""
    rows = site.rows("jobs"), site.rows("mlflow")
    done = site.runs("restore.sh", backup)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert (site.rows("jobs"), site.rows("mlflow"), site.objects()) == (*rows, {})
