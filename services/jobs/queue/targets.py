"""Whom the service may tell of a job's end: targets that its operator names, of which jobs name some. A submitter names no address.

They are stored as limits are. What they hold may be secret (a webhook's address lets everybody post who knows it), so that only the
dispatcher reads them whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator
from sqlalchemy import delete, insert, select

from services.jobs.queue.store import Store
from services.jobs.queue.tables import META
from zsbir.base.config import Config

TargetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Occasion = Literal["end", "failure"]
"""Which ends a target is told of: all, or those without success."""

MOST_TARGETS = 100
LONGEST_ADDRESS = 2000
HIDDEN = "***"

_ROW = "notify_targets"


class Notify(Config):
    """A target that a job names. on: which of its ends the target is told of."""

    to: TargetName = Field(description="name of a target")
    on: Occasion = Field("end", description="end: whatever it is; failure: every end without success")


class Target(Config):
    """One target: an address that is sent JSON, or a program that reads it."""

    webhook: str = Field("", max_length=LONGEST_ADDRESS, description="http:// or https:// address to which the JSON is posted")
    command: tuple[str, ...] = Field(
        (), max_length=100, description="words of a program that gets the JSON on its standard input, on the dispatcher's machine"
    )

    @field_validator("webhook")
    @classmethod
    def _is_web_address(cls, address: str) -> str:
        parts = urlsplit(address)
        if address and not (parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must begin with http:// or https:// and name a host")
        if not _has_usable_port(parts):
            raise ValueError("must have a port from 1 to 65535, or none")
        if not address.isprintable() or " " in address:
            raise ValueError("must have no blanks or control characters")
        return address

    @field_validator("command")
    @classmethod
    def _are_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in word or len(word) > LONGEST_ADDRESS for word in words) or (words and not words[0]):
            raise ValueError("must be words of a command line, the first one a program")
        return words

    @model_validator(mode="after")
    def _one_of_them(self) -> Target:
        if bool(self.webhook) == bool(self.command):
            raise ValueError("give either a webhook or a command")
        return self

    def shown(self) -> dict[str, Any]:
        """Return the target without what may be secret: the scheme and host of a webhook, the program of a command."""
        if self.webhook:
            parts = urlsplit(self.webhook)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            port = f":{parts.port}" if parts.port else ""
            return {"webhook": f"{parts.scheme}://{host}{port}/{HIDDEN}"}
        return {"command": [self.command[0], *([HIDDEN] if len(self.command) > 1 else [])]}


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:  # no number, or too large a one
        return False


class Targets(Config):
    """All targets of notifications that an operator has named."""

    targets: dict[TargetName, Target] = Field(
        {}, max_length=MOST_TARGETS, description="targets by name", json_schema_extra={"additionalProperties": False}
    )

    def shown(self) -> dict[str, dict[str, Any]]:
        """Return all targets without what may be secret."""
        return {name: target.shown() for name, target in sorted(self.targets.items())}


def read_targets(store: Store) -> dict[str, Target]:
    """Return the targets of a store, by name."""
    with store.reading() as database:
        found = database.execute(select(META.c.value).where(META.c.name == _ROW)).scalar_one_or_none()
    return dict(Targets.of({"targets": json.loads(found)}, where="notification targets").targets) if found else {}


def set_targets(store: Store, targets: Targets, actor: str) -> None:
    """Replace all targets. The audit trail gets their names and kinds, not what they hold."""
    value = json.dumps(targets.model_dump(mode="json", exclude_defaults=True)["targets"] if targets.targets else {})
    with store.writing() as database:
        database.execute(delete(META).where(META.c.name == _ROW))
        database.execute(insert(META).values(name=_ROW, value=value))
        store.note(database, actor, "notification targets set", None, {"targets": kinds_of(targets.targets)})


def kinds_of(targets: Mapping[str, Target]) -> dict[str, str]:
    """Return whether each target is a webhook or a command."""
    return {name: "webhook" if target.webhook else "command" for name, target in sorted(targets.items())}
