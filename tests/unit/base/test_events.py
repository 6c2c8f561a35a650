import io
import os
import re
import termios
import time

import pytest

from zsbir.base import events
from zsbir.base.events import Progress, say, say_lines, track, warn


def test_the_story_goes_to_standard_error_line_by_line(capsys):
    say("a class was left out")
    warn("it is small")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a class was left out\nwarning: it is small\n"


def test_a_message_is_one_line_and_gives_no_orders_to_the_terminal(capsys):
    say("no drawing at 'a\x1b[2J\nerror: all is lost'")
    assert capsys.readouterr().err == "no drawing at 'a\\x1b[2J\\nerror: all is lost'\n"
    say_lines("rank  path\n1     \x9bb")
    assert capsys.readouterr().err == "rank  path\n1     \\x9bb\n"


def test_without_a_terminal_progress_is_plain_lines_with_rate_and_time_left(monkeypatch):
    monkeypatch.setattr(events, "LOG_INTERVAL_S", 0.05)
    stream = io.StringIO()
    with Progress("embed", total=300, unit="image", stream=stream) as progress:
        for _ in range(3):
            time.sleep(0.06)
            progress.advance(50, "loss 0.5")
    *lines, last = stream.getvalue().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(r"embed \d+/300 images, \d+\.\d images/s, \d\d:\d\d left, loss 0\.5", line), line
    assert re.fullmatch(r"embed: 150 images in 0\.\d s \(\d+\.\d images/s\)", last), last
    assert "\r" not in stream.getvalue()


def test_time_left_is_what_the_rate_says(monkeypatch):
    monkeypatch.setattr(events, "LOG_INTERVAL_S", 0.0)
    stream = io.StringIO()
    progress = Progress("train", total=1000, unit="step", stream=stream)
    time.sleep(0.2)
    progress.advance(1)
    found = re.fullmatch(r"train 1/1000 steps, (\d+\.\d) steps/s, (\d+):(\d\d) left\n", stream.getvalue())
    rate, left_s = float(found[1]), 60 * int(found[2]) + int(found[3])
    assert 0 < rate <= 5.0
    assert left_s >= 999 * 0.2 - 1


def test_a_resumed_count_starts_where_it_was_and_its_rate_counts_only_what_was_done_since(monkeypatch):
    monkeypatch.setattr(events, "LOG_INTERVAL_S", 0.0)
    stream = io.StringIO()
    with Progress("train", total=100_000, unit="step", start=90_000, stream=stream) as progress:
        time.sleep(0.1)
        progress.advance(1)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("train 90001/100000 steps, ")
    assert float(re.search(r"(\d+\.\d) \w+/s", first)[1]) <= 10
    assert last.startswith("train: 1 steps in ")


def test_lines_come_every_few_seconds_and_not_with_every_item():
    stream = io.StringIO()
    with Progress("embed", total=None, unit="image", stream=stream) as progress:
        for _ in range(1000):
            progress.advance()
    assert len(stream.getvalue().splitlines()) == 1, "only the last line: it took less than the interval"


def test_nothing_done_says_nothing():
    stream = io.StringIO()
    with Progress("embed", total=0, stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.fixture
def terminal():
    """Provide a real terminal: (stream to write to, function that reads what it shows)."""
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    stream = os.fdopen(follower, "w")

    def shown():
        text = ""
        while "images in" not in text or not text.endswith("\n"):  # a read gives what has arrived, not all of it
            text += os.read(leader, 100_000).decode()
        return text

    yield stream, shown
    stream.close()
    os.close(leader)


def test_on_a_terminal_progress_is_a_bar_and_one_line_at_the_end(terminal):
    stream, shown = terminal
    with Progress("embed", total=4, unit="image", stream=stream) as progress:
        progress.advance(4)
    text = shown()
    assert "\r" in text
    assert "0/4" in text
    assert re.search(r"embed: 4 images in \d+\.\d s", text)


def test_plain_lines_can_be_asked_for_on_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("ZSBIR_PLAIN_LOG", "1")
    stream, shown = terminal
    with Progress("embed", total=4, unit="image", stream=stream) as progress:
        progress.advance(4)
    assert re.fullmatch(r"embed: 4 images in \d+\.\d s \(\d+\.\d images/s\)\r\n", shown())


def test_track_gives_the_items_and_counts_them(capsys):
    assert list(track("abc", "read", unit="letter")) == ["a", "b", "c"]
    assert capsys.readouterr().err.startswith("read: 3 letters in ")


def test_what_was_done_is_printed_also_when_the_work_fails():
    stream = io.StringIO()

    def half_done():
        with Progress("embed", total=10, unit="image", stream=stream) as progress:
            progress.advance(3)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        half_done()
    assert stream.getvalue().startswith("embed: 3 images in ")


def test_a_listener_hears_every_advance_once_and_nothing_of_quiet_work_or_of_what_ends_another(monkeypatch):
    heard = []
    monkeypatch.setattr(events, "_listeners", [])
    events.subscribe(heard.append)
    events.subscribe(heard.append)
    with Progress("embed", total=4, unit="image", stream=io.StringIO()) as progress:
        progress.advance(3)
        progress.advance(1)
    with Progress("upload", total=4, quiet=True) as progress:
        progress.advance(4)
    with Progress("measure", total=4, stream=(shown := io.StringIO()), aside=True) as progress:
        progress.advance(4)
    assert "measure: 4 its" in shown.getvalue()
    assert [(event.label, event.done, event.total, event.unit) for event in heard] == [
        ("embed", 3, 4, "image"),
        ("embed", 4, 4, "image"),
    ]
    assert all(event.per_s > 0 for event in heard)


def test_a_process_that_does_a_part_of_anothers_work_prints_its_warnings_alone_with_the_parts_name(monkeypatch, capsys):
    monkeypatch.setenv(events.PART, "trial 3")
    say("resuming at step 40 of 120")
    with Progress("train", total=3, unit="step") as progress:
        progress.advance(3)
    warn("not all of this run reached MLflow")
    assert capsys.readouterr().err == "warning: trial 3: not all of this run reached MLflow\n"


def test_a_rate_has_its_unit():
    stream = io.StringIO()
    with Progress("upload", total=345, unit="MB", stream=stream) as progress:
        progress.advance(345)
    assert re.fullmatch(r"upload: 345 MB in \d+\.\d s \(\d+\.\d MB/s\)\n", stream.getvalue())
