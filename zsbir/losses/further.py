"""The losses beside the method's three, made as a configuration names them."""

from __future__ import annotations

from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.losses.loss import Loss, Shapes
from zsbir.losses.registry import loss_kind


def further_losses(config: Config, shapes: Shapes) -> dict[str, tuple[float, Loss]]:
    """Return the losses that a training's configuration names in `losses`, each with its weight.

    Their parameters are drawn from torch's generator, so all workers have the same. Raises InputError where a loss cannot be made.
    """
    made: dict[str, tuple[float, Loss]] = {}
    for name in getattr(config, "losses", ()):
        kind = loss_kind(name)
        loss_class = kind.load()
        fields = loss_class.Fields.of({field: getattr(config, field) for field in loss_class.Fields.model_fields})
        try:
            made[name] = getattr(config, f"weight_{name}"), loss_class(fields, shapes)
        except Exception as error:
            raise InputError(f"the loss {name!r} of {kind.package} cannot be made: {type(error).__name__}: {error}") from error
    return made
