"""The table of a report: which metrics say less than their names, what was left out, and reports of strangers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir import artifacts
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.evaluation.metrics import METRICS, evaluate_embeddings
from zsbir.evaluation.report_table import SHOWN_METRICS, limits_of, table


def test_in_a_gallery_of_no_more_photos_than_the_cutoff_a_precision_is_the_same_for_every_ranking():
    marks, notes = limits_of(197, {50: 100})
    assert marks == {"p_at_100": "*", "p_at_200": "†", "map_at_200_min": "†", "map_at_200_min_voc": "†"}
    assert notes == [
        "* p_at_100: a perfect ranking reaches 0.500: 100 of 100 sketches have fewer than 100 photos",
        "† p_at_200: with a gallery of 197 photos it is the same for every ranking",
        "† map_at_200_min and map_at_200_min_voc: with 197 photos they are map_all and map_all_voc",
    ]


def test_the_notes_are_true_of_the_metrics():
    """A random ranking and a perfect one, of 150 photos."""
    labels, queries = np.repeat([0, 1, 2], 50), np.array([0, 1, 2])
    random = np.random.default_rng(0)
    chance = evaluate_embeddings(random.normal(size=(3, 8)), queries, random.normal(size=(150, 8)), labels).summary()
    perfect = evaluate_embeddings(np.eye(3), queries, np.eye(3)[labels], labels).summary()
    assert chance["p_at_200"] == perfect["p_at_200"]
    for one in (chance, perfect):
        assert one["map_at_200_min"] == pytest.approx(one["map_all"])
        assert one["map_at_200_min_voc"] == pytest.approx(one["map_all_voc"])
    assert perfect["p_at_100"] == 0.5
    assert "* p_at_100: a perfect ranking reaches 0.500: 3 of 3 sketches" in limits_of(150, {50: 3})[1][0]


def test_with_photos_enough_nothing_is_marked():
    assert limits_of(10_000, {200: 5, 900: 5}) == ({}, [])
    marks, notes = limits_of(10_000, {150: 1, 900: 3})
    assert marks == {"p_at_200": "*"}
    assert notes == ["* p_at_200: a perfect ranking reaches 0.938: 1 of 4 sketches have fewer than 200 photos"]
    assert limits_of(10_000, {}) == ({}, []), "a report without a table by class"


def stored(folder, *, relevant=60, **changes):
    """A Report of four sketches of two classes against 150 photos."""
    values = dict.fromkeys(SHOWN_METRICS, 0.5)
    summary = {
        "protocol": "zero_shot v1",
        "dataset": "toy",
        "queries": 4,
        "gallery": 150,
        "classes": 2,
        "chance_map_all": 0.1,
        "models": {"frozen": values, "trained": values},
        **changes,
    }
    per_class = [{"model": model, "queries": 2, "relevant": relevant} for model in ("frozen", "trained") for _ in range(2)]
    columns = {"path": list("abcd"), "class_id": [0, 0, 1, 1], "sha256": ["0"] * 4}
    columns |= {f"{model}/{metric}": [0.5] * 4 for model in ("frozen", "trained") for metric in METRICS}
    with draft(folder / "reports/1", "report", "toy") as work:
        work.file("report.json").write_text(json.dumps(summary))
        pq.write_table(pa.table(columns), work.file("per_query.parquet"))
        pq.write_table(pa.Table.from_pylist(per_class), work.file("per_class.parquet"))
        return work.commit(digest="a" * 64)


def test_marks_stand_at_the_metrics_and_notes_below_the_numbers(tmp_path):
    lines = table(stored(tmp_path)).splitlines()
    assert lines[0] == "zero_shot v1: 2 classes, 4 sketches against 150 photos"
    assert lines[1].split() == ["map_all", "map_all_voc", "map_at_200_min†", "map_at_200_min_voc†", "p_at_100*", "p_at_200†"]
    assert [line.split()[0] for line in lines[2:5]] == ["frozen", "trained", "chance"]
    assert lines[5] == "* p_at_100: a perfect ranking reaches 0.600: 4 of 4 sketches have fewer than 100 photos"


def test_what_was_left_out_stands_in_the_table(tmp_path):
    out = {"class_count": 2, "classes": ["car", "cow"], "sketches": 3, "photos": 4, "repeated_sketches": 0, "repeated_photos": 1}
    lines = table(stored(tmp_path, left_out=out)).splitlines()
    assert lines[0].endswith("against 150 photos of toy")
    assert lines[1] == (
        "left out as seen in training: 2 classes (car, cow) with 3 sketches and 4 photos; by their bytes 0 sketches and 1 photos of"
        " other classes"
    )
    nothing = {**out, "class_count": 0, "classes": [], "sketches": 0, "photos": 0, "repeated_photos": 0}
    assert "left out as seen in training: nothing" in table(stored(tmp_path / "2", left_out=nothing)).splitlines()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"queries": "many"}, r"report.json: queries: "),
        ({"gallery": -1}, r"report.json: gallery: "),
        ({"models": {"trained": {"map_all": "good"}}}, r"report.json: models.trained.map_all: "),
        ({"models": {"trained": {"map_all": 0.5}}}, "report.json: model 'trained' has no map_all_voc"),
        ({"models": ["trained"]}, "report.json: models: "),
        ({"left_out": {"classes": 7}}, r"report.json: left_out\."),
        ({"chance_map_all": 7}, "report.json: chance_map_all: "),
    ],
)
def test_a_report_of_a_stranger_is_one_line_not_a_traceback(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        table(stored(tmp_path, **changes))


def test_odd_counts_of_photos_are_not_counted(tmp_path):
    assert "p_at_100*" not in table(stored(tmp_path, relevant=-3))


def test_names_are_shown_with_escapes(tmp_path):
    out = {"class_count": 1, "classes": ["\x1b[2J"], "sketches": 3, "photos": 4, "repeated_sketches": 0, "repeated_photos": 0}
    assert "\x1b" not in table(stored(tmp_path, left_out=out, dataset="a\x1bb"))


def test_artifacts_show_prints_the_table_and_of_a_damaged_report_what_can_be_shown(tmp_path):
    report = stored(tmp_path)
    assert f"\n\n{table(report)}\n\n" in artifacts._parse(["show", report.uri])
    report.file("report.json").write_text("{}")
    shown = artifacts._parse(["show", report.uri])
    assert "\n\nnot shown: " in shown
    assert "report.json differs from its manifest" in shown
    assert shown.startswith("report toy\n")
