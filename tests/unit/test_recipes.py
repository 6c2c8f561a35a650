"""What people see trainings by: the recipe, what differs from it, and digits that tell equal ones apart."""

from __future__ import annotations

import pytest

from tuning.trial import trial_name
from zsbir.recipes import LONGEST_TITLE, RECIPES, recipe, shortened, title
from zsbir.training_run.plan import Settings

RUN = "toy-516f590337de"


def titled(name: str, run: str = RUN, **changes: object) -> str:
    return title(recipe(name).replace(**changes).model_dump(mode="json"), run)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_as_it_is_has_its_own_name(name):
    assert titled(name, f"{name}-0123456789ab") == f"{name} (012345)"


@pytest.mark.parametrize("name", ["sketchy_ext", "tuberlin_ext", "quickdraw_ext"])
def test_recipes_that_were_not_measured_learn_at_the_rates_of_the_one_that_was(name):
    measured, extended = recipe("caltech_qd60_r18"), recipe(name)
    assert (extended.lr, extended.lr_backbone) == (measured.lr, measured.lr_backbone) == (1e-3, 2e-4)
    assert (extended.backbone, extended.image_px, extended.steps) == ("resnet50", 224, 0)


def test_the_larger_images_come_with_softer_losses_and_nothing_else():
    before, after = (recipe(name).model_dump() for name in ("caltech_qd60_r18", "caltech_qd60_r18_192"))
    assert {field: value for field, value in after.items() if value != before[field]} == {
        "recipe": "caltech_qd60_r18_192",
        "image_px": 192,
        "mining": "soft",
        "mining_temperature": 0.2,
        "temperature": 0.1,
    }


def test_lite2_is_trained_on_the_batches_and_for_the_steps_of_resnet18():
    resnet18, lite2 = (recipe(name).model_dump() for name in ("caltech_qd60_r18", "caltech_qd60_lite2"))
    assert {field for field in lite2 if lite2[field] != resnet18[field]} == {
        "recipe",
        "backbone",
        "weight_preservation",
        "lr",
        "precision",
    }


def test_what_differs_from_the_recipe_is_named_the_seed_first():
    assert titled("toy", margin_cross=0.3, seed=1) == "toy seed=1 margin_cross=0.3 (516f59)"
    assert (
        titled("toy", train_on_dev=True, weight_quadruplet=0.123456789) == "toy weight_quadruplet=0.1235 train_on_dev=True (516f59)"
    )


def test_a_recipe_that_is_not_known_is_compared_with_the_defaults():
    assert title({"recipe": "mine", "seed": 2, "unknown": 5}, "mine-abcdef0123") == "mine seed=2 (abcdef)"
    assert title({}, RUN) == "custom (516f59)"


def test_what_a_further_loss_is_given_is_named_whether_or_not_it_is_installed():
    given = {"recipe": "toy", "losses": ["gone"], "weight_gone": 0.5, "gone_power": 2, "other_power": 3}
    assert title(given, RUN) == "toy losses=['gone'] weight_gone=0.5 gone_power=2 (516f59)"


def test_a_title_is_one_line_of_bounded_length_whatever_the_manifest_says():
    found = title({"recipe": "toy", "seed": "1\n" * 10_000, "margin_cross": [0] * 1000}, "toy-\x1b[2J")
    assert found.isprintable()
    assert len(found) < LONGEST_TITLE + 60
    assert shortened("x" * 1000) == "x" * (LONGEST_TITLE - 3) + "..."


def test_a_trial_is_seen_by_its_number_and_its_point():
    name = trial_name(3, {"margin_cross": 0.31234567, "mining": "all"})
    assert name == "trial 3: margin_cross=0.3123 mining=all"
    assert Settings(run_name=trial_name(3, {f"field_{number}": 1 / 3 for number in range(100)})).run_name.endswith("...")
