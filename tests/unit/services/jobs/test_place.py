"""An attempt's folder, on disk and in object storage."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.jobs import place as places
from services.jobs.place import LOG_LIMIT, LOG_PIECE, End, Place, place_of
from services.jobs.work import CUT, Log
from zsbir.base.storage import folder

THREADS = 16


@pytest.fixture
def place(root):
    return place_of(root, "zsbir-1a2b3c-1-a1")


def tell(place, step, who, **signs):
    """As the watched command does."""
    folder(place.uri).replace(f"{step}/{who}.json", json.dumps({"updated_s": 1.0, **signs}).encode())


def read_all(place):
    """Its log, as who follows it reads on: from where he was, until nothing comes."""
    text = b""
    while data := place.log(len(text)):
        text += data
    return text


def test_an_empty_folder_says_that_nothing_has_happened(place):
    assert (place.began(), place.began_by(), place.ended(), place.beats(), place.stop_reason()) == (False, "", None, None, None)
    assert (place.steps(), place.curve("train"), place.log(0), place.log_size()) == ([], [], b"", 0)
    assert place.signs("train") == {"progress": {}, "facts": {}, "metrics": {}, "updated_s": 0.0}
    with pytest.raises(FileNotFoundError):
        place.spec()


def test_of_many_who_want_to_begin_one_does(place):
    with ThreadPoolExecutor(THREADS) as pool:
        won = list(pool.map(lambda number: Place(place.uri).fence(f"number {number}"), range(THREADS)))
    assert sum(won) == 1
    assert place.began()
    assert place.began_by() == f"number {won.index(True)}"


def test_the_first_reason_to_stop_stays(place):
    place.ask_stop("timed_out")
    place.ask_stop("cancelled")
    assert place.stop_reason() == "timed_out"


def test_a_reason_that_nobody_knows_is_a_preemption(place):
    folder(place.uri).create("stop", b"of another version")
    assert place.stop_reason() == "preempted"


def test_the_first_specification_and_the_first_last_word_stay(place):
    place.specify({"steps": [{"name": "ingest"}, {"name": "train"}]})
    place.specify({"steps": []})
    assert place.steps() == ["ingest", "train"]
    place.end(End("succeeded", result="s3://bucket/é", made={"train": "x"}))
    place.end(End("unknown", "too late"))
    assert place.ended() == End("succeeded", "", "s3://bucket/é", {"train": "x"})


def test_every_beat_is_another_one(place):
    seen = set()
    for count in range(1, 12):
        place.beat(count)
        seen.add(place.beats())
    assert len(seen) == 11


def test_what_a_worker_says_goes_before_what_its_command_says(place):
    tell(place, "train", "driver", progress={"label": "embed", "done": 1}, facts={"run": "x", "error": "e"}, updated_s=5.0)
    tell(place, "train", "worker", progress={"label": "train"}, facts={"run": "y"}, metrics={"step": 3}, updated_s=4.0)
    assert place.signs("train") == {
        "progress": {"label": "train", "done": 1},
        "facts": {"run": "y", "error": "e"},
        "metrics": {"step": 3},
        "updated_s": 5.0,
    }


# --- the log


@pytest.fixture
def small(monkeypatch):
    """Pieces of ten bytes, of which four are kept."""
    for module in ("services.jobs.place", "services.jobs.work"):
        monkeypatch.setattr(f"{module}.LOG_PIECE", 10)
        monkeypatch.setattr(f"{module}.LOG_LIMIT", 40)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 21, 39, 40])
@pytest.mark.parametrize("step", [1, 7, 10, 1000])
def test_a_log_comes_back_whole_however_it_was_cut_and_written(place, small, size, step):
    text = bytes(range(65, 65 + size))
    log = Log(place)
    for start in range(0, size, step):
        log.add(text[start : start + step])
        log.write()
    assert read_all(place) == text
    assert place.log_size() == size


def test_a_log_can_be_read_from_anywhere_in_parts_of_any_size(place, small):
    log = Log(place)
    log.add(b"abcdefghijklmnopqrstuvwxy")
    log.write()
    assert place.log(0) == b"abcdefghij"
    assert place.log(9, 5) == b"j"
    assert place.log(10, 3) == b"klm"
    assert place.log(23, 99) == b"xy"
    assert [place.log(offset) for offset in (25, 30, 1000)] == [b"", b"", b""]


def test_a_log_grows_under_who_reads_it(place, small):
    log = Log(place)
    log.add(b"abc")
    log.write()
    assert read_all(place) == b"abc"
    log.add(b"defghijkl")
    log.write()
    assert place.log(3) == b"defghij"
    assert place.log(10) == b"kl"


@pytest.mark.parametrize("sizes", [(41,), (39, 2), (39, 1, 1), (40, 1), (100,), (30, 30, 30)])
def test_a_log_that_is_too_long_is_cut_once_and_says_so(place, small, sizes):
    log = Log(place)
    text = b""
    for number, size in enumerate(sizes):
        log.add(bytes([65 + number]) * size)
        text += bytes([65 + number]) * size
        log.write()
    assert read_all(place) == text[:40] + CUT


def test_a_log_of_the_real_pieces_has_their_size(root):
    place = place_of(root, "a")
    log = Log(place)
    text = (b"0123456789abcdef" * (LOG_PIECE // 16)) * 2 + b"end"
    log.add(text)
    log.write()
    assert folder(place.uri).sub("log").names() == ["000000.txt", "000001.txt", "000002.txt"]
    assert place.log(LOG_PIECE - 1, 5) == b"f"
    assert read_all(place) == text
    assert place.log_size() == len(text)
    assert LOG_LIMIT % LOG_PIECE == 0
    assert places.LOG_PIECE == LOG_PIECE


def test_what_could_not_be_written_is_written_later(tmp_path):
    place = place_of(str(tmp_path), "a")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "a").write_bytes(b"in the way")
    log = Log(place)
    log.add(b"first")
    with pytest.raises(OSError):
        log.write()
    (tmp_path / "jobs" / "a").unlink()
    log.add(b" second")
    log.write()
    assert read_all(place) == b"first second"


def test_the_tail_of_a_log_is_text_whatever_was_said(place):
    log = Log(place)
    log.add("é".encode()[1:] + b"abc\xff")
    assert log.tail() == "\ufffdabc\ufffd"
    assert log.tail(2) == "c\ufffd"
