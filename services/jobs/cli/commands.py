"""What people do with a queue, here or elsewhere: submit, list, show, logs, cancel, retry, queue. HTTP, and nothing heavy.

Each command takes its arguments and returns what belongs on standard output (see `zsbir.base.cli.main`); the first line of its
docstring is its help.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.jobs.cli import format as telling
from services.jobs.cli.client import MOST, Client
from services.jobs.cli.format import US, Look
from services.jobs.cli.options import client_of, count, job_id, service_parser, standing_aside
from services.jobs.cli.submit import submit
from services.jobs.queue.states import KINDS, LIVE, STATES, TERMINAL
from zsbir.base import cli
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say

Command = Callable[[Sequence[str]], str | None]
Json = dict[str, Any]

AT_ONCE = 100
"""Jobs that one request cancels."""

TAIL_BYTES = 256 * 1024
"""As much of a log's end as the service gives at a time: `--tail` looks no further back."""


def jobs(argv: Sequence[str]) -> str | None:
    """Show jobs, the newest first: list [--state failed] [--project P] [--all]."""
    parser = service_parser("list", "Jobs, the newest first.", as_json=True)
    parser.add_argument("--state", action="append", default=[], choices=STATES, help="in this state; again for more states")
    parser.add_argument("--kind", default="", choices=KINDS, help="of this kind")
    parser.add_argument("--project", default="", help="of this project")
    parser.add_argument("--owner", default="", help="of this person")
    parser.add_argument("--limit", type=count, default=30, metavar="N", help=f"at most so many, up to {MOST} [30]")
    parser.add_argument("--all", action="store_true", help="without a limit")
    parsed, _ = parser.values(argv)
    which = {"states": parsed.state, "kind": parsed.kind, "project": parsed.project, "owner": parsed.owner}
    with client_of(parsed) as client:
        page = {"jobs": [*client.every_job(**which)]} if parsed.all else client.jobs(**which, limit=parsed.limit)
        found: list[Json] = page["jobs"]
        if parsed.json:
            return _json(found)
        if page.get("next"):
            say(f"{_more(client, which, len(found))} more; see them with --limit N or --all")
        if not found:
            say(f"no such jobs; {US} submit puts one in line")
        return telling.listed(found, Look.here()) if found else None


def show(argv: Sequence[str]) -> str:
    """Tell all about a job: show ID."""
    parser = service_parser("show", "All about a job: why it waits, how far it is, its attempts, what it made.", as_json=True)
    parser.add_argument("id", type=job_id, metavar="ID", help="the job's number")
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client:
        job = client.job(parsed.id)
        if parsed.json:
            return _json(job)
        if job["state"] not in TERMINAL and not (who := client.queue()["dispatcher"])["alive"]:
            say(f"dispatcher: {telling.dispatcher(who)}")
        return telling.shown(job, Look.here())


def logs(argv: Sequence[str]) -> None:
    """Print a job's log: logs ID [-f] [--tail N]; -f follows it to the end."""
    parser = service_parser("logs", "What a job's newest attempt says. Ctrl-C ends the following, not the job.")
    parser.add_argument("id", type=job_id, metavar="ID", help="the job's number")
    parser.add_argument("-f", "--follow", action="store_true", help="all attempts, from the first one on, until the job has ended")
    parser.add_argument("--tail", type=count, metavar="N", help="begin with the last N lines")
    parser.add_argument("--attempt", type=count, metavar="N", help="of this attempt; with -f from it on")
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client, standing_aside(parsed.id), cli.broken_pipe_allowed():
        for text in _log(client, parsed):
            _write(text)
        if parsed.follow:
            say(telling.in_a_word(client.job(parsed.id)))


