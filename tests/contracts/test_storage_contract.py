"""What `zsbir.base.storage.Folder` promises, kept by local disk, by moto and by a real Ceph RGW; and artifacts on all three."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from contracts.crew import Crew
from contracts.workers import create_each
from servers.s3 import S3Server

from zsbir.base import s3
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.errors import InputError
from zsbir.base.files import sha256_file
from zsbir.base.storage import WORKSPACE, Entry, Folder, folder, is_remote, join, split_file

ODD_KEYS = [
    "with a space", "a+b", "100%", "a%20b", "%2F", "a#b", "what?", "a&b=c", "ü/ß/é.bin", "日本語.txt", "emoji 🎨.jpg",
    "a:b;c,d@e", "(a)[b]{c}", "'single' \"double\"", "a*b!$", "~tilde~", ".hidden", "..hidden", "dots...", "-dash", " leading",
    "trailing ", "x" * 200, "deep/" * 30 + "file", "<xml>&amp;", "e\u0301 and \u00e9", "a^b`c|d",
]  # fmt: skip
"""Names that are legal and that a careless client changes on their way."""

LEADS_OUT = [
    "", "/", ".", "..", "/etc/hostname", "../x", "a/../../x", "a/..", "a\\b", "..\\x", "x\0y", "a//b", "a/", "./a", "a/./b", "a/.",
]  # fmt: skip
"""Names that lead elsewhere, or to the same file as another name."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish(place: Folder, key: str, data: bytes) -> str:
    """Publish bytes as a writer does: from a file of a workspace, which is gone afterwards."""
    with place.workspace() as work:
        file = work / "finished"
        file.write_bytes(data)
        taken = place.publish(key, file, sha256(data))
        assert not file.exists()
        return taken


def keys(place: Folder) -> list[str]:
    return [entry.key for entry in place.walk()]


