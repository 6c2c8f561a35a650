"""`zsbir.evaluate` of several runs: their reports, and the table of their settings."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from promotable import configure

from zsbir import evaluate
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError

SUMMARY = ("map_all", "map_at_200_min_voc", "p_at_100")


@pytest.fixture(scope="module")
def of_seed_5(run, pipeline_root):
    """The run of the pipeline once more, as one of another seed."""
    copy = pipeline_root / "runs" / "toy-of-seed-5"
    shutil.copytree(run, copy)
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace(Artifact(run, "run").digest, "5" * 64))
    configure(str(copy), {**Artifact(run, "run").manifest.config, "seed": 5})
    return str(copy)


@pytest.fixture(scope="module")
def reports(run, of_seed_5, pipeline_root):
    root = ["--root", str(pipeline_root), "--no-tracking", "--grid-rows", "1"]
    return evaluate._parse([run, of_seed_5, *root]).splitlines(), root


def test_it_prints_a_report_for_each_run_in_order(run, of_seed_5, reports):
    (first, second), _ = reports
    assert [Artifact(uri, "report").manifest.inputs["run"]["uri"] for uri in (first, second)] == [run, of_seed_5]


def test_trainings_of_other_seeds_are_one_row_of_a_table(run, of_seed_5, reports, capsys):
    uris, root = reports
    assert evaluate._parse([of_seed_5, run, *root]).splitlines() == uris[::-1], "found, not made again"
    told = capsys.readouterr().err.splitlines()
    (head,) = [number for number, line in enumerate(told) if line.startswith("| setting")]
    assert [cell.strip() for cell in told[head].strip("|").split("|")][:2] == ["setting", "seeds"]
    assert all(metric in told[head] for metric in SUMMARY)
    (row,) = told[head + 2 :]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0].startswith("toy ")
    assert cells[1] == "2"
    mean = Artifact(uris[0], "report").manifest.facts["trained"]
    assert cells[2] == f"{mean:.3f} ± 0.000", "the same encoder twice"
    assert re.fullmatch(r"\d\.\d{3} to \d\.\d{3}", cells[3])


def test_one_run_has_no_such_table(run, reports, capsys):
    uris, root = reports
    assert evaluate._parse([run, *root]) == uris[0]
    assert "| setting" not in capsys.readouterr().err


def test_an_error_says_which_run_it_is_of(run, reports):
    with pytest.raises(InputError, match=r"^\S*/gone: "):
        evaluate._parse([run, str(Path(run).with_name("gone")), *reports[1]])
