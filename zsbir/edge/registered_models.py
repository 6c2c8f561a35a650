"""The registered models of this project in MLflow: their names, their champions, and the version that an address means."""

from __future__ import annotations

from collections.abc import Iterable

from zsbir.base.errors import InputError, RunError
from zsbir.base.text import clean
from zsbir.edge.mlflow_store import CALL_S, answering, bounded, is_there, open_client, registry_uri, tracking_uri
from zsbir.edge.registry import versions
from zsbir.edge.releases import CHAMPION, PREFIX, Release, Releases
from zsbir.promotion.address import OLDER_NAMES, ModelAddress, is_model_name

SHOWN = 10
"""Names, aliases or versions that an error lists."""


def names(root: str) -> list[str]:
    """Return the names of all registered models that have a version which this project made. RunError without an answer."""
    registry = registry_uri(root)
    if not is_there(registry):
        return []
    with answering(registry, "the model registry of MLflow"):
        found = versions(open_client(tracking_uri(root), registry))
        ours = {str(version.name) for version in found if f"{PREFIX}run_digest" in (version.tags or {})}
    return sorted(name for name in ours if is_model_name(name))


def older_champions(root: str) -> list[Release]:
    """Return the champions of the models that earlier versions named by backbone and dimension."""
    models = [Releases(root, "", name) for name in names(root) if OLDER_NAMES.fullmatch(name)]
    return [champion for model in models if (champion := model.champion())]


def find(address: ModelAddress, root: str) -> Release:
    """Return the version that an address means.

    Raises InputError, with what is there, if there is none; RunError where MLflow does not answer.
    """
    found: list[Release] = []
    registry = registry_uri(root)
    with answering(registry, "the model registry of MLflow"):
        bounded(registry, lambda: found.extend(Releases(root, "", address.model).all()), CALL_S)
    for release in found:
        if address.version == release.version or (address.alias and address.alias in release.aliases):
            return release
    raise InputError(_unknown(address, found, root))


def with_aliases(model: str, aliases: Iterable[str], root: str) -> dict[str, Release]:
    """Return the version of each of these aliases that a registered model has. RunError where MLflow does not answer."""
    found: list[Release] = []
    registry = registry_uri(root)
    with answering(registry, "the model registry of MLflow"):
        bounded(registry, lambda: found.extend(Releases(root, "", model).all()), CALL_S)
    return {alias: release for alias in aliases for release in found if alias in release.aliases}


def _unknown(address: ModelAddress, found: list[Release], root: str) -> str:
    if not found:
        try:
            known = names(root)
        except RunError:
            known = []
        there = f"there are {_some(known)}" if known else "there is none yet: python -m zsbir.promote makes the first"
        return f"no model is registered as {address.model!r}; {there}"
    what = f"alias {address.alias!r}" if address.alias else f"version {address.version}"
    aliases = sorted({f"@{alias}" for release in found for alias in release.aliases})
    there = _some([*aliases, *(f"/{release.version}" for release in reversed(found))])
    hint = f"; python -m zsbir.promote list {address.model} shows why" if address.alias == CHAMPION else ""
    return f"the model {address.model!r} has no {what}: it has {there}{hint}"


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return clean(", ".join(words[:SHOWN]) + more)
