"""Which reports are of one setting, what settings are called, and which reports cannot stand in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up import BASE, QUERIES, report, trained
from plugged import install, remove

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.comparison.config import CompareConfig
from zsbir.comparison.making import settings_table
from zsbir.comparison.settings import check_one_task, settings_of
from zsbir.promotion.seeds import check_seeds


def test_trainings_that_differ_in_their_seed_alone_are_one_setting(tmp_path):
    reports = [
        trained(tmp_path, "a", BASE, seed=2),
        trained(tmp_path, "b", BASE, margin_cross=0.3),
        trained(tmp_path, "c", BASE, seed=0),
    ]
    found = settings_of(reports)
    assert [(setting.title, sorted(setting.reports)) for setting in found] == [("toy", [0, 2]), ("toy margin_cross=0.3", [0])]
    assert found[0].reports[2].uri == reports[0].uri


def test_a_run_from_before_a_field_existed_is_of_the_setting_with_its_neutral_value(tmp_path):
    old, new = trained(tmp_path, "a", BASE, seed=0), trained(tmp_path, "b", BASE, seed=1)
    file = Path(old.manifest.inputs["run"]["uri"], "manifest.json")
    manifest = json.loads(file.read_text())
    del manifest["config"]["layer_decay"], manifest["config"]["losses"]
    file.write_text(json.dumps(manifest))
    assert [sorted(setting.reports) for setting in settings_of([old, new])] == [[0, 1]]
    check_seeds([old, new])


def test_a_run_from_before_a_field_existed_is_of_no_setting_with_another_value(tmp_path):
    old = trained(tmp_path, "a", BASE, seed=0)
    new = trained(tmp_path, "b", BASE, seed=1, layer_decay=0.5, losses=["supcon"], weight_supcon=1.0)
    file = Path(old.manifest.inputs["run"]["uri"], "manifest.json")
    manifest = json.loads(file.read_text())
    del manifest["config"]["layer_decay"], manifest["config"]["losses"]
    file.write_text(json.dumps(manifest))
    assert len(settings_of([old, new])) == 2
    with pytest.raises(InputError, match=r"layer_decay is 1\.0 there and 0\.5 here, losses is \(\) there and \['supcon'\] here"):
        check_seeds([old, new])


def test_another_version_of_a_packages_loss_is_another_setting(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "packages"))
        install(tmp_path / "packages")
        one = trained(tmp_path, "a", BASE, seed=0, losses=["centre"])
        install(tmp_path / "packages", version="1.1")
        other = trained(tmp_path, "b", BASE, seed=1, losses=["centre"])
        remove(tmp_path / "packages")
    titles = [setting.title for setting in settings_of([one, other])]
    assert titles == [
        f"toy losses=['centre'] centre_power=2 weight_centre=1 packages={{'losses': {{'centre': 'zsbir-example {version}'}}}}"
        for version in ("1.0", "1.1")
    ]
    with pytest.raises(InputError, match="another version of a package of losses or backbones"):
        check_seeds([one, other])


def test_equal_titles_are_told_apart_by_what_differs(tmp_path):
    reports = [
        trained(tmp_path, "a", BASE),
        trained(tmp_path, "b", BASE, knowledge="e" * 64),
        trained(tmp_path, "c", BASE, knowledge=""),
        trained(tmp_path, "d", BASE, log_every_steps=7),
        trained(tmp_path, "e", BASE, lr=0.5),
    ]
    assert [setting.title for setting in settings_of(reports)] == [
        "toy log_every_steps=10 knowledge=kkkkkk",
        "toy log_every_steps=10 knowledge=eeeeee",
        "toy log_every_steps=10 knowledge=none",
        "toy log_every_steps=7 knowledge=kkkkkk",
        "toy lr=0.5",
    ]


def test_titles_that_were_cut_are_told_apart_by_their_digest(tmp_path):
    many = {
        "margin_cross": 0.1,
        "margin_same": 0.1,
        "weight_quadruplet": 0.5,
        "weight_classification": 0.5,
        "lr": 0.123,
        "lr_backbone": 0.01,
        "temperature": 0.06,
        "label_smoothing": 0.01,
        "weight_decay": 0.01,
    }
    first, second = settings_of([trained(tmp_path, name, BASE, warmup_frac=w, **many) for name, w in (("a", 0.1), ("b", 0.2))])
    assert first.title != second.title
    assert first.title.rpartition(" ")[0] == second.title.rpartition(" ")[0]


def test_a_report_that_is_given_twice_counts_once(tmp_path):
    one = trained(tmp_path, "a", BASE)
    (found,) = settings_of([one, Artifact(one.uri, "report")])
    assert list(found.reports) == [0]


def test_two_reports_of_one_seed_are_refused(tmp_path):
    reports = [trained(tmp_path, "a", BASE, seed=3)]
    reports.append(report(tmp_path, "b", BASE + 0.1, run=reports[0].manifest.inputs["run"]))
    with pytest.raises(InputError, match=r"reports/a and .*reports/b are both of toy with seed 3: pass one report for each seed"):
        settings_of(reports)


@pytest.mark.parametrize("seed", ["0", None, [1], 1.5])
def test_a_seed_that_is_no_number_is_refused(tmp_path, seed):
    one = trained(tmp_path, "a", BASE)
    file = Path(one.manifest.inputs["run"]["uri"], "manifest.json")
    manifest = json.loads(file.read_text())
    manifest["config"]["seed"] = seed
    file.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"runs/a: the seed in its manifest is no whole number"):
        settings_of([one])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "zero_shot v2"}, r"is of protocol zero_shot v1, .*of zero_shot v2: evaluate all runs under one --protocol"),
        ({"data": "e" * 64}, r"is of data dddddddddddddddd, .*of eeeeeeeeeeeeeeee: evaluate all runs on one data set"),
        ({"paths": [f"other/{number}" for number in range(QUERIES)]}, r"do not have the same queries .*--unseen-to of the others"),
    ],
)
def test_reports_of_different_tasks_are_refused_in_one_line(tmp_path, change, says):
    with pytest.raises(InputError, match=says) as refused:
        check_one_task([report(tmp_path, "a", BASE), report(tmp_path, "b", BASE, **change)])
    assert "\n" not in str(refused.value)


def test_galleries_of_another_size_are_refused(tmp_path):
    reports = [report(tmp_path, "a", BASE), report(tmp_path, "b", BASE)]
    file = Path(reports[1].uri, "manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "counts": {"gallery": 1000}}))
    with pytest.raises(InputError, match=r"of gallery 0 photos, .*of 1,000 photos: evaluate each run with --unseen-to"):
        check_one_task([reports[0], Artifact(reports[1].uri, "report")])


@pytest.mark.parametrize(
    ("of", "inputs", "line"),
    [
        ("run", {"knowledge": 5, "weights": [], "dataset": {"digest": 3}}, ""),
        ("report", {"dataset": 5}, "manifest lacks 'dataset'"),
        ("report", {"dataset": None}, "manifest lacks 'dataset'"),
    ],
)
def test_inputs_that_a_stranger_wrote_are_none_or_one_line(tmp_path, of, inputs, line):
    one, other = trained(tmp_path, "a", BASE, seed=0), trained(tmp_path, "b", BASE, seed=1)
    strange = Path(other.manifest.named("run").uri if of == "run" else other.uri, "manifest.json")
    manifest = json.loads(strange.read_text())
    manifest["inputs"] |= inputs
    strange.write_text(json.dumps(manifest))
    reports = [one, Artifact(other.uri, "report")]
    if not line:
        assert [setting.title for setting in settings_of(reports)] == [
            "toy dataset=dddddd knowledge=kkkkkk weights=wwwwww",
            "toy dataset=none knowledge=none weights=none",
        ]
        return
    with pytest.raises(InputError, match=line):
        settings_table(reports, CompareConfig())
