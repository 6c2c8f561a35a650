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
from servers.rgw import Rgw

from zsbir.base.storage import open_folder
from zsbir.data.layouts import IMAGE_SUFFIXES
from zsbir.ingest import IngestConfig, Settings, ingest
from zsbir.toys.draw import toy_sources

SHARED = Path(os.environ.get("ZSBIR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
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


def image_files(photos: Path) -> list[Path]:
    """Every image, in the order of an ingest's reading."""
    return sorted(path for path in photos.rglob("*") if path.suffix in IMAGE_SUFFIXES)


@pytest.fixture
def bare(photos: Path) -> Callable[[], int]:
    """Reading and decoding every file with as many threads, and nothing else."""
    files = image_files(photos)

    def decode(file: Path) -> None:
        Image.open(io.BytesIO(file.read_bytes())).load()

    def work() -> int:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, files))
        return len(files)

    return work


def ingests(images: str, roots: Iterator[str]) -> Callable[[], int]:
    """Ingest of the same files below a new root each time."""

    def work() -> int:
        config = IngestConfig(layout="folder", unseen_frac=0.2, name="bench")
        dataset = ingest(config, images, Settings(root=next(roots)))
        return dataset.manifest.counts["samples"] + dataset.manifest.counts["quarantined"]

    return work


def test_ingest_keeps_eight_tenths_of_the_bare_decoder_s_rate(ratio, photos, bare, tmp_path):
    """Listing, checks, hashing, Parquet, splits, findings and the commit against decoding the same files."""
    roots = (str(tmp_path / str(number)) for number in itertools.count())
    assert ratio("ingest to disk", ingests(str(photos), roots), bare) >= 0.8


@pytest.fixture
def bucket(rgw: Rgw, monkeypatch: pytest.MonkeyPatch) -> str:
    """In Ceph's gateway, which has the same cores: what it takes is taken from the ingest."""
    for name, value in rgw.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{rgw.new_bucket()}"


def test_ingest_to_object_storage_keeps_half_of_it(ratio, photos, bare, bucket):
    roots = (f"{bucket}/{number}" for number in itertools.count())
    assert ratio("ingest to S3", ingests(str(photos), roots), bare, rounds=3) >= 0.5


def test_ingest_from_object_storage_keeps_a_fifteenth_of_it(ratio, photos, bare, bucket, tmp_path):
    """Small images: each is a request, which costs boto3 milliseconds of this process. More workers share them."""
    folder = open_folder(f"{bucket}/photos")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda file: folder.replace(file.relative_to(photos).as_posix(), file.read_bytes()), image_files(photos)))
    roots = (str(tmp_path / str(number)) for number in itertools.count())
    assert ratio("ingest from S3", ingests(folder.uri, roots), bare, rounds=1) >= 1 / 15


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
