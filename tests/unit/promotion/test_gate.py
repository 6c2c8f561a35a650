"""The gate against a slow and obvious bootstrap, and everything that makes two reports incomparable."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zsbir.base.artifact import draft
from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.evaluation.metrics import METRICS
from zsbir.promotion import gate
from zsbir.promotion.gate import GateConfig, compare

QUERIES = 60
BASE = np.random.default_rng(7).uniform(0.2, 0.8, QUERIES)


class Asked(Config):
    protocol: str


def report(folder, name, trained, *, frozen=BASE, label="zero_shot v1", protocol="zero_shot", data="d" * 64, paths=None):
    """A Report artifact with those values of every metric."""
    columns = {
        "path": paths or [f"sketch/{number:03}" for number in range(len(trained))],
        "class_id": [number % 5 for number in range(len(trained))],
        "sha256": [f"{number:064x}" for number in range(len(trained))],
    }
    columns |= {f"{model}/{metric}": values for model, values in (("trained", trained), ("frozen", frozen)) for metric in METRICS}
    with draft(folder / "reports" / name, "report", name) as work:
        pq.write_table(pa.table(columns), work.file("per_query.parquet"))
        return work.commit(
            digest=name * 8,
            config=Asked(protocol=protocol),
            inputs={"run": {"uri": f"runs/{name}", "digest": name}, "dataset": {"uri": "datasets/toy/1", "digest": data}},
            facts={"protocol": label},
        )


def judged(challenger, champion, **config):
    return compare(challenger, champion, GateConfig.of(config), opponent="the champion")


def slow_interval(differences, level, seed):
    """One resample after the other, each query drawn by itself, and quantiles by sorting."""
    random = np.random.default_rng(seed)
    means = []
    for row in random.integers(len(differences), size=(gate.RESAMPLES, len(differences))):
        means.append(sum(differences[number] for number in row) / len(row))
    means.sort()

    def quantile(share):
        rank = share * (len(means) - 1)
        low = int(rank)
        return means[low] + (rank - low) * (means[min(low + 1, len(means) - 1)] - means[low])

    return quantile((1 - level) / 2), quantile((1 + level) / 2)


def test_the_numbers_are_those_of_a_slow_bootstrap(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 400)
    better = BASE + np.random.default_rng(1).normal(0.02, 0.05, QUERIES)
    found = judged(report(tmp_path, "a", better), report(tmp_path, "b", BASE), level=0.9, seed=3)
    low, high = slow_interval((better - BASE).tolist(), 0.9, 3)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))
    assert found.challenger_mean == pytest.approx(better.mean())
    assert found.opponent_mean == pytest.approx(BASE.mean())
    assert found.difference == pytest.approx(better.mean() - BASE.mean())
    assert (found.metric, found.protocol, found.queries, found.dataset_digest) == ("map_all", "zero_shot v1", QUERIES, "d" * 64)


@pytest.mark.parametrize(
    ("gain", "passes"),
    [
        pytest.param(0.05, True, id="truly better"),
        pytest.param(0.0, False, id="equal"),
        pytest.param(-0.05, False, id="worse"),
        pytest.param(0.001, False, id="better by less than the queries can tell"),
    ],
)
def test_only_a_truly_better_model_passes(tmp_path, gain, passes):
    noise = np.random.default_rng(2).normal(0, 0.02 if gain else 0, QUERIES)
    found = judged(report(tmp_path, "a", BASE + gain + noise - noise.mean()), report(tmp_path, "b", BASE))
    assert found.passed is passes
    assert found.difference == pytest.approx(gain, abs=1e-12)
    assert ("not above the margin 0" in found.reason()) is not passes
    assert f"gain {found.difference:+.4f}" in found.reason()
    assert f"over {QUERIES} queries (zero_shot v1)" in found.reason()
    assert found.as_json()["passed"] is passes


def test_the_lower_bound_must_lie_above_the_margin_not_on_it(tmp_path):
    """A gain of exactly a quarter at every query: the interval is a point."""
    better, champion = report(tmp_path, "a", np.full(QUERIES, 0.75)), report(tmp_path, "b", np.full(QUERIES, 0.5))
    assert judged(better, champion, margin=0.24).passed
    assert not judged(better, champion, margin=0.25).passed


def test_pairs_decide_what_means_alone_cannot(tmp_path):
    """Queries differ widely among themselves; a small gain at each of them is certain all the same."""
    wide = np.random.default_rng(5).uniform(0, 0.9, QUERIES)
    assert judged(report(tmp_path, "a", wide + 0.01), report(tmp_path, "b", wide)).passed
    shuffled = np.random.default_rng(6).permutation(wide) + 0.01
    assert not judged(report(tmp_path, "c", shuffled), report(tmp_path, "d", wide)).passed


def test_the_first_champion_must_beat_the_frozen_backbone_of_its_own_report(tmp_path):
    found = compare(report(tmp_path, "a", BASE + 0.1), None, GateConfig(), opponent="its own frozen backbone")
    assert found.passed
    assert found.opponent_mean == pytest.approx(BASE.mean())
    assert "of its own frozen backbone" in found.reason()
    assert not compare(report(tmp_path, "b", BASE), None, GateConfig(), opponent="it").passed


def test_another_metric_may_be_named(tmp_path):
    one, two = report(tmp_path, "a", BASE), report(tmp_path, "b", BASE)
    assert judged(one, two, metric="p_at_100").metric == "p_at_100"
    with pytest.raises(InputError, match="unknown metric 'map_al'; did you mean 'map_all'"):
        judged(one, two, metric="map_al")


def test_another_protocol_is_refused_with_the_command_that_helps(tmp_path):
    mine = report(tmp_path, "a", BASE, label="zero_shot_dedup v1", protocol="zero_shot_dedup")
    with pytest.raises(InputError, match=r"zero_shot_dedup v1.*of zero_shot v1.*evaluate runs/b --protocol zero_shot_dedup"):
        judged(mine, report(tmp_path, "b", BASE))
    with pytest.raises(InputError, match="is of zero_shot v2, the champion's of zero_shot v1"):
        judged(report(tmp_path, "c", BASE, label="zero_shot v2"), report(tmp_path, "d", BASE))


def test_other_data_are_refused_whatever_the_protocol_is_called(tmp_path):
    with pytest.raises(InputError, match="measured on data dddddddddddddddd, the champion on eeeeeeeeeeeeeeee"):
        judged(report(tmp_path, "a", BASE), report(tmp_path, "b", BASE, data="e" * 64))


@pytest.mark.parametrize("change", ["fewer", "renamed", "another order"])
def test_other_queries_are_refused(tmp_path, change):
    paths = [f"sketch/{number:03}" for number in range(QUERIES)]
    values = BASE
    if change == "fewer":
        paths, values = paths[:-1], BASE[:-1]
    elif change == "renamed":
        paths[3] = "sketch/other"
    else:
        paths[0], paths[1] = paths[1], paths[0]
    with pytest.raises(InputError, match="do not have the same queries in the same order"):
        judged(report(tmp_path, "a", BASE), report(tmp_path, "b", values, frozen=values, paths=paths))


def test_a_report_of_dev_promotes_nobody(tmp_path):
    with pytest.raises(InputError, match=r"by which training chose its checkpoint.*--protocol zero_shot"):
        judged(report(tmp_path, "a", BASE, label="dev v1", protocol="dev"), report(tmp_path, "b", BASE))


def test_a_damaged_report_and_one_with_nan_are_refused(tmp_path):
    spoilt = BASE.copy()
    spoilt[4] = np.nan
    champion = report(tmp_path, "b", BASE)
    with pytest.raises(InputError, match="trained/map_all of some query is not a number"):
        judged(report(tmp_path, "a", spoilt), champion)
    champion.file("per_query.parquet").write_bytes(b"other bytes")
    with pytest.raises(InputError, match="differs from its manifest"):
        judged(report(tmp_path, "c", BASE), champion)


def test_margins_and_levels_make_sense():
    for bad in ({"margin": -0.1}, {"level": 1.0}, {"margin": float("nan")}):
        with pytest.raises(InputError, match=r"margin|level"):
            GateConfig.of(bad)