def fetched(place: Folder, key: str, parent: Path) -> bytes:
    place.download(key, parent / "fetched")
    return (parent / "fetched").read_bytes()


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of so many threads that begin at the same moment."""
    start = threading.Barrier(count)

    def begin(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_it_is_a_folder_at_the_address_it_was_asked_for(place: Folder, root: str):
    assert isinstance(place, Folder)
    assert place.uri == join(root, "a place")
    assert folder(place.uri).uri == place.uri


def test_create_puts_a_file_once(place: Folder):
    assert place.create("a/b.json", b"first")
    assert not place.create("a/b.json", b"second")
    assert place.read("a/b.json") == b"first"
    assert keys(place) == ["a/b.json"], "and nothing else is left"


@pytest.mark.parametrize(
    "bytes_of", [lambda number: b"the same", lambda number: f"of thread {number}".encode()], ids=["same", "others"]
)
def test_of_sixteen_threads_that_create_one_file_exactly_one_does(place: Folder, bytes_of):
    for round_number in range(4):
        key = f"file-{round_number}"
        won = at_once(16, lambda number, key=key: place.create(key, bytes_of(number)))
        assert sum(won) == 1
        assert place.read(key) == bytes_of(won.index(True))
    assert len(keys(place)) == 4


def test_of_several_processes_that_create_one_file_exactly_one_does(place: Folder, crew: Crew):
    names, barrier = [f"file-{number:02d}" for number in range(12)], crew.barrier(4)
    outcomes = crew.together(create_each, [(place.uri, names, f"process {number % 2}".encode(), barrier) for number in range(4)])
    assert [outcome.error for outcome in outcomes] == [""] * 4
    for number, name in enumerate(names):
        won = [outcome.value[number] for outcome in outcomes]
        assert sum(won) == 1, name
        assert place.read(name) == f"process {won.index(True) % 2}".encode()


def test_a_file_can_be_created_again_where_one_was_deleted(place: Folder):
    assert place.create("mark", b"1")
    place.delete(["mark"])
    assert place.create("mark", b"1")
    assert place.read("mark") == b"1"


def test_create_while_another_deletes_says_yes_or_no(place: Folder):
    """As leases do: whoever is refused because of a file that is gone a moment later is told so, without an error."""
    stop = threading.Event()

    def delete() -> None:
        while not stop.wait(0.001):
            place.delete(["mark"])

    deleting = threading.Thread(target=delete)
    deleting.start()
    try:
        answers = [place.create("mark", f"{number}".encode()) for number in range(60)]
    finally:
        stop.set()
        deleting.join()
    assert any(answers)
    assert set(answers) <= {True, False}


def test_a_folder_that_is_removed_because_it_is_empty_is_in_nobodys_way(place: Folder, tmp_path):
    """Whoever ends work in a folder takes it away, where nothing is left in it, also while another begins."""
    stop = threading.Event()

    def begin_and_end() -> None:
        while not stop.wait(0.0005):
            place.check_writable()

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(begin_and_end) for _ in range(2)]
        try:
            for number in range(60):
                with place.workspace() as work:
                    (work / "file").write_bytes(b"x")
                    place.publish(f"sub/{number}", work / "file", sha256(b"x"))
                place.delete([f"sub/{number}"])
        finally:
            stop.set()
        assert [other.result() for other in others] == [None, None]
    assert place.names() == []


def test_replace_puts_a_file_whatever_is_there(place: Folder):
    place.replace("a/mark", b"one")
    place.replace("a/mark", b"two and longer")
    assert place.read("a/mark") == b"two and longer"
    place.replace("a/mark", b"")
    assert place.read("a/mark") == b""
    assert keys(place) == ["a/mark"]


def test_a_reader_sees_the_old_file_or_the_new_one_while_it_is_replaced(place: Folder):
    versions = [bytes([number]) * (200_000 + number) for number in range(2)]
    place.replace("mark", versions[0])
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            place.replace("mark", versions[number % 2])

    writing = threading.Thread(target=replace)
    writing.start()
    try:
        seen = [versions.index(place.read("mark")) for _ in range(40)]  # ValueError for anything in between
    finally:
        stop.set()
        writing.join()
    assert len(seen) == 40


def test_what_is_published_lies_under_its_key(place: Folder):
    assert publish(place, "shards/part-00000.parquet", b"bytes") == "shards/part-00000.parquet"
    assert place.read("shards/part-00000.parquet") == b"bytes"
    assert keys(place) == ["shards/part-00000.parquet"]


def test_the_same_bytes_published_again_lie_under_the_same_key(place: Folder):
    assert publish(place, "a.parquet", b"bytes") == publish(place, "a.parquet", b"bytes") == "a.parquet"
    assert keys(place) == ["a.parquet"]


def test_other_bytes_get_a_variation_that_keeps_the_ending_and_both_stay_readable(place: Folder):
    publish(place, "a/part.parquet", b"first")
    second, third = publish(place, "a/part.parquet", b"other"), publish(place, "a/part.parquet", b"third")
    for key in (second, third):
        assert re.fullmatch(r"a/part~[0-9a-f]{12}\.parquet", key)
    assert [place.read(key) for key in ("a/part.parquet", second, third)] == [b"first", b"other", b"third"]
    assert keys(place) == sorted(["a/part.parquet", second, third])


def test_bytes_of_the_same_length_are_told_apart(place: Folder):
    assert publish(place, "a", b"one") == "a"
    assert publish(place, "a", b"two") != "a"


def test_a_file_that_was_put_by_other_tools_is_not_taken_for_the_same(place: Folder):
    """Where nothing is noted of what lies there, its own bytes count on disk; a store has only its name, and uses another."""
    place.replace("a.bin", b"by hand")
    key = publish(place, "a.bin", b"other")
    assert key != "a.bin"
    assert (place.read("a.bin"), place.read(key)) == (b"by hand", b"other")


def test_of_many_threads_that_publish_each_finds_its_own_bytes_under_its_key(place: Folder):
    taken = at_once(12, lambda number: publish(place, "part.bin", bytes([number % 3]) * 1000))
    for number, key in enumerate(taken):
        assert place.read(key) == bytes([number % 3]) * 1000
    assert taken.count("part.bin") == 4, "those with the winner's bytes share its key"
    assert keys(place) == sorted(set(taken))


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 10, b"0123456789"),
        (0, 3, b"012"),
        (7, 3, b"789"),
        (7, 4, b"789"),
        (9, 1, b"9"),
        (0, 1000, b"0123456789"),
        (10, 1, b""),
        (11, 5, b""),
        (1000, 1, b""),
        (4, 0, b""),
        (10, 0, b""),
    ],
)
def test_a_range_ends_where_the_file_does(place: Folder, start, length, expected):
    place.create("digits", b"0123456789")
    assert place.read_range("digits", start, length) == expected


def test_an_empty_file_is_a_file(place: Folder, tmp_path):
    assert place.create("created", b"")
    assert publish(place, "published.bin", b"") == "published.bin"
    assert publish(place, "published.bin", b"") == "published.bin"
    place.replace("replaced", b"")
    for key in ("created", "published.bin", "replaced"):
        assert place.size(key) == 0
        assert place.read(key) == b""
        assert place.read_range(key, 0, 10) == b""
        assert fetched(place, key, tmp_path) == b""
        assert place.version(key)
    assert [(entry.key, entry.size) for entry in place.walk()] == [("created", 0), ("published.bin", 0), ("replaced", 0)]


def test_what_is_not_there_is_no_file(place: Folder, tmp_path):
    place.create("a/b", b"x")
    for key in ("nothing", "a/nothing", "a", "a/b/c"):
        assert place.size(key) is None, key
        assert place.version(key) is None, key
        for look in (place.read, lambda key: place.read_range(key, 0, 1), lambda key: fetched(place, key, tmp_path)):
            with pytest.raises((FileNotFoundError, IsADirectoryError, NotADirectoryError)):
                look(key)


def test_size_counts_bytes(place: Folder):
    for size in (1, 1023, 70_000):
        publish(place, f"{size}", bytes(size))
        assert place.size(f"{size}") == size


def test_the_version_changes_with_every_change_and_only_then(place: Folder):
    seen = set()
    for number in range(20):
        place.replace("mark", f"{number:04d}".encode())
        version = place.version("mark")
        assert version
        assert place.version("mark") == folder(place.uri).version("mark") == version
        seen.add(version)
    assert len(seen) == 20, "also of changes that come fast and keep the length"


def test_a_download_is_the_file(place: Folder, tmp_path):
    data = os.urandom(300_000)
    publish(place, "a/b.bin", data)
    (tmp_path / "fetched").write_bytes(bytes(400_000))  # what was there before is gone
    assert fetched(place, "a/b.bin", tmp_path) == data


def test_walk_goes_through_every_file_below_in_the_order_of_keys(place: Folder):
    names = ["b", "a/z", "a/b/c", "a-", "a.txt", "a/a", "B", "ä", "a0"]
    for name in names:
        place.create(name, name.encode())
    folder(join(place.uri + "s", "x")).create("elsewhere", b"")
    before = time.time()
    found = list(place.walk())
    assert [entry.key for entry in found] == sorted(names)
    assert all(isinstance(entry, Entry) and entry.size == len(entry.key.encode()) for entry in found)
    assert all(abs(entry.modified_s - before) < 60 for entry in found)


def test_more_files_than_one_answer_of_a_store_lists_are_all_found(place: Folder):
    names = sorted([f"{number:04d}/file" for number in range(1010)] + [f"0500/{number}" for number in range(30)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: place.replace(name, b"x"), names))
    assert keys(place) == names
    assert place.names() == [f"{number:04d}" for number in range(1010)]
    assert len(place.sub("0500").names()) == 31
    place.clear()
    assert keys(place) == []


def test_names_are_those_of_files_and_folders_directly_below(place: Folder):
    for name in ("b/1", "b/2", "a", "c/d/e", "b.txt", "ü"):
        place.create(name, b"")
    assert place.names() == ["a", "b", "b.txt", "c", "ü"]
    assert place.sub("c").names() == ["d"]
    assert place.sub("c/d").names() == ["e"]


def test_a_folder_that_is_not_there_is_empty(place: Folder):
    nowhere = place.sub("nowhere")
    assert (keys(nowhere), nowhere.names(), nowhere.size("a")) == ([], [], None)
    nowhere.clear()
    nowhere.delete(["a", "b/c"])
    assert place.names() == []


def test_delete_removes_files_and_does_not_mind_those_that_are_gone(place: Folder):
    for name in ("a/b/c", "a/d", "e"):
        place.create(name, b"")
    place.delete(["a/b/c", "nothing", "a/nothing/at/all", "a/b/c"])
    assert keys(place) == ["a/d", "e"]
    assert place.names() == ["a", "e"]
    place.delete(iter(["a/d"]))
    assert place.names() == ["e"], "a folder without files is no folder"
    place.delete([])
    place.delete(["e"])
    assert place.names() == []


def test_clear_takes_all_below_and_nothing_beside(place: Folder, root: str):
    beside = [folder(join(root, name)) for name in ("a placebo", "a", "z")]
    for some in (place, *beside):
        for name in ("a", "b/c", "b/d/e", ".hidden"):
            some.create(name, b"x")
    place.clear()
    assert (keys(place), place.names()) == ([], [])
    assert all(len(keys(some)) == 4 for some in beside)


def test_sub_is_the_folder_below(place: Folder):
    below = place.sub("a b/c")
    below.create("d", b"x")
    assert below.uri == join(place.uri, "a b", "c")
    assert keys(place) == ["a b/c/d"]
    assert place.sub("a b").sub("c").read("d") == b"x"


def test_odd_names_are_kept_as_they_are_by_every_method(place: Folder, tmp_path):
    other = place.sub("of folders")
    for number, key in enumerate(ODD_KEYS):
        data = f"{number}: {key}".encode()
        assert place.create(key, data), key
        assert not place.create(key, b""), key
        assert place.read(key) == data, key
        assert place.read_range(key, 1, 3) == data[1:4], key
        assert place.size(key) == len(data), key
        assert place.version(key), key
        assert fetched(place, key, tmp_path) == data, key
        assert publish(place, f"published/{key}", data) == f"published/{key}", key
        assert publish(place, f"published/{key}", data) == f"published/{key}", key
        varied = publish(place, f"published/{key}", data + b"!")
        assert place.read(varied) == data + b"!", key
        place.delete([varied])
        below = other.sub(key)
        below.replace(key, data)
        assert keys(below) == [key]
        assert split_file(join(below.uri, key))[0].read(split_file(join(below.uri, key))[1]) == data, key
    expected = sorted([*ODD_KEYS, *(f"published/{key}" for key in ODD_KEYS), *(f"of folders/{key}/{key}" for key in ODD_KEYS)])
    assert keys(place) == expected
    assert other.names() == sorted({key.split("/")[0] for key in ODD_KEYS})
    place.delete(ODD_KEYS)
    assert keys(place) == [key for key in expected if key not in ODD_KEYS]
    place.clear()
    assert keys(place) == []


@pytest.mark.parametrize("root", ["disk", "rgw"], indirect=True)
def test_even_a_line_break_may_stand_in_a_name(place: Folder):
    """moto cuts its own addresses at one."""
    assert place.create("line\nbreak", b"x")
    assert (keys(place), place.names(), place.read("line\nbreak")) == (["line\nbreak"], ["line\nbreak"], b"x")
    place.clear()
    assert keys(place) == []


@pytest.mark.parametrize("key", LEADS_OUT)
def test_a_name_that_leads_out_or_is_no_plain_name_is_refused_by_every_method(place: Folder, root: str, tmp_path, key):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    beside = folder(root)
    beside.create("x", b"beside")
    for look in (
        lambda: place.sub(key),
        lambda: place.read(key),
        lambda: place.read_range(key, 0, 1),
        lambda: place.size(key),
        lambda: place.version(key),
        lambda: place.create(key, b""),
        lambda: place.replace(key, b""),
        lambda: place.publish(key, file, sha256(b"x")),
        lambda: place.download(key, tmp_path / "fetched"),
        lambda: place.delete([key]),
    ):
        with pytest.raises(InputError, match="is no name of a file in a folder"):
            look()
    assert keys(beside) == ["x"]
    assert file.read_bytes() == b"x"


def test_a_workspace_is_a_local_folder_with_a_mark_that_goes_with_it(place: Folder):
    with place.workspace() as work, place.workspace() as another:
        assert work.is_dir()
        assert work != another
        (work / "file").write_bytes(b"x")
        assert len(place.names()) == 2
        assert all(name.startswith(WORKSPACE) for name in place.names())
    assert not work.exists()
    assert place.names() == []
    begun: list[Path] = []

    def fail() -> None:
        with place.workspace() as work:
            begun.append(work)
            (work / "sub").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not begun[0].exists()
    assert place.names() == []


def test_a_workspace_leaves_what_was_published(place: Folder):
    with place.workspace() as work:
        (work / "file").write_bytes(b"x")
        place.publish("a", work / "file", sha256(b"x"))
        (work / "unfinished").write_bytes(b"x")
    assert keys(place) == ["a"]


def test_whether_a_folder_can_be_written_is_tried_without_a_trace(place: Folder, root: str):
    place.check_writable()
    assert keys(folder(root)) == []
    place.create("a", b"x")
    place.check_writable()
    assert keys(folder(root)) == ["a place/a"]


def test_local_is_where_it_lies_on_this_machine(place: Folder):
    place.create("a/b", b"x")
    here = place.local("a/b")
    if is_remote(place.uri):
        assert here is None
        assert place.local() is None
    else:
        assert here is not None
        assert here.read_bytes() == b"x"
        assert str(place.local()) == place.uri


def test_a_folder_can_be_sent_to_another_process(place: Folder, server_keys: tuple[str, ...]):
    place.create("a", b"x")
    sent = pickle.dumps(place)
    received = pickle.loads(sent)
    assert received.uri == place.uri
    assert received.read("a") == b"x"
    for key in server_keys:
        assert key.encode() not in sent, "each process uses the keys of its own environment"


@pytest.fixture
def server_keys() -> tuple[str, ...]:
    return tuple(os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name in os.environ)


def test_pyarrow_reads_the_parquet_that_was_published(place: Folder):
    table = pa.table({"row": list(range(1000)), "image": [os.urandom(50) for _ in range(1000)]})
    with place.workspace() as work:
        for name in ("a b/part-0.parquet", "a b/part-1.parquet", "ü+%.parquet"):
            pq.write_table(table, work / "file", row_group_size=100)
            place.publish(name, work / "file", sha256_file(work / "file"))
    path, system = arrow_filesystem(place.uri)
    assert pq.read_table(f"{path}/ü+%.parquet", filesystem=system).equals(table)
    both = pyarrow.dataset.dataset(f"{path}/a b", format="parquet", filesystem=system)
    assert both.count_rows() == 2000
    assert both.to_table(columns=["image"], filter=pyarrow.dataset.field("row") == 7)["image"][0] == table["image"][7]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Files from so many bytes on go up in parts: as large ones do, at a hundredth of the size."""
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 5 * 2**20)
    parts = s3.TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20, max_concurrency=4)
    monkeypatch.setattr(s3, "_TRANSFERS", parts)
    monkeypatch.setattr(s3, "PIECE_BYTES", 2**20)
    return 5 * 2**20


