import io
import json
import os
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from pictures import drawing
from PIL import Image, ImageOps

from zsbir import artifacts
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.s3 import S3Folder
from zsbir.data import blocks
from zsbir.data.images import decode
from zsbir.data.packing import Packer
from zsbir.data.samples import load_samples
from zsbir.data.schema import SAMPLES_SCHEMA, SHARD_SCHEMA, shard_name
from zsbir.data.shards import Images
from zsbir.data.trees import open_tree
from zsbir.ingest import IngestConfig, Settings, _parse, ingest
from zsbir.ingestion.plan import plan_dataset
from zsbir.storage_admin.format import format_artifact

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
    return ingest(config(**changes), str(folder), Settings(root=str(root), threads=2))


def test_a_folder_becomes_a_whole_dataset(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    assert dataset.path.parent == tmp_path / "root" / "datasets" / "some-data"
    assert dataset.path.name == dataset.manifest.facts["source_fingerprint"][:16]
    dataset.verify()
    named = {"manifest.json", *dataset.manifest.files}
    assert {path.relative_to(dataset.path).as_posix() for path in dataset.path.rglob("*") if path.is_file()} == named
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
        "sketch/dog/drawn.png": "an SVG drawing",
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
    assert not list(listing.parent.glob("*/manifest.json")), "no data set is left behind"
    assert not list(listing.parent.rglob(".writing-*"))


def test_with_more_bad_images_allowed_what_was_packed_is_used(folder, tmp_path, capsys):
    (folder / "photo/ant/bad.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1 of 36 images are bad, more than --max-bad-frac 0\.01"):
        run(folder, tmp_path / "root")
    capsys.readouterr()
    dataset = run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert "36 of 36 images are packed already" in capsys.readouterr().err
    assert dataset.manifest.counts["quarantined"] == 1
    assert run(folder, tmp_path / "root", max_bad_frac=0.2).uri == dataset.uri
    with pytest.raises(InputError, match=r"1 of 36 images are bad.*the whole list is in"):
        run(folder, tmp_path / "root")


def test_it_ends_as_soon_as_too_many_are_bad_for_sure(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    for file in (folder / "photo/ant").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"4 of the first 4 of 35 images are bad.*the list so far is in .*quarantine.tsv"):
        run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert len((tmp_path / "root/datasets/some-data/quarantine.tsv").read_text().splitlines()) == 4


def test_a_class_whose_every_photo_is_bad_is_an_error(folder, tmp_path):
    for file in (folder / "photo/ant").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="class 'ant' has no usable photos"):
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
        (["toy", "x"], "leave out the path"),
        (["folder", "/nowhere/at/all", "--unseen-frac", "0.2"], "no folder at"),
        (["toy", "--dev-fraction", "0.2"], "did you mean '--dev-frac'"),
        (["toy", "--dev-frac", "2"], "dev_frac"),
    ],
)
def test_a_wrong_command_line_says_the_way_out(tmp_path, argv, message):
    with pytest.raises(InputError, match=message):
        _parse([*argv, "--root", str(tmp_path)])


def files(dataset):
    """The bytes of all that the manifest names."""
    return {name: dataset.file(name).read_bytes() for name in dataset.manifest.files}


def test_a_block_is_a_shard_and_sample_ids_are_places_in_the_plan(folder, tmp_path, monkeypatch):
    (folder / "photo/ant/2.jpg").write_bytes(b"")
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    dataset = run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert [name for name in dataset.manifest.files if name.startswith("shards/")] == [shard_name(n) for n in range(9)]
    table = pq.read_table(dataset.file("samples.parquet"))
    assert table["sample_id"].to_pylist() == [number for number in range(35) if number != 2]
    assert table["shard"].to_pylist() == [number // 4 for number in range(35) if number != 2]
    samples = load_samples(dataset)
    images = Images(dataset, samples)
    for position in range(len(samples)):
        assert images.read(position) == (folder / str(samples.path[position])).read_bytes()


def test_a_block_with_nothing_good_has_no_shard(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 2)
    for name in ("0.jpg", "1.jpg"):
        (folder / "photo/ant" / name).write_bytes(b"")
    dataset = run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert "shards/part-00000.parquet" not in dataset.manifest.files
    assert len(load_samples(dataset)) == 33


def test_how_it_is_cut_does_not_change_the_content(folder, tmp_path, monkeypatch):
    whole = run(folder, tmp_path / "whole")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1500)
    cut = run(folder, tmp_path / "cut")
    assert len(cut.manifest.files) > len(whole.manifest.files) + 3
    assert cut.digest == whole.digest
    assert cut.uri.rpartition("/")[2] != whole.uri.rpartition("/")[2]


