"""What a configuration may choose of the network. Importing this module does not load torch."""

from typing import Literal

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
"""Networks of torchvision that can be fine-tuned."""

HeadPlace = Literal["features", "embedding"]
"""Where the teacher-label head reads from: the pooled features, or the embedding."""
