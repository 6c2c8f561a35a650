"""The operator's commands, `limits` and `tokens`: they ask the service, or open the job store itself where that is named.

A job store is never made by the way: a command on a client that does not know the team's store would write to a new one of its own,
and report success.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from services.common.auth import Role, check_token_name
from services.jobs.cli.client import Client
from services.jobs.cli.options import client_of, service_parser
from services.jobs.local.paths import STORE_VARIABLE, URL_VARIABLE, absolute_root, default_store, read_state, state_folder
from zsbir.base.cli import Parser
from zsbir.base.config import read_yaml
from zsbir.base.errors import InputError
from zsbir.base.storage import default_root
from zsbir.base.text import clean

if TYPE_CHECKING:
    from services.jobs.queue.store import Store

LIMITS_HELP = (
    "Show what the queue and each project may use, or set it. New limits hold for jobs that have not started yet.\n"
    "Asks the service, or opens the job store that is named."
)
TOKENS_HELP = (
    "List, make and revoke the tokens by which the service knows its users. A token is shown only once, when it is made.\n"
    "Asks the service, or opens the job store that is named."
)


def limits(argv: Sequence[str]) -> str:
    """Show or set what the queue and each project may use."""
    parser = operator_parser("limits", LIMITS_HELP)
    parser.add_argument(
        "--set",
        metavar="FILE",
        help="set the limits from a YAML file: running, cpus, gpus, projects: {name: {cpus, gpus, gpu_hours}}",
    )
    parsed, _ = parser.values(argv)
    wanted = read_yaml(parsed.set) if parsed.set else None
    place = place_of(parsed)
    return _limits_of_service(place, wanted) if isinstance(place, Client) else _limits_in_store(place, wanted)


def tokens(argv: Sequence[str]) -> str | None:
    """List, make and revoke API tokens: tokens [list | make NAME --role ROLE | revoke NUMBER]."""
    parser = operator_parser("tokens", TOKENS_HELP)
    parser.add_argument("action", nargs="?", default="list", choices=["list", "make", "revoke"], help="what to do [list]")
    parser.add_argument("name", nargs="?", default="", help="make: the user's name; revoke: the token's number")
    parser.add_argument("--role", choices=get_args(Role), default="submitter", help="make: what the user may do [submitter]")
    parser.add_argument(
        "--projects",
        type=lambda text: [part.strip() for part in text.split(",") if part.strip()],
        default=[],
        metavar="A,B,...",
        help="make: the only projects for which the user may submit [any, until limits name some; then these, and default]",
    )
    parsed, _ = parser.values(argv)
    number = _number(parsed.name) if parsed.action == "revoke" else 0
    if parsed.action == "make":
        check_token_name(parsed.name)
    place = place_of(parsed)
    return _tokens_of_service(place, parsed, number) if isinstance(place, Client) else _tokens_in_store(place, parsed, number)


def operator_parser(name: str, description: str) -> Parser:
    """Return the parser of an operator's command, which may be told the address of a job store."""
    parser = service_parser(name, description)
    parser.add_argument("--store", default="", help=f"job store to open instead of asking the service, also {STORE_VARIABLE}")
    return parser


def place_of(parsed: argparse.Namespace) -> Client | Store:
    """Return the job store that is named, else the service, else the store of a root whose service is down. InputError for none."""
    if parsed.store and parsed.server:
        raise InputError("--store opens a job store, --server asks a service: name one of the two")
    root = absolute_root(parsed.root or default_root())
    store = "" if parsed.server else parsed.store or os.environ.get(STORE_VARIABLE, "")
    if not store and (parsed.server or os.environ.get(URL_VARIABLE) or read_state(root).get("url")):
        return client_of(parsed)
    if not store and not (state_folder(root) / "jobs.db").exists():
        raise InputError(
            f"no job service and no job store is known here: name the service (--server, {URL_VARIABLE}), "
            f"or the store that it uses (--store, {STORE_VARIABLE})"
        )
    from services.jobs.queue.store import open_store

    return open_store(store or default_store(root))


def _limits_of_service(client: Client, wanted: Mapping[str, Any] | None) -> str:
    with client:
        found = client.queue()["limits"] if wanted is None else client.set_limits(wanted)
    return json.dumps(found, indent=2)


def _limits_in_store(store: Store, wanted: Mapping[str, Any] | None) -> str:
    from services.jobs.queue.limits import Limits

    if wanted is not None:
        store.set_limits(Limits.of(dict(wanted), where="limits"), getpass.getuser())
    return store.limits().model_dump_json(indent=2, exclude_none=True)


def _tokens_of_service(client: Client, parsed: argparse.Namespace, number: int) -> str | None:
    with client:
        if parsed.action == "make":
            return str(client.make_token(parsed.name, parsed.role, parsed.projects)["token"])
        if parsed.action == "revoke":
            client.revoke_token(number)
            return None
        return _table(client.tokens()["tokens"])


def _tokens_in_store(store: Store, parsed: argparse.Namespace, number: int) -> str | None:
    from services.common.tokens import Tokens

    tokens = Tokens(store)
    if parsed.action == "make":
        return tokens.make(parsed.name, parsed.role, getpass.getuser(), parsed.projects)
    if parsed.action == "revoke":
        tokens.revoke(number, getpass.getuser())
        return None
    return _table([vars(token) for token in tokens.all()])


def _number(text: str) -> int:
    """Return a token's number. InputError for anything else."""
    if not text.isdecimal() or len(text) > 10 or int(text) >= 2**31:
        raise InputError("revoke needs a token's number; see python -m services.jobs tokens")
    return int(text)


def _table(tokens: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"{each['id']:>4}  {each['role']:<10} {clean(each['name'])}"
        f"{'  for ' + ', '.join(each['projects']) if each['projects'] else ''}{'  (revoked)' if each['revoked_s'] else ''}"
        for each in tokens
    ]
    return "\n".join(rows) or "no tokens yet; python -m services.jobs tokens make NAME --role submitter"
