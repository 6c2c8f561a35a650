"""Telling one target of a job's end: a POST of JSON, or a program that reads it. Bounded in time, and each failure is one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

import httpx

from services.jobs.queue.targets import Target
from zsbir.base import events
from zsbir.base.errors import RunError
from zsbir.base.text import clean

TIMEOUT_S = 20.0
"""Seconds that a server or a program may take, all in all."""

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
"""Variables that a program gets. The dispatcher's others hold passwords, of its database and of MLflow."""

MOST_SAID = 4096
"""Bytes that are read of the end of what a program wrote to its standard error."""


def deliver(target: Target, message: Mapping[str, Any]) -> None:
    """Tell a target. RunError, without the address and what else may be secret, where it does not take the message."""
    if target.webhook:
        asyncio.run(_post(target.webhook, message))
    else:
        _run(target.command, message)


async def _post(address: str, message: Mapping[str, Any]) -> None:
    """Post JSON to an address. A redirection is a failure: it would send the message to a place that no operator has named.

    The time is that of the whole exchange. The client's own timeouts are for each read, and a server that sends a byte now and then
    would hold it for hours; they are longer, and never come.
    """
    # trust_env: no proxy, and no password from the home folder, that the operator did not mean for this
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(timeout=2 * TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", address, json=dict(message)) as answer,
        ):
            status = answer.status_code
    except TimeoutError:
        raise RunError(f"its server was not done within {TIMEOUT_S:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise RunError(f"its server does not answer ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise RunError(f"its server answered {status}")


def _run(words: tuple[str, ...], message: Mapping[str, Any]) -> None:
    """Run a program that reads the message.

    Files, not pipes, connect it: what it leaves in the background may hold them, and is not waited for. What it wrote to its
    standard error may be secret, and goes to the log of this process alone.
    """
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as said:
            text.write((json.dumps(dict(message), ensure_ascii=False) + "\n").encode())
            text.seek(0)
            code = _wait(
                subprocess.Popen(words, stdin=text, stdout=subprocess.DEVNULL, stderr=said, env=env, start_new_session=True)
            )
            if code and (line := _last_line(said)):
                events.warn(f"the program {words[0]} of a notification target ended with exit code {code}: {line}")
    except OSError as error:
        raise RunError(f"its program cannot be started ({error.strerror})") from None
    if code:
        raise RunError(f"its program ended with exit code {code}")


def _wait(program: subprocess.Popen[bytes]) -> int:
    """Return a program's exit code. RunError where it is not done in time; then it is killed with what it has started."""
    try:
        return program.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise RunError(f"its program was not done within {TIMEOUT_S:g} s") from None
    finally:
        if program.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def _last_line(said: IO[bytes]) -> str:
    """Return the last line of a file, however large it is."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - MOST_SAID))
    lines = said.read(MOST_SAID).decode("utf-8", "replace").strip().splitlines()
    return clean(lines[-1])[:200] if lines else ""
