"""An attempt's folder, on disk and in object storage."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.jobs.runs import attempt_dir as attempt_dirs
from services.jobs.runs.attempt_dir import LOG_LIMIT, LOG_PIECE, AttemptDir, End, attempt_dir_of
from services.jobs.runs.log import LOG_CUT, Log
from zsbir.base.storage import open_folder

THREADS = 16


@pytest.fixture
def attempt_dir(root):
    return attempt_dir_of(root, "zsbir-1a2b3c-1-a1")


def tell(attempt_dir, step, who, **status):
    """As the watched command does."""
    open_folder(attempt_dir.uri).replace(f"{step}/{who}.json", json.dumps({"updated_s": 1.0, **status}).encode())


def read_all(attempt_dir):
    """Its log, as a reader follows it: from where it was, until nothing comes."""
    text = b""
    while data := attempt_dir.log(len(text)):
        text += data
    return text


def test_an_empty_folder_reads_as_an_attempt_that_has_not_begun(attempt_dir):
    assert (
        attempt_dir.is_claimed(),
        attempt_dir.claimed_by(),
        attempt_dir.read_end(),
        attempt_dir.heartbeat_version(),
        attempt_dir.stop_reason(),
    ) == (
        False,
        "",
        None,
        None,
        None,
    )
    assert (attempt_dir.step_names(), attempt_dir.curve("train"), attempt_dir.log(0), attempt_dir.log_size()) == ([], [], b"", 0)
    assert attempt_dir.status("train") == {"progress": {}, "facts": {}, "metrics": {}, "updated_s": 0.0}
    with pytest.raises(FileNotFoundError):
        attempt_dir.spec()


def test_one_of_many_claims_succeeds(attempt_dir):
    with ThreadPoolExecutor(THREADS) as pool:
        won = list(pool.map(lambda number: AttemptDir(attempt_dir.uri).claim_start(f"number {number}"), range(THREADS)))
    assert sum(won) == 1
    assert attempt_dir.is_claimed()
    assert attempt_dir.claimed_by() == f"number {won.index(True)}"


def test_the_first_reason_to_stop_stays(attempt_dir):
    attempt_dir.request_stop("timed_out")
    attempt_dir.request_stop("cancelled")
    assert attempt_dir.stop_reason() == "timed_out"


def test_an_unknown_reason_to_stop_is_a_preemption(attempt_dir):
    open_folder(attempt_dir.uri).create("stop", b"of another version")
    assert attempt_dir.stop_reason() == "preempted"


def test_the_first_specification_and_the_first_end_stay(attempt_dir):
    attempt_dir.write_spec({"steps": [{"name": "ingest"}, {"name": "train"}]})
    attempt_dir.write_spec({"steps": []})
    assert attempt_dir.step_names() == ["ingest", "train"]
    attempt_dir.write_end(End("succeeded", result="s3://bucket/é", made={"train": "x"}))
    attempt_dir.write_end(End("unknown", "too late"))
    assert attempt_dir.read_end() == End("succeeded", "", "s3://bucket/é", {"train": "x"})


def test_every_heartbeat_has_another_version(attempt_dir):
    seen = set()
    for count in range(1, 12):
        attempt_dir.write_heartbeat(count)
        seen.add(attempt_dir.heartbeat_version())
    assert len(seen) == 11


def test_what_a_worker_writes_takes_precedence_over_what_its_command_writes(attempt_dir):
    tell(attempt_dir, "train", "driver", progress={"label": "embed", "done": 1}, facts={"run": "x", "error": "e"}, updated_s=5.0)
    tell(attempt_dir, "train", "worker", progress={"label": "train"}, facts={"run": "y"}, metrics={"step": 3}, updated_s=4.0)
    assert attempt_dir.status("train") == {
        "progress": {"label": "train", "done": 1},
        "facts": {"run": "y", "error": "e"},
        "metrics": {"step": 3},
        "updated_s": 5.0,
    }


# --- the log


@pytest.fixture
def small(monkeypatch):
    """Pieces of ten bytes, of which four are kept."""
    for module in ("services.jobs.runs.attempt_dir", "services.jobs.runs.log"):
        monkeypatch.setattr(f"{module}.LOG_PIECE", 10)
        monkeypatch.setattr(f"{module}.LOG_LIMIT", 40)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 39, 40])
@pytest.mark.parametrize("step", [1, 7, 10, 1000])
def test_a_log_comes_back_whole_however_it_was_cut_and_written(attempt_dir, small, size, step):
    text = bytes(range(65, 65 + size))
    log = Log(attempt_dir)
    for start in range(0, size, step):
        log.add(text[start : start + step])
        log.write()
    assert read_all(attempt_dir) == text
    assert attempt_dir.log_size() == size


def test_a_log_can_be_read_from_anywhere_in_parts_of_any_size(attempt_dir, small):
    log = Log(attempt_dir)
    log.add(b"abcdefghijklmnopqrstuvwxy")
    log.write()
    assert attempt_dir.log(0) == b"abcdefghij"
    assert attempt_dir.log(9, 5) == b"j"
    assert attempt_dir.log(10, 3) == b"klm"
    assert attempt_dir.log(23, 99) == b"xy"
    assert [attempt_dir.log(offset) for offset in (25, 30, 1000)] == [b"", b"", b""]


def test_a_log_can_be_read_on_as_it_grows(attempt_dir, small):
    log = Log(attempt_dir)
    log.add(b"abc")
    log.write()
    assert read_all(attempt_dir) == b"abc"
    log.add(b"defghijkl")
    log.write()
    assert attempt_dir.log(3) == b"defghij"
    assert attempt_dir.log(10) == b"kl"


@pytest.mark.parametrize("sizes", [(41,), (39, 2), (39, 1, 1), (40, 1), (100,), (30, 30, 30)])
def test_a_log_that_is_too_long_is_cut_once_and_says_so(attempt_dir, small, sizes):
    log = Log(attempt_dir)
    text = b""
    for number, size in enumerate(sizes):
        log.add(bytes([65 + number]) * size)
        text += bytes([65 + number]) * size
        log.write()
    assert read_all(attempt_dir) == text[:40] + LOG_CUT


def test_a_log_of_the_real_pieces_has_their_size(root):
    attempt_dir = attempt_dir_of(root, "a")
    log = Log(attempt_dir)
    text = (b"0123456789abcdef" * (LOG_PIECE // 16)) * 2 + b"end"
    log.add(text)
    log.write()
    assert open_folder(attempt_dir.uri).sub("log").names() == ["000000.txt", "000001.txt", "000002.txt"]
    assert attempt_dir.log(LOG_PIECE - 1, 5) == b"f"
    assert read_all(attempt_dir) == text
    assert attempt_dir.log_size() == len(text)
    assert LOG_LIMIT % LOG_PIECE == 0
    assert attempt_dirs.LOG_PIECE == LOG_PIECE


def test_what_could_not_be_written_is_written_later(tmp_path):
    attempt_dir = attempt_dir_of(str(tmp_path), "a")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a").write_bytes(b"in the way")
    log = Log(attempt_dir)
    log.add(b"first")
    with pytest.raises(OSError):
        log.write()
    (tmp_path / "jobs" / "a").unlink()
    log.add(b" second")
    log.write()
    assert read_all(attempt_dir) == b"first second"


def test_the_tail_of_a_log_is_text_whatever_was_said(attempt_dir):
    log = Log(attempt_dir)
    log.add("é".encode()[1:] + b"abc\xff")
    assert log.tail() == "\ufffdabc\ufffd"


def test_the_tail_is_there_whatever_was_written_or_no_longer_fits(attempt_dir, monkeypatch):
    monkeypatch.setattr("services.jobs.runs.log.LOG_LIMIT", 3 * LOG_PIECE)
    log = Log(attempt_dir)
    log.add(b"x" * (LOG_PIECE - 20) + b"error: CUDA out of memory. Tried to allocate 2 GiB")
    log.write()
    assert log.tail().endswith("error: CUDA out of memory. Tried to allocate 2 GiB")
    log.add(b"x" * 3 * LOG_PIECE)
    log.add(b"\nerror: the loss is nan\n")
    assert log.tail().endswith("\nerror: the loss is nan\n")
    log.write()
    assert b"error: the loss" not in read_all(attempt_dir)
