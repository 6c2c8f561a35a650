"""What ingest adds to the bare work of the decoder, what it holds in memory, and how soon a large data set is open."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from servers.moto import Moto

from zsbir.data.layouts import IMAGE_SUFFIXES
from zsbir.data.toys import toy_sources
from zsbir.ingest import IngestConfig, Settings, ingest

SHARED = Path(os.environ.get("ZSBIR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
THREADS = 2
MANY = 100_000


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real photos and sketches; drawn ones of 256 pixels where there are none."""
    if (SHARED / "data" / "caltech_qd60").is_dir():
        return SHARED / "data" / "caltech_qd60"
    root = tmp_path_factory.mktemp("drawn") / "drawn"
    for source in toy_sources(40, 40, 256, 0):
        file = root / f"{source.path}.{'jpg' if source.domain == 'photo' else 'png'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source.read(None))
    return root


@pytest.fixture
def bare(photos: Path) -> Callable[[], int]:
    """Reading and decoding every file with as many threads, and nothing else."""
    files = sorted(path for path in photos.rglob("*") if path.suffix in IMAGE_SUFFIXES)

    def decode(file: Path) -> None:
        Image.open(io.BytesIO(file.read_bytes())).load()

    def work() -> int:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(decode, files))
        return len(files)

    return work


def ingests(photos: Path, roots: Iterator[str]) -> Callable[[], int]:
    """Ingest of the same files below a new root each time."""

    def work() -> int:
        config = IngestConfig(layout="folder", unseen_frac=0.2, name="bench")
        dataset = ingest(config, str(photos), Settings(root=next(roots), threads=THREADS))
        return dataset.manifest.counts["samples"] + dataset.manifest.counts["quarantined"]

    return work


def test_ingest_keeps_eight_tenths_of_the_bare_decoder_s_rate(ratio, photos, bare, tmp_path):
    """Listing, checks, hashing, Parquet, splits, findings and the commit against decoding the same files."""
    roots = (str(tmp_path / str(number)) for number in itertools.count())
    assert ratio("ingest to disk", ingests(photos, roots), bare) >= 0.8


def test_ingest_to_object_storage_keeps_half_of_it(ratio, photos, bare, moto: Moto, monkeypatch):
    """moto runs on the same cores and hashes in Python: a real store costs less."""
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    bucket = moto.new_bucket()
    roots = (f"s3://{bucket}/{number}" for number in itertools.count())
    assert ratio("ingest to moto", ingests(photos, roots), bare, rounds=3) >= 0.5


def many_images(*words: object) -> dict[str, float | str]:
    """What `many_images.py` says, from a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("many_images.py")), *map(str, words)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=580, check=True)
    found: dict[str, float | str] = json.loads(done.stdout)
    return found


def test_a_hundred_thousand_images_take_little_memory_and_are_open_at_once(tmp_path):
    few, many = (many_images("ingest", tmp_path, count) for count in (MANY // 5, MANY))
    growth = (many["peak_mb"] - few["peak_mb"]) / (MANY - MANY // 5) * 2**20
    print(f"\ningest of {MANY} images of 64 pixels: {MANY / many['s']:.0f} a second")
    print(f"memory: {many['peak_mb']:.0f} MB at most, {growth:.0f} bytes more with each image")
    seen = min((many_images("open", many["uri"]) for _ in range(3)), key=lambda found: found["s"])
    print(
        f"opened in {seen['s']:.2f} s with {seen['peak_mb'] - seen['before_mb']:.0f} MB besides {seen['before_mb']:.0f} of imports"
    )
    assert seen["samples"] == MANY
    assert seen["s"] < 2
    assert many["peak_mb"] < 500
    assert growth < 2000
