"""The copy of a bucket that backup.sh and restore.sh make: complete or refused, nothing replaced, nothing outside of the folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from servers.compose import FOLDER
from servers.faults import Call, Fault, FaultProxy
from servers.moto import Moto
from servers.s3 import S3Server

FILES = {
    "store/datasets/toy/1/manifest.json": b"{}",
    "store/datasets/toy/1/samples.parquet": b"rows",
    "store/jobs/steps/1": b"one",
    "mlflow/1/model": b"weights",
}


@pytest.fixture
def bucket(moto: Moto):
    name = moto.new_bucket()
    for key, content in FILES.items():
        moto.client().put_object(Bucket=name, Key=key, Body=content)
    return name


def start(moto: S3Server, bucket: str, *words: str | Path) -> subprocess.Popen[str]:
    env = {**os.environ, **moto.env, "ZSBIR_ROOT": f"s3://{bucket}/store"}
    command = [sys.executable, str(FOLDER / "copy_bucket.py"), *map(str, words)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def copy(moto: S3Server, bucket: str, *words: str | Path, code: int = 0) -> str:
    """Run it, and return what it says."""
    with start(moto, bucket, *words) as process:
        said = process.communicate(timeout=60)[1].strip()
    assert process.returncode == code, said
    return said


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bucket_goes_to_a_backup_and_back_into_an_empty_bucket(moto, bucket, tmp_path):
    assert copy(moto, bucket, "down", tmp_path / "backup") == "4 files copied"
    assert held(tmp_path / "backup" / "bucket") == FILES
    other = f"{bucket}-new"
    assert copy(moto, other, "up", tmp_path / "backup") == "4 files copied"
    assert copy(moto, other, "down", tmp_path / "again") == "4 files copied"
    assert held(tmp_path / "again" / "bucket") == FILES


def test_a_second_backup_takes_what_is_new_or_may_have_changed_and_leaves_the_first_as_it_was(moto, bucket, tmp_path):
    copy(moto, bucket, "down", tmp_path / "1")
    client = moto.client()
    client.put_object(Bucket=bucket, Key="store/jobs/steps/1", Body=b"two")
    client.put_object(Bucket=bucket, Key="store/runs/toy-1/encoder", Body=b"new")
    client.delete_object(Bucket=bucket, Key="store/datasets/toy/1/manifest.json")
    half = tmp_path / "2" / "bucket" / "store" / "runs" / "toy-1"
    half.mkdir(parents=True)
    (half / "encoder").write_bytes(b"a half")
    assert copy(moto, bucket, "down", tmp_path / "2", tmp_path / "1") == "3 files copied"
    changed = {**FILES, "store/jobs/steps/1": b"two", "store/runs/toy-1/encoder": b"new"}
    del changed["store/datasets/toy/1/manifest.json"]
    assert held(tmp_path / "2" / "bucket") == changed
    assert held(tmp_path / "1" / "bucket") == FILES


def test_what_is_in_a_bucket_is_not_replaced(moto, bucket, tmp_path):
    copy(moto, bucket, "down", tmp_path)
    moto.client().put_object(Bucket=bucket, Key="store/jobs/steps/1", Body=b"newer")
    moto.client().delete_object(Bucket=bucket, Key="mlflow/1/model")
    assert copy(moto, bucket, "up", tmp_path) == "1 files copied"
    assert moto.client().get_object(Bucket=bucket, Key="store/jobs/steps/1")["Body"].read() == b"newer"


def test_no_key_leads_out_of_the_folder(moto, bucket, tmp_path):
    moto.client().put_object(Bucket=bucket, Key="../outside", Body=b"evil")
    copy(moto, bucket, "down", tmp_path / "backup")
    assert not (tmp_path / "backup" / "outside").exists()


def test_a_killed_copy_leaves_no_half_of_an_object_where_objects_are(moto, bucket, tmp_path):
    """boto3 writes to a file of another name before it has all parts, and a kill leaves that file."""
    large = {"store/runs/toy-1/encoder": bytes(9 << 20)}  # more than one part
    moto.client().put_object(Bucket=bucket, Key="store/runs/toy-1/encoder", Body=large["store/runs/toy-1/encoder"])
    with FaultProxy(moto) as proxy:
        proxy.arm_from(2 + len(FILES) + 1, Fault.HANG)  # two lists, the objects before it, its first part
        with start(proxy, bucket, "down", tmp_path) as process:
            until = time.monotonic() + 30
            while not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 5 << 20]:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            process.kill()
    assert held(tmp_path / "bucket") == FILES
    assert len(held(tmp_path)) == len(FILES) + 1
    copy(moto, bucket, "down", tmp_path)
    assert held(tmp_path / "bucket") == {**FILES, **large}
    assert held(tmp_path).keys() == {f"bucket/{key}" for key in (*FILES, *large)} | {"complete"}


def test_an_object_that_is_deleted_while_the_copy_runs_is_left_out(moto, bucket, tmp_path):
    with FaultProxy(moto) as proxy:
        proxy.arm(2, Call(lambda: moto.client().delete_object(Bucket=bucket, Key="mlflow/1/model")))
        assert copy(proxy, bucket, "down", tmp_path) == "3 files copied"
    assert held(tmp_path / "bucket") == {key: content for key, content in FILES.items() if key != "mlflow/1/model"}


def test_a_backup_says_when_it_was_complete_by_which_version_and_how_many_files_it_has(moto, bucket, tmp_path):
    copy(moto, bucket, "down", tmp_path)
    date, version, files = (tmp_path / "complete").read_text("utf-8").splitlines()
    assert abs(datetime.fromisoformat(date.removeprefix("date ")).timestamp() - time.time()) < 100
    assert (version, files) == (f"version {installed('zsbir')}", "files 4")


@pytest.mark.parametrize("lost", ["complete", "bucket/mlflow/1/model", "bucket"])
def test_a_backup_that_is_not_complete_is_refused_and_makes_no_bucket(moto, bucket, tmp_path, lost):
    copy(moto, bucket, "down", tmp_path)
    (tmp_path / lost).rename(tmp_path / "lost")
    other = f"{bucket}-new"
    assert copy(moto, other, "up", tmp_path, code=2).startswith(f"error: {tmp_path} ")
    assert other not in {each["Name"] for each in moto.client().list_buckets()["Buckets"]}
