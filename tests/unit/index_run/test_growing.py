"""Indexes that grow: what they hold, what they cost, and what is left where a writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from index_photos import DIMENSIONS, Photos

from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.base.layout import below_root
from zsbir.base.storage import join
from zsbir.data.index_files import ENCODER, IndexFiles, index_file
from zsbir.index import (
    GrowthConfig,
    IndexConfig,
    Settings,
    _parse,
    add_photos,
    compact_index,
    delete_photos,
    update_index,
)
from zsbir.index_run import embedding
from zsbir.storage_admin.checking import verify
from zsbir.storage_admin.copying import copy
from zsbir.storage_admin.format import artifact_json, format_lineage
from zsbir.storage_admin.housekeeping import RootState, unneeded
from zsbir.storage_admin.lineage import lineage
from zsbir.storage_admin.reachability import Criteria
from zsbir.storage_admin.roots import survey

PATHS = [f"{folder}/{number}.png" for folder in ("a", "b", "c/d") for number in range(3)]
GROWTH = GrowthConfig()
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "update", "delete", "compact"]),
        st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([0, 1, 2, None])), max_size=4),
    ),
    min_size=1,
    max_size=5,
)
"""What happens to an index: a command, and before it, photos that are written (0 to 2: which) or removed (None)."""


@pytest.mark.parametrize("examples", [8, pytest.param(80, marks=pytest.mark.slow)])
def test_any_sequence_of_changes_ends_in_the_index_that_a_fresh_build_makes(run, contents, tmp_path_factory, examples):
    phases = [Phase.explicit, Phase.generate]

    @settings(max_examples=examples, deadline=None, phases=phases, suppress_health_check=list(HealthCheck))
    @given(CHANGES)
    def holds(changes):
        check_changes(run, contents, tmp_path_factory.mktemp("photos"), changes)

    holds()


def check_changes(run, contents, place, changes):
    """Let an index of a folder go through changes, and compare it with one that is made anew of what is left."""
    photos, root = Photos(place / "photos"), Settings(root=str(place / "root"))
    photos.write("kept.png", 3)
    index = photos.index(run, root)
    indexed = photos.kinds()
    for command, writes in changes:
        for path, kind in writes:
            photos.remove(path) if kind is None else photos.write(path, kind)
        if command == "add":
            index, indexed = add_photos(index.uri, str(photos.path), GROWTH, root), {**indexed, **photos.kinds()}
        elif command == "update":
            index, indexed = update_index(index.uri, "", GROWTH, root), photos.kinds()
        elif command == "delete" and (named := sorted({path for path, _ in writes} & indexed.keys())):
            index = delete_photos(index.uri, named, root)
            indexed = {path: kind for path, kind in indexed.items() if path not in named}
        elif command == "compact":
            index = compact_index(index.uri, root)
    fresh = Photos(place / "fresh")
    for path, kind in indexed.items():
        fresh.write(path, kind)
    assert contents(index) == contents(fresh.index(run, root))
    assert contents(compact_index(index.uri, root)) == contents(index)
    assert index.manifest.counts.get("segments", 1) <= np.log2(len(indexed)) + 2


def test_a_new_index_holds_only_what_is_new_and_names_the_segments_before(photos, run, root):
    base = photos.index(run, root)
    photos.write("new.png", 9)
    index = update_index(base.uri, "", GROWTH, root)
    assert index.manifest.inputs["segments"] == [base.reference()]
    assert set(index.manifest.files) == {"vectors.npy", "items.parquet"}
    assert {name: index.manifest.counts[name] for name in ("photos", "own_photos", "segments", "deleted")} == {
        "photos": 7, "own_photos": 1, "segments": 2, "deleted": 0,
    }  # fmt: skip
    assert index_file(index, ENCODER).read_bytes() == index_file(base, ENCODER).read_bytes()
    files = IndexFiles(index, DIMENSIONS)
    assert [len(part) for part in files.parts] == [6, 1]
    assert files.alive is None
    assert files.paths.to_pylist()[-1] == "new.png"


def test_a_deletion_writes_no_photo_and_the_index_before_is_as_it_was(photos, run, root, contents):
    base = photos.index(run, root)
    before = contents(base)
    index = delete_photos(base.uri, ["a/", "5.png"], root)
    assert set(index.manifest.files) == {"tombstones.parquet"}
    assert set(contents(index)) == {"ab/2.png", "b/3.png", "b/4.png"}, "a/ is a folder, not the beginning of a name"
    assert contents(base) == before
    files = IndexFiles(index, DIMENSIONS)
    gone = files.paths.to_pylist().index("5.png")
    assert not files.alive[gone]
    for ask in (files.thumbnail, files.original, files.source_of):
        with pytest.raises(InputError, match=f"has no photo {gone}"):
            ask(gone)


def test_a_compacted_index_needs_no_other_and_is_laid_out_as_one_that_was_made_at_once(photos, run, root, contents):
    base = photos.index(run, root)
    index = compact_index(delete_photos(base.uri, ["a/0.png"], root).uri, root)
    assert "segments" not in index.manifest.inputs
    assert set(index.manifest.files) == set(base.manifest.files)
    assert set(index.manifest.counts) == set(base.manifest.counts)
    schema = pq.read_schema(index.file("items.parquet"))
    assert schema.equals(pq.read_schema(base.file("items.parquet")))
    assert set(contents(base)) - set(contents(index)) == {"a/0.png"}
    assert compact_index(index.uri, root).uri == index.uri, "there is nothing to do"


def test_where_nothing_changed_nothing_is_made_and_no_photo_is_embedded(photos, run, root, monkeypatch, capsys):
    base = photos.index(run, root)
    monkeypatch.setattr(embedding.Embedder, "embed", lambda *_: pytest.fail("a photo was embedded"))
    assert update_index(base.uri, "", GROWTH, root).uri == base.uri
    assert add_photos(base.uri, str(photos.path), GROWTH, root).uri == base.uri
    assert "nothing has changed since" in capsys.readouterr().err


def test_photos_of_an_index_without_times_are_embedded_again_only_where_the_folder_changed(photos, run, root, contents):
    """As an earlier version made it: the digest of the folder is all that is known of times."""
    base = photos.index(run, root)
    table = pq.read_table(base.file("items.parquet")).drop_columns(["size", "time_ns"])
    old = remade(base, root, {"items.parquet": table})
    assert update_index(old.uri, "", GROWTH, root).uri == old.uri
    photos.write("a/0.png", 7)
    assert contents(update_index(old.uri, "", GROWTH, root)) == contents(photos.index(run, root))


def test_photos_of_two_folders_keep_their_own_originals(photos, run, root, tmp_path):
    other = Photos(tmp_path / "other")
    other.write("a/0.png", 8)
    index = add_photos(photos.index(run, root).uri, str(other.path), GROWTH, root)
    for made in (index, compact_index(index.uri, root)):
        files = IndexFiles(made, DIMENSIONS)
        rows = [row for row, path in enumerate(files.paths.to_pylist()) if path == "a/0.png"]
        assert {files.source_of(row): files.original(row) for row in rows} == {
            str(folder.path): (folder.path / "a/0.png").read_bytes() for folder in (photos, other)
        }
    photos.remove("a/1.png")
    update = update_index(index.uri, str(photos.path), GROWTH, root)
    assert sorted(living_paths(update)).count("a/0.png") == 2, "photos of the other folder are not gone"
    assert "a/1.png" not in living_paths(update)
    with pytest.raises(InputError, match="has photos of several galleries: say which folder"):
        update_index(index.uri, "", GROWTH, root)


def living_paths(index):
    files = IndexFiles(index, DIMENSIONS)
    return [files.paths[row].as_py() for row in files.rows().tolist()]


def test_new_photos_that_cannot_be_read_stop_an_update_only_as_far_as_is_said(photos, run, root, contents):
    index = photos.index(run, root)
    (photos.path / "a/broken.png").write_bytes(b"no picture")
    photos.remove("b/4.png")
    with pytest.raises(InputError, match=r"^1 of 1 photos cannot be read, more than --max-bad-frac 0\.01 allows"):
        update_index(index.uri, "", GROWTH, root)
    grown = update_index(index.uri, "", GrowthConfig(max_bad_frac=1), root)
    assert contents(grown).keys() == contents(index).keys() - {"b/4.png"}
    assert contents(compact_index(grown.uri, root)) == contents(grown)
    for path in photos.kinds():
        if path != "a/broken.png":
            photos.remove(path)
    with pytest.raises(InputError, match=r"^1 of 1 photos cannot be read, none would be left"):
        update_index(index.uri, "", GrowthConfig(max_bad_frac=1), root)


def test_an_index_never_becomes_empty_and_unknown_paths_are_named(photos, run, root):
    base = photos.index(run, root)
    with pytest.raises(InputError, match="would leave no photo"):
        delete_photos(base.uri, ["a/", "ab/", "b/", "5.png"], root)
    with pytest.raises(InputError, match=r"has no photo 'a/9\.png': nothing was deleted"):
        delete_photos(base.uri, ["a/0.png", "a/9.png"], root)
    with pytest.raises(InputError, match="has no photo below 'z/'"):
        delete_photos(base.uri, ["z/"], root)
    with pytest.raises(InputError, match="no path to delete"):
        delete_photos(base.uri, [], root)


def test_the_commands_print_the_new_index_which_lies_beside_the_old_one(photos, run, root, tmp_path):
    base = photos.index(run, root)
    (tmp_path / "paths.txt").write_text("\ufeffa/0.png\r\nb/\r\n")
    index = Artifact(_parse(["delete", base.uri, "--path", "5.png", "--paths-file", str(tmp_path / "paths.txt")]), "index")
    assert sorted(living_paths(index)) == ["a/1.png", "ab/2.png"]
    assert index.uri.startswith(root.root)
    photos.write("new.png", 9)
    index = Artifact(_parse(["update", index.uri]), "index")
    assert len(living_paths(index)) == 7
    assert Artifact(_parse(["compact", index.uri])).manifest.counts["photos"] == 7
    assert Artifact(_parse(["add", index.uri, str(photos.path), "--max-bad-frac", "0"])).uri == index.uri
    for command in ("add", "update", "delete", "compact"):
        with pytest.raises(InputError, match="no such folder"):
            _parse([command, str(tmp_path / "nothing"), *(["x"] if command == "add" else [])])


# Copies, checks and cleaning


@pytest.fixture
def index(photos, run, root):
    """An index of three segments, of which a photo is deleted."""
    made = photos.index(run, root)
    for number in range(4):
        photos.write(f"new/{number}.png", 9)
        made = update_index(made.uri, "", GROWTH, root) if number in (2, 3) else made
    return delete_photos(made.uri, ["a/0.png"], root)


def test_a_copy_of_an_index_takes_its_segments_along(index, tmp_path, contents, root):
    assert index.manifest.counts["segments"] == 3
    before = contents(index)
    alone = copy(index.uri, str(tmp_path / "alone"), inputs=False)
    Path(root.root).rename(tmp_path / "moved")
    assert contents(Artifact(alone)) == before
    assert {verdict.uri for verdict in verify([alone])} == {
        join(str(tmp_path / "alone"), *below_root(reference["uri"]).split("/"))
        for reference in [*index.manifest.inputs["segments"], index.reference()]
    }


def test_a_damaged_segment_is_a_problem_of_every_index_that_has_it(index, root):
    segment = Artifact(index.manifest.inputs["segments"][0]["uri"])
    (segment.path / "vectors.npy").write_bytes(b"other")
    assert [(verdict.uri, verdict.problems[0].file) for verdict in verify([index.uri]) if verdict.problems] == [
        (segment.uri, "vectors.npy")
    ]
    segment.path.rename(segment.path.with_name("gone"))
    (verdict,) = (verdict for verdict in verify([index.uri]) if verdict.uri == index.uri)
    assert verdict.problems[0].file == "segments.0"


def test_a_segment_in_use_is_not_removed(index, root):
    below = {below_root(each["uri"]) for each in index.manifest.inputs["segments"]}
    criteria = Criteria(frozenset({"index"}), before_s=2e9 * 10, keep=frozenset({below_root(index.uri)}))
    found = survey(root.root)
    going = {waste.path for waste in unneeded(RootState(found, frozenset()), criteria).goes}
    assert going == set(found.units) - below - {below_root(index.uri)}
    assert not going & below


def test_a_lineage_shows_each_segment_once(index):
    tree = lineage(index)
    assert format_lineage(tree).count("segments.0") == 1
    roles = [part["role"] for part in artifact_json(index, tree)["lineage"]["inputs"]]
    assert [role for role in roles if role.startswith("segments")] == ["segments.0", "segments.1", "segments.2"]
    nested = next(part for part in artifact_json(index, tree)["lineage"]["inputs"] if part["role"] == "segments.2")["inputs"]
    assert not [part for part in nested if part["role"].startswith("segments")]


# Writers that are killed

KILLED = """
import os, signal, sys
import index_photos
from zsbir.base import disk
from zsbir.index import _parse
from zsbir.index_run import changes, embedding, growing
embedding.Encoder.load = index_photos.small_of
left = [0]

