"""Where commands take `models:/NAME@ALIAS` or `models:/NAME/VERSION` in place of an artifact's address.

Importing this file loads no MLflow, which takes seconds: only an address of a registered model needs it.
"""

from __future__ import annotations

from collections.abc import Callable

from zsbir.base import events
from zsbir.promotion.address import ModelAddress, Named, Promoted, artifact_of, is_model_address, parse_address


def artifact_address(text: str, kind: Named, root: str) -> str:
    """Return the address of the run or index that a registered model names; any other text as it is.

    Says on standard error what the address stands for. Raises as `resolve` does.
    """
    if not is_model_address(text):
        return text
    found = resolve(text, kind, root)
    events.say(found.sentence())
    return found.uri


def resolve(text: str, kind: Named, root: str, *, permitted: Callable[[str], str] | None = None) -> Promoted:
    """Return the run or index that an address of a registered model stands for at this moment.

    root: the storage root whose MLflow is asked, and where the artifact is looked for first. permitted: as in `artifact_of`.
    Raises InputError for another form, an unknown name, alias or version, and an artifact that is gone or another one; RunError
    where MLflow or the storage does not answer.
    """
    address: ModelAddress = parse_address(text)
    from zsbir.edge.registered_models import find

    release = find(address, root)
    found = artifact_of(release.uri, release.tags, kind, root=root, permitted=permitted)
    return Promoted(text, release.uri, kind, found.uri, found.digest)
