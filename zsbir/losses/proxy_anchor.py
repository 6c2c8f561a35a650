"""Proxy-Anchor (Kim et al., CVPR 2020), as a baseline and as a further term."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from zsbir.base.config import Config
from zsbir.losses.baseline_config import ProxyAnchorFields
from zsbir.losses.loss import Loss, LossBatch, Shapes


class ProxyAnchor(Loss):
    """Each class has a learned proxy, which pulls the images of its class and pushes all others, the hardest ones most.

    The sum over proxies of log(1 + sum exp(-scale (cosine - margin))) over positives, divided by the proxies that have positives,
    and of log(1 + sum exp(scale (cosine + margin))) over negatives, divided by all proxies (the paper's equation 4).
    """

    Fields = ProxyAnchorFields
    fields: ProxyAnchorFields

    def __init__(self, fields: Config, shapes: Shapes):
        super().__init__(fields, shapes)
        self.proxies = nn.Parameter(torch.empty(shapes.classes, shapes.embedding_dim))
        nn.init.kaiming_normal_(self.proxies, mode="fan_out")  # as in the authors' code
        self.rate_factor = self.fields.proxy_anchor_rate_factor

    def forward(self, batch: LossBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss."""
        cosine = batch.embeddings @ normalize(self.proxies, dim=1).T
        own = batch.classes[:, None] == torch.arange(len(self.proxies), device=cosine.device)
        scale, margin = self.fields.proxy_anchor_scale, self.fields.proxy_anchor_margin
        pull = (-scale * (cosine - margin)).masked_fill(~own, -torch.inf)
        push = (scale * (cosine + margin)).masked_fill(own, -torch.inf)
        present = own.any(dim=0).sum().clamp_min(1)
        return _log_1_sum(pull).sum() / present + _log_1_sum(push).sum() / len(self.proxies), {}


def _log_1_sum(exponents: Float[Tensor, "b c"]) -> Float[Tensor, "c"]:
    """Return log(1 + sum exp) of each column; 0 for one that has no finite number."""
    sums = exponents.masked_fill(exponents.isinf().all(dim=0), -1e4).logsumexp(dim=0)
    return softplus(sums)
