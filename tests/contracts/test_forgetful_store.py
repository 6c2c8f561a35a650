"""A store that ignores `If-None-Match`, or refuses it: that is noticed and said, and artifacts are whole all the same."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator

import pytest
from contracts.conftest import enter
from contracts.crew import Crew
from contracts.forgetful import UploadForgettingStore, stores
from contracts.workers import FILES, commit_each, content, write_files
from servers.faults import Fault, FaultProxy
from servers.moto import Moto

from zsbir.base import s3
from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.base.storage import WORKSPACE, open_folder

SAID = re.compile(
    r"warning: the store of .* ignores If-None-Match: files get keys of their own; two writers of one artifact are not told"
)


@pytest.fixture(params=["ignores", "refuses"])
def store(request, moto: Moto, monkeypatch, tmp_path) -> Iterator[FaultProxy]:
    with stores(moto)[request.param] as proxy:
        enter(proxy, monkeypatch)
        monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(s3, "_conditional", {})
        yield proxy


@pytest.fixture
def root(store: FaultProxy) -> str:
    return f"s3://{store.new_bucket()}/root"


def write(uri: str, seed: int = 0) -> Artifact:
    with draft(uri, "index", "test") as work:
        write_files(work, seed)
        return work.commit(digest="d" * 64)


def test_it_is_noticed_before_the_first_file_and_said_once(root: str, store: FaultProxy, capsys):
    with draft(f"{root}/indexes/0", "index", "test") as work:
        assert SAID.match(capsys.readouterr().err)
        write_files(work, 0)
        work.commit(digest="d")
    for number in range(1, 4):
        write(f"{root}/indexes/{number}").verify()
    assert capsys.readouterr().err == ""


def test_every_file_gets_a_key_of_its_own_and_the_manifest_names_it(root: str):
    made = write(f"{root}/indexes/i")
    made.verify()
    for name in FILES:
        assert re.fullmatch(re.escape(name).replace(r"\.", r"~[0-9a-f]{12}\."), made.key(name))
        assert made.file(name).read_bytes() == content(name, 0)
    assert {entry.key for entry in open_folder(made.uri).walk()} == {MANIFEST, *(made.key(name) for name in FILES)}


def test_what_is_there_is_found_and_not_written_over(root: str, capsys):
    first = write(f"{root}/indexes/i")
    capsys.readouterr()
    second = write(f"{root}/indexes/i", seed=1)
    assert "another process finished" in capsys.readouterr().err
    assert second.manifest == first.manifest
    second.verify()
    assert {entry.key for entry in open_folder(first.uri).walk()} == {MANIFEST, *(first.key(name) for name in FILES)}


def test_create_and_publish_keep_their_word_one_after_the_other(root: str, tmp_path):
    folder = open_folder(f"{root}/place")
    assert folder.create("a", b"first")
    assert not folder.create("a", b"second")
    assert folder.read("a") == b"first"
    for data in (b"same", b"same", b"other"):
        (tmp_path / "file").write_bytes(data)
        assert folder.read(folder.publish("b.bin", tmp_path / "file", hashlib.sha256(data).hexdigest())) == data


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [pytest.param(4, id="few"), pytest.param(16, id="many", marks=pytest.mark.long)])
def test_two_processes_at_once_leave_one_whole_artifact_while_another_reads(root: str, crew: Crew, rounds: int):
    uris, barrier = [f"{root}/indexes/{number:02d}" for number in range(rounds)], crew.barrier(2)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            for uri in uris:
                if exists(uri):
                    artifact = Artifact(uri)
                    try:
                        seen.append({name: artifact.file(name).read_bytes() for name in FILES})
                    except InputError as error:  # read while the other manifest came; the files of the first are gone with it
                        assert "it is gone" in str(error)  # noqa: PT017 - no error is as good

    reading = threading.Thread(target=read)
    reading.start()
    outcomes = crew.together(commit_each, [(uris, seed, barrier) for seed in range(2)])
    stop.set()
    reading.join()
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert all(len(SAID.findall(outcome.said)) == 1 for outcome in outcomes), "each process says it once"
    versions = [{name: content(name, seed) for name in FILES} for seed in range(2)]
    for uri in uris:
        artifact = Artifact(uri)
        artifact.verify()
        assert {name: artifact.file(name).read_bytes() for name in FILES} in versions
        assert not [name for name in open_folder(uri).names() if name.startswith(WORKSPACE)]
    assert seen
    assert all(read in versions for read in seen), "nobody has seen parts of both"


@pytest.mark.parametrize("fault", [Fault.DROP_AFTER, None])
def test_an_upload_in_parts_has_arrived_also_where_its_end_is_not_known_twice(moto: Moto, monkeypatch, tmp_path, fault):
    monkeypatch.setattr(s3, "SINGLE_PUT_BYTES", 5 * 2**20)
    monkeypatch.setattr(s3, "_TRANSFERS", s3.TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20))
    monkeypatch.setattr(s3, "_known", set())
    data = bytes(range(256)) * 4096 * 6
    (tmp_path / "file").write_bytes(data)
    with UploadForgettingStore(moto) as store:
        enter(store, monkeypatch)
        folder = open_folder(f"s3://{store.new_bucket()}/root")
        proxied = ["HEAD", "POST", "PUT", "PUT", "POST"]
        store.arm(proxied.index("POST") + 3, fault)
        key = folder.publish("part.bin", tmp_path / "file", hashlib.sha256(data).hexdigest())
        assert [method for method, _ in store.log][: len(proxied)] == proxied
    enter(moto, monkeypatch)
    assert open_folder(folder.uri).read(key) == data
