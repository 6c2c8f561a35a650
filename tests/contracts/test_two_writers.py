"""Two processes that write one artifact at the same moment: one wins, both return the same, and it is whole."""

from __future__ import annotations

import multiprocessing
import re
import time

import pytest
from contracts.crew import Crew
from contracts.workers import FILES, commit_each, content, hang_after_publishing, write_files

from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import RunError
from zsbir.base.storage import WORKSPACE, is_remote, open_folder
from zsbir.storage_admin.housekeeping import debris, remove_debris
from zsbir.storage_admin.roots import survey

ROUNDS = [pytest.param(6, id="few"), pytest.param(24, id="many", marks=pytest.mark.long)]
"""How often the processes meet; a third of that where there are more than two."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))


def keys(uri: str) -> set[str]:
    return {entry.key for entry in open_folder(uri).walk()}


def check_whole(uri: str, seeds: set[int]) -> Artifact:
    """Signed, all of it by one writer, and nothing beside it but marks of killed ones."""
    artifact = Artifact(uri)
    artifact.verify()
    written = {name: artifact.file(name).read_bytes() for name in FILES}
    assert written in [{name: content(name, seed) for name in FILES} for seed in seeds]
    return artifact


@pytest.mark.slow
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("seeds", [(0, 0), (0, 1), (0, 1, 2, 2)], ids=["same bytes", "other bytes", "four writers"])
def test_processes_that_commit_one_artifact_leave_one_and_say_so(root: str, crew: Crew, seeds, rounds: int):
    uris = [f"{root}/indexes/{number:02d}" for number in range(rounds if len(seeds) == 2 else rounds // 3)]
    barrier = crew.barrier(len(seeds))
    outcomes = crew.together(commit_each, [(uris, seed, barrier) for seed in seeds])
    assert [outcome.error for outcome in outcomes] == [""] * len(seeds)
    for number, uri in enumerate(uris):
        winner = check_whole(uri, set(seeds))
        by = winner.manifest.written_by
        assert [outcome.value[number] for outcome in outcomes] == [(winner.uri, by)] * len(seeds), "all return the winner's"
        told = [
            f"another process finished {winner.uri} first ({by}); its result is taken\n" in outcome.said for outcome in outcomes
        ]
        assert sorted(told) == [False] + [True] * (len(seeds) - 1), "one says nothing, the others that they were second"
        assert keys(uri) == {MANIFEST, *(winner.key(name) for name in FILES)}, "and take their own away"


def kill_a_writer(crew: Crew, uri: str, seed: int, files: int) -> None:
    """SIGKILL, once it has published so many files."""
    told, tell = multiprocessing.get_context("forkserver").Pipe(duplex=False)
    process, _ = crew.start(hang_after_publishing, uri, seed, files, tell)
    assert told.poll(60)
    process.kill()
    process.join()


@pytest.mark.parametrize("files", range(len(FILES) + 1))
def test_a_writer_killed_in_the_middle_is_followed_by_one_with_other_bytes(root: str, crew: Crew, files):
    uri = f"{root}/indexes/i"
    kill_a_writer(crew, uri, 0, files)
    assert not exists(uri)
    left = {key for key in keys(uri) if not key.startswith(WORKSPACE)}
    assert left == set(FILES[:files])
    with draft(uri, "index", "test") as work:
        write_files(work, 1)
        made = work.commit(digest="d" * 64)
    check_whole(uri, {1})
    for name in FILES:
        assert re.fullmatch(re.escape(name).replace(r"\.", r"~[0-9a-f]{12}\.") if name in left else re.escape(name), made.key(name))
    assert all(open_folder(uri).read(name) == content(name, 0) for name in left), "never written over"
    named = {MANIFEST, *(made.key(name) for name in FILES)}
    assert {key for key in keys(uri) if not key.startswith(WORKSPACE)} == named | left
    later_s = time.time() + 60
    remove_debris(root, debris(survey(root), [], later_s), later_s)
    assert keys(uri) == named, "`gc` takes what the dead one left, and nothing else"
    check_whole(uri, {1})


@pytest.mark.parametrize("files", [1, 3])
def test_a_writer_killed_in_the_middle_is_followed_by_the_same_command_which_uses_what_is_there(root: str, crew: Crew, files):
    uri = f"{root}/indexes/i"
    kill_a_writer(crew, uri, 0, files)
    with draft(uri, "index", "test") as work:
        write_files(work, 0)
        work.commit(digest="d" * 64)
    check_whole(uri, {0})
    assert {key for key in keys(uri) if not key.startswith(WORKSPACE)} == {MANIFEST, *FILES}


def test_two_writers_of_different_things_at_one_address_do_not_mix_them(root: str, crew: Crew):
    """Only a digest cut short could lead there; then one is told to remove the other first."""
    uri = f"{root}/indexes/i"
    (first,) = crew.together(commit_each, [([uri], 0, crew.barrier(1))])
    assert first.error == ""

    def write_another() -> None:
        with draft(uri, "index", "test") as work:
            write_files(work, 1)
            work.commit(digest="e" * 64)

    with pytest.raises(RunError, match="another writer has put a different index at"):
        write_another()
    check_whole(uri, {0})
    assert keys(uri) == {MANIFEST, *FILES}
    assert is_remote(uri) or not list(open_folder(uri).local().glob(f"{WORKSPACE}*"))
