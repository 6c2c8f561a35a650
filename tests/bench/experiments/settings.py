"""The settings that are compared: each is today's recipe with changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

DATASETS = {"caltech_qd60": "split_nonimagenet.json", "sketchy104": "split_unseen21of25.json"}
"""Data sets by folder, with the list of unseen classes in it."""

TODAY = "caltech_qd60_r18"
"""The recipe that every setting starts from, on both data sets: the same plan of batches, the same number of steps."""

LOSSES = ("quadruplet", "classification", "preservation")


@dataclass(frozen=True)
class Setting:
    """changes: to the recipe. teacher: to the teacher's configuration. why: what the row is there to show.

    recipe: what is changed, where it is not today's.
    after: what is done to the trained encoder before it is scored (`bench.experiments.after`).
    """

    why: str
    changes: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    recipe: str = TODAY
    after: Literal["", "centred", "batch_norm"] = ""


def only(*losses: str) -> dict[str, Any]:
    """Return changes that leave these losses of the method alone."""
    return {f"weight_{loss}": 0.0 for loss in LOSSES if loss not in losses}


def instead(loss: str, **fields: Any) -> dict[str, Any]:
    """Return changes that put another loss in place of the method's."""
    return {**only(), "losses": (loss,), **fields}


MAIN: dict[str, Setting] = {
    "frozen": Setting(
        "the network as it was pre-trained: one step that changes nothing", {"steps": 1, "lr": 1e-12, "lr_backbone": 0.0}
    ),
    "today": Setting("the recipe as it is: all three losses"),
    "quadruplet": Setting("one loss alone", only("quadruplet")),
    "classification": Setting("one loss alone", only("classification")),
    "preservation": Setting("one loss alone", {**only("preservation"), "weight_preservation": 1.0}),
    "quadruplet+classification": Setting("a pair", only("quadruplet", "classification")),
    "quadruplet+preservation": Setting("a pair", only("quadruplet", "preservation")),
    "classification+preservation": Setting("a pair", only("classification", "preservation")),
    "sake": Setting("SAKE's objective with its online teacher", instead("sake")),
    "supcon": Setting("a baseline", instead("supcon")),
    "proxy_anchor": Setting("a baseline", instead("proxy_anchor")),
    "triplet": Setting("a baseline", instead("triplet")),
    "multi_similarity": Setting("a baseline", instead("multi_similarity")),
}

BASELINES: dict[str, Setting] = {
    f"{loss}, rates /{factor}": Setting(
        "a baseline with smaller learning rates, since the recipe's were chosen for its own losses",
        instead(loss, lr=1e-3 / factor, lr_backbone=2e-4 / factor),
    )
    for loss in ("sake", "supcon", "proxy_anchor", "triplet", "multi_similarity")
    for factor in (4, 16)
}

PLAIN_PAIR = only("quadruplet", "classification")

IDEAS: dict[str, Setting] = {
    "soft .05": Setting("mining by hardness", {"mining": "soft", "mining_temperature": 0.05}),
    "soft .1": Setting("mining by hardness", {"mining": "soft"}),
    "soft .2": Setting("mining by hardness", {"mining": "soft", "mining_temperature": 0.2}),
    "semi-hard": Setting("mining beyond the positive", {"mining": "semi_hard"}),
    "all": Setting("every quadruplet", {"mining": "all"}),
    "soft, twice the weight": Setting("mining by hardness", {"mining": "soft", "weight_quadruplet": 2.0}),
    "memory 4": Setting("past batches", {"mining": "soft", "quadruplet_memory": 4}),
    "supcon beside": Setting("SupCon in place of the quadruplet", {"weight_quadruplet": 0.0, "losses": ("supcon",)}),
    "supcon across": Setting(
        "the same, across domains", {"weight_quadruplet": 0.0, "losses": ("supcon",), "supcon_positives": "other_domain"}
    ),
    "prototypes": Setting("the teacher's means as the start", {"classifier_start": "prototypes"}),
    "fixed": Setting("random fixed weights, the control", {"classifier_start": "fixed"}),
    "temperature .1": Setting("a softer classifier", {"temperature": 0.1}),
    "smoothing .1": Setting("label smoothing", {"label_smoothing": 0.1}),
    "decay .05": Setting("weight decay that acts", {"weight_decay": 0.05}),
    "layers .1": Setting("layer-wise rates", {"layer_decay": 0.1}),
    "layers .1, rate x2": Setting("layer-wise rates", {"layer_decay": 0.1, "lr_backbone": 4e-4}),
    "probe .1": Setting("linear probe before", {"probe_frac": 0.1}),
    "average .95": Setting("averaged weights", {"average_decay": 0.95}),
    "gem": Setting("generalised mean", {"pooling": "gem"}),
    "bend": Setting("bent strokes", {"stroke_bend_prob": 0.5}),
    "ink": Setting("cut to the ink", {"ink_crop_prob": 0.5}),
    "edges": Setting("edge maps as a bridge", {"edges_prob": 0.3}),
    "sync": Setting("batch statistics of the batch", {"batch_norm": "sync"}),
    "rate x2": Setting("faster backbone", {"lr_backbone": 4e-4}),
    "rate x4": Setting("faster backbone", {"lr_backbone": 8e-4}),
    "new layers' rate /2": Setting("slower new layers", {"lr": 5e-4}),
    "new layers' rate /4": Setting("slower new layers", {"lr": 2.5e-4}),
    "steps x2": Setting("twice the steps", {"steps": 240}),
    "features": Setting("preservation on the features", {"preservation_place": "features"}),
    "unnormalised": Setting("preservation by a linear head", {"preservation_place": "unnormalised"}),
    "dim 256": Setting("smaller embedding", {"embedding_dim": 256}),
    "160 px": Setting("larger images", {"image_px": 160}),
    "192 px": Setting("larger images", {"image_px": 192}),
    "224 px": Setting("larger images, as the weights were trained on", {"image_px": 224}),
    "ambiguity .5": Setting("smaller margins for classes of which the teacher is unsure", {"margin_ambiguity": 0.5}),
    "centred": Setting("each domain loses its mean after training", after="centred"),
    "batch statistics by domain": Setting("those of the training images of each domain, after training", after="batch_norm"),
    "grey .5": Setting("photos without colour, as sketches are", {"grayscale_prob": 0.5}),
    "crop .35": Setting("smaller parts of an image", {"crop_scale_min": 0.35}),
    "steps x4": Setting("four times the steps", {"steps": 480}),
    "24 classes x 2": Setting("more classes in a batch", {"classes_per_batch": 24, "per_class": 2}),
}

