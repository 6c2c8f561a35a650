"""Artifacts on local disk, in moto and in a real Ceph RGW: the same promises, whatever keeps their files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from contracts.conftest import enter
from servers.faults import FaultProxy
from servers.rgw import Unavailable, rgw_server
from servers.s3 import S3Server

from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.cache import cache_dir
from zsbir.base.draft import draft, remove
from zsbir.base.errors import InputError, RunError
from zsbir.base.fetch import fetch
from zsbir.base.storage import WORKSPACE, is_remote, join, open_folder
from zsbir.training.checkpoint import Checkpoints
from zsbir.training.checkpoint_names import newest_checkpoint

NAMES = ["a/one.bin", "two words+ü.parquet", "empty.json"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a cache of its own, so that it reads from the store and not what another test fetched."""
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))


def content(name: str, seed: int) -> bytes:
    return b"" if name == "empty.json" else hashlib.sha256(f"{name}{seed}".encode()).digest() * 1000


def write(uri: str, seed: int = 0, digest: str = "d" * 64, **said: object) -> Artifact:
    with draft(uri, "index", "test") as work:
        for name in NAMES:
            work.file(name).write_bytes(content(name, seed))
        return work.commit(digest=digest, counts={"files": len(NAMES)}, **said)


def check(artifact: Artifact, seed: int = 0) -> None:
    artifact.verify()
    assert {name: artifact.file(name).read_bytes() for name in artifact.manifest.files} == {
        name: content(name, seed) for name in NAMES
    }


def keys(uri: str) -> set[str]:
    return {entry.key for entry in open_folder(uri).walk()}


def test_what_was_committed_is_there_whole_and_nothing_else(root: str):
    made = write(f"{root}/indexes/i", facts={"sunny": True})
    check(made)
    opened = Artifact(f"{root}/indexes/i", "index")
    check(opened)
    assert opened.manifest == made.manifest
    assert (opened.manifest.facts, opened.manifest.counts) == ({"sunny": True}, {"files": 3})
    assert keys(made.uri) == {MANIFEST, *NAMES}
    assert opened.address("two words+ü.parquet") == f"{made.uri}/two words+ü.parquet"
    assert opened.folder_name == "i"
    assert exists(made.uri)


def test_an_artifact_is_invisible_before_its_manifest(root: str):
    uri = f"{root}/indexes/i"
    with draft(uri, "index", "test") as work:
        for name in NAMES:
            work.file(name).write_bytes(content(name, 0))
            assert work.publish(name).sha256 == hashlib.sha256(content(name, 0)).hexdigest()
            assert open_folder(uri).read(work.key(name)) == content(name, 0)
        assert not exists(uri)
        with pytest.raises(InputError, match=r"the folder exists, but has no manifest\.json"):
            Artifact(uri)
        work.commit(digest="d")
        assert exists(uri)
    check(Artifact(uri))


def test_an_error_in_a_draft_leaves_nothing(root: str):
    def fail() -> None:
        with draft(f"{root}/indexes/i", "index", "test") as work:
            work.file("a/one.bin").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert keys(root) == set()


def test_the_same_again_is_the_same_and_leaves_no_second_copy(root: str, capsys):
    first, second = write(f"{root}/indexes/i"), write(f"{root}/indexes/i")
    assert (first.uri, first.manifest) == (second.uri, second.manifest)
    assert f"another process finished {first.uri} first ({first.manifest.written_by})" in capsys.readouterr().err
    assert keys(first.uri) == {MANIFEST, *NAMES}
    check(second)


def test_the_second_writer_with_other_bytes_takes_its_own_away_again(root: str):
    first, second = write(f"{root}/indexes/i"), write(f"{root}/indexes/i", seed=1)
    assert second.manifest == first.manifest
    assert keys(first.uri) == {MANIFEST, *NAMES}
    check(second)


def test_another_artifact_at_the_address_is_an_error_and_stays(root: str):
    first = write(f"{root}/indexes/i")
    with pytest.raises(RunError, match=r"another writer has put a different index at .*indexes/i meanwhile; remove it first"):
        write(f"{root}/indexes/i", seed=1, digest="e" * 64)
    check(Artifact(first.uri))
    assert keys(first.uri) == {MANIFEST, *NAMES}


def test_what_a_killed_writer_left_is_used_where_it_is_the_same_and_kept_out_of_the_way_where_not(root: str):
    folder = open_folder(f"{root}/indexes/i")
    for name, seed in zip(NAMES[:2], (0, 1), strict=True):
        left = Path(os.environ["ZSBIR_CACHE"]).with_name("left")
        left.write_bytes(content(name, seed))
        folder.publish(name, left, hashlib.sha256(content(name, seed)).hexdigest())
    made = write(folder.uri)
    check(made)
    assert made.key(NAMES[0]) == NAMES[0]
    assert re.fullmatch(r"two words\+ü~[0-9a-f]{12}\.parquet", made.key(NAMES[1]))
    assert made.manifest.stored_as == {NAMES[1]: made.key(NAMES[1])}
    assert folder.read(NAMES[1]) == content(NAMES[1], 1), "never written over"


