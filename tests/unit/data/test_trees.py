"""Trees of files, above all in object storage: there they show what a disk shows, and cost few requests."""

import json
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsbir.base.errors import InputError
from zsbir.base.storage import Entry, open_folder
from zsbir.base.text import clean
from zsbir.data.layouts import LAYOUTS, scan
from zsbir.data.passed_over import PassedOver
from zsbir.data.trees import ListedTree, key_of, open_tree

DRAWING = json.dumps({"recognized": True, "drawing": [[[0, 9, 9], [0, 9, 0]]]}) + "\n"
CLASSES = ("cat", "Dog", "a-b", "a", "naïve 猫")
FILES = {
    "folder": [f"{domain}/{name}/{n}.png" for domain in ("photo", "sketch") for name in CLASSES for n in ("1", "10", "2", ".2")],
    "sketchy": [
        "256x256/sketch/tx_000000000000_ready/cat/n01-1.png",
        "256x256/photo/tx_000000000000_ready/cat/n01.jpg",
        "256x256/photo/tx_000000000000/cat/n02.jpg",
        "EXTEND_image_sketchy/cat/n01.jpg",
        "EXTEND_image_sketchy/cat/ext_1.jpg",
    ],
    "tuberlin": [f"{folder}/alarm clock/{n}.PNG" for folder in ("ImageResized_ready", "png") for n in range(3)],
    "quickdraw": ["images/alarm_clock/a.jpg", "images/cat/a.jpg", "sketches/cat/1.png", "ndjson/full_raw_alarm clock.ndjson"],
    "lists": ["l/cname_cid.txt", "l/all_photo_train.txt", "l/sketch_train.txt", "l/all_photo_zero.txt", "l/sketch_zero.txt"],
}
TEXTS = {
    "l/cname_cid.txt": "cat 0\ndog 1\n",
    "l/all_photo_train.txt": "photo/cat/1.jpg 0\n./photo/dog/1.jpg 1\n",
    "l/sketch_train.txt": "sketch/cat/1.png 0\nsketch/dog/1.png 1\n",
    "l/all_photo_zero.txt": "photo/owl/1.jpg 0\n",
    "l/sketch_zero.txt": "sketch/owl/1.png 0\n",
    "ndjson/full_raw_alarm clock.ndjson": DRAWING * 9,
}
NOISE = ["README.md", "photo/notes.txt", ".hidden/cat/1.png", "photo/.git/1.png", "photo/cat/sub/3.png"]


def both(bucket, root, files):
    """The same files on disk and in a bucket."""
    for path in files:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(TEXTS.get(path, f"bytes of {path}").encode())
        bucket.put(path, (root / path).read_bytes())


def test_there_is_a_tree_for_every_layout():
    assert set(FILES) == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "data/set"])
def test_the_same_files_are_the_same_sources_with_the_same_bytes(bucket, tmp_path, layout, prefix):
    bucket.prefix = prefix
    both(bucket, tmp_path, [*FILES[layout], *NOISE])
    options = {"lists_dir": "l" if layout == "lists" else "", "dedup": True, "drawings_per_class": 5}
    there, here = open_tree(bucket.uri), open_tree(tmp_path)
    sources = scan(layout, there, **options)
    assert sources == scan(layout, here, **options)
    assert len(sources) == {"folder": 30, "sketchy": 3, "tuberlin": 6, "quickdraw": 8, "lists": 6}[layout]
    there_read, here_read = ([_content(source, tree.folder) for source in sources] for tree in (there, here))
    assert there_read == here_read


def _content(source, folder):
    try:
        return source.read(folder)
    except FileNotFoundError:  # lists name what is not there
        return None


def test_a_scan_with_its_stamps_costs_one_listing(bucket, tmp_path):
    both(bucket, tmp_path, FILES["folder"])
    with bucket.requests() as requests:
        tree = open_tree(bucket.uri)
        stamps = [source.stamp(tree) for source in scan("folder", tree)]
    assert [request for request in requests if request != "HeadBucket"] == ["ListObjectsV2"]
    assert len(stamps) == 30
    assert all(size > 10 and time_ns > 1.7e18 for size, time_ns in stamps)


def test_a_drawing_is_one_request_for_its_own_bytes(bucket, tmp_path):
    both(bucket, tmp_path, FILES["quickdraw"])
    source = next(source for source in scan("quickdraw", open_tree(bucket.uri)) if source.path.endswith("#7"))
    with bucket.requests() as requests:
        assert source.read(open_folder(bucket.uri)).startswith(b"\x89PNG")
    assert [request for request in requests if request != "HeadBucket"] == ["GetObject"]
    assert (source.line_start, source.line_bytes) == (7 * len(DRAWING), len(DRAWING) - 1)


def test_a_changed_file_has_another_stamp_and_one_that_is_gone_has_none(bucket, tmp_path):
    both(bucket, tmp_path, FILES["folder"])
    source = scan("folder", open_tree(bucket.uri))[0]
    before = source.stamp(open_tree(bucket.uri))
    assert before == source.stamp(open_tree(bucket.uri))
    bucket.put(source.path, b"other")
    assert before != source.stamp(open_tree(bucket.uri)) != (0, 0)
    open_folder(bucket.uri).delete([source.path])
    assert source.stamp(open_tree(bucket.uri)) == (0, 0)


def test_many_threads_read_sources_from_a_folder_that_was_sent_to_another_process(bucket, tmp_path):
    both(bucket, tmp_path, FILES["folder"])
    sources = scan("folder", open_tree(bucket.uri))
    folder, sources = pickle.loads(pickle.dumps((open_folder(bucket.uri), sources)))
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda source: source.read(folder), sources)) == [f"bytes of {s.path}".encode() for s in sources]


