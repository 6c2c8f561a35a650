import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import decode
from zsbir.data.samples import load_samples
from zsbir.data.schema import SAMPLES_SCHEMA, SHARD_SCHEMA
from zsbir.data.shards import Images
from zsbir.ingest import IngestConfig, Settings, _parse, ingest

CLASSES = ("ant", "bee", "cat", "dog", "elk")


def picture(seed, size=(40, 30), form="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Five classes of four photos and three sketches."""
    return fill(tmp_path / "Some Data")


def fill(root):
    for number, name in enumerate(CLASSES):
        for domain, suffix, count in (("photo", "jpg", 4), ("sketch", "png", 3)):
            (root / domain / name).mkdir(parents=True)
            for index in range(count):
                data = picture((number, index, len(suffix), len(domain)), form="PNG" if suffix == "png" else "JPEG")
                (root / domain / name / f"{index}.{suffix}").write_bytes(data)
    return root


def config(**changes):
    return IngestConfig.of({"layout": "folder", "unseen_classes": ("cat",), "dev_classes": ("bee",), **changes})


def run(folder, root, **changes):
    return ingest(config(**changes), str(folder), Settings(root=str(root), num_workers=2))


def test_a_folder_becomes_a_whole_dataset(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    assert dataset.path.parent == tmp_path / "root" / "datasets" / "some-data"
    assert dataset.path.name == dataset.digest[:16]
    dataset.verify()
    counts = dataset.manifest.counts
    assert (counts["samples"], counts["photos"], counts["sketches"], counts["classes"]) == (35, 20, 15, 5)
    assert (counts["train_classes"], counts["dev_classes"], counts["unseen_classes"]) == (3, 1, 1)
    assert (counts["unseen_photos"], counts["unseen_sketches"], counts["quarantined"]) == (4, 3, 0)
    classes = json.loads(dataset.file("classes.json").read_text())
    assert [entry["name"] for entry in classes] == list(CLASSES)
    assert classes[2] == {"class_id": 2, "name": "cat", "split": "unseen", "photos": 4, "sketches": 3}


def test_every_image_is_found_again_through_the_sample_table(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    samples = load_samples(dataset)
    images = Images(dataset, samples)
    assert samples.class_names == CLASSES
    for position in range(len(samples)):
        assert images.read(position) == (folder / str(samples.path[position])).read_bytes()
    assert {samples.class_names[c] for c in samples.classes("unseen")} == {"cat"}


def test_tables_have_the_published_schema_and_the_features_that_other_tools_read(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    assert pq.read_schema(dataset.file("samples.parquet")) == SAMPLES_SCHEMA
    schema = pq.read_schema(dataset.file("shards/part-00000.parquet"))
    assert schema.remove_metadata() == SHARD_SCHEMA
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["class_name"] == {"dtype": "string", "_type": "Value"}
    assert list(features) == SHARD_SCHEMA.names


def test_two_roots_and_two_places_give_the_same_digest(folder, tmp_path):
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, moved)
    first, second = run(folder, tmp_path / "a"), run(moved, tmp_path / "b", name="other")
    assert first.digest == second.digest
    assert str(tmp_path) not in (first.path / "manifest.json").read_text().replace(str(first.path), "")


def test_another_split_or_size_or_image_is_another_dataset(folder, tmp_path):
    digests = {run(folder, tmp_path / "root").digest}
    digests.add(run(folder, tmp_path / "root", unseen_classes=("dog",)).digest)
    digests.add(run(folder, tmp_path / "root", short_side_px=20).digest)
    (folder / "photo/ant/0.jpg").write_bytes(picture(99))
    digests.add(run(folder, tmp_path / "root").digest)
    assert len(digests) == 4


def test_a_second_run_returns_at_once_and_a_changed_file_does_not(folder, tmp_path, capsys):
    first = run(folder, tmp_path / "root")
    written = first.file("samples.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert run(folder, tmp_path / "root").uri == first.uri
    assert "nothing has changed" in capsys.readouterr().err
    assert first.file("samples.parquet").stat().st_mtime_ns == written
    (folder / "photo/ant/new.jpg").write_bytes(picture(7))
    assert run(folder, tmp_path / "root").uri != first.uri


def test_bad_images_are_quarantined_by_path_with_the_reason(folder, tmp_path, capsys):
    (folder / "photo/ant/zero.jpg").write_bytes(b"")
    (folder / "photo/ant/cut.jpg").write_bytes(picture(1, (200, 150))[:900])
    (folder / "sketch/dog/drawn.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("L", (50, 50), 255).save(folder / "sketch/elk/white.png")
    dataset = run(folder, tmp_path / "root", max_bad_frac=0.2)
    refused = {row["path"]: row for row in pq.read_table(dataset.file("quarantine.parquet")).to_pylist()}
    assert {path: row["reason"].split(":")[0] for path, row in refused.items()} == {
        "photo/ant/zero.jpg": "the file has zero bytes",
        "photo/ant/cut.jpg": "damaged",
        "sketch/dog/drawn.png": "an SVG drawing, not one of JPEG, PNG, WEBP, BMP, GIF, TIFF",
        "sketch/elk/white.png": "blank",
    }
    assert refused["sketch/elk/white.png"]["class_name"] == "elk"
    assert dataset.manifest.counts["quarantined"] == 4
    assert dataset.manifest.counts["samples"] == 35
    assert "4 of 39 images were refused" in capsys.readouterr().err


def test_too_many_bad_images_fail_and_the_whole_list_lies_beside(folder, tmp_path):
    for index in range(5):
        (folder / f"photo/ant/bad{index}.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"5 of 40 images are bad.*photo/ant/bad0.jpg") as caught:
        run(folder, tmp_path / "root", max_bad_frac=0.1)
    listing = tmp_path / "root/datasets/some-data/quarantine.tsv"
    assert str(listing) in str(caught.value)
    assert len(listing.read_text().splitlines()) == 5
    assert [path.name for path in listing.parent.iterdir()] == ["quarantine.tsv"], "nothing else is left behind"


def test_a_class_whose_every_photo_is_bad_is_an_error(folder, tmp_path):
    for file in (folder / "photo/ant").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="all photos of class 'ant' are bad"):
        run(folder, tmp_path / "root", max_bad_frac=1.0)


def test_large_images_are_stored_at_the_short_side_asked_for(folder, tmp_path):
    (folder / "photo/ant/large.jpg").write_bytes(picture(3, (400, 200)))
    dataset = run(folder, tmp_path / "root", short_side_px=100)
    rows = {row["path"]: row for row in pq.read_table(dataset.file("samples.parquet")).to_pylist()}
    assert (rows["photo/ant/large.jpg"]["width"], rows["photo/ant/large.jpg"]["height"]) == (200, 100)


def test_dedup_leaves_out_a_photo_with_the_bytes_of_another(folder, tmp_path):
    shutil.copy(folder / "photo/ant/0.jpg", folder / "photo/ant/again.jpg")
    kept = run(folder, tmp_path / "root")
    assert kept.manifest.counts["photos"] == 21
    assert kept.manifest.facts["findings"][0]["check"] == "repeated images"
    assert run(folder, tmp_path / "root", dedup=True).manifest.counts["photos"] == 20


def test_a_split_file_is_replaced_by_the_names_in_it(folder, tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"unseen": ["cat"], "seen": ["ant", "bee", "dog"], "dev": ["bee"]}))
    dataset = run(folder, tmp_path / "root", unseen_classes=(str(file),), dev_classes=())
    assert dataset.manifest.config["unseen_classes"] == ["cat"]
    assert dataset.manifest.config["dev_classes"] == ["bee"]
    assert dataset.manifest.counts["classes"] == 4, "elk is neither seen nor unseen"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unseen_classes": ("cta",)}, "unknown unseen class 'cta'; did you mean 'cat'"),
        ({"unseen_classes": ()}, "--unseen-classes"),
        ({"unseen_frac": 0.5}, "exclude each other"),
        ({"dev_classes": ("cat",)}, "unknown dev class"),
        ({"name": "../up"}, "name"),
        ({"name": "/abs"}, "name"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_input_error(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path / "root", **changes)
    assert not (tmp_path / "root").exists()


@pytest.fixture
def lists(folder):
    """The same folder, with the community's lists of one image a class and domain."""
    (folder / "zeroshot").mkdir()
    for ending, names in (("train", ("ant", "bee", "dog")), ("zero", ("cat",))):
        for kind, domain, suffix in (("all_photo", "photo", "jpg"), ("sketch", "sketch", "png")):
            rows = [f"{domain}/{name}/0.{suffix} {label}\n" for label, name in enumerate(names)]
            (folder / "zeroshot" / f"{kind}_{ending}.txt").write_text("".join(rows))
    return folder


BY_LISTS = {"layout": "lists", "unseen_classes": (), "dev_classes": (), "dev_frac": 0.0}


def test_lists_split_the_classes_and_leave_nothing_to_say(lists, tmp_path):
    dataset = run(lists, tmp_path / "root", **BY_LISTS)
    splits = {entry["name"]: entry["split"] for entry in json.loads(dataset.file("classes.json").read_text())}
    assert splits == {"ant": "train", "bee": "train", "cat": "unseen", "dog": "train"}
    with pytest.raises(InputError, match="lists already say"):
        run(lists, tmp_path / "root", layout="lists")


def test_a_listed_file_that_is_gone_is_quarantined(lists, tmp_path):
    with (lists / "zeroshot/all_photo_zero.txt").open("a") as lines:
        lines.write("photo/cat/gone.jpg 0\n")
    dataset = run(lists, tmp_path / "root", **BY_LISTS, max_bad_frac=0.5)
    assert pq.read_table(dataset.file("quarantine.parquet")).to_pylist()[0]["reason"] == "cannot be read: No such file or directory"


def test_the_toy_needs_nothing_but_the_command(tmp_path, capsys):
    argv = ["toy", "--toy-photos-per-class", "3", "--toy-sketches-per-class", "2", "--toy-px", "32", "--root", str(tmp_path)]
    uri = _parse(argv)
    dataset = Artifact(uri, "dataset")
    assert dataset.manifest.name == "toy"
    assert (dataset.manifest.counts["photos"], dataset.manifest.counts["sketches"]) == (87, 58)
    assert dataset.manifest.counts["unseen_classes"] == 7
    row = pq.read_table(dataset.file("shards/part-00000.parquet")).to_pylist()[0]
    assert decode(row["image"]["bytes"]).size == (32, 32)
    assert _parse(argv) == uri


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fodler", "x"], "did you mean 'folder'"),
        (["folder"], "needs a path"),
        (["toy", "x"], "leave the path away"),
        (["folder", "/nowhere/at/all", "--unseen-frac", "0.2"], "no folder at"),
        (["toy", "--dev-fraction", "0.2"], "did you mean '--dev-frac'"),
        (["toy", "--dev-frac", "2"], "dev_frac"),
    ],
)
def test_a_wrong_command_line_says_the_way_out(tmp_path, argv, message):
    with pytest.raises(InputError, match=message):
        _parse([*argv, "--root", str(tmp_path)])


def test_a_killed_ingest_leaves_nothing_that_looks_whole(tmp_path):
    words = [sys.executable, "-m", "zsbir.ingest", "toy", "--root", str(tmp_path), "--toy-photos-per-class", "400"]
    process = subprocess.Popen(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("datasets/toy/.writing-*/shards/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("datasets/toy/.writing-*/shards/*")), "it was killed in the middle"
    assert not list(tmp_path.glob("datasets/toy/*/manifest.json"))
    assert not [path for path in tmp_path.glob("datasets/toy/*") if not path.name.startswith(".")]


@pytest.mark.realdata
def test_the_real_set_is_read_whole(shared, tmp_path):
    root = shared / "data/caltech_qd60"
    dataset = ingest(
        IngestConfig(layout="folder", unseen_classes=(str(root / "split_nonimagenet.json"),)),
        str(root),
        Settings(root=str(tmp_path)),
    )
    counts = dataset.manifest.counts
    assert (counts["photos"], counts["sketches"], counts["unseen_photos"], counts["unseen_sketches"]) == (6353, 2833, 1252, 758)