@pytest.mark.parametrize("threads", [1, 8])
def test_the_number_of_threads_changes_nothing(folder, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    root = Settings(root=str(tmp_path / "many"), threads=threads)
    assert files(ingest(config(), str(folder), root)) == files(run(folder, tmp_path / "root"))


def test_repeated_photos_are_found_however_the_rest_is_cut(folder, tmp_path, monkeypatch):
    for number in range(5):
        shutil.copy(folder / "photo/cat/0.jpg", folder / f"photo/cat/again{number}.jpg")
    whole = run(folder, tmp_path / "whole", dedup=True)
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 2)
    cut = run(folder, tmp_path / "cut", dedup=True)
    assert cut.manifest.counts["photos"] == whole.manifest.counts["photos"] == 20
    assert cut.digest == whole.digest


def test_an_interrupted_ingest_goes_on_where_it_was(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 2)
    packed = Packer.pack

    def some(self, wanted, advance):
        for number, record in enumerate(packed(self, wanted, advance)):
            if number == 5:
                raise KeyboardInterrupt
            yield record

    with monkeypatch.context() as patch:
        patch.setattr(Packer, "pack", some)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "root")
    assert not list((tmp_path / "root").rglob("manifest.json"))
    capsys.readouterr()
    resumed = run(folder, tmp_path / "root")
    said = capsys.readouterr().err
    done = int(re.search(r"(\d+) of 35 images are packed already", said)[1])
    assert 10 <= done < 35
    assert f"ingest: {35 - done} images in" in said
    assert files(resumed) == files(run(folder, tmp_path / "undisturbed"))


def test_files_that_were_touched_are_found_to_be_the_same(folder, tmp_path, capsys):
    first = run(folder, tmp_path / "root")
    for file in folder.rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert run(folder, tmp_path / "root").uri == first.uri
    assert "files have new times" in capsys.readouterr().err
    assert [path.name for path in first.path.parent.iterdir()] == [first.path.name], "what was published is removed"


