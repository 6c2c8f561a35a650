"""A loss with a state that is not learned, with random draws, and with a parameter that not every step uses."""

import torch
from pydantic import Field

from zsbir.base.config import Config
from zsbir.losses.loss import Loss, LossBatch, Shapes


class RecentFields(Config):
    """Each name begins with that of the loss, and each field has a default."""

    recent_share: float = Field(0.9, ge=0, lt=1, description="share of the old mean that each batch leaves")
    recent_places: int = Field(4, ge=1, description="rows of the batch that a step looks at")


class Recent(Loss):
    """The squared distance of randomly chosen embeddings from the running mean of all batches, times a learned scale, at times."""

    Fields = RecentFields
    fields: RecentFields
    mean: torch.Tensor

    def __init__(self, fields: Config, shapes: Shapes):
        super().__init__(fields, shapes)
        self.register_buffer("mean", torch.zeros(shapes.embedding_dim))
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch: LossBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss."""
        chosen = batch.embeddings[torch.randint(len(batch.embeddings), (self.fields.recent_places,))]
        away = (chosen - self.mean).square().sum(dim=1).mean()
        self.mean.lerp_(batch.embeddings.detach().mean(dim=0), 1 - self.fields.recent_share)
        return (away * self.scale.square().sum() if batch.progress > 0.5 else away), {}
