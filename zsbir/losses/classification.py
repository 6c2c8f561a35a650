"""Semantic classification loss: cross-entropy over the seen classes, one head for both domains (the paper's objective).

The cosine form and its temperature are this project's choice; the logits come from `zsbir.model.heads.CosineClassifier`.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def classification(logits: Float[Tensor, "b c"], classes: Int[Tensor, "b"], *, label_smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Return the mean over the batch of -log softmax(logits)[class], the target mixed with `label_smoothing` of the uniform one."""
    return cross_entropy(logits, classes, label_smoothing=label_smoothing)
