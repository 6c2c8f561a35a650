"""A loss with parameters: each class has a centre, which is learned, and towards which its images are pulled."""

import torch
from pydantic import Field

from zsbir.base.config import Config
from zsbir.losses.loss import Loss, LossBatch, Shapes


class CentreFields(Config):
    """Each name begins with that of the loss, and each field has a default."""

    centre_power: float = Field(2.0, gt=0, description="power of the distance to the centre")


class Centre(Loss):
    """The mean of |f(x) - centre of x's class| ^ centre_power."""

    Fields = CentreFields
    fields: CentreFields

    def __init__(self, fields: Config, shapes: Shapes):
        super().__init__(fields, shapes)
        self.centres = torch.nn.Parameter(torch.randn(shapes.classes, shapes.embedding_dim) / shapes.embedding_dim**0.5)

    def forward(self, batch: LossBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss, and the largest distance of the batch."""
        away = (batch.embeddings - self.centres[batch.classes]).norm(dim=1)
        return (away**self.fields.centre_power).mean(), {"farthest": away.max()}
