import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from building import put
from pictures import encoded, picture

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.index_files import IndexFiles
from zsbir.data.ink import QUICKDRAW, Ink, ink_facts, ink_of
from zsbir.evaluation.embed import check_finite
from zsbir.index import IndexConfig, Settings, build_index
from zsbir.model.encoder import Encoder
from zsbir.promotion.index_check import _photo


@pytest.fixture
def run(tmp_path):
    """A run with a small encoder that nobody trained."""
    torch.manual_seed(0)
    Encoder("resnet18", 8, 32).save(tmp_path / "encoder")
    return put(str(tmp_path / "root"), "run", files={"encoder.safetensors": (tmp_path / "encoder").read_bytes()})


@pytest.fixture
def photos(tmp_path):
    """Three photos, one that is none, and what lies beside photos."""
    litter = ["__MACOSX/._1.jpg", ".ipynb_checkpoints/1.jpg", "summer/@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg", "4.heic"]
    for path in ["1.jpg", "summer/2.jpg", "new\nline.png", *litter]:
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / path).write_bytes(encoded(picture(40, 30)))
    (tmp_path / "photos/pointer.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return tmp_path / "photos"


def parquet(table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def index(run, photos, tmp_path, **changes) -> Artifact:
    return build_index(run.uri, IndexConfig.of({"gallery": str(photos), **changes}), Settings(root=str(tmp_path / "root")))


def test_an_index_of_a_folder_says_and_keeps_what_it_passed_over(run, photos, tmp_path, capsys):
    made = index(run, photos, tmp_path, max_bad_frac=0.5)
    said = capsys.readouterr().err
    assert f"warning: passed over in {photos}: 4, by reason" in said
    assert "warning: photos that cannot be read: 1, by reason" in said
    assert (made.manifest.counts["photos"], made.manifest.counts["unreadable"], made.manifest.counts["passed_over"]) == (3, 1, 4)
    assert pq.read_table(made.file("items.parquet"))["path"].to_pylist() == ["1.jpg", "new\nline.png", "summer/2.jpg"]
    listed = {row["path"]: row["reason"] for row in pq.read_table(made.file("passed_over.parquet")).to_pylist()}
    assert listed == {
        "pointer.jpg": "a Git LFS pointer instead of the file itself: run git lfs pull",
        "4.heic": ".heic is not read: convert it to JPEG or PNG",
        ".ipynb_checkpoints/": "made by Jupyter",
        "__MACOSX/": "made by macOS",
        "summer/@eaDir/": "made by a network drive",
    }


def test_too_many_unreadable_photos_fail_with_the_first_reason(run, photos, tmp_path):
    with pytest.raises(InputError, match=r"1 of 4 photos cannot be read, more than .*; first: pointer\.jpg: a Git LFS pointer"):
        index(run, photos, tmp_path)


def test_an_encoder_that_is_not_finite_makes_no_index(run, photos, tmp_path):
    broken = Encoder.load(run.file("encoder.safetensors"))
    with torch.no_grad():
        broken.trunk.conv1.weight[0, 0, 0, 0] = float("inf")
    broken.save(tmp_path / "broken")
    run = put(str(tmp_path / "root"), "run", "broken", files={"encoder.safetensors": (tmp_path / "broken").read_bytes()})
    with pytest.raises(InputError, match=r"1 of 9408 numbers in 'trunk\.conv1\.weight' are NaN or infinite"):
        index(run, photos, tmp_path, max_bad_frac=0.5)
    assert not [file for file in tmp_path.rglob("manifest.json") if json.loads(file.read_text())["kind"] == "index"]


def test_embeddings_that_are_not_finite_are_counted_by_image():
    vectors = np.ones((4, 3), np.float32)
    check_finite(vectors, "the encoder")
    vectors[1], vectors[3, 0] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 4 embeddings of the encoder are NaN or infinite"):
        check_finite(vectors, "the encoder")


def test_an_index_of_an_earlier_version_is_checked_against_photos_that_would_be_passed_over_now(run, photos, tmp_path):
    made = index(run, photos, tmp_path, max_bad_frac=0.5)
    hidden = "summer/@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg"
    table = pq.read_table(made.file("items.parquet")).set_column(1, "path", pa.array(["1.jpg", hidden, "gone.jpg"]))
    before = put(
        str(tmp_path / "before"),
        "index",
        files={"items.parquet": parquet(table), "vectors.npy": made.file("vectors.npy").read_bytes()},
        inputs=dict(made.manifest.inputs),
        config=IndexConfig.of(made.manifest.config),
    )
    files = IndexFiles(before, 8)
    assert [_photo(files, row) for row in range(3)] == [(photos / "1.jpg").read_bytes(), (photos / hidden).read_bytes(), None]


def test_an_index_carries_the_ink_of_its_run_so_that_a_search_needs_nothing_else(run, photos, tmp_path):
    ink = Ink(line_width=0.02, margin=0.1)
    files = {"encoder.safetensors": run.file("encoder.safetensors").read_bytes()}
    stated = put(str(tmp_path / "root"), "run", "stated", files=files, facts=ink_facts(ink))
    assert ink_of(index(stated, photos, tmp_path, max_bad_frac=0.5)) == ink
    assert ink_of(index(run, photos, tmp_path, max_bad_frac=0.5)) == QUICKDRAW
