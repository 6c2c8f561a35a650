"""Indexes of a data set's photos: sketches to try them with, originals, and growth."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put
from hostile import jpeg, png_of_size
from index_photos import DIMENSIONS, small_run
from pictures import encoded, picture

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import decode
from zsbir.data.index_files import IndexFiles
from zsbir.data.originals import NoOriginal
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.index import GrowthConfig, IndexConfig, add_photos, build_index, compact_index
from zsbir.retrieval.graph_facts import graph_facts_of


@pytest.fixture
def index(dataset, tmp_path, root):
    """An index of the unseen photos of the drawn data set."""
    run = small_run(tmp_path, root.root, dataset=Artifact(dataset, "dataset"))
    return build_index(run.uri, IndexConfig(), root)


def test_it_keeps_a_sketch_of_each_of_up_to_twelve_classes_and_so_does_what_it_grows_into(index, dataset, photos, root):
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    classes = {samples.class_names[class_id] for class_id in samples.classes("unseen")}
    files = IndexFiles(index, DIMENSIONS)
    assert {example.class_name for example in files.examples} == classes
    assert len(files.examples) == len(classes) <= 12
    first = next(
        position
        for position in samples.select(split="unseen", domain="sketch")
        if samples.class_names[samples.class_id[position]] == files.examples[0].class_name
    )
    stored = decode(Images(opened, samples).read(int(first))).convert("L")
    assert decode(files.examples[0].image).convert("L").tobytes() == stored.tobytes(), "smaller than 256 pixels, it is as it was"
    grown = add_photos(index.uri, str(photos.path), GrowthConfig(), root)
    for made in (grown, compact_index(grown.uri, root)):
        assert IndexFiles(made, DIMENSIONS).examples == files.examples


def test_its_graph_is_measured_on_its_sketches_also_after_it_has_grown(index, root, photos):
    linked = compact_index(index.uri, root, graph=True)
    sketches = f"{len(IndexFiles(index, DIMENSIONS).examples)} sketches of the data set"
    assert graph_facts_of(linked).measured_on == sketches
    made = build_index(index.manifest.inputs["run"]["uri"], IndexConfig(graph=True), root)
    assert graph_facts_of(made).measured_on == sketches
    grown = compact_index(add_photos(linked.uri, str(photos.path), GrowthConfig(), root).uri, root, graph=True)
    assert graph_facts_of(grown).measured_on == sketches


def test_originals_are_read_from_the_data_set_and_from_the_folder(index, dataset, photos, root):
    samples = load_samples(Artifact(dataset, "dataset"))
    images = Images(Artifact(dataset, "dataset"), samples)
    grown = add_photos(index.uri, str(photos.path), GrowthConfig(), root)
    for made in (grown, compact_index(grown.uri, root)):
        files = IndexFiles(made, DIMENSIONS)
        assert files.source == ""
        for position in samples.select(split="unseen", domain="photo")[[0, -1]].tolist():
            row = files.paths.to_pylist().index(samples.path[position])
            assert files.original(row) == images.read(position)
            assert files.source_of(row) == ""
        row = files.paths.to_pylist().index("a/1.png")
        assert files.original(row) == (photos.path / "a/1.png").read_bytes()
        assert files.source_of(row) == str(photos.path)


def test_an_original_that_is_gone_too_large_or_elsewhere_is_an_error_of_one_line(photos, run, root, tmp_path, monkeypatch):
    index = photos.index(run, root)
    files = IndexFiles(index, DIMENSIONS)
    assert files.source == str(photos.path)
    paths = files.paths.to_pylist()
    photos.remove("a/0.png")
    with pytest.raises(NoOriginal, match=r"the photo 'a/0\.png' of .* cannot be read: it is gone"):
        files.original(paths.index("a/0.png"))
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    (photos.path / "a/0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="leads out of the folder"):
        files.original(paths.index("a/0.png"))
    monkeypatch.setattr("zsbir.base.limits.ORIGINAL_BYTES", 10)
    with pytest.raises(InputError, match="more than the 10 bytes"):
        files.original(paths.index("a/1.png"))


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "a//b.png", "a/../../secret.png", "a\\b.png", ""])
def test_no_path_of_an_index_leads_out_of_its_folder(photos, run, root, tmp_path, path):
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    index = photos.index(run, root)
    table = pq.read_table(index.file("items.parquet"))
    table = table.set_column(1, "path", pa.array([path, *table["path"].to_pylist()[1:]]))
    files = {"items.parquet": parquet(table), "vectors.npy": index.file("vectors.npy").read_bytes()}
    evil = put(root.root, "index", "evil", files=files, inputs=dict(index.manifest.inputs), config=IndexConfig(gallery="x"))
    with pytest.raises(InputError) as error:
        IndexFiles(evil, DIMENSIONS).original(0)
    assert "\n" not in str(error.value)


def parquet(table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("image", "count", "reason"),
    [
        (jpeg(), 1, "sketch 0 is no PNG file"),
        (png_of_size(60_000, 60_000), 1, "sketch 0 cannot be shown"),
        (encoded(picture()) + bytes(2**20), 1, "sketch 0 is no PNG file of at most"),
        (encoded(picture())[:60], 1, "sketch 0 cannot be shown"),
        (encoded(picture()), 65, "holds 65 sketches, more than the 64"),
    ],
)
def test_examples_of_a_stranger_are_a_few_small_png_files(photos, run, root, image, count, reason):
    index = photos.index(run, root)
    table = pa.table({"class_name": ["bear"] * count, "image": pa.array([image] * count, pa.binary())})
    files = {name: index.file(name).read_bytes() for name in ("items.parquet", "vectors.npy")}
    evil = put(root.root, "index", "evil", files={**files, "examples.parquet": parquet(table)})
    with pytest.raises(InputError, match=reason) as error:
        _ = IndexFiles(evil, DIMENSIONS).examples
    assert "\n" not in str(error.value)


def test_sketches_of_a_stranger_that_are_none_are_no_queries_for_a_graph(index, root):
    table = pa.table({"class_name": ["bear"], "image": pa.array([b"no picture"], pa.binary())})
    files = {name: index.file(name).read_bytes() for name in index.manifest.files} | {"examples.parquet": parquet(table)}
    more = {"config": IndexConfig.of(index.manifest.config), "inputs": dict(index.manifest.inputs)}
    evil = put(root.root, "index", "evil", files=files, counts=dict(index.manifest.counts), **more)
    with pytest.raises(InputError, match="sketch 0 is no PNG file") as error:
        compact_index(evil.uri, root, graph=True)
    assert "\n" not in str(error.value)
