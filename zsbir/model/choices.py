"""What a configuration may choose of the network. Importing this module does not load torch."""

from typing import Literal

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
"""Networks of torchvision that can be fine-tuned."""

HeadPlace = Literal["features", "embedding", "unnormalised"]
"""Where the teacher-label head reads from: the pooled features, the embedding, or the embedding before it is made a unit vector."""

ClassifierStart = Literal["random", "fixed", "prototypes", "fixed_prototypes"]
"""With which weights the classifier of the seen classes begins, and whether they are trained."""
