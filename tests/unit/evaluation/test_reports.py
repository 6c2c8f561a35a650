"""What a report says of its intervals: in report.json, in the table that `evaluate` prints, and for reports of earlier versions."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.evaluation.intervals import Interval, interval_over_classes
from zsbir.evaluation.metrics import METRICS, evaluate_embeddings
from zsbir.evaluation.report_table import table
from zsbir.evaluation.reports import interval_text, labels_of, queries_of, report_interval, values_of
from zsbir.evaluation_run.report import figures
from zsbir.evaluation_run.trial import Subject

LABELS = np.repeat(np.arange(4), 10)
VALUES = np.repeat([0.2, 0.4, 0.5, 0.9], 10)


def old_report(folder, labels=LABELS, values=VALUES):
    """A Report as versions before 29 November 2026 wrote it: intervals over queries, of map_all alone."""
    means = {metric: float(values.mean()) for metric in METRICS}
    summary = {
        "protocol": "zero_shot v1",
        "dataset": "toy",
        "queries": len(labels),
        "gallery": 50,
        "classes": len(set(labels)),
        "chance_map_all": 0.1,
        "models": {name: {**means, "map_all_low95": 0.42, "map_all_high95": 0.58} for name in ("frozen", "trained")},
    }
    columns = {"path": [f"{n}" for n in range(len(labels))], "class_id": labels, "sha256": ["0"] * len(labels)}
    columns |= {"trained/map_all": values, "frozen/map_all": values / 2}
    with draft(folder / "reports/1", "report", "toy") as work:
        work.file("report.json").write_text(json.dumps(summary))
        pq.write_table(pa.table(columns), work.file("per_query.parquet"))
        for name in ("grid.png", "precision_recall.png", "per_class.png"):
            work.file(name).write_bytes(b"")
        return work.commit(digest="a" * 64)


def test_the_table_of_an_old_report_has_intervals_over_classes(tmp_path):
    report, expected = old_report(tmp_path), interval_over_classes(VALUES, LABELS)
    assert report_interval(report, "trained", "map_all") == expected
    assert expected.high - expected.low > 2 * (0.58 - 0.42), "what report.json says is too narrow"
    lines = table(report).splitlines()
    assert f"trained: map_all 0.500, 95 % interval over 4 classes {max(expected.low, 0):.3f} to {expected.high:.3f}" in lines
    assert lines[1].split() == ["map_all", "map_all_voc", "map_at_200_min†", "map_at_200_min_voc†", "p_at_100†", "p_at_200†"]


def test_a_single_class_has_no_interval_and_the_table_says_so(tmp_path):
    report = old_report(tmp_path, labels=np.full(10, 3), values=np.linspace(0.1, 0.9, 10))
    assert report_interval(report, "trained", "map_all") is None
    assert "trained: map_all 0.500, no interval: one class says nothing about others" in table(report)


def test_report_json_has_an_interval_of_every_mean():
    random = np.random.default_rng(0)
    labels = np.arange(30) % 5
    result = evaluate_embeddings(random.normal(size=(30, 8)), labels, random.normal(size=(60, 8)), np.arange(60) % 5)
    found = figures(Subject("trained", np.zeros((30, 8)), np.zeros((60, 8)), result))
    for name in result.summary():
        assert found[f"{name}_low95"] - 1e-12 < found[name] < found[f"{name}_high95"] + 1e-12
        assert found[f"{name}_low95"] == result.interval(name).low
    assert found["map_all"] == result.summary()["map_all"]
    json.dumps(found, allow_nan=False)


def test_report_json_of_a_single_class_has_null_for_its_bounds():
    result = evaluate_embeddings(np.eye(3), np.zeros(3, int), np.eye(3), np.array([0, 0, 1]))
    found = figures(Subject("trained", np.zeros((3, 3)), np.zeros((3, 3)), result))
    assert found["map_all_low95"] is None
    json.dumps(found, allow_nan=False)


def test_an_interval_is_shown_within_the_range_of_a_metric():
    assert interval_text(Interval(0.1, -0.05, 0.25, 6.0), 7) == "95 % interval over 7 classes 0.000 to 0.250"
    assert interval_text(Interval(0.9, 0.75, 1.05, 6.0), 7) == "95 % interval over 7 classes 0.750 to 1.000"


def test_the_values_of_a_report_are_read_with_their_classes(tmp_path):
    report = old_report(tmp_path)
    assert labels_of(report).tolist() == LABELS.tolist()
    assert values_of(report, "frozen", "map_all").tolist() == (VALUES / 2).tolist()
    assert queries_of(report)[11] == ("11", 1, "0")
    spoilt = old_report(tmp_path / "spoilt", values=np.where(np.arange(40) == 7, np.nan, VALUES))
    with pytest.raises(InputError, match=r"trained/map_all of some query is not a number; make the report again"):
        values_of(spoilt, "trained", "map_all")
