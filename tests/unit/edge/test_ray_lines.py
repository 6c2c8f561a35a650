"""Which lines of Ray's workers reach the terminal."""

from __future__ import annotations

from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from zsbir.edge.ray_lines import warnings_of_workers_alone

LINES = [
    "warning: trial 3: checkpoint of step 20 is not saved yet, training goes on: no room",
    "[2026-11-29 23:04:34,621 E 16987 17075] logging.cc:125: Stack trace: ",
    "/lib/x86_64-linux-gnu/libc.so.6(pthread_exit+0x36)",
    "UserWarning: lr_scheduler",
    "warning: trial 3: \x1b[2Jcleared",
]


def test_of_what_workers_write_their_warnings_alone_are_printed_without_the_process_and_control_characters(capsys):
    before = list(dispatcher.handlers)
    with warnings_of_workers_alone():
        dispatcher.emit({"lines": LINES, "pid": 7, "ip": "127.0.0.1", "is_err": True, "task_name": "_trainable"})
        dispatcher.emit({"pid": 7})
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [LINES[0], "warning: trial 3: \\x1b[2Jcleared"]
    assert dispatcher.handlers == before


def test_lines_of_parts_that_are_named_are_printed_too_however_alike(capsys):
    """Ray's own printer leaves out lines that differ in their numbers alone."""
    lines = [f"seed {seed}: step {step}: dev/map_all 0.4" for step in (3, 6) for seed in (1, 2, 11)]
    with warnings_of_workers_alone(["seed 1", "seed 2"]):
        dispatcher.emit({"lines": [*lines, *LINES]})
    assert capsys.readouterr().err.splitlines()[:4] == [line for line in lines if "seed 11" not in line]


def test_afterwards_rays_own_printer_is_back(monkeypatch):
    seen: list[object] = []
    monkeypatch.setattr(dispatcher, "handlers", [("other", seen.append), ("ray_print_logs", seen.append)])
    with warnings_of_workers_alone():
        dispatcher.emit({"lines": ["x"]})
    assert seen == [{"lines": ["x"]}]
    dispatcher.emit({"lines": ["y"]})
    assert seen[1:] == [{"lines": ["y"]}] * 2
