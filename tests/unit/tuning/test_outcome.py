import re

import pytest
import yaml
from PIL import Image

from tuning.outcome import Outcome, importances, table_text
from tuning.report import write_report
from tuning.space import open_space, random_point
from tuning.table import Trial
from zsbir.recipes import recipe

BASE = recipe("toy")
SPACE = open_space("all", BASE)


def trials(count=16):
    """Only margin_cross matters; every third is stopped early, one failed with markup in its error."""
    made = [
        Trial(0, "base", {field: getattr(BASE, field) for field in SPACE}, "finished", run="runs/a", scores=((10, 0.1), (20, 0.2)))
    ]
    for number in range(1, count):
        point = random_point(SPACE, seed=0, number=number)
        score = point["margin_cross"]
        scores, state = (((10, score),), "stopped") if number % 3 == 0 else (((10, score), (20, score + 0.05)), "finished")
        made.append(Trial(number, "random", point, state, run=f"runs/{number}", scores=scores))
    made.append(Trial(count, "random", random_point(SPACE, seed=0, number=count), "failed", error="<script>alert(1)</script> {x}"))
    return made


def test_the_best_is_the_best_of_the_finished():
    outcome = Outcome(BASE, SPACE, trials())
    finished = [trial for trial in outcome.trials if trial.state == "finished"]
    assert outcome.best == max(finished, key=lambda trial: trial.score)
    assert f"trial {outcome.best.number}" in outcome.verdict()


def test_without_a_finished_trial_there_is_no_best():
    assert Outcome(BASE, SPACE, [Trial(0, "base", {}, "failed", error="no")]).best is None


def test_the_verdict_says_when_the_recipe_was_not_beaten():
    alone = [Trial(0, "base", {}, "finished", scores=((1, 0.5),)), Trial(1, "tpe", {}, "finished", scores=((1, 0.4),))]
    assert Outcome(BASE, SPACE, alone).verdict() == "no trial is better on dev than the recipe as it is, 0.500"


def test_importance_finds_the_field_that_matters_at_the_step_all_have_reached():
    step, shares = importances(SPACE, trials(40))
    assert step == 10
    assert next(iter(shares)) == "margin_cross"
    assert shares["margin_cross"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_or_equal_scores_say_nothing():
    assert importances(SPACE, trials(3)) == (0, {})
    same = [Trial(n, "random", random_point(SPACE, seed=0, number=n), "finished", scores=((5, 0.5),)) for n in range(6)]
    assert importances(SPACE, same) == (5, {})


def test_the_table_ranks_and_names_errors():
    lines = table_text(SPACE, trials()).splitlines()
    assert len(lines) == 18
    assert "finished" in lines[1]
    assert lines[-1].endswith("<script>alert(1)</script> {x}")


@pytest.mark.parametrize("count", [1, 2, 16])
def test_the_report_is_there_whatever_came_out(tmp_path, count):
    outcome = Outcome(BASE, SPACE, trials(count))
    write_report(lambda name: tmp_path / name, outcome, outcome.best)
    assert BASE.of(yaml.safe_load((tmp_path / "best.yaml").read_text())) == BASE.replace(**outcome.best.point)
    for picture in tmp_path.glob("*.png"):
        assert min(Image.open(picture).size) > 100
    page = (tmp_path / "sweep.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert not re.search(r'<(script|link|img)[^>]* (src|href)="https?:', page), "it must open without network"
