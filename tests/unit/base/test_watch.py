"""The status files of a command, for programs that follow it from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from zsbir.base import cli, events, watch
from zsbir.base.storage import open_folder


@pytest.fixture
def fresh(monkeypatch):
    """Behave like a process that has not looked at ZSBIR_WATCH yet."""
    monkeypatch.setattr(watch, "_started", False)
    monkeypatch.setattr(events, "_listeners", [])
    monkeypatch.setattr(watch, "_recorder", None)
    monkeypatch.delenv(watch.WATCH, raising=False)


@pytest.fixture
def watched(fresh, root, monkeypatch):
    """Provide a function that reads what was recorded so far."""
    monkeypatch.setenv(watch.WATCH, root)

    def read(name="driver.json"):
        watch.flush()
        return json.loads(open_folder(root).read(name))

    return read


def test_without_the_variable_nothing_is_written(fresh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch.start()
    events.publish(events.ProgressEvent("train", done=1, total=2, unit="step", per_s=1.0))
    watch.record_metrics(1, {"train/loss": 1.0})
    watch.record_facts(run="x")
    watch.flush()
    assert watch.folder_uri() == ""
    assert list(tmp_path.iterdir()) == []


def test_progress_facts_and_metrics_come_together_in_one_file(watched, root):
    began = time.time()
    watch.start()
    events.publish(events.ProgressEvent("train", done=5, total=20, unit="step", per_s=2.5))
    watch.record_metrics(5, {"train/loss": 1.5})
    watch.record_facts(run="x")
    watch.record_facts(error="Busy")
    signs = watched()
    assert signs.pop("updated_s") >= began
    assert signs == {
        "progress": {"label": "train", "done": 5, "total": 20, "unit": "step", "per_s": 2.5, "left_s": 6.0},
        "facts": {"run": "x", "error": "Busy"},
        "metrics": {"step": 5, "train/loss": 1.5},
    }
    assert watched("curve.json") == {"rows": [{"step": 5, "train/loss": 1.5}]}
    assert watch.folder_uri() == root


@pytest.mark.parametrize(("total", "per_s"), [(None, 1.0), (20, 0.0), (None, 0.0)])
def test_without_a_total_or_a_rate_no_time_left_is_given(watched, total, per_s):
    watch.start()
    events.publish(events.ProgressEvent("x", done=5, total=total, unit="it", per_s=per_s))
    assert watched()["progress"]["left_s"] is None


def test_metrics_of_one_step_are_one_row(watched):
    watch.record_metrics(10, {"train/loss": 1.0})
    watch.record_metrics(10, {"dev/map_all": 0.5})
    watch.record_metrics(20, {"train/loss": 0.5})
    rows = watched("curve.json")["rows"]
    assert rows == [{"step": 10, "train/loss": 1.0, "dev/map_all": 0.5}, {"step": 20, "train/loss": 0.5}]


@pytest.mark.parametrize("count", [watch.MAX_ROWS, watch.MAX_ROWS + 1, 5000, 20_001])
def test_a_long_curve_is_thinned_evenly_and_keeps_its_ends_and_every_evaluation(fresh, tmp_path, monkeypatch, count):
    monkeypatch.setenv(watch.WATCH, str(tmp_path))
    evaluated = {step for step in range(1, count + 1) if step % 997 == 3}
    for step in range(1, count + 1):
        watch.record_metrics(step, {"train/loss": 1.0 / step})
        if step in evaluated:
            watch.record_metrics(step, {"dev/map_all": 0.1}, keep=True)
    watch.flush()
    rows = json.loads((tmp_path / "curve.json").read_text())["rows"]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, count)
    assert {row["step"] for row in rows if "dev/map_all" in row} == evaluated
    assert len(rows) <= watch.MAX_ROWS + len(evaluated) + 1
    assert max(later - earlier for earlier, later in pairwise(steps)) <= -(-count // watch.MAX_ROWS)
    assert count > watch.MAX_ROWS or len(rows) == count


def test_it_is_written_by_itself_a_little_later(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv(watch.WATCH, str(tmp_path))
    monkeypatch.setattr(watch, "EVERY_S", 0.05)
    watch.record_facts(run="x")
    until = time.monotonic() + 10
    while not (tmp_path / "driver.json").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_has_not_changed_is_not_written_again(watched, root):
    watch.record_facts(run="x")
    first = watched()
    assert watched() == first


def test_a_folder_that_cannot_be_written_stops_no_work(fresh, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(watch.WATCH, str(tmp_path / "file"))
    watch.record_metrics(1, {"train/loss": 1.0})
    watch.record_facts(run="x")
    watch.flush()
    with events.Progress("work", total=1) as progress:
        progress.advance()
    watch.flush()


def test_what_could_not_be_written_is_written_with_the_next_change(fresh, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.write_bytes(b"")
    monkeypatch.setenv(watch.WATCH, str(folder))
    watch.record_metrics(1, {"train/loss": 1.0})
    watch.flush()
    folder.unlink()
    watch.record_metrics(2, {"train/loss": 0.5})
    watch.flush()
    assert [row["step"] for row in json.loads((folder / "curve.json").read_text())["rows"]] == [1, 2]


def test_what_could_not_be_written_is_written_when_it_can_be(fresh, tmp_path, monkeypatch):
    """Nothing changes after the last record of a command."""
    folder = tmp_path / "folder"
    folder.write_bytes(b"")
    monkeypatch.setenv(watch.WATCH, str(folder))
    watch.record_facts(run="x")
    watch.record_metrics(1, {"train/loss": 1.0})
    watch.flush()
    folder.unlink()
    watch.flush()
    assert json.loads((folder / "driver.json").read_text())["facts"] == {"run": "x"}
    assert json.loads((folder / "curve.json").read_text())["rows"]


def test_a_worker_writes_a_file_of_its_own(watched, root):
    watch.record_facts(run="the command's")
    assert watched()["facts"] == {"run": "the command's"}
    watch.start_worker(watch.folder_uri())
    watch.record_facts(run="the worker's")
    assert watched("worker.json")["facts"] == {"run": "the worker's"}
    assert watched()["facts"] == {"run": "the command's"}


def test_after_stop_nothing_is_written_though_the_variable_is_set(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv(watch.WATCH, str(tmp_path))
    watch.stop()
    watch.record_facts(run="x")
    watch.flush()
    assert watch.folder_uri() == ""
    assert list(tmp_path.iterdir()) == []


def test_progress_of_any_command_is_recorded(watched):
    watch.start()
    with events.Progress("embed", total=4, unit="image") as progress:
        progress.advance(3)
    with events.Progress("embed", total=9, unit="image", quiet=True) as progress:
        progress.advance(3)
    told = watched()["progress"]
    assert (told["label"], told["done"], told["total"], told["unit"]) == ("embed", 3, 4, "image")


def test_a_command_is_followed_from_its_start(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv(watch.WATCH, str(tmp_path))

    def work(argv):
        with events.Progress("embed", total=4, unit="image") as progress:
            progress.advance(4)

    with pytest.raises(SystemExit):
        cli.main(work, [])
    watch.flush()
    assert json.loads((tmp_path / "driver.json").read_text())["progress"]["done"] == 4


def test_rows_are_kept_because_their_writer_says_so_and_not_by_their_names(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv(watch.WATCH, str(tmp_path))
    for step in range(watch.MAX_ROWS * 2):
        watch.record_metrics(step, {"dev/map_all": 0.1}, keep=step in (7, 9))
    watch.flush()
    steps = [row["step"] for row in json.loads((tmp_path / "curve.json").read_text())["rows"]]
    assert steps == sorted({*range(0, watch.MAX_ROWS * 2, 2), 7, 9, watch.MAX_ROWS * 2 - 1})


def test_an_address_that_is_none_is_one_line_and_nothing_is_recorded(fresh, monkeypatch, capsys):
    monkeypatch.setenv(watch.WATCH, "ftp://x")
    with pytest.raises(SystemExit) as left:
        cli.main(lambda _: None, [])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: 'ftp://x'")


def test_the_error_reaches_who_started_the_command_also_where_the_folder_cannot_be_written(tmp_path):
    """And no process that the command starts takes the descriptor's number for its own."""
    blocked = tmp_path / "a file"
    blocked.write_bytes(b"")
    reader, writer = os.pipe()
    seen = "print(os.getpid(), sorted(os.environ))"
    code = f"import os; from zsbir.base import watch; watch.start(); {seen}; watch.report_error('DiskFull')"
    env = {**os.environ, watch.WATCH: str(blocked / "x"), watch.ERROR_PIPE: str(writer)}
    done = subprocess.run([sys.executable, "-c", code], env=env, pass_fds=(writer,), capture_output=True, text=True, check=True)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read().decode() == f"{done.stdout.split()[0]} DiskFull\n"
    assert watch.ERROR_PIPE not in done.stdout


@pytest.mark.parametrize("text", ["", "x", "99999", "99999999999999999999", "-1"])
def test_a_number_that_is_no_pipe_is_left_alone(fresh, monkeypatch, text):
    monkeypatch.setenv(watch.ERROR_PIPE, text)
    monkeypatch.setattr(watch, "_error_pipe", None)
    watch.start()
    watch.report_error("RunError")
    assert watch._error_pipe is None
