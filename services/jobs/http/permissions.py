"""Who may submit which kinds of jobs, besides what a role says: commands are code, and a promotion changes what everybody uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.common.auth import User
from services.common.errors import Forbidden
from services.jobs.queue.states import Kind
from services.jobs.runs.steps import COMMAND


@dataclass(frozen=True)
class Permissions:
    """What the operator of a service allows. commands: programs of operators' own. all_promote: submitters may promote, too."""

    commands: bool = False
    all_promote: bool = False

    def require_kind(self, user: User, kind: Kind, config: Mapping[str, Any]) -> None:
        """Raise Forbidden for a job of a kind that this user may not submit."""
        if kind == COMMAND:
            self.require_code(user, "a job of kind command")
        promotes = kind == "promote" or (kind == "pipeline" and "promote" in config)
        if promotes and not self.all_promote:
            user_may = user.role == "operator"
            if not user_may:
                raise Forbidden(
                    f"{user.name!r} is a {user.role}: a promotion changes the model that everybody uses, so operators alone"
                    " submit one; ask for it, or have the service started with --promotion submitters"
                )

    def require_code(self, user: User, what: str) -> None:
        """Raise Forbidden for somebody who may not have the service run a program of their own."""
        user.require_role("operator")
        if not self.commands:
            raise Forbidden(f"{what} runs any program, which this service does not allow; it may be started with --allow-commands")
        if not user.by_token:
            raise Forbidden(
                f"{what} runs any program, so the request must have an operator's token: not a browser's session, "
                "and not a service without tokens (--auth off)"
            )


PERMISSIONS = Permissions()
"""What a service allows that is not told: no commands, and promotions by operators alone."""
