"""What `up` prints: the addresses of a machine's service, and how to get in."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from services.common.credentials import split_login
from services.common.tokens import LOGIN_S
from services.jobs.local.paths import read_state
from services.jobs.local.tracking_server import USER as TRACKING_USER
from zsbir.base import events
from zsbir.base.layout import MLFLOW_EXPERIMENT
from zsbir.base.strict_json import parse_json
from zsbir.edge.mlflow_pages import pages_of, runs_page

ASK_S = 5.0
"""Seconds that an MLflow of somebody else has to say which experiment to open."""


def announce(root: str) -> str:
    """Say what of a root's service is where, and return the address of API and page."""
    state = read_state(root)
    for line in _addresses(state):
        _row(*line)
    _row("storage", root)
    _row("job store", state["store"])
    for program in state["programs"]:
        _row(program["name"], f"process {program['pid']}", program["log"])
    if state["auth"] == "tokens" and "token" not in state:
        events.warn("this service was started by an earlier version: end it with `down`, and start it again")
    elif state["auth"] == "tokens":
        _row("your token", f"{state['token']}; your commands on this machine read it by themselves")
        _row("for others", "make tokens with: python -m services.jobs tokens make NAME --role submitter")
        if link := _login_link(state):
            _row("browser", link, f"(lets one browser in, once, within {LOGIN_S / 60:.0f} minutes; `up` makes a new one)")
    ray = state["ray"]
    exported = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": ray["token"], "RAY_API_SERVER_ADDRESS": ray["dashboard"]}
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in exported.items())
    events.say(f"to use `ray job submit` with this Ray:  export {words}")
    return str(state["url"])


def _addresses(state: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return a row for each address that a browser or a program may open: what is there, the address, how to get in."""
    rows = [("page, API", str(state["url"]), "")]
    if state.get("elsewhere"):
        rows.append(("", str(state["elsewhere"]), "for others"))
    if state.get("search"):
        rows.append(("search", str(state["search"]), "draw, and see photos: those of the champion's index, or of the newest one"))
    mlflow = str(state.get("mlflow", ""))
    if state.get("mlflow_password"):
        rows.append(("MLflow", mlflow, f"opens on the runs; name {TRACKING_USER}, password in {state['mlflow_password']}"))
    elif mlflow:
        rows.append(("MLflow", runs_of(mlflow), ""))
    ray = state["ray"]
    return [*rows, ("Ray", str(ray["dashboard"]), f"dashboard and jobs; token in {ray['token']}")]


def _row(what: str, where: str, how: str = "") -> None:
    events.say(f"{what:<12}{where:<26}{'  ' if len(where) > 25 else ''}{how}".rstrip())


def runs_of(address: str) -> str:
    """Return the link to the runs of an MLflow that others keep; the address itself where it does not say which experiment that is.

    Name and password are those of the environment, as MLflow's client reads them, where they are for a server of this address.
    """
    pages = pages_of(address)
    user, password = _login_for(pages)
    with suppress(httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        asked = httpx.get(
            f"{pages}/api/2.0/mlflow/experiments/get-by-name",
            params={"experiment_name": MLFLOW_EXPERIMENT},
            auth=(user, password) if user else None,
            timeout=ASK_S,
        )
        found = str(parse_json(asked.content)["experiment"]["experiment_id"])
        return runs_page(pages, found) if re.fullmatch(r"\w+", found) else address
    return address


def _login_for(pages: str) -> tuple[str, str]:
    """Return the environment's name and password for MLflow's server of this address; empty ones where they are for another."""
    theirs, user, password = split_login(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if theirs and urlsplit(theirs)[:2] != urlsplit(pages)[:2]:
        return "", ""
    name = user or os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    return name, password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")


def _login_link(state: Mapping[str, Any]) -> str:
    """Return an address that lets one browser in, once; empty where the service does not make one.

    The code stands behind a `#`, where a browser keeps it to itself: it reaches no server's log and no other site.
    """
    with suppress(httpx.HTTPError, OSError, ValueError, KeyError):
        headers = {"Authorization": f"Bearer {Path(state['token']).read_text('utf-8').strip()}"}
        answer = httpx.post(f"{state['url']}/api/login-codes", headers=headers, timeout=10, trust_env=False)
        return f"{state['url']}/#login={answer.json()['code']}"
    return ""
