"""The table of versions, by whatever tags they have."""

import json

import pytest

from zsbir.promotion.listing import row, shown

DIGEST = "2fa364bd" + "0" * 56
TAGS = {
    "run": "toy-1",
    "dataset": "toy",
    "dataset_digest": DIGEST,
    "metric": "map_all",
    "metric_value": "0.4216",
    "gate": "passed",
    "index": "/somewhere/indexes/toy/7bc99949d0d906f9",
    "decided_utc": "2026-11-29T17:53:22+00:00",
}
NUMBERS = {"metric": "p_at_100", "challenger_mean": 0.25, "difference": 0.05, "low": 0.01, "high": 0.09}


def test_a_row_has_everything_in_full_and_the_table_shortens_it():
    found = row("models:/zsbir/1", ("champion",), {**TAGS, "gate_numbers": json.dumps(NUMBERS)})
    assert found == {
        "version": "models:/zsbir/1",
        "aliases": "champion",
        "run": "toy-1",
        "data": f"toy {DIGEST}",
        "metric": "p_at_100 0.2500",
        "gain": "+0.0500 (+0.0100 to +0.0900)",
        "gate": "passed",
        "index": "/somewhere/indexes/toy/7bc99949d0d906f9",
        "decided (UTC)": "2026-11-29 17:53:22",
    }
    short = shown(found)
    assert (short["data"], short["index"]) == ("toy 2fa364bd", "toy/7bc99949d0d906f9")
    assert len(shown({**found, "run": "r" * 100})["run"]) == 40


def test_a_version_without_a_comparison_shows_the_metric_of_its_report():
    assert row("models:/zsbir/1", (), TAGS)["metric"] == "map_all 0.4216"
    assert set(row("models:/zsbir/1", (), {}).values()) == {"models:/zsbir/1", "-"}


@pytest.mark.parametrize("numbers", ["", "[]", "{", "[" * 10_000, '{"metric": "x"}', '{"low": "a"}', "NaN"])
def test_numbers_that_somebody_else_wrote_are_left_out(numbers):
    found = row("models:/zsbir/1", (), {**TAGS, "gate_numbers": numbers, "index": "../../etc"})
    assert (found["gain"], found["metric"]) == ("-", "map_all 0.4216")
    assert shown(found)["index"]
