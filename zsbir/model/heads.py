"""The heads of training, dropped at inference: one over the seen classes, one over the teacher's labels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from zsbir.model.choices import HeadPlace
from zsbir.model.encoder import Encoded


class CosineClassifier(nn.Module):
    """A classifier with logits = cosine(embedding, class weight) / temperature (this project's choice).

    start: its first weights, of any length; None: random ones. fixed: they are never trained.
    """

    def __init__(
        self, dim: int, classes: int, temperature: float, *, start: Float[Tensor, "c d"] | None = None, fixed: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)
        if start is not None:
            with torch.no_grad():  # as long as random ones, so that the optimiser turns them equally fast
                self.weight.copy_(normalize(start, dim=1))
        self.weight.requires_grad_(not fixed)
        self.temperature = temperature

    def forward(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Return the logits of `embeddings`, which are unit vectors."""
        return linear(embeddings, normalize(self.weight, dim=1)) / self.temperature


class Heads(nn.Module):
    """Both heads: seen-class logits from the embedding, teacher-label logits from `place`.

    start: the classifier (weight [t f], bias [t]) with which the student's own pre-training ended, where its labels are the
    teacher's; preservation on the features then starts from what the student knows, whichever network teaches. None: the head
    starts anew. class_weights, fixed_classes: as `CosineClassifier` takes them.
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
        class_weights: Float[Tensor, "c d"] | None = None,
        fixed_classes: bool = False,
    ):
        super().__init__()
        self.place = place
        self.classifier = CosineClassifier(embedding_dim, classes, temperature, start=class_weights, fixed=fixed_classes)
        self.preserver: nn.Module | None = None
        if teacher_labels and place == "features":
            self.preserver = _teacher_head(feature_dim, teacher_labels, start)
        elif teacher_labels and place == "unnormalised":
            self.preserver = nn.Linear(embedding_dim, teacher_labels)
        elif teacher_labels:
            self.preserver = CosineClassifier(embedding_dim, teacher_labels, temperature)

    def forward(self, encoded: Encoded) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b t"] | None]:
        """Return logits over the seen classes, and over the teacher's labels where there is a teacher."""
        return self.classifier(encoded.embeddings), self._teacher_logits(encoded)

    def _teacher_logits(self, encoded: Encoded) -> Float[Tensor, "b t"] | None:
        if self.preserver is None:
            return None
        places = {"features": encoded.features, "embedding": encoded.embeddings}
        logits: Tensor = self.preserver(places[self.place] if self.place in places else encoded.unnormalised())
        return logits


def _teacher_head(feature_dim: int, labels: int, start: tuple[Tensor, Tensor] | None) -> nn.Linear:
    head = nn.Linear(feature_dim, labels)
    if start is not None:
        with torch.no_grad():
            head.weight.copy_(start[0])
            head.bias.copy_(start[1])
    return head
