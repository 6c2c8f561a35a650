"""Passwords in addresses: found, hidden and taken out, so that none stands in an argument, a log, a link or an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from zsbir.base.errors import InputError

HIDDEN = "***"
SECRET_PARAMETER = re.compile("passw|pwd|secret|token|api_?key", re.IGNORECASE)
"""Names of query parameters whose values are secrets: `postgresql://host/name?password=...`."""

WEB = ("http", "https")
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>.*)", re.DOTALL)


class Login(NamedTuple):
    """An address without its user, and the user and password that stood in it; empty where there were none."""

    address: str
    user: str
    password: str


def hide_secrets(address: str) -> str:
    """Return an address with its passwords masked. Of a web address the user is masked, too: it may be a token."""
    found = ADDRESS.fullmatch(address)
    if not found:
        return _hide_parameters(address)
    is_web = found["scheme"].lower() in WEB
    user_info, rest = _split_user_info(found["rest"], is_web=is_web)
    user, colon, _ = user_info.partition(":")
    shown = HIDDEN if user_info and is_web else f"{user}:{HIDDEN}" if colon else user
    return f"{found['scheme']}://{shown}{'@' if user_info else ''}{_hide_parameters(rest)}"


def has_secret(address: str) -> bool:
    """Return whether a password or a token stands in an address."""
    return hide_secrets(address) != address


def split_login(address: str) -> Login:
    """Return a web address without the user and the password in it, and both, decoded. Any other address stays as it is."""
    found = ADDRESS.fullmatch(address)
    if not found or found["scheme"].lower() not in WEB:
        return Login(address, "", "")
    user_info, rest = _split_user_info(found["rest"], is_web=True)
    user, _, password = user_info.partition(":")
    return Login(f"{found['scheme']}://{rest}", unquote(user), unquote(password))


def refuse_secrets(arguments: Iterable[str], way_out: str) -> None:
    """Raise InputError for a command line with a password in it: every user of the machine can read command lines."""
    for word in arguments:
        flag, _, value = word.partition("=") if word.startswith("-") else ("an argument", "", word)
        if has_secret(value):
            raise InputError(f"{flag} holds a password, which every user of this machine could read there; {way_out}")


def _split_user_info(rest: str, *, is_web: bool) -> tuple[str, str]:
    """Return what stands before the `@` of an address without its scheme, and what stands behind it.

    SQLAlchemy takes a password with a slash or a question mark in it as it is, although the authority then seems to end there.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, colon, port = authority.rpartition(":")
    if "@" in authority:
        user_info = authority.rpartition("@")[0]
    elif not is_web and colon and "@" in (rest.partition("?")[0] if port.isdecimal() or host.startswith("[") else rest):
        user_info = rest.rpartition("@")[0]
    else:
        user_info = ""
    return user_info, rest[len(user_info) + 1 :] if user_info else rest


def _hide_parameters(text: str) -> str:
    def hidden(found: re.Match[str]) -> str:
        is_secret = bool(found["value"]) and SECRET_PARAMETER.search(unquote(found["name"])) is not None
        return f"{found['mark']}{found['name']}={HIDDEN if is_secret else found['value']}"

    return re.sub(r"(?P<mark>[?&;])(?P<name>[^=&;]*)=(?P<value>[^&;#]*)", hidden, text)
