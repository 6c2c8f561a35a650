"""The gate against numbers by hand: intervals over classes and seeds, and everything that makes two reports incomparable."""

import json
import math
import statistics

import numpy as np
import pytest
from made_up import BASE, CLASSES, QUERIES, class_gains, report

from zsbir.base.config import Config
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.promotion.gate import GateConfig, compare
from zsbir.promotion.seeds import SeedSpread

ALIKE = SeedSpread(0.0, 0, "given")


def judged(challenger, champion, *, recorded=ALIKE, **config):
    """The comparison of one report a side; recorded: how far seeds spread."""
    return compare([challenger], [champion], GateConfig.of(config), opponent="the champion", recorded=recorded)


def test_the_interval_is_student_s_over_the_gains_of_classes(tmp_path):
    gains = [0.02, 0.06, -0.01, 0.05, 0.03]
    found = judged(report(tmp_path, "a", BASE + class_gains(gains)), report(tmp_path, "b", BASE), level=0.9)
    half = 2.1318 * statistics.stdev(gains) / math.sqrt(5)  # 95 % quantile of t with 4 degrees of freedom, from a table
    assert found.difference == pytest.approx(statistics.mean(gains))
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half), abs=1e-6)
    assert found.challenger_mean == pytest.approx(BASE.mean() + found.difference)
    assert found.opponent_mean == pytest.approx(BASE.mean())
    assert (found.metric, found.protocol, found.queries, found.dataset_digest) == ("map_all", "zero_shot v1", QUERIES, "d" * 64)
    assert (found.classes, found.seeds, found.opponent_seeds) == (5, 1, 1)


@pytest.mark.parametrize(
    ("gains", "passes"),
    [
        pytest.param([0.05, 0.04, 0.06, 0.05, 0.05], True, id="better at every class"),
        pytest.param([0, 0, 0, 0, 0], False, id="equal"),
        pytest.param([-0.05, -0.04, -0.06, -0.05, -0.05], False, id="worse"),
        pytest.param([0.25, 0.0, 0.0, 0.0, 0.0], False, id="better at one class, which many queries make certain"),
    ],
)
def test_only_a_model_that_is_better_across_classes_passes(tmp_path, gains, passes):
    found = judged(report(tmp_path, "a", BASE + class_gains(gains, seed=2)), report(tmp_path, "b", BASE))
    assert found.passed is passes
    assert found.difference == pytest.approx(statistics.mean(gains), abs=1e-12)
    assert ("not above the margin 0" in found.reason()) is not passes
    assert f"gain {found.difference:+.4f}" in found.reason()
    assert "over 5 classes (zero_shot v1; 1 seed against 1;" in found.reason()
    assert found.as_json()["passed"] is passes
    json.dumps(found.as_json())


def test_the_lower_bound_must_lie_above_the_margin_not_on_it(tmp_path):
    """A gain of exactly a quarter at every query: the interval is a point."""
    better, champion = report(tmp_path, "a", np.full(QUERIES, 0.75)), report(tmp_path, "b", np.full(QUERIES, 0.5))
    assert judged(better, champion, margin=0.24).passed
    assert not judged(better, champion, margin=0.25).passed


def test_pairs_of_classes_decide_what_means_alone_cannot(tmp_path):
    """Classes differ widely among themselves; a small gain at each of them is certain all the same."""
    wide = np.array([0.1, 0.3, 0.5, 0.7, 0.9])[np.arange(QUERIES) % CLASSES] + class_gains([0] * 5)
    assert judged(report(tmp_path, "a", wide + class_gains([0.01, 0.012, 0.008, 0.01, 0.01])), report(tmp_path, "b", wide)).passed


def test_the_first_champion_must_beat_the_frozen_backbone_of_its_own_report(tmp_path):
    better, exact = report(tmp_path, "a", BASE + 0.1), SeedSpread(0.01, 0, "given")
    found = compare([better], [], GateConfig(), opponent="its own frozen backbone", recorded=exact)
    assert found.passed
    assert found.opponent_mean == pytest.approx(BASE.mean())
    assert "of its own frozen backbone" in found.reason()
    assert "(zero_shot v1; 1 seed; standard deviation over seeds 0.0100, given)" in found.reason()
    assert found.opponent_seeds == 0
    assert found.high - found.difference == pytest.approx(1.96 * 0.01, rel=1e-3), "a frozen backbone has no seeds of its own"
    assert not compare([report(tmp_path, "b", BASE)], [], GateConfig(), opponent="it", recorded=exact).passed


def test_the_spread_of_seeds_widens_the_interval_of_two_single_trainings(tmp_path):
    better, champion = report(tmp_path, "a", BASE + class_gains([0.02, 0.03, 0.02, 0.03, 0.02])), report(tmp_path, "b", BASE)
    assert judged(better, champion).passed
    assert not judged(better, champion, recorded=SeedSpread(0.02, 0, "given")).passed
    narrow = judged(better, champion, recorded=SeedSpread(0.005, 0, "given"))
    wide = judged(better, champion, recorded=SeedSpread(0.005, 3, "estimated from 3"))
    assert narrow.low > wide.low, "a spread that few seeds have shown is less certain"


def test_without_any_spread_a_gain_stays_undecided_and_none_is_refused(tmp_path):
    champion = report(tmp_path, "b", BASE)
    found = judged(report(tmp_path, "a", BASE + class_gains([0.02, 0.03, 0.02, 0.03, 0.02])), champion, recorded=None)
    assert (found.verdict, found.passed, found.spread) == ("undecided", False, None)
    assert "spread of seeds not known" in found.reason()
    assert "may be the luck of a seed" in found.reason()
    assert judged(report(tmp_path, "c", BASE + class_gains([0.2, 0, 0, 0, 0])), champion, recorded=None).verdict == "refused"


