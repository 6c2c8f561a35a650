"""The arithmetic of docs/scale.md: its simulations agree with formulas, and the page shows what the code computes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from simulations import scale
from simulations.scale import ASSUMED, best_interval_s, lost_frac, node_mtbf_s, simulated_busy, simulated_lost_frac, step

from zsbir.base import limits

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text("utf-8")


@pytest.mark.parametrize("table", [scale.training_table, scale.failure_table, scale.queue_table])
def test_the_page_shows_the_tables_that_the_code_makes(table):
    assert table() in PAGE


def test_the_page_shows_both_tables_of_photos():
    assert all(each in PAGE for each in scale.photo_tables().split("\n\n"))


@pytest.mark.parametrize(("mtbf_s", "interval_s"), [(86400.0, 600.0), (86400.0, 3600.0), (20000.0, 200.0)])
def test_simulated_losses_are_those_of_the_formula_where_failures_are_rare(mtbf_s, interval_s):
    expected = lost_frac(mtbf_s, interval_s)
    assert simulated_lost_frac(mtbf_s, interval_s, 400_000) == pytest.approx(expected, rel=0.05)


def test_no_interval_loses_less_than_youngs():
    mtbf = node_mtbf_s(64, spot=True)
    best = best_interval_s(mtbf, ASSUMED.pause_s)
    at_best = simulated_lost_frac(mtbf, best, 400_000)
    assert all(simulated_lost_frac(mtbf, best * factor, 400_000) > at_best for factor in (0.25, 4.0))


def test_a_training_that_fails_more_often_than_it_saves_gets_nowhere():
    assert simulated_lost_frac(60.0, 3600.0, 10_000) > 0.99


def test_gpus_are_busy_as_far_as_claims_reach():
    claim_s = 0.1
    assert simulated_busy(4, 100.0, claim_s, 2000) > 0.99
    # 100 GPUs with jobs of a second need 100 claims a second, of which there are 10.
    assert simulated_busy(100, 1.0, claim_s, 20_000) == pytest.approx(0.1, rel=0.1)


def test_one_node_sends_nothing_over_the_network_and_the_loss_grows_with_the_square_of_the_batch():
    one, eight, many = (step(gpus) for gpus in (1, 8, 512))
    assert (one.gather_s, eight.gather_s, eight.gradients_s) == (0, 0, 0)
    assert many.loss_s / eight.loss_s == pytest.approx(64**2)
    assert many.gathered_bytes == pytest.approx(512 * 64 * 2560 * 4)
    assert one.efficiency > eight.efficiency > many.efficiency


def test_the_limits_that_the_page_names_are_those_of_the_code():
    assert limits.INDEX_PHOTOS == limits.TABLE_ROWS == 10**8
    assert limits.TABLE_BYTES == 16 * limits.GIB
    assert [scale.index_numbers(photos)["shards"] for photos in scale.PHOTOS] == [1, 1, 1, 10]


def test_every_rate_that_was_measured_stands_on_a_page_that_is_linked():
    benchmarks = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
    for page, figures in {
        "2026-11-22-pipeline.md": ["1,435", "a photo takes 2 ms"],
        "2026-11-22-storage.md": ["260 to 360", "258 MB", "853 MB"],
        "2026-11-23-jobs.md": ["111 a second", "66 a second"],
        "2026-11-30-scan.md": ["14.1", "| 42 s |", ".256"],
        "2026-11-30-index-memory.md": [".58 kB", ".22 kB"],
        "2026-11-30-search-service.md": ["209"],
    }.items():
        text = (benchmarks / page).read_text("utf-8").replace("\n", " ")
        assert f"benchmarks/{page}" in PAGE
        assert not [figure for figure in figures if figure not in text], page
    assert scale.CLAIMS_S == {"SQLite": 111, "PostgreSQL": 66}
    assert math.isclose(scale.SCAN_S * 10**6, 14.1e-3)
