"""Ingest on real Ray workers: byte by byte the data set of one process, on disk, in object storage, with a worker killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from servers.moto import Moto, moto_server

from zsbir.base.artifact import Artifact

pytestmark = pytest.mark.slow

SMALL_BLOCKS = str(Path(__file__).parent / "ingest_in_small_blocks.py")
BLOCKS = 35


@pytest.fixture
def cluster(head: dict[str, str]) -> dict[str, str]:
    """The environment of commands: two CPUs of Ray, and an S3 server."""
    return head


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """420 pictures, one of them bad: 35 blocks."""
    root = tmp_path_factory.mktemp("images") / "some"
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat", "dog", "elk"):
        for domain in ("photo", "sketch"):
            (root / domain / name).mkdir(parents=True)
            for number in range(42):
                pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / domain / name / f"{number}.png")
    (root / "photo/dog/2.png").write_bytes(b"")
    return root


def command(images: str | Path, root: str | Path, workers: int) -> list[str]:
    options = ["--unseen-classes", "cat", "--dev-classes", "bee", "--threads", "1", "--num-workers", str(workers)]
    return [sys.executable, SMALL_BLOCKS, "folder", str(images), "--root", str(root), "--name", "some", *options]


def ingest(environment: dict[str, str], images: str | Path, root: str | Path, workers: int) -> tuple[Artifact, str]:
    """The data set, and what was said."""
    done = subprocess.run(command(images, root, workers), env=environment, text=True, capture_output=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return Artifact(done.stdout.strip(), "dataset"), done.stderr


def files(dataset: Artifact) -> dict[str, bytes]:
    dataset.verify()
    assert {entry.key for entry in dataset.folder.walk() if not entry.key.startswith(".writing-")} == {
        "manifest.json",
        *dataset.manifest.files,
    }
    return {name: dataset.folder.read(dataset.key(name)) for name in dataset.manifest.files}


def test_two_workers_make_the_data_set_of_one_process(cluster: dict[str, str], images: Path, tmp_path: Path) -> None:
    alone, _ = ingest(cluster, images, tmp_path / "alone", 0)
    together, said = ingest(cluster, images, tmp_path / "together", 2)
    assert f"joining Ray at {cluster['RAY_ADDRESS']}" in said
    assert "ingest: 420 images in" in said
    assert alone.digest == together.digest
    assert len(alone.manifest.files) == BLOCKS + 3
    assert files(alone) == files(together)


def test_workers_read_and_write_object_storage(
    cluster: dict[str, str], images: Path, tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    bucket, client = moto.new_bucket(), moto.client()
    for file in images.rglob("*.png"):
        client.put_object(Bucket=bucket, Key=f"images/{file.relative_to(images).as_posix()}", Body=file.read_bytes())
    alone, _ = ingest(cluster, images, tmp_path / "alone", 0)
    stored, _ = ingest(cluster, f"s3://{bucket}/images", f"s3://{bucket}/root", 2)
    assert files(alone) == files(stored)
    assert not [entry for entry in stored.folder.walk() if entry.key.startswith(".")]


def test_a_killed_worker_is_replaced_and_the_result_is_the_same(cluster: dict[str, str], images: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(images, tmp_path / "killed", 2), env=cluster, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 100
    while sum(name.endswith(".arrow") for _, _, names in os.walk(tmp_path) for name in names) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = [found for found in psutil.process_iter(["cmdline"]) if "ray::_Actor" in " ".join(found.info["cmdline"] or [])]
    workers[0].send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "the task will be retried" in err, "it was in the middle of something"
    alone, _ = ingest(cluster, images, tmp_path / "alone", 0)
    assert files(Artifact(out.strip(), "dataset")) == files(alone)


def test_after_the_driver_was_killed_workers_do_the_rest(cluster: dict[str, str], images: Path, tmp_path: Path) -> None:
    environment = cluster | {"ZSBIR_TEST_KILL_AT": "12"}  # changes of the store in the driver: here it packs alone
    died = subprocess.run(command(images, tmp_path / "killed", 0), env=environment, capture_output=True, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL
    dataset, said = ingest(cluster, images, tmp_path / "killed", 2)
    assert "of 420 images are packed already" in said
    alone, _ = ingest(cluster, images, tmp_path / "alone", 0)
    assert files(dataset) == files(alone)
    assert json.loads(alone.file("classes.json").read_text())[3]["photos"] == 41


def test_too_many_bad_images_are_told_by_the_driver(cluster: dict[str, str], images: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*command(images, tmp_path / "root", 2), "--max-bad-frac", "0"],
        env=cluster,
        text=True,
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "are bad, more than --max-bad-frac 0.0 allows: photo/dog/2.png: the file has zero bytes" in done.stderr.splitlines()[-1]


def test_what_goes_wrong_in_a_worker_is_one_line(cluster: dict[str, str], images: Path) -> None:
    """Here the driver talks to another store than its workers."""
    with moto_server() as other:
        bucket = other.new_bucket()
        done = subprocess.run(
            command(images, f"s3://{bucket}/root", 2),
            env=cluster | other.env,
            text=True,
            capture_output=True,
            timeout=200,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"error: s3://{bucket}/root/datasets/some/")
    assert f"there is no bucket '{bucket}'" in done.stderr.splitlines()[-1]