def test_objects_that_stand_for_empty_folders_are_ignored(bucket, tmp_path, capsys):
    bucket.prefix = "set"
    both(bucket, tmp_path, FILES["folder"])
    for marker in ("", "photo/", "photo/empty/", "photo/cat/"):
        bucket.put(marker, b"")
    assert scan("folder", open_tree(bucket.uri)) == scan("folder", open_tree(tmp_path))
    assert "warning" not in capsys.readouterr().err


def test_keys_that_are_no_paths_are_passed_over_and_named(bucket, tmp_path):
    both(bucket, tmp_path, FILES["folder"])
    odd = [
        "/photo/cat/x.png",
        "photo//x.png",
        "photo/./x.png",
        "photo/../x.png",
        "photo/cat/x\\y.png",
        "photo/cat/x\0y.png",
        "photo/cat/",
        "a/b/../c.png",
    ]
    folder = open_folder(bucket.uri)
    folder.walk = lambda: sorted([*open_folder(bucket.uri).walk(), *(Entry(key, 9, 1.0) for key in odd)])
    passed = PassedOver()
    assert scan("folder", ListedTree(folder), passed) == scan("folder", open_tree(tmp_path))
    noted = [row["path"] for row in passed.rows() if row["reason"] == "a key in object storage that is not the path of a file"]
    assert noted == sorted(clean(key) for key in odd)


def test_a_bucket_or_prefix_that_is_not_there_is_an_input_error(bucket):
    with pytest.raises(InputError, match="there is no bucket 'no-such-bucket'"):
        open_tree("s3://no-such-bucket/data")
    with pytest.raises(InputError, match=f"no folder at '{bucket.uri}/nowhere': give the folder"):
        scan("folder", open_tree(f"{bucket.uri}/nowhere"))
    with pytest.raises(InputError, match="has a scheme that is not known"):
        open_tree("gs://bucket/data")


def test_a_prefix_is_a_whole_folder_name(bucket, tmp_path):
    both(bucket, tmp_path, FILES["folder"])
    with pytest.raises(InputError, match="no folder at"):
        scan("folder", open_tree(f"{bucket.uri}/phot"))


NAMES = st.sampled_from(
    ["photo", "sketch", "cat", "@eaDir", "a", "a-b", "b.JPG", "a.png", "c.gif", ".d.png", "e.txt", "zeroshot1", "f.heic", "g"]
)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=5).map(tuple), max_size=20))
def test_a_listing_shows_whatever_a_disk_shows(paths):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for parts in paths:
            path = root.joinpath(*parts)
            if not path.exists() and not any(parent.is_file() for parent in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x" * len(parts))
        disk, listed = open_tree(root), ListedTree(open_folder(root))
        places = ["", "photo", "photo/cat", "nowhere", *("/".join(parts[:2]) for parts in paths)]
        for folder in places:
            assert listed.folders(folder) == disk.folders(folder)
            assert listed.folders(folder, start="a") == disk.folders(folder, start="a")
            here, there = PassedOver(), PassedOver()
            assert listed.files(folder, {".png", ".jpg"}, there) == disk.files(folder, {".png", ".jpg"}, here)
            assert listed.folders(folder, passed=there) == disk.folders(folder, passed=here)
            assert list(there.rows()) == list(here.rows())
            assert listed.has_folder(folder) == disk.has_folder(folder) or not folder
        here, there = PassedOver(), PassedOver()
        found = disk.below({".png", ".gif"}, here)
        assert listed.below({".png", ".gif"}, there) == found == sorted(found, key=lambda path: path.split("/"))
        assert list(there.rows()) == list(here.rows())
        everything = {"/".join(parts) for parts in paths if root.joinpath(*parts).is_file()}
        folders = tuple(row["path"] for row in here.rows() if row["path"].endswith("/"))
        named = {*found, *(row["path"] for row in here.rows())}
        assert all(path in named or path.startswith(folders) for path in everything), "whatever is not found is named"
        for path in [*found, "nowhere/a.png", "nowhere"]:
            (size, time_ns), (listed_size, listed_ns) = disk.stamp(path), listed.stamp(path)
            assert size == listed_size
            assert abs(time_ns - listed_ns) <= 1_000_000


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.png", "a/../../b.png", "..\\b.png", "a\\..\\..\\b", "C:\\b.png", "\\\\server\\b", "a\0b.png"]
)
def test_a_path_that_leads_elsewhere_is_no_key(path):
    with pytest.raises(InputError, match=r"list\.txt: .* is not a path below"):
        key_of(path, "list.txt")


def test_a_key_has_no_needless_parts():
    assert [key_of(path, "list.txt") for path in ("a/b.png", "./a//b.png", "a/./b.png", ".", "a/")] == [*["a/b.png"] * 3, "", "a"]


def test_a_path_written_on_windows_is_the_same_key():
    assert [key_of(path, "list.txt") for path in ("a\\b.png", ".\\a\\b.png", "a/b.png")] == ["a/b.png"] * 3


def test_a_long_listing_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zsbir.data.trees._SAY_EVERY", 2)
    for name in "abc":
        (tmp_path / name).write_text(name)
    assert ListedTree(open_folder(tmp_path)).stamp("c")[0] == 1
    assert capsys.readouterr().err == f"listed 2 files below {open_folder(tmp_path).uri}\n"
