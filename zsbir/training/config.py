"""The configuration of a training: one flat value, whose fields are declared beside the component that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from zsbir.base import limits
from zsbir.base.config import Added, Config, Packaged
from zsbir.base.errors import InputError, naming
from zsbir.data.augmentation import Augmentation
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.registry import METHOD, fields_of, loss_kind, packages_of, unknown_field
from zsbir.model.choices import Backbone, Pooling

Precision = Literal["auto", "bf16", "fp32"]
"""Autocast to bfloat16, or not; `auto` decides by the hardware (`zsbir.training.precision`)."""

PRECISIONS: tuple[str, ...] = get_args(Precision)

BatchNormMode = Literal["frozen", "sync"]
"""Statistics of batch normalisation: the pre-trained ones, or those of the global batch (`zsbir.training.batchnorm`)."""


class OptimiserConfig(Config):
    """AdamW in two groups, linear warm-up, cosine decay."""

    lr: float = Field(1e-4, gt=0, description="peak learning rate of the new layers (embedding and heads)")
    lr_backbone: float = Field(1e-5, ge=0, description="peak learning rate of the pre-trained backbone")
    lr_preserver: float | None = Field(None, ge=0, description="peak learning rate of the teacher-label head; none: lr")
    layer_decay: Annotated[float, Added(neutral=1.0)] = Field(
        1.0, gt=0, le=1, description="share of lr_backbone that the backbone's first layer gets; in between it falls geometrically"
    )
    probe_frac: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, lt=1, description="share of the steps at the start in which the new layers alone learn (linear probe)"
    )
    average_decay: Annotated[float, Added(neutral=0.0)] = Field(
        0.0, ge=0, lt=1, description="keep a moving average of the encoder's weights with this decay, and use that; 0: the weights"
    )
    weight_decay: float = Field(5e-4, ge=0, description="decoupled weight decay; not on biases and normalisation")
    warmup_frac: float = Field(0.05, ge=0, le=1, description="share of the steps in which learning rates rise linearly")
    grad_clip: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: no clipping")


class TrainConfig(Augmentation, OptimiserConfig, ObjectiveConfig):
    """Everything that decides what a training computes; where it runs is in `zsbir.train.Settings`.

    The losses that `losses` names add fields of their own, `weight_<name>` among them: attributes like all others, and validated
    like them, but not in `model_fields`. `all_fields` has them.
    """

    model_config = ConfigDict(extra="allow")  # for the fields of `losses` alone: see _with_fields_of_losses

    recipe: str = Field("custom", pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the recipe this came from")
    backbone: Backbone = Field(
        "resnet50", description="network that is fine-tuned: resnet18 to resnet101 of torchvision, timm:NAME, or of a package"
    )
    pooling: Annotated[Pooling, Added(neutral="mean")] = Field(
        "mean", description="how the backbone's last feature map becomes features: its mean, or a learned generalised mean (gem)"
    )
    drop_path: Annotated[float, Added(neutral=0.0)] = Field(
        0.0,
        ge=0,
        lt=1,
        description="chance that the last residual branch is left out for an image in training, less in earlier ones",
    )
    embedding_dim: int = Field(512, ge=2, le=limits.EMBEDDING_DIM, description="dimension of the embedding")
    image_px: int = Field(224, ge=16, le=limits.IMAGE_PX, description="side of the images, pixels")
    epochs: float = Field(10.0, gt=0, description="passes over as many images as the training split has")
    steps: int = Field(0, ge=0, description="optimiser steps; 0: by epochs")
    classes_per_batch: int = Field(16, ge=2, description="P, different classes in a global batch")
    per_class: int = Field(4, ge=1, description="K, sketches and K photos of each class in a batch")
    batch_norm: BatchNormMode = Field("frozen", description="batch statistics: pre-trained ones, or of the global batch")
    precision: Precision = Field("auto", description="autocast; auto: bf16 where the hardware gains by it")
    train_on_dev: bool = Field(False, description="final recipe: train on dev classes too, choose the last checkpoint")
    eval_every_steps: int = Field(100, ge=1, description="steps between evaluations on the dev classes")
    checkpoint_every_steps: int = Field(100, ge=1, description="steps between checkpoints to resume from")
    log_every_steps: int = Field(10, ge=1, description="steps between logged metrics")
    losses: Annotated[tuple[str, ...], Added(neutral=()), Packaged(packages_of)] = Field(
        (), description="losses beside the method's three, by name (--help lists them); each adds fields of its own"
    )
    seed: int = Field(0, ge=0, description="seed of initialisation, batch plan and augmentation")

    @property
    def batch_images(self) -> int:
        """Images in a global batch."""
        return 2 * self.classes_per_batch * self.per_class

    @classmethod
    def all_fields(cls, losses: Iterable[str]) -> dict[str, FieldInfo]:
        """Return every field of a training with these further losses.

        Raises InputError for a loss that is not installed, and for one whose fields have names that a training uses itself.
        """
        added = fields_of(losses)
        used = next((field for field in added if field in cls.model_fields or hasattr(cls, field)), None)
        if used is not None:
            raise InputError(f"losses: a loss has a field {used!r}, which means something else here; its package must rename it")
        return {**cls.model_fields, **added}

    def every_field(self) -> Mapping[str, FieldInfo]:
        """Return the fields of this training, those of its further losses among them."""
        return self.all_fields(self.losses)

    def replace(self, **changes: Any) -> Self:
        """Return the same configuration with some fields changed; fields of losses that are no longer named are dropped."""
        return self.changed(changes)

    def changed(self, changes: Mapping[str, Any], *, where: str = "configuration") -> Self:
        """Return `replace` with the changes as a mapping. Raises InputError, whose line begins with `where`."""
        values = {**self.model_dump(), **changes}
        if "losses" in changes:
            with naming(where):
                kept = self.all_fields(_names(changes["losses"]))
            values = {name: value for name, value in values.items() if name in kept or name in changes}
        return type(self).of(values, where=where)

    def weight_of(self, loss: str) -> float:
        """Return the weight of a loss of the method, or of a further one."""
        return float(getattr(self, f"weight_{loss}"))

    @model_validator(mode="before")
    @classmethod
    def _with_fields_of_losses(cls, values: Any) -> Any:
        """Validate the fields of the losses that are named, and give them their defaults. InputError for fields that nobody has."""
        if not isinstance(values, Mapping):
            return values
        names = _names(values.get("losses", ()))
        found = dict(values)
        for name in names:
            fields = loss_kind(name).fields
            given = {field: found[field] for field in fields.model_fields if field in found}
            found |= fields.of(given, where="").model_dump()
        known = cls.all_fields(names)
        strange = next((field for field in found if field not in known), None)
        if strange is not None:
            raise InputError(unknown_field(str(strange)[:200], known, names))
        return found | ({"losses": tuple(sorted(names))} if names else {})

    @model_validator(mode="after")
    def _some_loss(self) -> TrainConfig:
        if not any(self.weight_of(loss) for loss in (*METHOD, *self.losses)):
            raise ValueError("all loss weights are 0; give at least one")
        return self


def _names(losses: Any) -> tuple[str, ...]:
    """Return the names of losses that a value holds, each once; none for what is no list of texts, which has its own error."""
    if not isinstance(losses, list | tuple) or not all(isinstance(name, str) for name in losses):
        return ()
    if len(set(losses)) < len(losses):
        raise InputError("losses: a loss is named twice")
    return tuple(losses)
