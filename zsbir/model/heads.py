"""The heads of training, dropped at inference: one over the seen classes, one over the teacher's labels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from zsbir.model.choices import HeadPlace


class CosineClassifier(nn.Module):
    """Logits = cosine(embedding, class weight) / temperature; unit-norm weights (this project's choice)."""

    def __init__(self, dim: int, classes: int, temperature: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)
        self.temperature = temperature

    def forward(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """`embeddings` are unit vectors."""
        return linear(embeddings, normalize(self.weight, dim=1)) / self.temperature


class Heads(nn.Module):
    """Both heads: seen-class logits from the embedding, teacher-label logits from `place`.

    start: the classifier (weight [t f], bias [t]) that the student's own pre-training ended with, where it speaks of the teacher's
    labels; with it preservation starts from what the student knows, whichever network teaches. None: the head starts anew.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        embedding_dim: int,
        classes: int,
        teacher_labels: int,
        place: HeadPlace = "features",
        temperature: float = 0.05,
        start: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__()
        self.place = place
        self.classifier = CosineClassifier(embedding_dim, classes, temperature)
        self.preserver: nn.Module | None = None
        if teacher_labels and place == "features":
            self.preserver = _teacher_head(feature_dim, teacher_labels, start)
        elif teacher_labels:
            self.preserver = CosineClassifier(embedding_dim, teacher_labels, temperature)

    def forward(
        self, embeddings: Float[Tensor, "b d"], features: Float[Tensor, "b f"]
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b t"] | None]:
        """Logits over the seen classes, and over the teacher's labels where there is a teacher."""
        teacher_logits = None
        if self.preserver is not None:
            teacher_logits = self.preserver(features if self.place == "features" else embeddings)
        return self.classifier(embeddings), teacher_logits


def _teacher_head(feature_dim: int, labels: int, start: tuple[Tensor, Tensor] | None) -> nn.Linear:
    head = nn.Linear(feature_dim, labels)
    if start is not None:
        with torch.no_grad():
            head.weight.copy_(start[0])
            head.bias.copy_(start[1])
    return head