def test_eight_threads_that_write_one_artifact_end_with_one(root: str):
    uri, start, made = f"{root}/indexes/i", threading.Barrier(8), []

    def writer(number: int) -> None:
        start.wait()
        made.append(write(uri, seed=number).manifest.written_by)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = Artifact(uri)
    assert made == [winner.manifest.written_by] * 8
    winner.verify()
    assert keys(uri) == {MANIFEST, *(winner.key(name) for name in NAMES)}


def test_a_file_is_fetched_once_and_checked_on_its_way(root: str):
    made = write(f"{root}/indexes/i")
    path = made.file("two words+ü.parquet")
    assert made.verified("two words+ü.parquet") == path == Artifact(made.uri).file("two words+ü.parquet")
    assert is_remote(root) == path.is_relative_to(cache_dir())
    assert fetch(made.address("two words+ü.parquet")) == path
    if is_remote(root):
        with pytest.raises(InputError, match=r"is not a folder of this machine: copy it here first"):
            _ = made.path


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"x" + data[1:], lambda data: b""]
)
def test_a_file_that_was_changed_is_refused_by_name(root: str, change, tmp_path):
    made = write(f"{root}/indexes/i")
    made.folder.replace("a/one.bin", change(content("a/one.bin", 0)))
    for look in (made.verify, lambda: made.verified("a/one.bin"), lambda: made.download("a/one.bin", tmp_path / "x")):
        with pytest.raises(InputError, match=r"a/one\.bin differs from its manifest"):
            look()
    made.verified("empty.json")


def test_a_file_that_is_gone_is_named(root: str):
    made = write(f"{root}/indexes/i")
    made.folder.delete(["a/one.bin"])
    for look in (made.verify, lambda: made.file("a/one.bin"), lambda: made.verified("a/one.bin")):
        with pytest.raises(InputError, match=r"\(index\) has no file 'a/one\.bin'(: it is gone)?$"):
            look()
    with pytest.raises(InputError, match="has no file 'stranger'"):
        made.file("stranger")


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff\xfe", b'{"kind": "index"}'])
def test_a_broken_manifest_is_one_line_that_names_it(root: str, broken):
    made = write(f"{root}/indexes/i")
    made.folder.replace(MANIFEST, broken)
    with pytest.raises(InputError, match=r"manifest\.json") as caught:
        Artifact(made.uri)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_told_apart_from_a_missing_one(root: str):
    open_folder(f"{root}/indexes/i").create("notes.txt", b"x")
    with pytest.raises(InputError, match=r"no index at .*: the folder exists, but has no manifest\.json"):
        Artifact(f"{root}/indexes/i", "index")
    with pytest.raises(InputError, match=r"no run at .*: no such folder"):
        Artifact(f"{root}/runs/i", "run")
    made = write(f"{root}/indexes/made")
    with pytest.raises(InputError, match="is an index, not a run"):
        Artifact(made.uri, "run")


def test_a_removed_artifact_is_gone_with_all_its_files_and_can_be_made_again(root: str):
    made, beside = write(f"{root}/indexes/i"), write(f"{root}/indexes/i2")
    remove(made.uri)
    assert not exists(made.uri)
    assert keys(made.uri) == set()
    remove(made.uri)
    check(beside)
    check(write(made.uri, seed=3), seed=3)


def copied(uri: str, target: str) -> str:
    """By hand, as a user would: key by key, the manifest like any other."""
    for entry in open_folder(uri).walk():
        open_folder(target).replace(entry.key, open_folder(uri).read(entry.key))
    return target


def test_an_input_is_found_in_the_own_root_and_else_where_it_was(root: str):
    dataset = write(f"{root}/datasets/toy/0")
    made = write(f"{root}/indexes/toy/i", inputs={"dataset": dataset.reference()}, digest="e")
    assert made.input("dataset", "index").uri == dataset.uri
    with pytest.raises(InputError, match="was made from no run"):
        made.input("run", "run")
    with pytest.raises(InputError, match="is an index, not a dataset"):
        made.input("dataset", "dataset")

    elsewhere = join(root, "elsewhere")
    moved = Artifact(copied(made.uri, f"{elsewhere}/indexes/toy/i"))
    assert moved.input("dataset", "index").uri == dataset.uri, "nothing else was copied"
    copied(dataset.uri, f"{elsewhere}/datasets/toy/0")
    assert moved.input("dataset", "index").uri == f"{elsewhere}/datasets/toy/0", "the copy that lies nearer"
    remove(dataset.uri)
    check(moved.input("dataset", "index"))
    with pytest.raises(InputError, match=r"the index that .* was made from is gone: it is not at"):
        made.input("dataset", "index")
    write(dataset.uri, digest="f" * 64)
    with pytest.raises(InputError, match=r"datasets/toy/0 is no longer the index that .* was made from"):
        made.input("dataset", "index")
    assert moved.input("dataset", "index").uri == f"{elsewhere}/datasets/toy/0"


