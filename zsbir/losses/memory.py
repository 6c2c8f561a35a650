"""Embeddings of past batches, as further positives and negatives (Wang et al., Cross-Batch Memory, CVPR 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zsbir.losses.quadruplet import Others


class Memory(nn.Module):
    """The newest embeddings, at most `rows` of them, without gradient. They are buffers, and so in every checkpoint."""

    embeddings: Tensor
    classes: Tensor
    domains: Tensor
    written: Tensor

    def __init__(self, rows: int, dim: int):
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(rows, dim))
        self.register_buffer("classes", torch.zeros(rows, dtype=torch.long))
        self.register_buffer("domains", torch.zeros(rows, dtype=torch.long))
        self.register_buffer("written", torch.zeros((), dtype=torch.long))  # rows that were ever written

    def read(self) -> Others | None:
        """Return what is remembered, None where nothing is yet."""
        filled = min(int(self.written), len(self.classes))
        return Others(self.embeddings[:filled].clone(), self.classes[:filled], self.domains[:filled]) if filled else None

    def write(self, embeddings: Float[Tensor, "b d"], classes: Int[Tensor, "b"], domains: Int[Tensor, "b"]) -> None:
        """Remember a batch in place of the oldest rows."""
        places = (int(self.written) + torch.arange(len(classes), device=classes.device)) % len(self.classes)
        self.embeddings[places] = embeddings.detach().to(self.embeddings.dtype)
        self.classes[places], self.domains[places] = classes.long(), domains.long()
        self.written += len(classes)
