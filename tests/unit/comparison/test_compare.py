"""`zsbir.compare`: its table in each form, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import BASE, CLASSES, QUERIES, class_gains, report, trained

from zsbir import compare
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import interval_over_classes

GAINS = (0.02, 0.05, 0.01, 0.04, 0.03)


@pytest.fixture
def reports(tmp_path):
    """The addresses of three seeds of the recipe, three of a better setting, and one of a single seed."""
    plain = [trained(tmp_path, f"a{seed}", BASE + 0.01 * seed, seed=seed) for seed in range(3)]
    better = [
        trained(tmp_path, f"b{seed}", BASE + 0.01 * seed + class_gains(GAINS, seed=seed), seed=seed, margin_cross=0.3)
        for seed in range(3)
    ]
    single = trained(tmp_path, "c0", BASE, margin_cross=0.4)
    return [each.uri for each in (*plain, *better, single)]


def test_markdown_has_a_row_a_setting(reports, capsys):
    lines = compare._parse(reports).splitlines()
    assert len({len(line) for line in lines}) == 1, "columns stand below each other"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["setting", "seeds", "map_all", "95 % interval"]
    assert cells[1][0].strip("-") == ""
    assert [row[:2] for row in cells[2:]] == [["toy", "3"], ["toy margin_cross=0.3", "3"], ["toy margin_cross=0.4", "1"]]
    mean = BASE.mean() + 0.01
    assert cells[2][2] == f"{mean:.3f} ± 0.010"
    assert cells[3][2] == f"{mean + statistics.fmean(GAINS):.3f} ± 0.010"
    assert cells[4][2] == f"{BASE.mean():.3f}"
    alone = interval_over_classes(BASE, np.arange(QUERIES) % CLASSES)
    assert cells[4][3] == f"{alone.low:.3f} to {alone.high:.3f}"
    told = capsys.readouterr().err
    assert told.startswith("zero_shot v1 on data dddddddd; 0 sketches against 0 photos; 5 classes; intervals of 95 % over classes")
    assert "1 of 3 rows have one, as toy margin_cross=0.4" in told


def test_csv_has_every_digit_and_nothing_where_there_is_no_number(reports):
    text = compare._parse([*reports, "--against", *reports[:3], "--format", "csv", "--metric", "map_all,p_at_100/macro"])
    plain, better, single = csv.DictReader(io.StringIO(text))
    assert (plain["setting"], plain["seeds"], single["seeds"]) == ("toy", "0 1 2", "0")
    assert float(plain["map_all"]) == pytest.approx(BASE.mean() + 0.01, abs=1e-15)
    assert float(better["map_all_gain"]) == pytest.approx(statistics.fmean(GAINS), abs=1e-15)
    assert (plain["map_all_gain"], single["map_all_sd"]) == ("", "")
    assert (better["map_all_pairs"], single["map_all_pairs"]) == ("3", "0")
    half = 2.7764 * statistics.stdev(GAINS) / 5**0.5  # pairs of seeds differ by nothing but their classes' noise
    assert float(better["map_all_gain_low"]) == pytest.approx(statistics.fmean(GAINS) - half, abs=1e-4)
    assert float(better["map_all_p_holm"]) == pytest.approx(2 * float(better["map_all_p"]))
    assert 0 < float(better["map_all_p"]) < 0.05 < float(single["map_all_p_holm"])
    assert set(plain) >= {"p_at_100/macro", "p_at_100/macro_sd", "p_at_100/macro_gain_high"}


def test_the_setting_that_others_are_compared_with_comes_first(reports, capsys):
    text = compare._parse([*reports[3:], "--against", *reports[:3]])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert rows[0][4:] == ["gain", "95 % interval", "p (Holm)"]
    assert rows[2][0] == "toy"
    assert rows[2][4:] == ["", "", ""]
    assert rows[3][4] == "+0.030"
    assert "gains are over toy, class by class, seeds paired" in capsys.readouterr().err


def test_latex_is_a_table_for_booktabs(reports):
    text = compare._parse([*reports, "--against", *reports[:3], "--format", "latex"])
    lines = text.splitlines()
    assert lines[:2] == [r"\begin{tabular}{lrrrrrr}", r"\toprule"]
    assert lines[2] == r"setting & seeds & map\_all & 95 \% interval & gain & 95 \% interval & p (Holm) \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    row = lines[5]
    assert row.startswith(r"toy margin\_cross=0.3 & 3 & $")
    assert re.search(r"\$0\.\d{3} \\pm 0\.010\$ & \$0\.\d{3} \\text\{ to \} 0\.\d{3}\$ & \$\+0\.030\$", row)
    assert all(line.count("&") == 6 for line in lines if line.endswith(r"\\"))


def test_names_from_a_stranger_are_text_in_every_form(tmp_path, reports):
    hostile = '=cmd()|<b>&%$#_{}~^\\input{x}\n\x1b[2J,"'
    file = tmp_path / "runs" / "c0" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["config"]["recipe"] = hostile
    file.write_text(json.dumps(manifest))
    markdown, latex, table = (compare._parse([*reports, "--format", form]) for form in ("markdown", "latex", "csv"))
    assert all(sign not in text for text in (markdown, latex, table) for sign in ("\x1b", "\n\n"))
    (line,) = [line for line in markdown.splitlines() if "cmd" in line]
    assert re.sub(r"\\.", "", line).count("|") == 5, "no cell more than others"
    assert "<b>" not in line
    (line,) = [line for line in latex.splitlines() if "cmd" in line]
    escaped = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", line.partition(" & ")[0])
    assert not set("\\&%$#_{}~^") & set(escaped)
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[-1][0].startswith("'=cmd()")
    assert {len(row) for row in rows} == {6}


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path, reports):
    other = report(tmp_path, "z", BASE, label="zero_shot v2").uri
    for words, says in (
        ([reports[0], other], "is of protocol zero_shot v1"),
        ([reports[0], "--against", *reports], "--against names reports of 3 settings, toy and toy margin_cross=0.3 among them"),
        ([*reports[:2], "--against", reports[2]], "all reports are of toy, the setting that --against names"),
        ([reports[0], "--metric", "map_al"], "unknown metric 'map_al'; did you mean 'map_all'"),
        ([reports[0], "--metric", ""], "metric"),
        ([reports[0], "--level", "1"], "level"),
        ([reports[0], "--format", "html"], "format"),
        (["runs/a0"], "runs/a0"),
        ([], "REPORT"),
    ):
        with pytest.raises(InputError, match=re.escape(says)) as refused:
            compare._parse(words)
        assert "\n" not in str(refused.value)


def test_a_report_of_one_seed_against_several_pools_what_is_known(reports):
    text = compare._parse([reports[6], "--against", *reports[:3], "--format", "csv"])
    _, single = csv.DictReader(io.StringIO(text))
    assert float(single["map_all_gain"]) == pytest.approx(-0.01)
    assert float(single["map_all_gain_high"]) > 0, "the spread of the other side's seeds counts for both"


def test_reports_of_dev_classes_may_be_compared(tmp_path):
    """Settings are chosen on them; the gate of promotion refuses such reports."""
    one = trained(tmp_path, "a", BASE)
    file = Path(one.uri, "manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "config": {"protocol": "dev"}, "facts": {"protocol": "dev v1"}}))
    assert "toy" in compare._parse([one.uri])


def test_its_help_loads_no_torch():
    program = "import sys, zsbir.compare; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
