"""Users and their roles, and which addresses are this machine's own. Imports no web framework: command lines use it, too."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, get_args

from pydantic import Field

from services.common.errors import Forbidden
from zsbir.base.errors import InputError

Role = Literal["searcher", "viewer", "submitter", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A searcher searches, and sees no jobs. A viewer also sees everything; a submitter also submits jobs and cancels their own; an
operator may do everything."""


ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""The name of a project, for which a token may be made."""


@dataclass(frozen=True)
class User:
    """The user who sends a request. Their name is the owner of what they submit.

    projects: the only ones for which they may submit; empty: their token names none. by_token: the request itself has a token, as a
    program's has; False for a browser's session, and where the service asks for no tokens.
    """

    name: str
    role: Role
    projects: tuple[str, ...] = ()
    by_token: bool = False

    def require_role(self, role: Role) -> None:
        """Raise Forbidden unless the user's role is at least this one."""
        if ROLES.index(self.role) < ROLES.index(role):
            needed = f"an {role}" if role == "operator" else f"a {role}"
            raise Forbidden(f"{self.name!r} is a {self.role}, this needs a token of {needed}; ask the service's operator for one")


class UserSource(Protocol):
    """Knows users by their bearer tokens, and browsers by the secret of a session, which is a cookie."""

    def user_of(self, token: str | None) -> User | None:
        """Return the user whose token this is, or None for an unknown one. token: None where the request has none."""

    def user_of_session(self, secret: str) -> User | None:
        """Return the user for whom a session was opened, or None for an unknown one."""


def check_token_name(name: str) -> None:
    """Raise InputError for a name that no token can have. A shell may pass on bytes that are not text."""
    if not name.strip() or len(name) > 100 or name.encode("utf-8", "replace").decode() != name:
        raise InputError("a token needs a name of 1 to 100 characters: whose it is")


def is_loopback(host: str) -> bool:
    """Return whether an address or host name reaches this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
