"""An ingest that is killed, at any moment, and run again: the data set is the one an undisturbed run makes, byte by byte."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zsbir.base.artifact import MANIFEST, Artifact
from zsbir.base.storage import WORKSPACE, join, open_folder

pytestmark = pytest.mark.slow

SMALL_BLOCKS = str(Path(__file__).parent / "ingest_in_small_blocks.py")
PERSONAL = ("created_utc", "written_by", "code")
"""Fields of a manifest that tell one run from another."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of nine images, one of them bad: four blocks."""
    root = tmp_path_factory.mktemp("images") / "some"
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat", "dog", "elk"):
        for domain, count in (("photo", 5), ("sketch", 4)):
            (root / domain / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / domain / name / f"{number}.png")
    (root / "photo/dog/2.png").write_bytes(b"")
    return root


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A storage root on disk, and one in object storage."""
    if request.param == "disk":
        yield str(tmp_path / "roots")
        return
    moto = request.getfixturevalue("moto")
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    yield f"s3://{moto.new_bucket()}/roots"


def words(images: Path) -> list[str]:
    return ["folder", str(images), "--unseen-classes", "cat", "--dev-classes", "bee", "--max-bad-frac", "0.1", "--threads", "2"]


def run(images: Path, root: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ingest in small blocks, to its end or its death."""
    command = [sys.executable, SMALL_BLOCKS, *words(images), "--root", root]
    return subprocess.run(command, env=os.environ | environment, text=True, capture_output=True, timeout=120, check=False)


def whole(root: str) -> tuple[dict[str, object], dict[str, bytes]]:
    """The manifest of the only data set below a root, without what is personal, and the bytes of every file in its place."""
    (name,) = open_folder(join(root, "datasets", "some")).names()
    dataset = Artifact(join(root, "datasets", "some", name), "dataset")
    dataset.verify()
    manifest = json.loads(dataset.folder.read(MANIFEST))
    assert not dataset.manifest.stored_as
    keys = [entry.key for entry in dataset.folder.walk() if not entry.key.startswith(WORKSPACE) and entry.key != MANIFEST]
    assert set(keys) == set(dataset.manifest.files), "no records and no other remains are there"
    return {key: value for key, value in manifest.items() if key not in PERSONAL}, {key: dataset.folder.read(key) for key in keys}


def test_killed_before_any_change_of_the_store_it_goes_on_to_the_same_data_set(images: Path, root: str) -> None:
    done = run(images, "", ZSBIR_TEST_KILLS=root)
    assert done.returncode == 0, done.stderr
    names = open_folder(root).names()
    assert len(names) > 2 * 4 + 4, "it was killed before each shard, each record, each other file, the manifest, and after it"
    packed = {int(count) for count in re.findall(r"(\d+) of 45 images are packed already", done.stderr)}
    assert 45 in packed
    assert len(packed) > 2, "it went on from the middle too"
    assert "nothing has changed since" in done.stderr
    undisturbed = whole(join(root, str(len(names))))
    assert len(undisturbed[1]) == 4 + 3
    for name in names:
        assert whole(join(root, name)) == undisturbed, f"killed before change {name}"


def test_killed_again_and_again_it_comes_to_its_end(images: Path, root: str) -> None:
    assert run(images, join(root, "undisturbed")).returncode == 0
    runs = 0
    while (done := run(images, join(root, "killed"), ZSBIR_TEST_KILL_AT="5")).returncode:
        assert done.returncode == -signal.SIGKILL
        runs += 1
        assert runs < 20
    assert runs > 2
    assert whole(join(root, "killed")) == whole(join(root, "undisturbed"))


def test_two_at_the_same_moment_make_one_data_set(images: Path, root: str) -> None:
    command = [sys.executable, SMALL_BLOCKS, *words(images), "--root", root]
    both = [subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    whole(root)


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for several blocks of the usual size."""
    return many(tmp_path_factory.mktemp("many") / "some", 13_000)


def many(root: Path, count: int) -> Path:
    """`count` pictures of 8 x 8 pixels, no two the same, of four classes."""
    for number in range(count):
        file = root / ("photo", "sketch")[number % 2] / "abcd"[number // 2 % 4] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(np.frombuffer(random.Random(number).randbytes(64), np.uint8).reshape(8, 8)).save(buffer, "PNG")
        file.write_bytes(buffer.getvalue())
    return root


def test_the_command_itself_is_killed_at_odd_moments(many_images: Path, root: str) -> None:
    command = [
        sys.executable,
        "-m",
        "zsbir.ingest",
        "folder",
        str(many_images),
        "--unseen-classes",
        "a",
        "--dev-frac",
        "0",
        "--root",
    ]
    subprocess.run([*command, join(root, "undisturbed")], check=True, capture_output=True, timeout=200)
    folder = join(root, "killed")
    killed_by: list[Callable[[], object]] = [
        lambda: open_folder(folder).names(),
        lambda: [entry for entry in open_folder(folder).walk() if entry.key.endswith(".arrow")],
        lambda: sum(entry.key.endswith(".arrow") for entry in open_folder(folder).walk()) > 2,
    ]
    for moment in killed_by:
        process = subprocess.Popen([*command, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not moment() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not [entry for entry in open_folder(folder).walk() if entry.key.endswith(MANIFEST)], "it was killed in the middle"
    last = subprocess.run([*command, folder], check=True, capture_output=True, text=True, timeout=200)
    assert "images are packed already" in last.stderr
    assert whole(folder) == whole(join(root, "undisturbed"))