def test_records_that_a_killed_run_left_beside_a_whole_data_set_are_removed(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    (dataset.path / ".parts").mkdir()
    (dataset.path / ".parts/00000.arrow").write_bytes(b"")
    assert run(folder, tmp_path / "root").uri == dataset.uri
    assert not (dataset.path / ".parts").exists()


def test_a_shard_that_is_no_longer_what_its_record_says_is_packed_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    with monkeypatch.context() as patch:
        patch.setattr("zsbir.ingestion.dataset._finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "root")
    shards = sorted((tmp_path / "root").rglob("*.parquet"))
    shards[1].unlink()
    shards[2].write_bytes(b"cut")
    dataset = run(folder, tmp_path / "root")
    dataset.verify()
    whole = run(folder, tmp_path / "undisturbed")
    assert files(dataset) == files(whole)
    assert list(dataset.manifest.stored_as) == [shard_name(2)], "a file that is there is never written over"


def test_workers_of_another_version_are_told_of(folder, tmp_path, monkeypatch):
    def pack(self, wanted, advance):
        for _ in wanted:
            yield b"a record of another version"

    monkeypatch.setattr(Packer, "pack", pack)
    with pytest.raises(RunError, match="the workers have other versions than this process"):
        run(folder, tmp_path / "root")


def interrupted(*args):
    raise KeyboardInterrupt


def test_a_store_that_ignores_conditions_is_gone_on_with_too(folder, tmp_path, moto, monkeypatch):
    """There every file has a key of its own, and the manifest names it."""
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(S3Folder, "_honours_conditions", lambda self: False)
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    root = f"s3://{moto.new_bucket()}/root"
    with monkeypatch.context() as patch:
        patch.setattr("zsbir.ingestion.dataset._finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(folder, root)
    stored = run(folder, root)
    assert set(stored.manifest.stored_as) == set(stored.manifest.files)
    assert len(list(stored.folder.walk())) == 1 + len(stored.manifest.files), "nothing was packed or put twice"
    assert files(stored) == files(run(folder, tmp_path / "local"))


def test_images_and_data_set_may_lie_in_object_storage(folder, tmp_path, moto, monkeypatch):
    for name, value in moto.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 4)
    (folder / "photo/ant/bad.jpg").write_bytes(b"not an image")
    bucket = moto.new_bucket()
    for file in folder.rglob("*.*"):
        moto.client().put_object(Bucket=bucket, Key=f"some-data/{file.relative_to(folder).as_posix()}", Body=file.read_bytes())
    root = f"s3://{bucket}/root"
    with pytest.raises(InputError, match=f"the list so far is in {root}/datasets/some-data/quarantine.tsv"):
        ingest(config(), f"s3://{bucket}/some-data", Settings(root=root))
    stored = ingest(config(max_bad_frac=0.1), f"s3://{bucket}/some-data", Settings(root=root))
    local = run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert stored.uri.startswith(f"{root}/datasets/some-data/")
    assert stored.digest == local.digest
    assert files(stored) == files(local)
    listed = {entry.key for entry in stored.folder.walk()}
    assert listed == {"manifest.json", *stored.manifest.files}
    assert ingest(config(max_bad_frac=0.1), f"s3://{bucket}/some-data", Settings(root=root)).uri == stored.uri


@pytest.mark.slow
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


def test_what_was_passed_over_is_printed_counted_and_kept(folder, tmp_path, capsys):
    for path in ("photo/ant/a.heic", "photo/ant/b.heic", "photo/.DS_Store", "sketch/bee/deep/1.png", "photo/new\nline.jpg"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(picture(1))
    (folder / "photo" / os.fsdecode(b"gn\xfc")).mkdir()
    dataset = run(folder, tmp_path / "root")
    said = capsys.readouterr().err
    assert f"warning: passed over in {folder}: 6, by reason" in said
    assert re.search(r" 2  \.heic is not read: convert it to JPEG or PNG +photo/ant/a\.heic, photo/ant/b\.heic\n", said)
    assert r"photo/new\nline.jpg" in said
    assert dataset.manifest.counts["passed_over"] == 6
    facts = dataset.manifest.facts["passed_over"]
    assert facts[0] == {
        "reason": ".heic is not read: convert it to JPEG or PNG",
        "count": 2,
        "examples": ["photo/ant/a.heic", "photo/ant/b.heic"],
    }
    listed = {row["path"]: row["reason"] for row in pq.read_table(dataset.file("passed_over.parquet")).to_pylist()}
    assert len(listed) == 6
    assert listed[r"photo/gn\xfc/"].startswith("a name that is not UTF-8")
    shown = format_artifact(dataset)
    assert "      2 .heic is not read: convert it to JPEG or PNG: photo/ant/a.heic, photo/ant/b.heic" in shown
    assert run(folder, tmp_path / "root").uri == dataset.uri
    assert "passed over in" in capsys.readouterr().err, "also when the data set is there already"


def test_litter_leaves_the_plan_and_content_of_a_data_set_as_they_are(folder, tmp_path):
    before = run(folder, tmp_path / "root")
    (folder / "photo/ant/@eaDir/0.jpg").mkdir(parents=True)
    (folder / "photo/ant/@eaDir/0.jpg/SYNOFILE_THUMB_M.jpg").write_bytes(picture(1))
    (folder / "photo/ant/._0.jpg").write_bytes(b"\0\5\x16\7")
    assert run(folder, tmp_path / "root").uri == before.uri
    assert run(folder, tmp_path / "other").digest == before.digest


def test_photos_that_dedup_leaves_out_are_named(folder, tmp_path):
    shutil.copy(folder / "photo/ant/0.jpg", folder / "photo/ant/again.jpg")
    (folder / "photo/ant/bad.jpg").write_bytes(b"")
    dataset = run(folder, tmp_path / "root", dedup=True, max_bad_frac=0.1)
    assert pq.read_table(dataset.file("passed_over.parquet")).to_pylist() == [
        {"path": "photo/ant/again.jpg", "reason": "a photo whose bytes came before in its class (--dedup)"}
    ]


def test_a_class_that_is_neither_seen_nor_unseen_is_named(folder, tmp_path):
    dataset = run(folder, tmp_path / "root", seen_classes=("ant", "bee", "dog"))
    assert dataset.manifest.facts["passed_over"] == [
        {
            "reason": "of a class that is neither seen nor unseen",
            "count": 7,
            "examples": ["photo/elk/0.jpg", "photo/elk/1.jpg", "photo/elk/2.jpg"],
        }
    ]


def test_reasons_of_refused_images_are_printed_by_reason_and_listed_one_a_line(folder, tmp_path, capsys):
    for name in ("a.jpg", "b.jpg", "new\nline.jpg"):
        (folder / "photo/ant" / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="3 of 38 images are bad"):
        run(folder, tmp_path / "root")
    listing = (tmp_path / "root/datasets/some-data/quarantine.tsv").read_text().splitlines()
    pointer = "a Git LFS pointer instead of the file itself: run git lfs pull"
    assert listing[2] == rf"photo/ant/new\nline.jpg	{pointer}"
    run(folder, tmp_path / "root", max_bad_frac=0.1)
    assert re.search(rf" 3  {pointer}  photo/ant/a\.jpg, ", capsys.readouterr().err)


def test_sketches_that_are_light_on_dark_are_found_and_stored_dark_on_light_when_asked(folder, tmp_path):
    light = drawing()
    for number in range(3):
        ImageOps.invert(light).save(folder / f"sketch/dog/{number}.png")
    found = run(folder, tmp_path / "root")
    finding = next(finding for finding in found.manifest.facts["findings"] if finding["check"] == "inverted sketches")
    assert finding["message"].startswith("3 of 15 sketches, in 1 classes, such as sketch/dog/0.png, are light strokes")
    turned = run(folder, tmp_path / "root", invert_sketches=True)
    assert turned.digest != found.digest
    samples = load_samples(turned)
    images = Images(turned, samples)
    for position in np.flatnonzero(np.char.startswith(samples.path.astype(str), "sketch/dog/")):
        assert np.array_equal(np.asarray(decode(images.read(int(position))))[..., 0], np.asarray(light))


def test_a_setting_that_is_newer_than_a_data_set_leaves_its_plan_as_it_was(folder):
    plans = [plan_dataset(config(**changes), open_tree(folder)).fingerprint for changes in ({}, {"invert_sketches": False})]
    assert plans[0] == plans[1] != plan_dataset(config(invert_sketches=True), open_tree(folder)).fingerprint


def test_the_classes_of_each_split_and_what_was_passed_over_are_printed_at_the_end_and_shown_again(folder, tmp_path, capsys):
    """Two classes lack a domain, a photo lies in no class's folder and another in a folder too deep."""
    shutil.rmtree(folder / "sketch/ant")
    shutil.rmtree(folder / "photo/elk")
    shutil.copy(folder / "photo/cat/0.jpg", folder / "photo/loose.jpg")
    (folder / "photo/dog/sub").mkdir()
    (folder / "photo/dog/0.jpg").rename(folder / "photo/dog/sub/x.jpg")
    for name in "fg":
        shutil.copytree(folder / "photo/bee", folder / "photo" / name)
        shutil.copytree(folder / "sketch/bee", folder / "sketch" / name)
    words = [str(folder), "--unseen-classes", "cat", "--dev-classes", "bee", "--skip-incomplete", "--root", str(tmp_path / "root")]
    uri = _parse(["folder", *words])
    classes = """\
split     classes     photos   sketches
train           3         11          9
dev             1          4          3
unseen          1          4          3
all             5         19         15
unseen: cat
  dog  train           3          3
  f    train           4          3
  g    train           4          3
  bee  dev             4          3
  cat  unseen          4          3
"""
    told = capsys.readouterr().err
    passed = "4 a photo of a class without the other domain (--skip-incomplete)"
    assert f"{classes}passed over: {passed}; 3 a sketch of a class without" in told
    assert told.endswith("; 1 in a folder within that of its class: move it up; 1 not in the folder of a class\n")
    assert "photo/loose.jpg" in told
    assert "photo/dog/sub/x.jpg" in told
    shown = artifacts._parse(["show", uri])
    assert classes in f"{shown}\n"
    assert "4 a photo of a class without the other domain (--skip-incomplete): photo/ant/0.jpg" in shown
    assert _parse(["folder", *words]) == uri
    assert classes in capsys.readouterr().err, "also where nothing has changed"


def test_a_damaged_list_of_classes_hides_nothing_else_of_a_data_set(folder, tmp_path):
    dataset = run(folder, tmp_path / "root")
    dataset.file("classes.json").write_text("[]")
    shown = artifacts._parse(["show", dataset.uri])
    assert "not shown: " in shown
    assert "classes.json differs from its manifest" in shown
    assert "source fingerprint" in shown


def test_a_single_unseen_class_is_pointed_out_before_anything_is_trained(folder, tmp_path, capsys):
    run(folder, tmp_path / "root")
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ") and "is the only" in line]
    assert [line.split()[1] for line in warnings] == ["'cat'", "'bee'"]
    run(folder, tmp_path / "other", unseen_classes=(), unseen_frac=0.01, dev_classes=(), dev_frac=0.0)
    assert "is the only" not in capsys.readouterr().err, "a share draws two classes at least"
