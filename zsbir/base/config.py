"""Configurations as values: frozen, with one schema for command line, YAML file, request body and sweep space.

An artifact is named by a digest of the configuration that made it, so a field that is added later must not rename what is there.
Digests are made of `Config.identity`, which leaves out a field marked with `Added` as long as it has its neutral value:

    flip_gallery: Annotated[bool, Added(neutral=False)] = Field(False, description="...")

A field without the mark belongs to the first version; tests/unit/base/test_identity.py names each of them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from zsbir.base.errors import InputError
from zsbir.base.strict_json import bounded_scalars

FAULTS_SHOWN = 10
"""Faults of one configuration that its error names."""

_LONGEST_VALUE = 200
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Added:
    """Marks a field that came after version 0.1.0.

    neutral: the value with which everything is computed as it was before the field existed. It never changes; the default may.
    """

    neutral: Any


@dataclass(frozen=True)
class Packaged:
    """Marks a field whose value names something that another package may offer, as a backbone.

    version: returns for the value which package offers it, and which version of it: that enters the identity. Nothing is returned
    for what is this project's own.
    """

    version: Callable[[Any], Any]


@dataclass(frozen=True)
class Address:
    """Marks a field of a plug-in that is the address of a file or a folder: the job queue lets it be read only where jobs may read.

    content: returns for an address what it says of the content, such as a checksum, which enters the identity in its place.
    required: whether what is configured cannot work without it, although the field has "" as its default.
    """

    content: Callable[[str], str] = str
    required: bool = False


class Config(BaseModel):
    """A frozen model whose unknown fields are errors with a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    outside_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that do not decide what is made, such as the address of something that a digest names already."""

    @classmethod
    def of(cls, values: Mapping[str, Any], *, where: str = "configuration") -> Self:
        """Return `values` validated. Raises InputError, one line that names each bad field and the way out.

        where: what the line begins with; "" for nothing.
        """
        lead = f"{where}: " if where else ""
        try:
            return cls.model_validate(dict(values))
        except InputError as error:  # of a validator that knows more than a field's type
            raise InputError(f"{lead}{error}") from None
        except ValidationError as error:
            lines = [_explain(cls, item) for item in error.errors(include_url=False)[:FAULTS_SHOWN]]
            more = f"; and {error.error_count() - FAULTS_SHOWN} more" if error.error_count() > FAULTS_SHOWN else ""
            raise InputError(f"{lead}{'; '.join(lines)}{more}") from None

    def replace(self, **changes: Any) -> Self:
        """Return the same configuration with some fields changed, validated anew."""
        return type(self).of({**self.model_dump(), **changes})

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide what is made, as plain values: what every digest of a configuration is made of.

        Fields in `outside_identity` are left out, and those that were added later and have their neutral value. Where a field names
        something of another package, `packages` has the package and its version.
        """
        marks = [(name, mark) for name, field in self.every_field().items() for mark in field.metadata]
        left_out = {name for name, mark in marks if isinstance(mark, Added) and getattr(self, name) == mark.neutral}
        values = self.model_dump(mode="json", exclude=left_out | self.outside_identity)
        values |= {name: part.identity() for name in values if isinstance(part := getattr(self, name), Config)}
        values |= {name: mark.content(values[name]) for name, mark in marks if isinstance(mark, Address) and name in values}
        packages = {
            name: found for name, mark in marks if isinstance(mark, Packaged) and (found := mark.version(getattr(self, name)))
        }
        return values | ({"packages": packages} if packages else {})

    def every_field(self) -> Mapping[str, FieldInfo]:
        """Return the fields of this value: those of its class, and others that its values add where a class allows that."""
        return type(self).model_fields

    @classmethod
    def added_fields(cls) -> dict[str, Any]:
        """Return the neutral value of each field that came after version 0.1.0."""
        fields = cls.model_fields.items()
        return {name: mark.neutral for name, field in fields for mark in field.metadata if isinstance(mark, Added)}

    def fingerprint(self) -> str:
        """Return the sha256 of the canonical JSON of the identity, 64 hex digits."""
        return digest_of(self.identity())


def _explain(model: type[Config], item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])[:_LONGEST_VALUE]
    if item["type"] == "extra_forbidden":
        return unknown_name("field", name, model.model_fields)
    if item["type"] == "missing":
        return f"field {name!r} is required"
    # pydantic puts "Value error, " before what a validator says.
    message = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
    message, value = message[: 2 * _LONGEST_VALUE], _shown(item["input"])
    if not name:
        return message
    return f"field {name!r}: {message[:1].lower()}{message[1:]}{'' if value in message else f', got {value}'}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return an error line for a name that does not exist: with the nearest known name, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} {name!r}; {hint}"


def digest_of(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def streamed_digest(values: Iterable[Any]) -> str:
    """Return `digest_of` a list that is too long for one text in memory. An iterator in it, at any depth, stands for a list."""
    digest = hashlib.sha256()
    for piece in _pieces(iter(values)):
        digest.update(piece.encode())
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[str]:
    if not isinstance(value, Iterator):
        yield _CANONICAL.encode(value)
        return
    yield "["
    for number, item in enumerate(value):
        yield "," if number else ""
        yield from _pieces(item)
    yield "]"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping from a file. Raises InputError where there is none."""
    try:
        values = yaml.safe_load(Path(path).read_bytes())  # bytes: in any encoding that a byte order mark names
        for _ in bounded_scalars(values):  # fails for a mapping that contains itself, or the same part again and again
            pass
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read the configuration {str(path)!r}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"the configuration {str(path)!r} must be a YAML mapping of field names to values")
    return values
