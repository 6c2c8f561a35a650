"""What a command prints last when it fails: one line that starts with the error."""

from __future__ import annotations

import importlib

import pytest

from zsbir.__main__ import MODULES
from zsbir.base import cli

WRONG = {
    "download": ["caltech-quikdraw"],
    "ingest": ["folder", "nowhere", "--unseen-frac", "0.2"],
    "pretrain": ["--lr", "-1"],
    "teacher": ["nowhere"],
    "train": ["folder", "--dataset", "nowhere"],
    "evaluate": ["nowhere"],
    "compare": ["nowhere"],
    "index": ["nowhere"],
    "search": ["nowhere", "drawing.png"],
    "promote": ["nowhere"],
    "export": ["nowhere"],
    "artifacts": ["show", "nowhere"],
    "tuning": ["toy", "--dataset", "nowhere", "--weight-preservation", "0", "--no-tracking"],
    "jobs": ["submit", "no-such-kind"],
}


def test_every_verb_is_tried():
    assert set(WRONG) == set(MODULES)


@pytest.mark.parametrize("verb", WRONG)
@pytest.mark.parametrize("times", ["", "1"])
def test_the_last_line_of_a_verb_that_fails_starts_with_the_error(verb, times, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSBIR_LOG_TIMES", times)
    name = {"tuning": "tuning.__main__", "jobs": "services.jobs.__main__"}.get(verb, MODULES[verb])
    with pytest.raises(SystemExit) as left:
        cli.main(importlib.import_module(name)._parse, WRONG[verb])
    out, err = capsys.readouterr()
    assert left.value.code in (1, 2)
    assert out == ""
    lines = err.splitlines()
    assert lines[-1].startswith("error: "), err
    assert not [line for line in lines[:-1] if "error" in line]
