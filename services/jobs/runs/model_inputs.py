"""Registered models in a job's configuration: `models:/NAME@ALIAS` or `models:/NAME/VERSION` as the address of a run or an index.

Such an address is checked when the job is submitted, and stays in the configuration as it is. It is resolved when the first attempt
starts, and recorded in storage: an alias that moves later changes nothing for further attempts, retries and steps. What the tags of
the registry name must lie in the allowed paths, as everything that a job reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from services.jobs.queue.states import Kind
from services.jobs.runs.steps import Step, steps_of
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.storage import Folder, open_folder
from zsbir.base.strict_json import parse_json
from zsbir.edge.model_address import resolve
from zsbir.promotion.address import Named, Promoted, is_model_address


@dataclass(frozen=True)
class ModelInput:
    """A field of a step whose value is the address of a registered model, of which the step reads the run or the index."""

    step: str
    field: str
    address: str
    kind: Named


def has_models(kind: Kind, config: Mapping[str, Any]) -> bool:
    """Return whether a value of a configuration looks like the address of a registered model. Loads nothing that is slow."""
    return any(map(is_model_address, _all_values(steps_of(kind, config))))


def model_inputs(steps: Sequence[Step]) -> list[ModelInput]:
    """Return the fields of steps that are addresses of registered models."""
    if not any(map(is_model_address, _all_values(steps))):
        return []
    from services.jobs.runs.addresses import ADDRESSES  # it loads all commands, and few jobs need it

    return [
        ModelInput(step.name, name, address, kind)
        for step in steps
        for name, kind in ADDRESSES.get(step.name, {}).items()
        if kind in ("run", "index")
        for address in _items(step.values.get(name))
        if is_model_address(address)
    ]


def _all_values(steps: Sequence[Step]) -> Iterator[Any]:
    """Yield the values of all fields, those of lists one by one."""
    for step in steps:
        for value in step.values.values():
            yield from _items(value)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def check_models(kind: Kind, config: Mapping[str, Any], root: str, allowed: AllowedPaths) -> None:
    """Check the registered models of a configuration as they are now: that each is there, whole, and may be read.

    Raises InputError where one is not; RunError where MLflow or the storage does not answer.
    """
    for each in model_inputs(steps_of(kind, config)):
        _resolved(each, root, allowed)


def pin_models(steps: Sequence[Step], *, root: str, memo: str, allowed: AllowedPaths) -> tuple[list[Step], list[Promoted]]:
    """Return steps with the addresses of artifacts in place of those of registered models, and what each stands for.

    memo: the folder of the job in storage, where an attempt finds what the first one has resolved.
    Raises InputError where an artifact is gone, another one, or may not be read; RunError where MLflow or the storage does not
    answer.
    """
    folder, pinned = open_folder(memo), {}
    for each in model_inputs(steps):
        pinned[each.step, each.field, each.address] = _pinned(each, folder, root, allowed)

    def resolved(step: Step, name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [resolved(step, name, item) for item in value]
        found = pinned.get((step.name, name, value)) if isinstance(value, str) else None
        return found.uri if found else value

    new = [replace(step, values={name: resolved(step, name, value) for name, value in step.values.items()}) for step in steps]
    return new, list({(found.asked, found.kind): found for found in pinned.values()}.values())


def _pinned(each: ModelInput, folder: Folder, root: str, allowed: AllowedPaths) -> Promoted:
    """Return what the job's first attempt has resolved, or resolve it and record that. Of two at the same time, one records."""
    key = f"model-{each.kind}-{hashlib.sha256(each.address.encode()).hexdigest()[:16]}.json"
    found = _recorded(folder, key)
    if found is None:
        folder.create(key, json.dumps(asdict(_resolved(each, root, allowed))).encode())
        found = _recorded(folder, key)
        assert found is not None
    where = allowed.check(f"{each.step}: {each.field}", found.uri)
    there = Artifact(where, each.kind)
    if there.digest != found.digest:
        raise InputError(
            f"{each.step}: {each.field}: {where} is another {each.kind} than when the job started (digest {there.digest[:16]},"
            f" then {found.digest[:16]}): submit the job again"
        )
    return replace(found, uri=where)


def _recorded(folder: Folder, key: str) -> Promoted | None:
    try:
        written = parse_json(folder.read(key))
        return Promoted(**{name: str(written[name]) for name in Promoted.__dataclass_fields__})  # type: ignore[arg-type]  # checked by its use
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{folder.uri}/{key} is damaged: remove it, and submit the job again") from None


def _resolved(each: ModelInput, root: str, allowed: AllowedPaths) -> Promoted:
    """Resolve one address, and check what a command would read through the artifact's manifest."""
    from services.jobs.runs.addresses import check_inputs

    where = f"{each.step}: {each.field}"
    found = resolve(each.address, each.kind, root, permitted=partial(allowed.check, where))
    check_inputs(where, Artifact(found.uri, each.kind), allowed)
    return found
