"""Users and their roles, and which addresses are this machine's own. Imports no web framework: command lines use it, too."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from services.common.errors import Forbidden

Role = Literal["viewer", "submitter", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A viewer sees everything; a submitter also submits jobs and cancels their own; an operator may do everything."""


@dataclass(frozen=True)
class User:
    """The user who sends a request. Their name is the owner of what they submit."""

    name: str
    role: Role

    def require_role(self, role: Role) -> None:
        """Raise Forbidden unless the user's role is at least this one."""
        if ROLES.index(self.role) < ROLES.index(role):
            needed = f"an {role}" if role == "operator" else f"a {role}"
            raise Forbidden(f"{self.name!r} is a {self.role}, this needs a token of {needed}; ask the service's operator for one")


class UserSource(Protocol):
    """Knows users by their bearer tokens."""

    def user_of(self, token: str | None) -> User | None:
        """Return the user whose token this is, or None for an unknown one. token: None where the request has none."""


def is_loopback(host: str) -> bool:
    """Return whether an address or host name reaches this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
