"""Readers of files that strangers make: whatever the bytes are, the answer is a value within bounds or one clean error."""

from __future__ import annotations

import io
import json

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put
from fuzz.fuzzing import LENGTHS, Unchecked, fuzz, head_changed, json_changed
from PIL import Image

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.manifest import MANIFEST, checked_file_name, references
from zsbir.data.images import BadImage, decode
from zsbir.data.index_files import IndexFiles, open_vectors
from zsbir.data.knowledge import KNOWLEDGE_SCHEMA, load_knowledge
from zsbir.data.layouts import scan
from zsbir.data.samples import load_samples
from zsbir.data.schema import SAMPLES_SCHEMA
from zsbir.data.splits import read_lists
from zsbir.data.trees import open_tree


@LENGTHS
def test_manifests(tmp_path, seconds):
    inputs = {"run": {"uri": "/r/runs/x", "digest": "1"}}
    plain = put(tmp_path, "report", inputs=inputs, counts={"n": 1}, facts={"f": [1, {}]})
    text = plain.folder.read(MANIFEST)
    values = json.loads(text)
    evil = [{**values, "stored_as": {"one.bin": "../../x"}}, {**values, "files": {"/etc/passwd": values["files"]["one.bin"]}}]

    def read(data: bytes) -> None:
        (plain.path / MANIFEST).write_bytes(data)
        manifest = Artifact(plain.uri).manifest
        for name in manifest.files:
            assert checked_file_name(name) == name
            assert (plain.path / manifest.key(name)).resolve().is_relative_to(plain.path)
        assert not any(".." in reference.uri.split("/") for reference in references(manifest))
        json.dumps(manifest.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()

    fuzz([text, *(json.dumps(value).encode() for value in evil)], read, InputError, seconds, json_changed)


def parquet(table: pa.Table, **options) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def forms(table: pa.Table) -> list[bytes]:
    """Return a table in several forms of Parquet."""
    return [
        parquet(table, row_group_size=7),
        parquet(table, compression="zstd", use_dictionary=False),
        parquet(table, compression="none", data_page_version="2.0", data_page_size=64),
        parquet(table, compression="gzip", version="1.0", write_statistics=False),
    ]


@LENGTHS
def test_parquet_items_of_an_index(tmp_path, seconds):
    rows = 8
    thumbnails = pa.array([hostile.jpeg(16, 16)] * rows, pa.binary())
    table = pa.table(
        {"item_id": range(rows), "path": [f"{n}.jpg" for n in range(rows)], "class_name": ["cup"] * rows, "thumbnail": thumbnails}
    )
    vectors = hostile.npy(f"({rows}, 4)", data=bytes(16 * rows))
    made = put(tmp_path, "index", files={"vectors.npy": vectors, "items.parquet": parquet(table)})
    bomb = parquet(table.set_column(1, "path", pa.array(["x" * 20_000] * rows)), compression="zstd")

    def read(data: bytes) -> None:
        (made.path / "items.parquet").write_bytes(data)
        files = IndexFiles(Unchecked(made.uri), 4)
        assert all(isinstance(path, str) for path in files.paths.to_pylist())
        image = files.thumbnail_image(rows - 1)
        assert image.width * image.height <= limits.THUMBNAIL_PIXELS

    fuzz([*forms(table), bomb], read, InputError, seconds)


@LENGTHS
def test_parquet_samples(tmp_path, seconds):
    rows = 20
    values = {"int64": range(rows), "int32": range(rows), "string": [f"text {n}" for n in range(rows)]}
    columns = {field.name: pa.array(values[str(field.type)], field.type) for field in SAMPLES_SCHEMA}
    columns |= {"domain": pa.array(["photo", "sketch"] * (rows // 2)), "split": pa.array(["train", "unseen"] * (rows // 2))}
    table = pa.table(columns).cast(SAMPLES_SCHEMA)
    made = put(tmp_path, "dataset", files={"samples.parquet": parquet(table)})

    def read(data: bytes) -> None:
        (made.path / "samples.parquet").write_bytes(data)
        samples = load_samples(Unchecked(made.uri))
        assert len(samples.class_names) <= limits.CLASSES
        assert len(samples) == len(samples.path) == len(samples.row)

    fuzz(forms(table), read, InputError, seconds)


@LENGTHS
def test_parquet_knowledge(tmp_path, seconds):
    row = {"class_name": "cup", "photos": 3, "entropy_nats": 0.5, "top_labels": ["a"], "top_probabilities": [0.5]}
    rows = [{"class_id": number, **row, "distribution": [0.1] * 10} for number in range(10)]
    table = pa.Table.from_pylist(rows, KNOWLEDGE_SCHEMA)
    dataset = put(tmp_path, "dataset")
    made = put(tmp_path, "knowledge", files={"knowledge.parquet": parquet(table)}, inputs={"dataset": dataset})

    def read(data: bytes) -> None:
        (made.path / "knowledge.parquet").write_bytes(data)
        found = load_knowledge(Unchecked(made.uri), dataset)
        assert len({len(distribution) for distribution in found.values()}) == 1

    fuzz(forms(table), read, InputError, seconds)


@LENGTHS
def test_npy_headers(tmp_path, seconds):
    good = io.BytesIO()
    np.save(good, np.zeros((6, 4), np.float32))
    evil = [hostile.npy("(6, 4)", data=bytes(96)), hostile.npy("(1000000000000, 4)"), hostile.npy("(6, 4)", "'|O'")]

    def read(data: bytes) -> None:
        (tmp_path / "vectors.npy").write_bytes(data)
        found = open_vectors(tmp_path / "vectors.npy", 4, "the vectors")
        assert found.dtype == np.float32
        assert found.nbytes <= len(data)
        found.sum()

    fuzz([good.getvalue(), *evil], read, InputError, seconds, head_changed)


@LENGTHS
@pytest.mark.parametrize("name", ["unseen.txt", "split.json"])
def test_class_lists(tmp_path, name, seconds):
    texts = [b"alarm clock\n\n t-shirt \n", "grüße\r\n猫\n".encode(), b"\xef\xbb\xbfcup\n", b"\xff\xfec\0"]
    splits = [json.dumps({"unseen": ["a"], "seen": ["b", "c"], "dev": ["c"]}).encode(), b'{"unseen": ["\\ud800"]}', b"[" * 5000]

    def read(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        lists = read_lists(tmp_path / name)
        assert all(text.strip() for text in (*lists.unseen, *lists.seen, *lists.dev))

    fuzz(texts if name.endswith("txt") else splits, read, InputError, seconds)


@LENGTHS
def test_lists_of_images(tmp_path, seconds):
    lists = tmp_path / "zeroshot"
    lists.mkdir()
    for path in ("photo/cup/1.jpg", "sketch/cup/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(hostile.jpeg())
    good = {
        lists / "cname_cid.txt": b"cup 0\n",
        lists / "all_photo_filelist_train.txt": b"photo/cup/1.jpg 0\n",
        lists / "sketch_filelist_train.txt": b"sketch/cup/1.png 0\n",
    }
    evil = [b"../../../etc/passwd 0\n", b"/etc/passwd 0\n", b"cup 99999999999999999999\n", b"photo/cup/1.jpg\n"]

    def read(data: bytes) -> None:
        """Read the lists with one of them changed."""
        for file, text in good.items():
            file.write_bytes(text)
        example = next((file for file, text in good.items() if text == data), list(good)[len(data) % 3])
        example.write_bytes(data)
        for source in scan("lists", open_tree(tmp_path)):
            assert (tmp_path / source.path).resolve().is_relative_to(tmp_path)

    fuzz([*good.values(), *evil], read, (InputError, OSError), seconds)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@LENGTHS
def test_image_headers(seconds):
    noise = Image.effect_noise((40, 30), 60)
    colour = Image.merge("RGB", [noise, noise.rotate(90).resize((40, 30)), noise])
    turned = Image.Exif()
    turned[0x0112] = 6
    examples = [
        encoded(colour, "JPEG", exif=turned), encoded(colour, "JPEG", progressive=True), encoded(noise, "PNG"),
        encoded(colour.convert("P"), "PNG", transparency=0), encoded(colour, "WEBP"), encoded(colour, "WEBP", lossless=True),
        encoded(colour, "BMP"), encoded(colour.convert("P"), "GIF"), encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(noise, "TIFF"), encoded(noise.convert("I;16"), "TIFF"), encoded(noise.convert("1"), "PNG"), hostile.EPS,
        hostile.png_of_size(60_000, 60_000), hostile.jpeg_of_size(65_000, 65_000), b"<svg></svg>", b"",
    ]  # fmt: skip

    def read(data: bytes) -> None:
        image = decode(data, max_pixels=250_000)
        assert image.mode == "RGB"
        assert image.width * image.height <= 250_000

    fuzz(examples, read, BadImage, seconds, head_changed)


def fails(data: bytes) -> None:
    raise ZeroDivisionError


def test_the_fuzzer_itself_can_fail():
    with pytest.raises(ZeroDivisionError):
        fuzz([b"x"], fails, InputError, 0)
    with pytest.raises(AssertionError, match="both happen"):
        fuzz([b"x"], len, InputError, 0)