def cancel(argv: Sequence[str]) -> str:
    """Cancel jobs: cancel ID ..., or --project P --state queued; a running one saves its work first."""
    parser = service_parser(
        "cancel", "Cancel jobs by number, or all of a project, owner or state. A running one saves its work first."
    )
    parser.add_argument("ids", nargs="*", type=job_id, metavar="ID", help="numbers of jobs")
    parser.add_argument("--project", default="", help="instead: all jobs of this project")
    parser.add_argument("--owner", default="", help="instead: all jobs of this person")
    waiting = [state for state in STATES if state not in TERMINAL]
    parser.add_argument("--state", action="append", default=[], choices=waiting, help="instead: all in this state; again for more")
    parser.add_argument("--yes", action="store_true", help="do not ask before many are cancelled")
    parsed, _ = parser.values(argv)
    if bool(parsed.project or parsed.owner or parsed.state) == bool(parsed.ids):
        raise InputError("say which jobs to cancel: either their numbers, or --project, --owner, --state")
    with client_of(parsed) as client:
        if len(parsed.ids) == 1:
            return telling.in_a_word(client.cancel(parsed.ids[0]))
        if parsed.ids:
            return _cancel_many(client, parsed.ids)
        which = {"states": parsed.state or waiting, "project": parsed.project, "owner": _owner(client, parsed.owner)}
        ids = [job["id"] for job in client.every_job(**which)]
        return _cancel_many(client, ids) if ids and _agreed(len(ids), yes=parsed.yes) else "nothing was cancelled"


def retry(argv: Sequence[str]) -> str:
    """Go on with the work of a job that did not succeed, as a new job: retry ID; prints its id."""
    parser = service_parser("retry", "A new job with the same configuration; it goes on where that one stopped.")
    parser.add_argument("id", type=job_id, metavar="ID", help="a job that failed, timed out or was cancelled")
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client:
        job = client.retry(parsed.id)
        say(telling.submitted(job, f"goes on with the work of job {parsed.id}"))
        return str(job["id"])


def queue(argv: Sequence[str]) -> str:
    """Show what runs, who waits and why, and the limits."""
    parser = service_parser("queue", "What runs, who waits and why, within which limits.", as_json=True)
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client:
        found = client.queue()
        if parsed.json:
            return _json(found)
        return telling.queue_shown(found, client.jobs(states=sorted(LIVE), limit=MOST)["jobs"], Look.here())


COMMANDS: dict[str, Command] = {
    "submit": submit,
    "list": jobs,
    "show": show,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
    "queue": queue,
}


# --- lists


def _more(client: Client, which: Json, shown: int) -> str:
    """How many jobs are not shown; not counted where that means to read them all."""
    if which["kind"] or which["project"] or which["owner"]:
        return "there are"
    return str(sum(client.queue()["counts"].get(state, 0) for state in which["states"] or STATES) - shown)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


# --- logs


def _log(client: Client, parsed: argparse.Namespace) -> Iterator[str]:
    attempt, offset = parsed.attempt, 0
    if parsed.tail is not None:
        part = client.log(parsed.id, -TAIL_BYTES, attempt)
        yield _last_lines(part.text, parsed.tail)
        attempt, offset = part.attempt, part.next
        if not parsed.follow:
            return
    if parsed.follow:
        yield from client.follow(parsed.id, attempt or 1, offset)
        return
    while True:
        part = client.log(parsed.id, offset, attempt)
        if not part.attempt:
            say(f"it has not begun yet: {telling.in_a_word(client.job(parsed.id))}")
        attempt, offset = part.attempt or None, part.next
        yield part.text
        if part.end or not part.text:
            return


def _last_lines(text: str, lines: int) -> str:
    return "\n".join(text.split("\n")[-(lines + text.endswith("\n")) :])


def _write(text: str) -> None:
    """To standard output at once; `cli.main` keeps it for results meanwhile."""
    assert sys.__stdout__
    sys.__stdout__.write(text)
    sys.__stdout__.flush()


# --- cancelling


def _owner(client: Client, owner: str) -> str:
    """Whose jobs: those of everybody for an operator, one's own for all others, where nobody is named."""
    me = {} if owner else client.me()
    return owner if me.get("role", "operator") == "operator" else str(me["name"])


def _agreed(many: int, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"that cancels {many} jobs: say --yes where nobody can be asked")
    sys.stderr.write(f"cancel {many} jobs? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _cancel_many(client: Client, ids: Sequence[int]) -> str:
    """RunError where some were not, when all others are."""
    done: list[int] = []
    refused: list[Json] = []
    for start in range(0, len(ids), AT_ONCE):
        answer = client.cancel_many(ids=ids[start : start + AT_ONCE])
        done += answer["cancelled"]
        refused += answer["refused"]
    told = f"cancelled, or saving their work first: {', '.join(map(str, done)) or 'none'}"
    if not refused:
        return told
    for each in refused:
        say(f"error: {telling.clean(each['error'])}")
    say(told)
    raise RunError(f"{len(refused)} of {len(ids)} jobs were not cancelled")
