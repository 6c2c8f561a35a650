"""From a run to photos found: index, search, and that both see what evaluate sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import decode
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import embed, embeddings_of
from zsbir.evaluation.protocol import PROTOCOLS
from zsbir.index import GrowthConfig, IndexConfig, ReembedConfig, Settings, build_index, delete_photos, reembed_index, update_index
from zsbir.model.encoder import Encoder
from zsbir.promotion.index_check import try_index
from zsbir.search import Searcher, _parse, read_drawing
from zsbir.training.context import default_device
from zsbir.training.precision import autocast


@pytest.fixture(scope="module")
def index(run: str, pipeline_root: Path) -> Artifact:
    """The unseen photos of the run's data set."""
    return build_index(run, IndexConfig(precision="fp32"), Settings(root=str(pipeline_root)))


def stored(dataset: str, position: int) -> bytes:
    opened = Artifact(dataset, "dataset")
    return Images(opened, load_samples(opened)).read(position)


@pytest.fixture
def unseen(dataset: str) -> np.ndarray:
    """Positions of the unseen photos in the sample table."""
    return load_samples(Artifact(dataset, "dataset")).select(split="unseen", domain="photo")


@pytest.fixture
def folder(dataset: str, unseen: np.ndarray, tmp_path: Path) -> Path:
    """A user's folder: four photos at two levels, one corrupt image, and a file that is none."""
    folder = tmp_path / "my photos"
    (folder / "summer").mkdir(parents=True)
    for number, position in enumerate(unseen[:4]):
        path = folder / ("summer" if number % 2 else "") / f"{number}.jpg"
        path.write_bytes(stored(dataset, int(position)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than a beginning")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def index_folder(run: str, folder: Path, root: Path, **changes: object) -> Artifact:
    return build_index(run, IndexConfig.of({"gallery": str(folder), **changes}), Settings(root=str(root)))


def test_an_index_holds_the_unseen_photos_with_the_encoder_that_made_it(
    index: Artifact, run: str, dataset: str, unseen: np.ndarray
) -> None:
    index.verify()
    samples = load_samples(Artifact(dataset, "dataset"))
    items = pq.read_table(index.file("items.parquet")).to_pylist()
    assert [item["path"] for item in items] == samples.path[unseen].tolist()
    assert [item["class_name"] for item in items] == [samples.class_names[c] for c in samples.class_id[unseen]]
    assert [item["item_id"] for item in items] == list(range(42))
    assert max(decode(items[0]["thumbnail"]).size) <= 128
    vectors = np.load(index.file("vectors.npy"))
    assert (vectors.shape, vectors.dtype) == ((42, 128), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert index.file("encoder.safetensors").read_bytes() == Artifact(run, "run").file("encoder.safetensors").read_bytes()
    assert index.manifest.inputs["run"] == Artifact(run).reference()


def test_index_and_evaluation_see_a_photo_alike(index: Artifact, run: str, dataset: str, unseen: np.ndarray) -> None:
    opened = Artifact(dataset, "dataset")
    encoder, device = Encoder.load(Artifact(run).file("encoder.safetensors")).eval(), default_device()
    expected = embed(
        embeddings_of(encoder.to(device)),
        Images(opened, load_samples(opened)),
        unseen,
        image_px=encoder.image_px,
        device=device,
        autocast=autocast("fp32", device),
    )
    np.testing.assert_allclose(np.load(index.file("vectors.npy")), expected, atol=1e-4, rtol=0)


def test_a_drawing_is_seen_by_search_as_evaluation_sees_a_sketch(index: Artifact, dataset: str) -> None:
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    sketches = samples.select(split="unseen", domain="sketch")[:3]
    searcher = Searcher(index.uri)
    vectors, _ = searcher.engine.files.living()
    queries = embed(embeddings_of(searcher.encoder), Images(opened, samples), sketches, image_px=32, device=torch.device("cpu"))
    for query, position in zip(queries, sketches, strict=True):
        hits = searcher.search(decode(stored(dataset, int(position))), 42)
        expected = vectors @ query
        np.testing.assert_allclose([hit.score for hit in hits], expected[[hit.item_id for hit in hits]], atol=1e-4)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert sorted(hit.item_id for hit in hits) == list(range(42))


def test_an_indexed_photo_used_as_the_drawing_is_found_first(index: Artifact, dataset: str, unseen: np.ndarray) -> None:
    searcher = Searcher(index.uri)
    for number in (0, 17, 41):
        hits = searcher.search(decode(stored(dataset, int(unseen[number]))), 3)
        assert (hits[0].rank, hits[0].item_id) == (1, number)
        assert hits[0].score == pytest.approx(1, abs=1e-4)
        assert len(hits) == 3


def test_a_second_run_returns_the_index_at_once(index: Artifact, run: str, pipeline_root: Path) -> None:
    written = index.file("vectors.npy").stat().st_mtime_ns
    again = build_index(run, IndexConfig(precision="fp32"), Settings(root=str(pipeline_root)))
    assert again.uri == index.uri
    assert again.file("vectors.npy").stat().st_mtime_ns == written


def test_a_split_and_a_name_may_be_chosen(run: str, pipeline_root: Path) -> None:
    made = build_index(run, IndexConfig(split="dev", name="dev-photos"), Settings(root=str(pipeline_root)))
    assert made.path.parent == pipeline_root / "indexes/dev-photos"
    names = set(pq.read_table(made.file("items.parquet"))["class_name"].to_pylist())
    assert names
    assert not names & {"bicycle", "castle", "fish", "lamp", "mushroom", "snowman", "sword"}
    with pytest.raises(InputError, match="split must be all, train, dev, unseen, got 'test'"):
        build_index(run, IndexConfig(split="test"), Settings(root=str(pipeline_root)))


def test_a_users_folder_is_indexed_and_its_corrupt_image_named_and_counted(
    run: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = index_folder(run, folder, tmp_path / "root", max_bad_frac=0.3)
    assert "warning: photos that cannot be read: 1, by reason\n       1  damaged JPEG file: " in capsys.readouterr().err
    assert made.manifest.counts == {"photos": 4, "dimensions": 128, "unreadable": 1, "passed_over": 1}
    items = pq.read_table(made.file("items.parquet")).to_pylist()
    assert [item["path"] for item in items] == ["0.jpg", "2.jpg", "summer/1.jpg", "summer/3.jpg"]
    assert [item["item_id"] for item in items] == [0, 1, 2, 3]
    hits = Searcher(made.uri).search(read_drawing(folder / "summer/1.jpg"), 10)
    assert (hits[0].path, hits[0].class_name, len(hits)) == ("summer/1.jpg", "", 4)


def test_more_unreadable_photos_than_allowed_fail_and_leave_nothing(run: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 5 photos cannot be read, more than --max-bad-frac 0.01 allows; first: broken.jpg"):
        index_folder(run, folder, tmp_path / "root")
    assert not list((tmp_path / "root").glob("indexes/*/*"))


def test_a_folder_of_nothing_but_corrupt_images_fails_whatever_is_allowed(run: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="1 of 1 photos cannot be read"):
        index_folder(run, tmp_path / "photos", tmp_path / "root", max_bad_frac=1)


def test_a_changed_folder_is_indexed_anew_and_an_unchanged_one_is_not(run: str, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").unlink()
    first = index_folder(run, folder, tmp_path / "root")
    assert index_folder(run, folder, tmp_path / "root").uri == first.uri
    (folder / "0.jpg").rename(folder / "renamed.jpg")
    assert index_folder(run, folder, tmp_path / "root").uri != first.uri


def test_no_link_is_followed_out_of_the_folder(run: str, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").unlink()
    (folder / "0.jpg").rename(tmp_path / "private.jpg")
    (folder / "0.jpg").symlink_to(tmp_path / "private.jpg")
    assert index_folder(run, folder, tmp_path / "root").manifest.counts["photos"] == 3


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "a/b", "..", "a\\b", "%2e%2e%2f"])
def test_the_name_of_an_index_leads_nowhere_else(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        IndexConfig.of({"name": name})


@pytest.fixture
def drawing(dataset: str, unseen: np.ndarray, tmp_path: Path) -> Path:
    """An indexed photo as the drawing."""
    file = tmp_path / "drawing.jpg"
    file.write_bytes(stored(dataset, int(unseen[5])))
    return file


def test_the_command_prints_a_table_best_first(index: Artifact, drawing: Path) -> None:
    head, first, *more = _parse([index.uri, str(drawing), "-k", "4", "--plain"]).splitlines()
    assert head.split() == ["rank", "score", "class", "path"]
    assert first.split()[:2] == ["1", "1.000"]
    assert len(more) == 3


def test_json_is_one_object_a_line_and_the_grid_a_picture(index: Artifact, drawing: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zsbir.search", index.uri, str(drawing), "-k", "5", "--plain", "--json", "--grid", "found.png"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2, 3, 4, 5]
    assert (hits[0]["item_id"], hits[0]["score"]) == (5, pytest.approx(1, abs=1e-4))
    assert set(hits[0]) == {"rank", "score", "item_id", "class_name", "path"}
    assert done.stderr == "picture: found.png\n"
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height


def test_an_index_searches_after_everything_it_was_made_from_is_gone(run: str, folder: Path, drawing: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").unlink()
    made = index_folder(run, folder, tmp_path / "root")
    moved = made.path.rename(tmp_path / "elsewhere")
    for file in sorted(folder.rglob("*.jpg")):
        file.unlink()
    searcher = Searcher(str(moved))
    assert len(searcher.search(read_drawing(drawing), 2)) == 2
    assert decode(searcher.thumbnail(0)).width > 0


def test_an_index_that_grew_has_the_vectors_of_one_made_at_once_and_is_searched_alike(
    run: str, folder: Path, tmp_path: Path, unseen: np.ndarray, dataset: str
) -> None:
    """With a real network: a photo has one vector, whether it came with others or alone."""
    root = Settings(root=str(tmp_path / "root"))
    (folder / "broken.jpg").unlink()
    last = folder / "summer" / "3.jpg"
    moved = last.rename(tmp_path / "3.jpg")
    grown = index_folder(run, folder, tmp_path / "root")
    moved.rename(last)
    (folder / "new.jpg").write_bytes(stored(dataset, int(unseen[5])))
    grown = update_index(grown.uri, "", GrowthConfig(), root)
    grown = delete_photos(grown.uri, ["0.jpg"], root)
    assert {name: grown.manifest.counts[name] for name in ("segments", "deleted", "photos")} == {
        "segments": 2,
        "deleted": 1,
        "photos": 4,
    }
    (folder / "0.jpg").unlink()
    fresh = index_folder(run, folder, tmp_path / "root")
    drawing = decode(stored(dataset, int(unseen[2])))
    hits = [[(hit.path, hit.score) for hit in Searcher(index.uri).search(drawing, 10)] for index in (grown, fresh)]
    assert sorted(hits[0]) == sorted(hits[1])
    assert len(hits[0]) == 4
    vectors = [np.sort(Searcher(index.uri).engine.files.living()[0], axis=0).tobytes() for index in (grown, fresh)]
    assert vectors[0] == vectors[1]


def test_promotion_checks_an_index_that_grew_as_any_other(run: str, folder: Path, tmp_path: Path) -> None:
    (folder / "broken.jpg").unlink()
    made = index_folder(run, folder, tmp_path / "root", precision="fp32")
    grown = delete_photos(made.uri, ["0.jpg"], Settings(root=str(tmp_path / "root")))
    verdict = try_index(grown, Artifact(run, "run"), PROTOCOLS["zero_shot"], seed=0, device=default_device(), arithmetic=autocast)
    assert (verdict.photos, verdict.photos_found_frac) == (3, 1)
    (folder / "1.jpg").unlink(missing_ok=True)
    (folder / "summer" / "1.jpg").unlink()
    lost = try_index(grown, Artifact(run, "run"), PROTOCOLS["zero_shot"], seed=0, device=default_device(), arithmetic=autocast)
    assert lost.first_lost == "summer/1.jpg"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "data set"])
def test_ray_workers_make_the_same_bytes(
    run: str, folder: Path, tmp_path: Path, head: dict[str, str], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    config = IndexConfig(gallery=str(folder) if source == "folder" else "", split="all", max_bad_frac=0.5)
    here = build_index(run, config, Settings(root=str(tmp_path / "here")))
    for name, value in head.items():
        monkeypatch.setenv(name, value)
    there = build_index(run, config, Settings(root=str(tmp_path / "there"), num_workers=2))
    assert there.manifest.files == here.manifest.files
    assert there.digest == here.digest
    again = reembed_index(here.uri, run, ReembedConfig(), Settings(root=str(tmp_path / "again"), num_workers=2))
    for name in ("vectors.npy", "items.parquet"):
        assert again.manifest.files[name] == here.manifest.files[name]
