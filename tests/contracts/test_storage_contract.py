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
from zsbir.base.storage import WORKSPACE, Entry, Folder, is_remote, join, open_folder, split_file

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


def publish(folder: Folder, key: str, data: bytes) -> str:
    """Publish bytes as a writer does: from a file of a workspace, which is gone afterwards."""
    with folder.workspace() as work:
        file = work / "finished"
        file.write_bytes(data)
        taken = folder.publish(key, file, sha256(data))
        assert not file.exists()
        return taken


def keys(folder: Folder) -> list[str]:
    return [entry.key for entry in folder.walk()]


def fetched(folder: Folder, key: str, parent: Path) -> bytes:
    folder.download(key, parent / "fetched")
    return (parent / "fetched").read_bytes()


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Return the results of so many threads that begin at the same moment."""
    start = threading.Barrier(count)

    def begin(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_it_is_a_folder_at_the_address_it_was_asked_for(folder: Folder, root: str):
    assert isinstance(folder, Folder)
    assert folder.uri == join(root, "a place")
    assert open_folder(folder.uri).uri == folder.uri


def test_create_puts_a_file_once(folder: Folder):
    assert folder.create("a/b.json", b"first")
    assert not folder.create("a/b.json", b"second")
    assert folder.read("a/b.json") == b"first"
    assert keys(folder) == ["a/b.json"], "and nothing else is left"


@pytest.mark.parametrize(
    "bytes_of", [lambda number: b"the same", lambda number: f"of thread {number}".encode()], ids=["same", "others"]
)
def test_of_sixteen_threads_that_create_one_file_exactly_one_does(folder: Folder, bytes_of):
    for round_number in range(4):
        key = f"file-{round_number}"
        won = at_once(16, lambda number, key=key: folder.create(key, bytes_of(number)))
        assert sum(won) == 1
        assert folder.read(key) == bytes_of(won.index(True))
    assert len(keys(folder)) == 4


def test_of_several_processes_that_create_one_file_exactly_one_does(folder: Folder, crew: Crew):
    names, barrier = [f"file-{number:02d}" for number in range(12)], crew.barrier(4)
    outcomes = crew.together(create_each, [(folder.uri, names, f"process {number % 2}".encode(), barrier) for number in range(4)])
    assert [outcome.error for outcome in outcomes] == [""] * 4
    for number, name in enumerate(names):
        won = [outcome.value[number] for outcome in outcomes]
        assert sum(won) == 1, name
        assert folder.read(name) == f"process {won.index(True) % 2}".encode()


def test_a_file_can_be_created_again_where_one_was_deleted(folder: Folder):
    assert folder.create("mark", b"1")
    folder.delete(["mark"])
    assert folder.create("mark", b"1")
    assert folder.read("mark") == b"1"


def test_create_while_another_deletes_says_yes_or_no(folder: Folder):
    """As leases do: whoever is refused because of a file that is gone a moment later is told so, without an error."""
    stop = threading.Event()

    def delete() -> None:
        while not stop.wait(0.001):
            folder.delete(["mark"])

    deleting = threading.Thread(target=delete)
    deleting.start()
    try:
        answers = [folder.create("mark", f"{number}".encode()) for number in range(60)]
    finally:
        stop.set()
        deleting.join()
    assert any(answers)
    assert set(answers) <= {True, False}


def test_the_removal_of_an_empty_folder_disturbs_no_writer(folder: Folder, tmp_path):
    """Whoever ends work in a folder takes it away, where nothing is left in it, also while another begins."""
    stop = threading.Event()

    def begin_and_end() -> None:
        while not stop.wait(0.0005):
            folder.check_writable()

    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(begin_and_end) for _ in range(2)]
        try:
            for number in range(60):
                with folder.workspace() as work:
                    (work / "file").write_bytes(b"x")
                    folder.publish(f"sub/{number}", work / "file", sha256(b"x"))
                folder.delete([f"sub/{number}"])
        finally:
            stop.set()
        assert [other.result() for other in others] == [None, None]
    assert folder.names() == []


def test_replace_puts_a_file_whatever_is_there(folder: Folder):
    folder.replace("a/mark", b"one")
    folder.replace("a/mark", b"two and longer")
    assert folder.read("a/mark") == b"two and longer"
    folder.replace("a/mark", b"")
    assert folder.read("a/mark") == b""
    assert keys(folder) == ["a/mark"]


def test_a_reader_sees_the_old_file_or_the_new_one_while_it_is_replaced(folder: Folder):
    versions = [bytes([number]) * (200_000 + number) for number in range(2)]
    folder.replace("mark", versions[0])
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            folder.replace("mark", versions[number % 2])

    writing = threading.Thread(target=replace)
    writing.start()
    try:
        seen = [versions.index(folder.read("mark")) for _ in range(40)]  # ValueError for anything in between
    finally:
        stop.set()
        writing.join()
    assert len(seen) == 40


def test_what_is_published_lies_under_its_key(folder: Folder):
    assert publish(folder, "shards/part-00000.parquet", b"bytes") == "shards/part-00000.parquet"
    assert folder.read("shards/part-00000.parquet") == b"bytes"
    assert keys(folder) == ["shards/part-00000.parquet"]


def test_the_same_bytes_published_again_lie_under_the_same_key(folder: Folder):
    assert publish(folder, "a.parquet", b"bytes") == publish(folder, "a.parquet", b"bytes") == "a.parquet"
    assert keys(folder) == ["a.parquet"]


def test_other_bytes_get_a_variation_that_keeps_the_ending_and_both_stay_readable(folder: Folder):
    publish(folder, "a/part.parquet", b"first")
    second, third = publish(folder, "a/part.parquet", b"other"), publish(folder, "a/part.parquet", b"third")
    for key in (second, third):
        assert re.fullmatch(r"a/part~[0-9a-f]{12}\.parquet", key)
    assert [folder.read(key) for key in ("a/part.parquet", second, third)] == [b"first", b"other", b"third"]
    assert keys(folder) == sorted(["a/part.parquet", second, third])


def test_bytes_of_the_same_length_are_told_apart(folder: Folder):
    assert publish(folder, "a", b"one") == "a"
    assert publish(folder, "a", b"two") != "a"


def test_a_file_that_was_put_by_other_tools_is_not_taken_for_the_same(folder: Folder):
    """Where nothing is noted of what lies there, its own bytes count on disk; a store has only its name, and uses another."""
    folder.replace("a.bin", b"by hand")
    key = publish(folder, "a.bin", b"other")
    assert key != "a.bin"
    assert (folder.read("a.bin"), folder.read(key)) == (b"by hand", b"other")


def test_of_many_threads_that_publish_each_finds_its_own_bytes_under_its_key(folder: Folder):
    taken = at_once(12, lambda number: publish(folder, "part.bin", bytes([number % 3]) * 1000))
    for number, key in enumerate(taken):
        assert folder.read(key) == bytes([number % 3]) * 1000
    assert taken.count("part.bin") == 4, "those with the winner's bytes share its key"
    assert keys(folder) == sorted(set(taken))


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
def test_a_range_ends_where_the_file_does(folder: Folder, start, length, expected):
    folder.create("digits", b"0123456789")
    assert folder.read_range("digits", start, length) == expected


def test_a_file_that_is_larger_than_its_reader_allows_is_refused(folder: Folder):
    publish(folder, "a/ten.bin", bytes(10))
    assert folder.read("a/ten.bin", 10) == bytes(10)
    with pytest.raises(InputError, match=r"ten\.bin has more than the 9 bytes allowed"):
        folder.read("a/ten.bin", 9)
    assert not folder.leads_out("a/ten.bin")


def test_an_empty_file_is_a_file(folder: Folder, tmp_path):
    assert folder.create("created", b"")
    assert publish(folder, "published.bin", b"") == "published.bin"
    assert publish(folder, "published.bin", b"") == "published.bin"
    folder.replace("replaced", b"")
    for key in ("created", "published.bin", "replaced"):
        assert folder.size(key) == 0
        assert folder.read(key) == b""
        assert folder.read_range(key, 0, 10) == b""
        assert fetched(folder, key, tmp_path) == b""
        assert folder.version(key)
    assert [(entry.key, entry.size) for entry in folder.walk()] == [("created", 0), ("published.bin", 0), ("replaced", 0)]


def test_missing_files_raise_or_are_none(folder: Folder, tmp_path):
    folder.create("a/b", b"x")
    for key in ("nothing", "a/nothing", "a", "a/b/c"):
        assert folder.size(key) is None, key
        assert folder.version(key) is None, key
        for look in (folder.read, lambda key: folder.read_range(key, 0, 1), lambda key: fetched(folder, key, tmp_path)):
            with pytest.raises((FileNotFoundError, IsADirectoryError, NotADirectoryError)):
                look(key)


def test_size_counts_bytes(folder: Folder):
    for size in (1, 1023, 70_000):
        publish(folder, f"{size}", bytes(size))
        assert folder.size(f"{size}") == size


def test_the_version_changes_with_every_change_and_only_then(folder: Folder):
    seen = set()
    for number in range(20):
        folder.replace("mark", f"{number:04d}".encode())
        version = folder.version("mark")
        assert version
        assert folder.version("mark") == open_folder(folder.uri).version("mark") == version
        seen.add(version)
    assert len(seen) == 20, "also of changes that come fast and keep the length"


def test_a_download_is_the_file(folder: Folder, tmp_path):
    data = os.urandom(300_000)
    publish(folder, "a/b.bin", data)
    (tmp_path / "fetched").write_bytes(bytes(400_000))  # what was there before is gone
    assert fetched(folder, "a/b.bin", tmp_path) == data


def test_walk_goes_through_every_file_below_in_the_order_of_keys(folder: Folder):
    names = ["b", "a/z", "a/b/c", "a-", "a.txt", "a/a", "B", "ä", "a0"]
    for name in names:
        folder.create(name, name.encode())
    open_folder(join(folder.uri + "s", "x")).create("elsewhere", b"")
    before = time.time()
    found = list(folder.walk())
    assert [entry.key for entry in found] == sorted(names)
    assert all(isinstance(entry, Entry) and entry.size == len(entry.key.encode()) for entry in found)
    assert all(abs(entry.modified_s - before) < 60 for entry in found)


@pytest.mark.slow
def test_more_files_than_one_answer_of_a_store_lists_are_all_found(folder: Folder):
    names = sorted([f"{number:04d}/file" for number in range(1010)] + [f"0500/{number}" for number in range(30)])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: folder.replace(name, b"x"), names))
    assert keys(folder) == names
    assert folder.names() == [f"{number:04d}" for number in range(1010)]
    assert len(folder.sub("0500").names()) == 31
    folder.clear()
    assert keys(folder) == []


def test_names_are_those_of_files_and_folders_directly_below(folder: Folder):
    for name in ("b/1", "b/2", "a", "c/d/e", "b.txt", "ü"):
        folder.create(name, b"")
    assert folder.names() == ["a", "b", "b.txt", "c", "ü"]
    assert folder.sub("c").names() == ["d"]
    assert folder.sub("c/d").names() == ["e"]


def test_a_folder_that_is_not_there_is_empty(folder: Folder):
    nowhere = folder.sub("nowhere")
    assert (keys(nowhere), nowhere.names(), nowhere.size("a")) == ([], [], None)
    nowhere.clear()
    nowhere.delete(["a", "b/c"])
    assert folder.names() == []


def test_delete_removes_files_and_does_not_mind_those_that_are_gone(folder: Folder):
    for name in ("a/b/c", "a/d", "e"):
        folder.create(name, b"")
    folder.delete(["a/b/c", "nothing", "a/nothing/at/all", "a/b/c"])
    assert keys(folder) == ["a/d", "e"]
    assert folder.names() == ["a", "e"]
    folder.delete(iter(["a/d"]))
    assert folder.names() == ["e"], "a folder without files is no folder"
    folder.delete([])
    folder.delete(["e"])
    assert folder.names() == []


def test_clear_takes_all_below_and_nothing_beside(folder: Folder, root: str):
    beside = [open_folder(join(root, name)) for name in ("a placebo", "a", "z")]
    for some in (folder, *beside):
        for name in ("a", "b/c", "b/d/e", ".hidden"):
            some.create(name, b"x")
    folder.clear()
    assert (keys(folder), folder.names()) == ([], [])
    assert all(len(keys(some)) == 4 for some in beside)


def test_sub_is_the_folder_below(folder: Folder):
    below = folder.sub("a b/c")
    below.create("d", b"x")
    assert below.uri == join(folder.uri, "a b", "c")
    assert keys(folder) == ["a b/c/d"]
    assert folder.sub("a b").sub("c").read("d") == b"x"


def test_odd_names_are_kept_as_they_are_by_every_method(folder: Folder, tmp_path):
    other = folder.sub("of folders")
    for number, key in enumerate(ODD_KEYS):
        data = f"{number}: {key}".encode()
        assert folder.create(key, data), key
        assert not folder.create(key, b""), key
        assert folder.read(key) == data, key
        assert folder.read_range(key, 1, 3) == data[1:4], key
        assert folder.size(key) == len(data), key
        assert folder.version(key), key
        assert fetched(folder, key, tmp_path) == data, key
        assert publish(folder, f"published/{key}", data) == f"published/{key}", key
        assert publish(folder, f"published/{key}", data) == f"published/{key}", key
        varied = publish(folder, f"published/{key}", data + b"!")
        assert folder.read(varied) == data + b"!", key
        folder.delete([varied])
        below = other.sub(key)
        below.replace(key, data)
        assert keys(below) == [key]
        assert split_file(join(below.uri, key))[0].read(split_file(join(below.uri, key))[1]) == data, key
    expected = sorted([*ODD_KEYS, *(f"published/{key}" for key in ODD_KEYS), *(f"of folders/{key}/{key}" for key in ODD_KEYS)])
    assert keys(folder) == expected
    assert other.names() == sorted({key.split("/")[0] for key in ODD_KEYS})
    folder.delete(ODD_KEYS)
    assert keys(folder) == [key for key in expected if key not in ODD_KEYS]
    folder.clear()
    assert keys(folder) == []


@pytest.mark.parametrize("root", ["disk", "rgw"], indirect=True)
def test_even_a_line_break_may_stand_in_a_name(folder: Folder):
    """moto cuts its own addresses at one."""
    assert folder.create("line\nbreak", b"x")
    assert (keys(folder), folder.names(), folder.read("line\nbreak")) == (["line\nbreak"], ["line\nbreak"], b"x")
    folder.clear()
    assert keys(folder) == []


@pytest.mark.parametrize("key", LEADS_OUT)
def test_a_name_that_leads_out_or_is_not_plain_is_refused_by_every_method(folder: Folder, root: str, tmp_path, key):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    beside = open_folder(root)
    beside.create("x", b"beside")
    for look in (
        lambda: folder.sub(key),
        lambda: folder.read(key),
        lambda: folder.read_range(key, 0, 1),
        lambda: folder.size(key),
        lambda: folder.version(key),
        lambda: folder.create(key, b""),
        lambda: folder.replace(key, b""),
        lambda: folder.publish(key, file, sha256(b"x")),
        lambda: folder.download(key, tmp_path / "fetched"),
        lambda: folder.delete([key]),
    ):
        with pytest.raises(InputError, match="is not the name of a file in a folder"):
            look()
    assert keys(beside) == ["x"]
    assert file.read_bytes() == b"x"


def test_a_workspace_is_a_local_folder_with_a_mark_that_goes_with_it(folder: Folder):
    with folder.workspace() as work, folder.workspace() as another:
        assert work.is_dir()
        assert work != another
        (work / "file").write_bytes(b"x")
        assert len(folder.names()) == 2
        assert all(name.startswith(WORKSPACE) for name in folder.names())
    assert not work.exists()
    assert folder.names() == []
    begun: list[Path] = []

    def fail() -> None:
        with folder.workspace() as work:
            begun.append(work)
            (work / "sub").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not begun[0].exists()
    assert folder.names() == []


def test_a_workspace_leaves_what_was_published(folder: Folder):
    with folder.workspace() as work:
        (work / "file").write_bytes(b"x")
        folder.publish("a", work / "file", sha256(b"x"))
        (work / "unfinished").write_bytes(b"x")
    assert keys(folder) == ["a"]


def test_whether_a_folder_can_be_written_is_tried_without_a_trace(folder: Folder, root: str):
    folder.check_writable()
    assert keys(open_folder(root)) == []
    folder.create("a", b"x")
    folder.check_writable()
    assert keys(open_folder(root)) == ["a place/a"]


def test_local_is_where_it_lies_on_this_machine(folder: Folder):
    folder.create("a/b", b"x")
    here = folder.local("a/b")
    if is_remote(folder.uri):
        assert here is None
        assert folder.local() is None
    else:
        assert here is not None
        assert here.read_bytes() == b"x"
        assert str(folder.local()) == folder.uri


def test_a_folder_can_be_sent_to_another_process(folder: Folder, server_keys: tuple[str, ...]):
    folder.create("a", b"x")
    sent = pickle.dumps(folder)
    received = pickle.loads(sent)
    assert received.uri == folder.uri
    assert received.read("a") == b"x"
    for key in server_keys:
        assert key.encode() not in sent, "each process uses the keys of its own environment"


@pytest.fixture
def server_keys() -> tuple[str, ...]:
    return tuple(os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name in os.environ)


def test_pyarrow_reads_the_parquet_that_was_published(folder: Folder):
    table = pa.table({"row": list(range(1000)), "image": [os.urandom(50) for _ in range(1000)]})
    with folder.workspace() as work:
        for name in ("a b/part-0.parquet", "a b/part-1.parquet", "ü+%.parquet"):
            pq.write_table(table, work / "file", row_group_size=100)
            folder.publish(name, work / "file", sha256_file(work / "file"))
    path, system = arrow_filesystem(folder.uri)
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
    folder, client = open_folder(f"s3://{server.new_bucket()}/root"), server.client()
    data = os.urandom(small_parts * 2 + 12_345)
    taken = [publish(folder, "part.parquet", data) for _ in range(2)]
    assert len(set(taken)) == 2, "parts are joined without a condition, so nothing may lie there"
    for key in taken:
        assert re.fullmatch(r"part~[0-9a-f]{12}\.parquet", key)
        head = client.head_object(Bucket=folder.bucket, Key=f"root/{key}")
        assert head["ETag"].strip('"').endswith("-3"), "it came in three parts"
        assert head["Metadata"]["sha256"] == sha256(data)
        assert folder.size(key) == len(data)
        assert fetched(folder, key, tmp_path) == data
        assert folder.read_range(key, small_parts - 5, 10) == data[small_parts - 5 : small_parts + 5]
    assert keys(folder) == sorted(taken)
    assert publish(folder, "small.bin", data[:small_parts]) == "small.bin", "up to the bound in one piece"
    assert not client.list_multipart_uploads(Bucket=folder.bucket).get("Uploads")


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20, 3 * 2**20 + 5])
def test_a_download_in_pieces_is_whole_whether_or_not_they_come_out_even(server: S3Server, small_parts: int, tmp_path, size):
    folder, data = open_folder(f"s3://{server.new_bucket()}/root"), os.urandom(size)
    publish(folder, "a", data)
    assert fetched(folder, "a", tmp_path) == data


def test_marks_that_other_tools_leave_for_folders_are_no_files(server: S3Server):
    bucket = server.new_bucket()
    for key in ("root/", "root/a/", "root/a/b/"):
        server.client().put_object(Bucket=bucket, Key=key, Body=b"")
    folder = open_folder(f"s3://{bucket}/root")
    folder.create("a/file", b"x")
    assert (keys(folder), folder.names(), folder.sub("a").names()) == (["a/file"], ["a"], ["b", "file"])
    folder.clear()
    assert "Contents" not in server.client().list_objects_v2(Bucket=bucket)
