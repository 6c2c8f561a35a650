"""The operator's command `notify`: whom jobs may tell of their ends."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import Any

from services.jobs.cli.admin import operator_parser, place_of
from services.jobs.cli.client import Client
from zsbir.base.config import read_yaml
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say
from zsbir.base.text import clean

HELP = (
    "List the targets that jobs may tell of their ends (submit --notify NAME), set them, or try one.\n"
    "What a target holds may be secret: only its host or its program is shown."
)


def notify(argv: Sequence[str]) -> str | None:
    """Set whom jobs may tell of their ends: notify [--list | --set FILE | --test NAME]."""
    parser = operator_parser("notify", HELP)
    parser.add_argument("--list", action="store_true", help="list the targets, as without any option")
    parser.add_argument(
        "--set",
        metavar="FILE",
        help="replace all targets by those of a YAML file: NAME: {webhook: https://...} or NAME: {command: [PROGRAM, ...]}",
    )
    parser.add_argument("--test", default="", metavar="NAME", help="tell one target that this is a test")
    parsed, _ = parser.values(argv)
    if sum(map(bool, (parsed.list, parsed.set, parsed.test))) > 1:
        raise InputError("give one of --list, --set and --test")
    wanted = {"targets": read_yaml(parsed.set)} if parsed.set else None
    place = place_of(parsed)
    if isinstance(place, Client):
        with place as client:
            if parsed.test:
                client.try_target(parsed.test)
                say(f"{clean(parsed.test)} was told")
                return None
            return _table(client.targets() if wanted is None else client.set_targets(wanted))
    return _in_store(place, wanted, parsed.test)


def _in_store(store: Any, wanted: Mapping[str, Any] | None, name: str) -> str | None:
    """Do the same in a job store, on a machine that has it."""
    from services.jobs.queue.targets import Targets, read_targets, set_targets
    from services.jobs.runs.delivery import deliver
    from services.jobs.runs.notifications import test_message

    if wanted is not None:
        set_targets(store, Targets.of(wanted, where="notification targets"), getpass.getuser())
    found = read_targets(store)
    if name:
        if name not in found:
            raise InputError(f"there is no target {name!r}; there are {', '.join(sorted(found)) or 'none'}")
        try:
            deliver(found[name], test_message(getpass.getuser()))
        except RunError as error:
            raise RunError(f"the target {name!r} was not told: {error}") from error
        say(f"{clean(name)} was told")
        return None
    return _table({"targets": Targets(targets=found).shown()})


def _table(answer: Mapping[str, Any]) -> str:
    rows = [
        f"{name}  {target.get('webhook') or ' '.join(target.get('command', []))}"
        for name, target in sorted(answer["targets"].items())
    ]
    return "\n".join(map(clean, rows)) or "no targets yet; python -m services.jobs notify --set FILE"