def test_an_input_file_is_found_in_either_root(root: str):
    name = "0" * 64 + ".safetensors"
    weights = join(root, "weights", name)
    open_folder(join(root, "weights")).create(name, b"x")
    made = write(f"{root}/indexes/toy/i", inputs={"weights": {"uri": weights, "digest": "0" * 64}})
    assert made.input_file("weights") == weights
    moved = Artifact(copied(made.uri, f"{root}/elsewhere/indexes/toy/i"))
    assert moved.input_file("weights") == weights
    copied(join(root, "weights"), f"{root}/elsewhere/weights")
    assert moved.input_file("weights") == join(root, "elsewhere", "weights", name)
    open_folder(join(root, "weights")).clear()
    assert moved.input_file("weights") == join(root, "elsewhere", "weights", name)
    with pytest.raises(InputError, match=r"that .* was made from are gone"):
        made.input_file("weights")


def test_the_newest_whole_checkpoint_is_found_among_other_folders(root: str):
    folder = open_folder(f"{root}/runs/r/checkpoints")
    for name in ("step-000009", "step-000010", "step-1000000", "best-000010"):
        with draft(f"{folder.uri}/{name}", "checkpoint", name) as work:
            work.file("state.safetensors").write_bytes(name.encode())
            work.commit(digest=name)
    for name in (
        "step-2000000/state.safetensors",
        "step-old/manifest.json",
        "step-/manifest.json",
        "step-5-copy/manifest.json",
        "notes.txt",
    ):
        folder.create(name, b"{}")
    newest = newest_checkpoint(folder)
    assert newest
    assert newest.folder_name == "step-1000000"
    Checkpoints(f"{root}/runs/r")._remove_superseded(1000000, holds_best=True)
    assert folder.names() == ["notes.txt", "step-", "step-1000000", "step-2000000", "step-5-copy", "step-old"]


def test_what_was_committed_survives_an_outage_in_the_middle_of_the_next_commit(server: S3Server, monkeypatch: pytest.MonkeyPatch):
    with FaultProxy(server) as proxy:
        enter(proxy, monkeypatch)
        monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "1")
        root = f"s3://{server.new_bucket()}/root"
        whole, torn = f"{root}/indexes/whole", f"{root}/indexes/torn"
        write(whole)
        with pytest.raises(RunError, match="the store does not answer"):
            tear(torn, proxy.cut)
        proxy.heal()
        monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "5")
        check_after_an_outage(whole, torn)


def tear(uri: str, cut: Callable[[], object]) -> None:
    """Write an artifact whose store goes away between its first file and the others."""
    with draft(uri, "index", "test") as work:
        work.file("a/one.bin").write_bytes(content("a/one.bin", 0))
        work.publish("a/one.bin")
        cut()
        work.commit(digest="d" * 64)


def check_after_an_outage(whole: str, torn: str) -> None:
    """Assert that one artifact is whole as before, and the other invisible until the same command is given again."""
    shutil.rmtree(cache_dir(), ignore_errors=True)
    check(Artifact(whole))
    assert not exists(torn)
    assert {key for key in keys(torn) if not key.startswith(WORKSPACE)} == {"a/one.bin"}
    check(write(torn))
    assert {key for key in keys(torn) if not key.startswith(WORKSPACE)} == {MANIFEST, *NAMES}


@pytest.mark.slow
def test_what_was_committed_survives_the_death_of_all_processes_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own RGW on a disk, killed with SIGKILL as when the power goes, while a second artifact is being written."""
    try:
        running = rgw_server("bluestore")
        server = running.__enter__()
    except Unavailable as reason:
        pytest.skip(str(reason))
    try:
        enter(server, monkeypatch)
        monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "1")
        root = f"s3://{server.new_bucket()}/root"
        whole, torn = f"{root}/indexes/whole", f"{root}/indexes/torn"
        write(whole)
        with pytest.raises(RunError, match="the store does not answer"):
            tear(torn, server.kill)
        server.start()
        monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "5")
        check_after_an_outage(whole, torn)
    finally:
        running.__exit__(None, None, None)
