"""Indexes embedded again with another run's encoder: the same photos, and what is known of them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from index_photos import DIMENSIONS, Photos, small_run

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.layout import root_of
from zsbir.data.index_files import ENCODER, IndexFiles
from zsbir.index import (
    GrowthConfig,
    IndexConfig,
    ReembedConfig,
    _parse,
    add_photos,
    build_index,
    delete_photos,
    reembed_index,
    update_index,
)
from zsbir.index_run import embedding
from zsbir.index_run.growing import open_base
from zsbir.index_run.reembedding import Embedded, reembed
from zsbir.retrieval.exact import search
from zsbir.retrieval.graph_facts import graph_facts_of

CONFIG, GROWTH = ReembedConfig(), GrowthConfig()


def ordered(index: Artifact) -> list[str]:
    files = IndexFiles(index, DIMENSIONS)
    return [files.paths[row].as_py() for row in files.rows().tolist()]


def test_by_its_own_run_it_is_the_index_that_is_built_anew(photos, run, root):
    """Not of the same digest, which is of what was asked for; but of the same bytes, so answers are the same in the same order."""
    for path in ("a/0.png", "b/3.png"):
        (photos.path / f"{path}-copy.png").write_bytes((photos.path / path).read_bytes())
    first = photos.index(run, root)
    photos.write("0.png", 8)
    grown = update_index(first.uri, "", GROWTH, root)
    fresh = photos.index(run, root)
    assert ordered(grown) != ordered(fresh), "the new photo comes last in the grown one"
    for base in (fresh, grown):
        again = reembed_index(base.uri, run.uri, CONFIG, root)
        assert again.digest != fresh.digest
        assert {name: entry.sha256 for name, entry in again.manifest.files.items()} == {
            name: entry.sha256 for name, entry in fresh.manifest.files.items()
        }
        assert again.manifest.counts == fresh.manifest.counts
        assert again.manifest.facts == fresh.manifest.facts
    (vectors, rows), (others, other_rows) = (IndexFiles(made, DIMENSIONS).living() for made in (again, fresh))
    queries = np.random.default_rng(0).standard_normal((5, DIMENSIONS)).astype(np.float32)
    for found, wanted in zip(search(queries, vectors, 9), search(queries, others, 9), strict=True):
        assert np.array_equal(found, wanted)
    assert np.array_equal(rows, other_rows)


def test_by_another_run_it_holds_the_photos_of_all_galleries_with_what_is_known_of_them(
    photos, run, other_run, root, contents, tmp_path
):
    more = Photos(tmp_path / "more")
    for number in range(3):
        more.write(f"m/{number}.png", number)
    (tmp_path / "mine.csv").write_text("path,price\na/0.png,1\nb/3.png,3\n")
    (tmp_path / "more.csv").write_text("path,price,colour\nm/1.png,7,red\n")
    base = photos.index(run, root, metadata=str(tmp_path / "mine.csv"))
    base = add_photos(base.uri, str(more.path), GrowthConfig(metadata=str(tmp_path / "more.csv")), root)
    base = delete_photos(base.uri, ["a/0.png", "m/2.png"], root)
    before = contents(base)
    again = reembed_index(base.uri, other_run.uri, CONFIG, root)
    assert again.manifest.inputs["run"] == other_run.reference()
    assert "segments" not in again.manifest.inputs
    assert again.file(ENCODER).read_bytes() == other_run.file(ENCODER).read_bytes()
    after, one = contents(again), contents(photos.index(other_run, root)) | contents(more.index(other_run, root))
    assert set(after) == set(before)
    for path, (vector, thumbnail, class_name, known) in after.items():
        assert (vector, thumbnail, class_name) == one[path][:3]
        assert vector != before[path][0]
        assert known == before[path][3]
    assert after["m/1.png"][3] == {"price": 7, "colour": "red"}
    files = IndexFiles(again, DIMENSIONS)
    for row in files.rows().tolist():
        place = more if files.paths[row].as_py().startswith("m/") else photos
        assert files.source_of(row) == str(place.path)
        assert files.original(row) == (place.path / files.paths[row].as_py()).read_bytes()
    photos.write("b/4.png", 7)
    grown = update_index(again.uri, str(photos.path), GROWTH, root)
    assert ordered(grown)[-2:] == ["a/0.png", "b/4.png"], "it grows like any other: the photo that was deleted lies there yet"


def test_the_same_question_has_the_same_answer_and_nothing_is_embedded_twice(photos, run, other_run, root, monkeypatch):
    base = photos.index(run, root)
    again = reembed_index(base.uri, other_run.uri, CONFIG, root)
    with monkeypatch.context() as patch:
        patch.setattr(embedding.Embedder, "embed", lambda *_: pytest.fail("a photo was embedded"))
        assert _parse(["reembed", base.uri, "--run", other_run.uri]) == again.uri
    assert root_of(again.uri) == root.root, "beside the index, not beside the run"
    photos.write("a/0.png", 9)
    assert reembed_index(base.uri, other_run.uri, CONFIG, root).uri != again.uri


def test_photos_that_are_gone_or_have_changed_are_counted_in_one_line(photos, run, other_run, root, contents, capsys):
    base = photos.index(run, root)
    photos.remove("a/1.png")
    photos.remove("5.png")
    photos.write("b/3.png", 9)
    photos.write("new.png", 9)
    again = reembed_index(base.uri, other_run.uri, CONFIG, root)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "gone" in line)
    assert f"{base.uri}: 2 photos are gone and left out, 1 have changed and are taken as they are now" in line
    assert set(contents(again)) == {"a/0.png", "ab/2.png", "b/3.png", "b/4.png"}, "new.png is none of its photos"
    photos.remove("new.png")
    assert contents(again) == contents(photos.index(other_run, root))
    assert again.manifest.counts["passed_over"] == 2
    rows = pq.read_table(again.file("passed_over.parquet")).to_pylist()
    assert rows == [{"path": path, "reason": "gone from its gallery"} for path in ("5.png", "a/1.png")]


def test_a_whole_gallery_that_is_gone_is_an_error(photos, run, other_run, root, tmp_path):
    more = Photos(tmp_path / "more")
    more.write("x.png", 1)
    base = add_photos(photos.index(run, root).uri, str(more.path), GROWTH, root)
    photos.path.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"^no folder at '.*photos': 6 photos of .* come from there; bring them back, or"):
        reembed_index(base.uri, other_run.uri, CONFIG, root)
    left = delete_photos(base.uri, ordered(base)[:6], root)
    assert ordered(reembed_index(left.uri, other_run.uri, CONFIG, root)) == ["x.png"], "of what was deleted, nothing is read"
    (tmp_path / "away").rename(photos.path)
    more.write("other.png", 1)
    more.remove("x.png")
    for index in (left, base):
        with pytest.raises(InputError, match=r"^none of the 1 photos of .* that come from .*more is left there: bring them back"):
            reembed_index(index.uri, other_run.uri, CONFIG, root)


def test_photos_that_cannot_be_read_are_counted_and_bounded_as_in_building(photos, run, other_run, root):
    base = photos.index(run, root)
    (photos.path / "a/0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"^1 of 6 photos cannot be read, more than --max-bad-frac 0\.01 allows; first: a/0\.png"):
        _parse(["reembed", base.uri, "--run", other_run.uri])
    again = Artifact(_parse(["reembed", base.uri, "--run", other_run.uri, "--max-bad-frac", "0.5"]), "index")
    assert (again.manifest.counts["photos"], again.manifest.counts["unreadable"]) == (5, 1)


def test_photos_of_a_data_set_are_found_where_it_is_now(dataset, root, photos, contents, tmp_path):
    first, second = (small_run(tmp_path, root.root, seed, dataset=Artifact(dataset, "dataset")) for seed in (0, 1))
    base = build_index(first.uri, IndexConfig(), root)
    fresh = build_index(second.uri, IndexConfig(), root)
    again = reembed_index(base.uri, second.uri, CONFIG, root)
    assert contents(again) == contents(fresh)
    assert ordered(again) == ordered(fresh)
    assert IndexFiles(again, DIMENSIONS).examples == IndexFiles(fresh, DIMENSIONS).examples != []
    gone = ordered(base)[0]
    grown = add_photos(delete_photos(base.uri, [gone], root).uri, str(photos.path), GROWTH, root)
    both = reembed_index(grown.uri, second.uri, CONFIG, root)
    assert ordered(both) == [*ordered(fresh)[1:], *sorted(photos.kinds())]
    wanted = contents(fresh) | contents(photos.index(second, root))
    assert contents(both) == {path: value for path, value in wanted.items() if path != gone}


def test_photos_that_the_run_has_embedded_already_are_copied(photos, run, other_run, root, contents, tmp_path, monkeypatch):
    more = Photos(tmp_path / "more")
    more.write("m/0.png", 3)
    served = add_photos(photos.index(run, root).uri, str(more.path), GROWTH, root)
    ready = IndexFiles(photos.index(other_run, root), DIMENSIONS)
    embedded = []
    real = embedding.Embedder.embed
    monkeypatch.setattr(
        embedding.Embedder, "embed", lambda self, chunks: real(self, (embedded.extend(chunk.paths) or chunk for chunk in chunks))
    )
    made = reembed(
        open_base(served),
        other_run,
        IndexConfig(),
        root,
        max_bad_frac=0,
        wanted=lambda source: source.folder == str(more.path),
        beside=Embedded(ready, np.array([path != "5.png" for path in ready.paths.to_pylist()])),
    )
    assert embedded == ["m/0.png"]
    one = reembed_index(served.uri, other_run.uri, CONFIG, root)
    assert contents(made) == {path: value for path, value in contents(one).items() if path != "5.png"}
    files = IndexFiles(made, DIMENSIONS)
    assert {files.source_of(row) for row in files.rows().tolist()} == {str(photos.path), str(more.path)}


def test_an_index_s_own_photos_may_lie_in_a_folder_of_links_that_lead_out(photos, run, other_run, root, tmp_path):
    """A link that leads out of the folder is passed over as when an index is built: what it leads to is not read."""
    base = photos.index(run, root)
    (photos.path / "a/0.png").rename(tmp_path / "secret.png")
    (photos.path / "a/0.png").symlink_to(tmp_path / "secret.png")
    assert "a/0.png" not in ordered(reembed_index(base.uri, other_run.uri, CONFIG, root))


def test_an_index_with_a_graph_has_one_again_of_the_new_vectors(photos, run, other_run, root):
    base = photos.index(run, root, graph=True)
    again = reembed_index(base.uri, other_run.uri, CONFIG, root)
    assert "graph.safetensors" in again.manifest.files
    assert again.manifest.config["graph"] is True
    assert graph_facts_of(again).measured_on == graph_facts_of(base).measured_on
    assert "graph.safetensors" not in reembed_index(photos.index(run, root).uri, other_run.uri, CONFIG, root).manifest.files
