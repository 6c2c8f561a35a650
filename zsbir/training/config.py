"""The configuration of a training: one flat value, whose fields are declared beside the component that reads them."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from zsbir.base import limits
from zsbir.base.config import Config
from zsbir.data.augmentation import Augmentation
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.model.choices import Backbone

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
    weight_decay: float = Field(5e-4, ge=0, description="decoupled weight decay; not on biases and normalisation")
    warmup_frac: float = Field(0.05, ge=0, le=1, description="share of the steps in which learning rates rise linearly")
    grad_clip: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: no clipping")


class TrainConfig(Augmentation, OptimiserConfig, ObjectiveConfig):
    """Everything that decides what a training computes; where it runs is in `zsbir.train.Settings`."""

    recipe: str = Field("custom", pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="name of the recipe this came from")
    backbone: Backbone = Field("resnet50", description="torchvision network that is fine-tuned")
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
    seed: int = Field(0, ge=0, description="seed of initialisation, batch plan and augmentation")

    @property
    def batch_images(self) -> int:
        """Images in a global batch."""
        return 2 * self.classes_per_batch * self.per_class

    @model_validator(mode="after")
    def _some_loss(self) -> TrainConfig:
        if self.weight_quadruplet == self.weight_classification == self.weight_preservation == 0:
            raise ValueError("all three loss weights are 0; give at least one")
        return self