def dying(function):
    def call(*words):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return function(*words)
    return call

for name in ("publish", "create"):
    setattr(disk.DiskFolder, name, dying(getattr(disk.DiskFolder, name)))
for write in range(10):
    child = os.fork()
    if not child:
        left[0] = write
        print(_parse(sys.argv[1:]), flush=True)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(write, ended, flush=True)
    sys.stdin.readline()
"""
"""Runs a command again and again, killed just before its first write, its second, and so on; after each it waits for a line."""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "writes"), [("update", 4), ("delete", 2), ("compact", 4), ("reembed", 4)])
def test_a_writer_killed_at_any_write_leaves_the_old_index_and_the_same_command_goes_on(
    command, writes, index, photos, contents, other_run
):
    before = contents(index)
    photos.write("last.png", 8)
    words = {"delete": ["--path", "5.png"], "reembed": ["--run", other_run.uri]}.get(command, [])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-c", KILLED, command, index.uri, *words]
    with subprocess.Popen(script, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for write in range(writes):
            assert process.stdout.readline() == f"{write} {-signal.SIGKILL}\n"
            assert contents(index) == before
            process.stdin.write("\n")
            process.stdin.flush()
        made = process.stdout.readline().strip()
        assert process.stdout.readline() == f"{writes} 0\n", "each file and the manifest were a write"
        process.kill()
    wanted = {"update": {*before, "last.png", "a/0.png"}, "delete": before.keys() - {"5.png"}}.get(command, before.keys())
    assert contents(Artifact(made)).keys() == wanted
    assert not [verdict for verdict in verify([made]) if verdict.problems]


# Indexes of strangers


def remade(index, root, tables, **changes):
    """Return an index with other tables in its files, or another manifest, as a stranger may make it."""
    files = {name: index.file(name).read_bytes() for name in index.manifest.files}
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        files[name] = sink.getvalue().to_pybytes()
    values = {name: dict(getattr(index.manifest, name)) for name in ("inputs", "counts", "facts")}
    values = {name: {**value, **changes.pop(name, {})} for name, value in values.items()}
    digest = changes.pop("digest", "") or digest_of([index.digest, sorted(tables), repr(tables), values])
    return put(root.root, "index", files=files, digest=digest, config=IndexConfig.of(index.manifest.config), **values)


def test_tombstones_out_of_range_repeated_or_out_of_order_are_refused(index, root):
    for rows in ([10], [-1], [2, 2], [3, 1], [2**40]):
        evil = remade(index, root, {"tombstones.parquet": pa.table({"row": pa.array(rows, pa.int64())})})
        with pytest.raises(InputError, match=r"tombstones\.parquet does not name rows of the 10 photos before it"):
            IndexFiles(evil, DIMENSIONS)


@pytest.mark.parametrize("counts", [{"photos": 8}, {"photos": 10}, {"own_photos": 1}, {"own_photos": -1}, {"own_photos": 2**62}])
def test_counts_that_do_not_add_up_are_refused(index, root, counts):
    with pytest.raises(InputError, match=r"says that|has no file") as error:
        IndexFiles(remade(index, root, {}, counts=counts), DIMENSIONS)
    assert "\n" not in str(error.value)


def test_segments_that_are_missing_foreign_or_in_a_circle_are_refused(index, root, run, photos):
    first, second, third = index.manifest.inputs["segments"]
    gone = {"uri": f"{first['uri']}0", "digest": first["digest"]}
    other_run = remade(Artifact(first["uri"]), root, {}, inputs={"run": {"uri": run.uri, "digest": "0" * 64}}).reference()
    cases = {
        "is gone: it is not at": [gone, second, third],
        "no longer the index that": [{**first, "digest": "0" * 64}, second, third],
        "belongs to other segments": [second, first, third],
        "made by another run": [other_run, second, third],
        "has 65 segments, more than the 64": [first] * 65,
    }
    for reason, segments in cases.items():
        with pytest.raises(InputError, match=reason) as error:
            IndexFiles(remade(index, root, {}, inputs={"segments": segments}), DIMENSIONS)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="lacks 'run'"):
        IndexFiles(remade(index, root, {}, inputs={"run": ["no", "address"]}), DIMENSIONS)
    for double in ([first, first, third], [first, second, second]):
        with pytest.raises(InputError, match="belongs to other segments"):
            IndexFiles(remade(index, root, {}, inputs={"segments": double}), DIMENSIONS)


def test_an_index_that_names_itself_is_refused(index, root):
    itself = {"uri": join(root.root, "indexes", "toy", "c" * 16), "digest": "c" * 64}
    evil = remade(index, root, {}, digest="c" * 64, inputs={"segments": [itself]})
    with pytest.raises(InputError, match="belongs to other segments"):
        IndexFiles(evil, DIMENSIONS)
    assert lineage(evil)


def test_segments_of_other_dimensions_are_refused(index):
    with pytest.raises(InputError, match="not float32 with 7 dimensions"):
        IndexFiles(index, 7)
