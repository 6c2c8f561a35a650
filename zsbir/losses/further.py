"""The losses beside the method's three, made as a configuration names them."""

from __future__ import annotations

from zsbir.base.config import Config
from zsbir.base.errors import InputError, RunError
from zsbir.base.outages import outage_of
from zsbir.base.text import clean
from zsbir.losses.loss import Loss, Shapes
from zsbir.losses.registry import loss_kind


def further_losses(config: Config, shapes: Shapes) -> dict[str, tuple[float, Loss]]:
    """Return the losses that a training's configuration names in `losses`, each with its weight.

    Their parameters are drawn from torch's generator, so all workers have the same. Raises InputError where a loss cannot be made,
    RunError where that is the fault of something that may pass.
    """
    made: dict[str, tuple[float, Loss]] = {}
    for name in getattr(config, "losses", ()):
        kind = loss_kind(name)
        loss_class = kind.load()
        fields = loss_class.Fields.of({field: getattr(config, field) for field in loss_class.Fields.model_fields})
        try:
            made[name] = getattr(config, f"weight_{name}"), loss_class(fields, shapes)
        except RunError:  # as where weights that it reads lie in a store that does not answer
            raise
        except Exception as error:
            reason = clean(error) if isinstance(error, InputError) else f"{type(error).__name__}: {clean(error)}"
            raise (outage_of(error) or InputError)(f"the loss {name!r} of {kind.offer.package} cannot be made: {reason}") from error
    return made
