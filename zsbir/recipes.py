"""Complete training configurations by name. Each docstring is a lab note: what it is for, what it costs, what to expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.training.config import TrainConfig


def custom() -> TrainConfig:
    """Train with the configuration's own defaults: the paper's ResNet50 at 224 px, ten epochs."""
    return TrainConfig()


def folder() -> TrainConfig:
    """Train on your own pictures, 8 to 60 classes: ResNet18 from ImageNet weights. One to five minutes on one CPU core.

    Size of the images, classes in a batch and steps follow from the data set and from whether there is a GPU
    (`zsbir.training_run.fitting`); those given here stand in until the data set is known. Without knowledge of a teacher it trains
    without preservation, which gained nothing measurable beside the classification loss (docs/log.md).
    """
    return caltech_qd60_r18().replace(recipe="folder")


def toy() -> TrainConfig:
    """Train on the drawn toy data, as `make demo` does: its own ResNet18 at 64 px. One to two minutes on two CPU cores.

    mAP@all about .68 on the 7 unseen classes of the toy data, .54 with the frozen backbone; on the 21 of the demo .40 and .29, and
    .44 with the demo's lower learning rates.
    """
    return TrainConfig(
        recipe="toy",
        backbone="resnet18",
        embedding_dim=128,
        image_px=64,
        steps=200,
        classes_per_batch=8,
        per_class=4,
        lr=2e-3,
        lr_backbone=1e-3,
        eval_every_steps=50,
        checkpoint_every_steps=50,
    )


def caltech_qd60_r18() -> TrainConfig:
    """Train on 60 classes of real photos and sketches, ResNet18 at 128 px. About five minutes on one CPU core.

    With --train-on-dev mAP@all .400 on the 15 unseen classes; .212 with the frozen backbone
    (docs/benchmarks/2026-11-22-caltech_qd60_r18.md).
    """
    return TrainConfig(
        recipe="caltech_qd60_r18",
        backbone="resnet18",
        embedding_dim=512,
        image_px=128,
        steps=120,
        classes_per_batch=12,
        per_class=4,
        lr=1e-3,
        lr_backbone=2e-4,
        eval_every_steps=40,
        checkpoint_every_steps=40,
    )


def caltech_qd60_r18_192() -> TrainConfig:
    """Train on the same 60 classes, ResNet18 at 192 px, with softer losses. About five minutes on one CPU core.

    Three changes of `caltech_qd60_r18`, chosen on dev classes: mining by hardness, twice the classifier's temperature, and larger
    images, which take twice as long. With --train-on-dev mAP@all .403 on the 15 unseen classes against .398, no significant
    gain, and .417 against .360 on the 21 unseen classes of sketchy104 (three seeds; docs/benchmarks/2026-11-30-losses.md).
    """
    return caltech_qd60_r18().replace(
        recipe="caltech_qd60_r18_192", image_px=192, mining="soft", mining_temperature=0.2, temperature=0.1
    )


def caltech_qd60_lite2() -> TrainConfig:
    """Train on the same 60 classes with EfficientNet-Lite2 of timm at 128 px. About five minutes on one CPU core.

    mAP@all .499 on 11 dev classes (one seed, best step; a quarter of the seen classes held out), .243 with the frozen backbone; the
    ResNet18 recipe .438 on the same classes, .427 without preservation. Learning rates were chosen among four on these classes
    (docs/log.md). Not measured on unseen classes.

    Without preservation: classification and quadruplet, so that a weight file is all it needs. In fp32, since bfloat16 takes 1.4 to
    1.8 times as long to train this network on a CPU; an index and its searches choose their own precision.
    """
    return caltech_qd60_r18().replace(
        recipe="caltech_qd60_lite2", backbone="timm:tf_efficientnet_lite2", weight_preservation=0.0, lr=5e-4, precision="fp32"
    )


def caltech_qd60_r50() -> TrainConfig:
    """Train on the same 60 classes with the paper's ResNet50 at 224 px, for a GPU; two CPU cores do about 11 images/s."""
    return caltech_qd60_r18().replace(
        recipe="caltech_qd60_r50", backbone="resnet50", image_px=224, steps=600, classes_per_batch=16, lr_backbone=3e-5
    )


def _extended(name: str, **plan: Any) -> TrainConfig:
    """Return a recipe for a data set of the literature: ResNet50 at 224 px, with the learning rates of `caltech_qd60_r18`.

    The defaults of a configuration are the field's usual rates, 1e-4 and 1e-5 for the backbone. On caltech_qd60 higher ones gained
    more than any form of preservation, in 120 steps (docs/log.md). Whether they do in more steps, or on larger data, is not known.
    """
    measured = caltech_qd60_r18()
    return TrainConfig(recipe=name, lr=measured.lr, lr_backbone=measured.lr_backbone, **plan)


def sketchy_ext() -> TrainConfig:
    """Train on Sketchy Extended (Sketchy-25 or -21 by the data set's split), ResNet50 at 224 px, for GPUs. Not measured.

    Learning rates 1e-3 and 2e-4 (backbone), which were chosen on caltech_qd60 with a ResNet18; not measured on this data.
    """
    return _extended("sketchy_ext", epochs=10, eval_every_steps=500, checkpoint_every_steps=500)


def tuberlin_ext() -> TrainConfig:
    """Train on TU-Berlin Extended, 220 seen and 30 unseen classes, ResNet50 at 224 px, for GPUs. Not measured.

    Learning rates 1e-3 and 2e-4 (backbone), which were chosen on caltech_qd60 with a ResNet18; not measured on this data.
    """
    return _extended("tuberlin_ext", epochs=10, eval_every_steps=500, checkpoint_every_steps=500)