def test_a_large_file_goes_up_in_parts_under_a_key_of_its_own_and_comes_back_whole(server: S3Server, small_parts: int, tmp_path):
    place, client = folder(f"s3://{server.new_bucket()}/root"), server.client()
    data = os.urandom(small_parts * 2 + 12_345)
    taken = [publish(place, "part.parquet", data) for _ in range(2)]
    assert len(set(taken)) == 2, "parts are joined without a condition, so nothing may lie there"
    for key in taken:
        assert re.fullmatch(r"part~[0-9a-f]{12}\.parquet", key)
        head = client.head_object(Bucket=place.bucket, Key=f"root/{key}")
        assert head["ETag"].strip('"').endswith("-3"), "it came in three parts"
        assert head["Metadata"]["sha256"] == sha256(data)
        assert place.size(key) == len(data)
        assert fetched(place, key, tmp_path) == data
        assert place.read_range(key, small_parts - 5, 10) == data[small_parts - 5 : small_parts + 5]
    assert keys(place) == sorted(taken)
    assert publish(place, "small.bin", data[:small_parts]) == "small.bin", "up to the bound in one piece"
    assert not client.list_multipart_uploads(Bucket=place.bucket).get("Uploads")


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20, 3 * 2**20 + 5])
def test_a_download_in_pieces_is_whole_whether_or_not_they_come_out_even(server: S3Server, small_parts: int, tmp_path, size):
    place, data = folder(f"s3://{server.new_bucket()}/root"), os.urandom(size)
    publish(place, "a", data)
    assert fetched(place, "a", tmp_path) == data


def test_marks_that_other_tools_leave_for_folders_are_no_files(server: S3Server):
    bucket = server.new_bucket()
    for key in ("root/", "root/a/", "root/a/b/"):
        server.client().put_object(Bucket=bucket, Key=key, Body=b"")
    place = folder(f"s3://{bucket}/root")
    place.create("a/file", b"x")
    assert (keys(place), place.names(), place.sub("a").names()) == (["a/file"], ["a"], ["b", "file"])
    place.clear()
    assert "Contents" not in server.client().list_objects_v2(Bucket=bucket)
