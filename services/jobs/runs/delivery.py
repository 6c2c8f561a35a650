"""Telling one target of a job's end: a POST of JSON, or a program that reads it. Bounded in time, and each failure is one line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import requests

from services.jobs.queue.targets import Target
from zsbir.base.errors import RunError
from zsbir.base.text import clean

TIMEOUT_S = 20.0
"""Seconds that a server or a program may take."""

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
"""Variables that a program gets. The dispatcher's others hold passwords, of its database and of MLflow."""


def deliver(target: Target, message: Mapping[str, Any]) -> None:
    """Tell a target. RunError, without the address and what may be secret in it, where it does not take the message."""
    if target.webhook:
        _post(target.webhook, message)
    else:
        _run(target.command, message)


def _post(address: str, message: Mapping[str, Any]) -> None:
    """Post JSON to an address. A redirection is a failure: it would send the message to a place that no operator has named."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, and no password from the home folder, that the operator did not mean for this
            answer = session.post(address, json=dict(message), timeout=TIMEOUT_S, allow_redirects=False, stream=True)
            status = answer.status_code
            answer.close()
    except (requests.RequestException, ValueError) as error:
        raise RunError(f"its server does not answer ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise RunError(f"its server answered {status}")


def _run(words: tuple[str, ...], message: Mapping[str, Any]) -> None:
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    text = json.dumps(dict(message), ensure_ascii=False) + "\n"
    try:
        done = subprocess.run(
            words,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"its program was not done within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise RunError(f"its program cannot be started ({error.strerror})") from None
    if done.returncode:
        said = clean((done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1])[:200]
        raise RunError(f"its program ended with exit code {done.returncode}{f': {said}' if said else ''}")