E1: dict[str, Setting] = {
    "skp": MAIN["preservation"],
    "skp, permuted": Setting(
        "the knowledge of other classes", {**only("preservation"), "weight_preservation": 1.0}, {"permute_seed": 0}
    ),
}

E2: dict[str, Setting] = {
    f"{name}, rate {rate:g}": Setting("where the network forgets", {**losses, "lr_backbone": rate})
    for rate in (1e-3, 2e-3)
    for name, losses in {
        "pair": PLAIN_PAIR,
        "skp on the embedding": {"weight_preservation": 1.0},
        "skp on features": {"weight_preservation": 1.0, "preservation_place": "features"},
        "skp on features, head fixed": {"weight_preservation": 1.0, "preservation_place": "features", "lr_preserver": 0.0},
    }.items()
}

E2["skp on the embedding, permuted, rate 0.001"] = Setting(
    "the control where preservation seems to pay: the knowledge of other classes",
    {"weight_preservation": 1.0, "lr_backbone": 1e-3},
    {"permute_seed": 0},
)

_PLACE = {"weight_preservation": 1.0, "preservation_place": "unnormalised"}
E3: dict[str, Setting] = {
    "SAKE's place": Setting("a linear head on the embedding before it is a unit vector", _PLACE),
    "SAKE's place, photos": Setting("photos alone", {**_PLACE, "preservation_domains": "photo"}),
    "SAKE's place, T 4": Setting("temperatures matched", {**_PLACE, "preservation_temperature": 4.0}, {"temperature": 4.0}),
    "SAKE's place, by image": Setting(
        "the teacher is asked about each photo", {**only("quadruplet"), "losses": ("sake",), "sake_temperature": 1.0}
    ),
    "SAKE's place, by image, T 4": Setting(
        "temperatures matched", {**only("quadruplet"), "losses": ("sake",), "sake_temperature": 4.0}
    ),
}

_SOFTER = {"mining": "soft", "mining_temperature": 0.2, "temperature": 0.1}
TOGETHER: dict[str, Setting] = {
    "softer": Setting("what gained alone: soft .2 and temperature .1", _SOFTER),
    "softer, steps x2": Setting("what gained alone", {**_SOFTER, "steps": 240}),
    "softer, 192 px": Setting("what gained alone, and what gains after expansion", {**_SOFTER, "image_px": 192}),
    "softer, 192 px, steps x2": Setting("all that gained", {**_SOFTER, "image_px": 192, "steps": 240}),
    "softer, 192 px, twice the weight": Setting(
        "for sketchy104, where the quadruplet carries more", {**_SOFTER, "image_px": 192, "weight_quadruplet": 2.0}
    ),
    "softer, 224 px, twice the weight": Setting(
        "the same, at the size of the pre-training", {**_SOFTER, "image_px": 224, "weight_quadruplet": 2.0}
    ),
    "softer, grey .5, steps x4": Setting("longer, with more variation", {**_SOFTER, "grayscale_prob": 0.5, "steps": 480}),
    "softer, prototypes": Setting("with the teacher's means as the start", {**_SOFTER, "classifier_start": "prototypes"}),
}

BACKBONES: dict[str, Setting] = {
    "resnet50": Setting("the paper's network, in the same steps", {"backbone": "resnet50"}),
    "lite2": Setting("half the parameters of ResNet18", recipe="caltech_qd60_lite2"),
    "lite2, softer": Setting("the same, with what gained on ResNet18", _SOFTER, recipe="caltech_qd60_lite2"),
    "lite2, today's losses": Setting("with preservation", {"weight_preservation": 0.3}, recipe="caltech_qd60_lite2"),
}

SETTINGS = {**MAIN, **BASELINES, **IDEAS, **E1, **E2, **E3, **TOGETHER, **BACKBONES}
