"""What a loss is: a module that sees a global batch, with fields of its own. One file makes a new one.

    class Centre(Loss):
        Fields = CentreFields       # a Config whose fields begin with "centre_"

        def forward(self, batch):
            return value, {"spread": spread}

A loss that keeps parameters or buffers (proxies, a memory) registers them as any module does: they are trained, and they are in
every checkpoint. Each of several workers computes the whole loss from the same global batch, so what it keeps is equal on all.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from zsbir.base.config import Config


class Shapes(NamedTuple):
    """What a loss is built for: the dimensions of the embedding and of the pooled features, and how many classes are trained on."""

    embedding_dim: int
    feature_dim: int
    classes: int


class LossBatch(NamedTuple):
    """A global batch, the same on every worker.

    embeddings: unit vectors. classes: 0 to c - 1. domains: places in `zsbir.data.domains.DOMAINS`. lengths: of
    the embeddings before they became unit vectors. progress: share of the training
    that is done, 0 to 1. images: only for a loss with `reads_images`.
    """

    embeddings: Float[Tensor, "b d"]
    features: Float[Tensor, "b f"]
    classes: Int[Tensor, "b"]
    domains: Int[Tensor, "b"]
    lengths: Float[Tensor, "b"]
    progress: float = 0.0
    images: UInt8[Tensor, "b 3 h w"] | None = None


class Loss(nn.Module):
    """A term of the objective beside the method's three, named by its entry point and weighed by the field `weight_<name>`."""

    Fields: ClassVar[type[Config]] = Config
    """Its own fields, whose names begin with `<name>_`; each needs a default."""

    reads_images: ClassVar[bool] = False
    """Whether it reads the images of the batch, which several workers then send one another."""

    rate_factor: float = 1.0
    """Learning rate of its parameters, as a multiple of that of the new layers."""

    def __init__(self, fields: Config, shapes: Shapes):
        super().__init__()
        self.fields, self.shapes = fields, shapes

    @abstractmethod
    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss, and figures to report of this batch, by name."""
