"""Compare requirements.lock with a service that knows of weaknesses in packages: `make audit`.

    python infra/audit.py [--lock FILE] [--accepted FILE] [arguments of pip-audit ...]

pip-audit asks; this says what its answer means. Exit 1: a weakness is known that infra/advisories.yaml does not accept, or an
acceptance has run out. Exit 2: it could not ask, because of the lock file, a flag or pip-audit itself. Exit 0: none is known; or
no service was reachable, which a line says: a machine without the internet is no fault of the lock file. A package index that is a
mirror answers 404 for its advisories; pip-audit then reports "no known vulnerabilities", having looked at nothing. That counts as
unreachable, too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from zsbir.base import events
from zsbir.base.errors import RunError

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 600
UNREACHABLE = re.compile(
    r"^requests\.exceptions\.(ConnectionError|ConnectTimeout|ReadTimeout|SSLError|ProxyError)\b"
    r"|Could not connect to|not redirecting",
    re.MULTILINE,
)
"""What pip-audit's last words are where a service does not answer: those of its HTTP library, or its own."""


@dataclass(frozen=True)
class Accepted:
    """A weakness that is known and left as it is. until: the day after which it has to be looked at again."""

    id: str
    package: str
    reason: str
    until: date


@dataclass(frozen=True)
class Finding:
    """A weakness in a package of the lock. fixed: versions without it. names: all identifiers of the weakness."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed: tuple[str, ...]


def read_accepted(path: Path) -> list[Accepted]:
    """Return the list of accepted weaknesses. ValueError for an entry without an identifier, a package, a reason or a date."""
    accepted = []
    for entry in yaml.safe_load(path.read_text("utf-8"))["accepted"]:
        if (
            set(entry) != {"id", "package", "reason", "until"}
            or not isinstance(entry["until"], date)
            or not str(entry["reason"]).strip()
        ):
            raise ValueError(f"{path.name}: {entry} needs id, package, reason and until (a date, 2027-01-31)")
        accepted.append(Accepted(**entry))
    return accepted


def ask(lock: Path, arguments: Sequence[str]) -> dict[str, Any] | None:
    """Return what pip-audit says as JSON; None where no service answered. RunError where it failed for any other reason."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        last = done.stderr.strip()[-500:] or f"it printed nothing, and ended with {done.returncode}"
        if UNREACHABLE.search(last):
            events.say_lines(last)
            return None
        raise RunError(f"pip-audit could not look at {lock}: {last}") from None


def read_answer(answer: dict[str, Any]) -> tuple[list[Finding], list[str]]:
    """Return the weaknesses, and the packages that nobody was asked about."""
    findings, left_out = [], []
    for each in answer["dependencies"]:
        if "skip_reason" in each:
            left_out.append(each["name"])
        for found in each.get("vulns", []):
            names = (found["id"], *found.get("aliases", []))
            findings.append(Finding(each["name"], each["version"], names, tuple(found.get("fix_versions", []))))
    return findings, left_out


def judge(findings: Iterable[Finding], accepted: Iterable[Accepted], today: date) -> list[str]:
    """Return a line for each weakness that is not accepted, or not any more."""
    lines = []
    for found in findings:
        matching = [each for each in accepted if each.id in found.names and each.package == found.package]
        if any(each.until >= today for each in matching):
            continue
        late = "; its acceptance in infra/advisories.yaml has run out" if matching else ""
        fixed = f"; without it: {', '.join(found.fixed)}" if found.fixed else "; there is no version without it yet"
        lines.append(f"{found.package} {found.version}: {' '.join(found.names)}{fixed}{late}")
    return lines


def main(argv: Sequence[str]) -> int:
    """Print what is known of the lock, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python infra/audit.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lock", type=Path, default=HERE.parent / "requirements.lock", help="the lock file")
    parser.add_argument("--accepted", type=Path, default=HERE / "advisories.yaml", help="weaknesses that are left as they are")
    parsed, others = parser.parse_known_args(argv)
    accepted = read_accepted(parsed.accepted)
    try:
        answer = ask(parsed.lock, others)
    except RunError as error:
        events.say_lines(f"audit: {error}")
        return 2
    findings, left_out = read_answer(answer) if answer else ([], [])
    if answer is None or len(left_out) == len(answer["dependencies"]):
        events.say("audit: SKIPPED, no advisory service was reachable: nothing is known about the packages of the lock")
        return 0
    lines = judge(findings, accepted, datetime.now(UTC).date())
    for line in lines:
        events.say(f"audit: {line}")
    looked_at = len(answer["dependencies"]) - len(left_out)
    events.say(
        f"audit: {looked_at} packages looked at, {len(findings)} known weaknesses, {len(findings) - len(lines)} of them accepted"
    )
    if left_out:
        events.say(f"audit: nothing is known about {len(left_out)} packages: {', '.join(left_out)}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
