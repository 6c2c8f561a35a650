"""What the recipe `folder` chooses for a data set and a device."""

from __future__ import annotations

import pytest

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.samples import load_samples
from zsbir.recipes import changed_recipe, recipe
from zsbir.training.loop import plan_training
from zsbir.training_run.fitting import CHOSEN, CLASSES, LEAST_STEPS, MOST_STEPS, choose, fitted
from zsbir.training_run.plan import InputUris, Settings

FOLDER = recipe("folder")


def resolved(name, changes, inputs, settings, **options):
    """Do as the commands do with a recipe and its changes."""
    return fitted(changed_recipe(name, changes), changes, inputs, settings, **options)


def counts(classes, images, dev=0):
    return {
        "train_classes": classes,
        "train_photos": images // 2,
        "train_sketches": images // 2,
        "dev_classes": dev,
        "dev_photos": dev,
        "dev_sketches": dev,
    }


def chosen(classes=8, images=400, *, given=(), gpu=False, knowledge=False, **changes):
    return choose(FOLDER.replace(**changes), {*given, *changes}, counts(classes, images, dev=3), gpu=gpu, knowledge=knowledge)


def test_a_batch_has_no_more_classes_than_the_training_split():
    assert chosen(classes=6)["classes_per_batch"] == 6
    assert chosen(classes=60)["classes_per_batch"] == CLASSES["cpu"]
    assert chosen(classes=6, train_on_dev=True)["classes_per_batch"] == 9


def test_a_larger_collection_gets_more_steps_up_to_what_ten_minutes_hold():
    small, middle, large = (chosen(images=images)["steps"] for images in (40, 600, 10**6))
    assert small == LEAST_STEPS
    assert LEAST_STEPS < middle < MOST_STEPS["cpu"]
    assert large == MOST_STEPS["cpu"]


def test_a_gpu_gets_larger_images_and_more_steps():
    assert chosen(images=10**6, gpu=True)["image_px"] == 224
    assert chosen(images=10**6, gpu=True)["steps"] == MOST_STEPS["gpu"]


def test_what_is_given_is_never_chosen():
    given = {"steps": 7, "image_px": 64, "classes_per_batch": 3, "weight_preservation": 0.5}
    assert set(chosen(**given)) == {"eval_every_steps", "checkpoint_every_steps"}
    assert chosen(**given)["eval_every_steps"] == 1


def test_without_knowledge_there_is_no_preservation():
    assert chosen()["weight_preservation"] == 0
    assert chosen(knowledge=True)["weight_preservation"] == FOLDER.weight_preservation > 0


def test_the_choice_can_be_trained_and_is_the_same_each_time(dataset, capsys):
    inputs = InputUris(dataset=dataset)
    config = resolved("folder", {}, inputs, Settings(), gpu=False)
    assert "folder: chosen for this data set and a CPU: image_px 128, " in capsys.readouterr().err
    assert resolved("folder", {}, inputs, Settings(), gpu=False) == config
    assert len(plan_training(config, load_samples(Artifact(dataset, "dataset")), 1)) == config.steps
    assert resolved("folder", config.model_dump(exclude={"recipe"}), inputs, Settings(), gpu=True) == config, "a YAML file wins"


def test_data_parallel_workers_compute_on_the_gpus_they_hold(dataset):
    inputs = InputUris(dataset=dataset)
    assert resolved("folder", {}, inputs, Settings(num_workers=2)).image_px == 128
    assert resolved("folder", {}, inputs, Settings(num_workers=2, gpus_per_worker=1)).image_px == 224


def test_other_recipes_are_as_they_are(dataset, capsys):
    config = resolved("toy", {"epochs": 3}, InputUris(dataset=dataset), Settings())
    assert config == recipe("toy").replace(epochs=3, steps=0)
    assert capsys.readouterr().err == ""


def test_an_address_that_is_no_data_set_is_an_error_and_none_is_left_to_the_training(run):
    with pytest.raises(InputError, match="run"):
        resolved("folder", {}, InputUris(dataset=run), Settings())
    assert resolved("folder", {}, InputUris(), Settings()) == FOLDER


def test_what_can_be_chosen_is_listed_for_forms():
    counts = {"train_classes": 9, "train_photos": 90, "train_sketches": 90}
    assert set(choose(FOLDER, (), counts, gpu=False, knowledge=False)) == set(CHOSEN)


def test_epochs_that_would_change_nothing_are_refused_with_what_to_pass():
    with pytest.raises(InputError, match=r"pass --steps, here \d+ for"):
        chosen(given=("epochs",))
    assert chosen(given=("epochs", "steps"), steps=50)["image_px"]
