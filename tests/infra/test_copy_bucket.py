"""The copy of a bucket that backup.sh and restore.sh make: complete artifacts, nothing replaced, nothing outside of the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers.compose import FOLDER
from servers.moto import Moto

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


def copy(moto: Moto, bucket: str, direction: str, folder: Path) -> str:
    env = {**os.environ, **moto.env, "ZSBIR_ROOT": f"s3://{bucket}/store"}
    words = [sys.executable, str(FOLDER / "copy_bucket.py"), direction, str(folder)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60)
    return done.stderr.strip()


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bucket_goes_to_a_folder_and_back_into_an_empty_bucket(moto, bucket, tmp_path):
    assert copy(moto, bucket, "down", tmp_path / "copy") == "4 files copied"
    assert held(tmp_path / "copy") == FILES
    other = f"{bucket}-new"
    assert copy(moto, other, "up", tmp_path / "copy") == "4 files copied"
    assert copy(moto, other, "down", tmp_path / "again") == "4 files copied"
    assert held(tmp_path / "again") == FILES


def test_a_second_copy_takes_what_is_new_or_may_have_changed_and_deletes_nothing(moto, bucket, tmp_path):
    copy(moto, bucket, "down", tmp_path)
    client = moto.client()
    client.put_object(Bucket=bucket, Key="store/jobs/steps/1", Body=b"two")
    client.put_object(Bucket=bucket, Key="store/runs/toy-1/encoder", Body=b"new")
    client.delete_object(Bucket=bucket, Key="store/datasets/toy/1/samples.parquet")
    (tmp_path / "store/runs/toy-1").mkdir(parents=True)
    (tmp_path / "store/runs/toy-1/encoder").write_bytes(b"a half")
    assert copy(moto, bucket, "down", tmp_path) == "3 files copied"
    assert held(tmp_path) == {**FILES, "store/jobs/steps/1": b"two", "store/runs/toy-1/encoder": b"new"}


def test_what_is_in_a_bucket_is_not_replaced(moto, bucket, tmp_path):
    (tmp_path / "store/jobs/steps").mkdir(parents=True)
    (tmp_path / "store/jobs/steps/1").write_bytes(b"old")
    (tmp_path / "store/jobs/steps/2").write_bytes(b"old")
    (tmp_path / "store/jobs/steps/3.unfinished").write_bytes(b"half")
    assert copy(moto, bucket, "up", tmp_path) == "1 files copied"
    assert moto.client().get_object(Bucket=bucket, Key="store/jobs/steps/1")["Body"].read() == b"one"


def test_no_key_leads_out_of_the_folder(moto, bucket, tmp_path):
    moto.client().put_object(Bucket=bucket, Key="../outside", Body=b"evil")
    copy(moto, bucket, "down", tmp_path / "copy")
    assert not (tmp_path / "outside").exists()