def quickdraw_ext() -> TrainConfig:
    """Train on QuickDraw Extended, 80 seen and 30 unseen classes, ResNet50 at 224 px, for GPUs. Not measured.

    Learning rates 1e-3 and 2e-4 (backbone), which were chosen on caltech_qd60 with a ResNet18; not measured on this data.
    """
    return _extended("quickdraw_ext", epochs=5, eval_every_steps=1000, checkpoint_every_steps=1000)


RECIPES: dict[str, Callable[[], TrainConfig]] = {
    make.__name__: make
    for make in (
        custom,
        folder,
        toy,
        caltech_qd60_r18,
        caltech_qd60_r18_192,
        caltech_qd60_lite2,
        caltech_qd60_r50,
        sketchy_ext,
        tuberlin_ext,
        quickdraw_ext,
    )
}


LONGEST_TITLE = 120
"""Characters of a title without the digest behind it."""

UNTITLED = frozenset({"recipe", "seed", "checkpoint_every_steps", "log_every_steps"})
"""Fields that are no part of the changes in a title: it has the first two anyway, and the others change nothing that is learned."""


def recipe(name: str) -> TrainConfig:
    """Return the recipe of that name. Raises InputError with a suggestion if there is none."""
    if not isinstance(name, str) or name not in RECIPES:  # a file may hold anything
        raise InputError(unknown_name("recipe", str(name)[:100], RECIPES))
    return RECIPES[name]()


def changed_recipe(name: str, changes: Mapping[str, Any]) -> TrainConfig:
    """Return a recipe with fields changed. Raises InputError for an unknown recipe or field, or a bad value."""
    changes = dict(changes)
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # a user who gives epochs does not want the recipe's steps
    return recipe(name).changed(changes)  # a mapping: what is no name of a field in a file may be no text either


def title(config: Mapping[str, Any], run: str) -> str:
    """Return what people see a training by: its recipe and the fields that differ from it, "toy seed=1 margin_cross=0.3 (516f59)".

    config: the fields, as a manifest has them. run: the name of the run's folder; the first digits of its digest stand at the end.
    """
    seed = [field_text("seed", config["seed"])] if config.get("seed") else []
    return f"{shortened(' '.join([recipe_of(config), *seed, *changes_of(config)]))} ({short_digest(run)})"


def setting_title(config: Mapping[str, Any]) -> str:
    """Return what people see trainings by that differ in their seed alone: "toy margin_cross=0.3"."""
    return shortened(" ".join([recipe_of(config), *changes_of(config)]))


def recipe_of(config: Mapping[str, Any]) -> str:
    """Return the name of the recipe that a configuration came from."""
    return str(config.get("recipe", "custom"))


def changes_of(config: Mapping[str, Any]) -> list[str]:
    """Return the fields in which a configuration differs from its recipe, as text, without those in `UNTITLED`."""
    plain = RECIPES.get(recipe_of(config), custom)().model_dump(mode="json")
    known = [name for name in config if name in plain or _is_of_a_loss(name, config.get("losses"))]
    return [field_text(name, config[name]) for name in known if name not in UNTITLED and config[name] != plain.get(name)]


def _is_of_a_loss(field: str, losses: Any) -> bool:
    """Return whether a field is one that further losses add, by its name: they need not be installed where a title is shown."""
    names = [name for name in losses if isinstance(name, str)] if isinstance(losses, list | tuple) else []
    return any(field == f"weight_{name}" or field.startswith(f"{name}_") for name in names)


def field_text(field: str, value: Any) -> str:
    """Return one field for a title: `lr=0.001`. Numbers have four digits, since those that a sweep draws have sixteen."""
    return f"{field}={value:.4g}" if isinstance(value, float) else f"{field}={value}"


def shortened(text: str) -> str:
    """Return a title in which every character is visible, cut to `LONGEST_TITLE` characters."""
    text = clean(text)
    return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 3]}..."


def short_digest(folder: str) -> str:
    """Return the first digits of the digest at the end of a folder's name, which tell equal titles apart."""
    return clean(folder.rpartition("-")[2][:6])


class MeasuredSpread(NamedTuple):
    """The standard deviation of a metric's mean over this many seeds, and the page that says how it was measured.

    changes: the fields in which these trainings differed from the recipe.
    """

    sd: float
    seeds: int
    changes: Mapping[str, Any]
    page: str


SEED_SPREADS: dict[tuple[str, str, str], tuple[MeasuredSpread, ...]] = {
    ("toy", "toy", "map_all"): (
        MeasuredSpread(0.0270, 3, {}, "docs/benchmarks/2026-11-29-gate.md"),
        MeasuredSpread(0.0727, 4, {"train_on_dev": True}, "docs/benchmarks/2026-11-29-gate.md"),
        MeasuredSpread(0.0208, 4, {"lr": 1e-3, "lr_backbone": 3e-4, "train_on_dev": True}, "docs/benchmarks/2026-11-29-gate.md"),
    ),
}
"""Spreads by recipe, data set and metric, for promotions with one seed a side."""


def measured_spread(config: Mapping[str, Any], dataset: str, metric: str) -> MeasuredSpread | None:
    """Return the measured spread of a training's seeds; None for other data, and changes of the recipe that were not measured."""
    name = str(config.get("recipe"))
    known = SEED_SPREADS.get((name, dataset, metric), ())
    plain = recipe(name).model_dump(mode="json") if known else {}
    changes = {field: value for field, value in config.items() if field != "seed" and plain.get(field) != value}
    return next((found for found in known if found.changes == changes), None)