def test_one_class_decides_nothing(tmp_path):
    labels = [4] * QUERIES
    better, champion = (report(tmp_path, name, BASE + more, labels=labels) for name, more in (("a", 0.1), ("b", 0.0)))
    found = judged(better, champion)
    assert (found.verdict, found.low, found.high) == ("undecided", -1, 1)
    assert "over 1 class " in found.reason()
    assert found.reason().endswith("one class says nothing about others")


def several(folder, name, levels, *, gains=(0, 0, 0, 0, 0), **config):
    """A report for each of several seeds of one training, with a run behind each; levels: what each seed adds to all queries."""
    return [
        report(
            folder,
            f"{name}{seed}",
            BASE + level + class_gains(gains, seed=seed),
            run=training(folder, f"{name}{seed}", seed, **config),
        )
        for seed, level in enumerate(levels)
    ]


def training(folder, name, seed, **config):
    """A Run artifact with that configuration, without its files."""
    weights = {"uri": "weights/1.safetensors", "digest": "w" * 64}
    with draft(folder / "runs" / name, "run", "toy") as work:
        made = work.commit(digest=name * 8, config=Training(seed=seed, **config), inputs={"weights": weights})
    return made.reference()


class Training(Config):
    seed: int
    lr: float = 0.1


def test_several_seeds_show_their_own_spread(tmp_path):
    """The mean of each side, the variance of its seeds, and no use of what was recorded."""
    mine, other = several(tmp_path, "a", [0.10, 0.14, 0.12]), several(tmp_path, "b", [0.0, 0.03])
    found = compare(mine, other, GateConfig(), opponent="it", recorded=SeedSpread(0.5, 0, "given"))
    assert found.difference == pytest.approx(0.12 - 0.015)
    pooled = math.sqrt((2 * 0.02**2 + (0.015**2 + 0.015**2)) / 3)
    assert found.spread.sd == pytest.approx(pooled)
    half = 3.1824 * pooled * math.sqrt(1 / 3 + 1 / 2)  # t with 3 degrees of freedom; these classes gain all alike
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half), abs=1e-4)
    assert "3 seeds against 2; standard deviation over seeds 0.0204, estimated from these seeds" in found.reason()


def test_of_two_spreads_that_of_more_seeds_counts(tmp_path):
    """To train two seeds more must not make a comparison less certain than the record that it had with one."""
    mine, other = several(tmp_path, "a", [0.10, 0.14, 0.12]), several(tmp_path, "b", [0.0])

    def source(recorded):
        return compare(mine, other, GateConfig(), opponent="it", recorded=recorded).spread.source

    assert source(SeedSpread(0.02, 5, "of five")) == "of five"
    assert source(SeedSpread(0.02, 3, "of three")) == "estimated from these seeds"
    assert source(SeedSpread(0.02, 0, "a user's guess")) == "estimated from these seeds"


def test_reports_of_one_side_must_differ_in_their_seed_alone(tmp_path):
    one, two = several(tmp_path, "a", [0.1, 0.1])
    (other,) = several(tmp_path, "c", [0.1], lr=0.2)
    champion = report(tmp_path, "b", BASE)
    with pytest.raises(
        InputError, match=r"reports/c0 is not of the same recipe as .*a1: lr is 0.1 there and 0.2 here; pass reports"
    ):
        compare([two, other], [champion], GateConfig(), opponent="it")
    with pytest.raises(InputError, match=r"the reports are of the seeds 0, 0: pass one report for each seed"):
        compare([one, one], [champion], GateConfig(), opponent="it")
    with pytest.raises(InputError, match=r"of the seeds 1, 1"):
        compare([one], [two, two], GateConfig(), opponent="it")


def test_another_seed_s_report_must_be_of_the_same_protocol(tmp_path):
    one = report(tmp_path, "a", BASE)
    other = report(tmp_path, "b", BASE, label="zero_shot_dedup v1", protocol="zero_shot_dedup")
    with pytest.raises(InputError, match=r"the other seed's of zero_shot_dedup v1: run .*evaluate runs/b .* in its place"):
        compare([one, other], [], GateConfig(), opponent="it")


def test_another_metric_may_be_named(tmp_path):
    one, two = report(tmp_path, "a", BASE), report(tmp_path, "b", BASE)
    assert judged(one, two, metric="p_at_100").metric == "p_at_100"
    with pytest.raises(InputError, match="unknown metric 'map_al'; did you mean 'map_all'"):
        judged(one, two, metric="map_al")
    with pytest.raises(InputError, match="unknown metric 'map_all/micro'"):
        judged(one, two, metric="map_all/micro")


def test_by_the_mean_over_classes_small_classes_count_as_much_as_large_ones(tmp_path):
    """Most queries are of class 0, which gains nothing; the others gain alike."""
    labels = [0] * 40 + [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    gains = np.array([0.0, 0.1, 0.1, 0.1, 0.1])[labels]
    better, champion = (report(tmp_path, name, BASE + more, labels=labels) for name, more in (("a", gains), ("b", 0 * gains)))
    by_query, by_class = judged(better, champion), judged(better, champion, metric="map_all/macro")
    assert by_query.difference == pytest.approx(0.1 * 20 / 60)
    assert by_class.difference == pytest.approx(0.08)
    assert by_class.metric == "map_all/macro"
    assert by_class.low == pytest.approx(0.08 - 2.7764 * statistics.stdev([0.0, 0.1, 0.1, 0.1, 0.1]) / math.sqrt(5), abs=1e-5)
    assert (by_query.verdict, by_class.verdict) == ("refused", "passed")


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
