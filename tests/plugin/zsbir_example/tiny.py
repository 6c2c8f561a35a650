"""A backbone: a network of two convolutions, with dropout and stochastic depth."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from zsbir.model.backbones import Network


class Residual(nn.Module):
    """x + what a convolution makes of x, which stochastic depth leaves out for some images."""

    def __init__(self, channels: int, rate: float):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = StochasticDepth(rate, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Return as many channels of the same size."""
        return x + self.drop(self.norm(self.conv(x)).relu())


def build_dropping(labels: int, rate: float) -> nn.Module:
    """Return a classifier without trained weights. rate: of stochastic depth."""
    layers = {
        "stem": nn.Conv2d(3, 16, 4, stride=4),
        "block": Residual(16, rate),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "dropout": nn.Dropout(0.1),
        "head": nn.Linear(16, labels),
    }
    return nn.Sequential(OrderedDict(layers))


def build(labels: int) -> nn.Module:
    """Return a classifier without trained weights, and without stochastic depth."""
    return build_dropping(labels, 0.0)


TINY = Network(build, classifier="head", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), build_dropping=build_dropping)
