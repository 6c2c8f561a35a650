"""The client commands (submit, list, show, logs, cancel, retry, queue), which speak HTTP and import nothing heavy.

Each command takes its arguments and returns what belongs on standard output (see `zsbir.base.cli.main`). The first line of its
docstring is its line in the program's help.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from services.jobs.cli.admin import limits, tokens
from services.jobs.cli.client import MAX_PAGE, Client
from services.jobs.cli.format import PROGRAM, format_array, format_job, format_jobs, format_submitted, format_summary
from services.jobs.cli.format_queue import format_dispatcher, format_queue
from services.jobs.cli.notify import notify
from services.jobs.cli.options import client_of, count, interruptible_watch, job_id, job_ids, service_parser
from services.jobs.cli.style import TextStyle, format_ids, format_log
from services.jobs.cli.submit import submit
from services.jobs.queue.states import KINDS, LIVE, STATES, TERMINAL
from zsbir.base import cli
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say
from zsbir.base.text import clean

Command = Callable[[Sequence[str]], str | None]
Json = dict[str, Any]

CANCEL_BATCH = 100
"""The number of jobs that one request cancels."""

TAIL_BYTES = 256 * 1024
"""The part of a log's end in which `--tail` counts lines: as much as the service sends at a time."""


def jobs(argv: Sequence[str]) -> str | None:
    """List jobs, the newest first: list [--state failed] [--array ID] [--project P] [--all]."""
    parser = service_parser(
        "list", "List jobs, the newest first; an array of jobs is one line. With --json, every job is listed.", as_json=True
    )
    parser.add_argument(
        "--state", action="append", default=[], choices=STATES, help="only jobs in this state; may be given several times"
    )
    parser.add_argument("--kind", default="", choices=KINDS, help="only jobs of this kind")
    parser.add_argument("--project", default="", help="only jobs of this project")
    parser.add_argument("--owner", default="", help="only jobs of this user")
    parser.add_argument(
        "--limit", type=count, default=30, metavar="N", help=f"how many jobs to list at most, up to {MAX_PAGE} [30]"
    )
    parser.add_argument("--all", action="store_true", help="list all jobs that match")
    parser.add_argument("--array", type=job_id, metavar="ID", help="only the jobs of this array, each on a line of its own")
    parser.add_argument("--open", action="store_true", help="list the jobs of arrays one by one")
    parsed, _ = parser.values(argv)
    which = {"states": parsed.state, "kind": parsed.kind, "project": parsed.project, "owner": parsed.owner}
    which |= {"array": parsed.array, "collapse": not (parsed.json or parsed.open or parsed.array)}
    with client_of(parsed) as client:
        page = {"jobs": [*client.every_job(**which)]} if parsed.all else client.jobs(**which, limit=parsed.limit)
        found: list[Json] = page["jobs"]
        if parsed.json:
            return _json(found)
        if page.get("next"):
            say(f"{_more(client, which, found)} more; list them with --limit N or --all")
        if not found:
            say(f"no such jobs; submit one with: {PROGRAM} submit")
        style = TextStyle.of_stdout()
        return _show(format_jobs(found, style), style) if found else None


def show(argv: Sequence[str]) -> str | None:
    """Show everything about a job: show ID; of an array, one line for each job: show 12-14."""
    parser = service_parser(
        "show", "Show everything about a job: why it waits, its progress, its attempts, its result.", as_json=True
    )
    parser.add_argument("ids", type=job_ids, metavar="ID", help="the job's number; or those of an array, as 12-14")
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client:
        if len(parsed.ids) > 1:
            return _show_array(client, parsed.ids, as_json=parsed.json)
        job = client.job(parsed.ids[0])
        if parsed.json:
            return _json(job)
        if job["state"] not in TERMINAL and not (dispatcher := client.queue()["dispatcher"])["alive"]:
            say(f"dispatcher: {format_dispatcher(dispatcher)}")
        style = TextStyle.of_stdout()
        return _show(format_job(job, style), style)


def _show_array(client: Client, ids: Sequence[int], *, as_json: bool) -> str | None:
    """Show the array of which these are jobs."""
    array_id = client.job(ids[0])["array_of"]
    if array_id is None:
        raise InputError(f"job {ids[0]} belongs to no array; show one job at a time, or use {PROGRAM} list")
    array = client.array(array_id)
    if others := sorted(set(ids) - set(array["ids"])):
        raise InputError(
            f"job {others[0]} does not belong to the array of job {ids[0]} ({format_ids(array['ids'])}): show one array at a time,"
            f" or use {PROGRAM} list"
        )
    if as_json:
        return _json(array)
    style = TextStyle.of_stdout()
    title = clean(f"array {format_ids(array['ids'])}  {array['name']}  {format_array(array)}")
    return _show(f"{title}\n\n{format_jobs(list(reversed(array['jobs'])), style)}", style)


def logs(argv: Sequence[str]) -> None:
    """Print a job's log: logs ID [-f] [--tail N]; with -f, print it as it grows until the job ends."""
    parser = service_parser("logs", "Print the log of a job's newest attempt. Ctrl-C ends this command, not the job.")
    parser.add_argument("id", type=job_id, metavar="ID", help="the job's number")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="print the logs of all attempts, as they grow, until the job has ended"
    )
    parser.add_argument("--tail", type=count, metavar="N", help="begin with the last N lines (within the last 256 KB)")
    parser.add_argument("--attempt", type=count, metavar="N", help="print the log of attempt N; with -f, begin with it")
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client, interruptible_watch(parsed.id), cli.broken_pipe_allowed():
        for text in _log(client, parsed):
            _write(format_log(text) if sys.__stdout__ and sys.__stdout__.isatty() else text)
        if parsed.follow:
            say(format_summary(client.job(parsed.id)))


def cancel(argv: Sequence[str]) -> str:
    """Cancel jobs: cancel ID ..., cancel 12-14, or --project P --state queued; running jobs save their work first."""
    parser = service_parser(
        "cancel", "Cancel jobs by number, or all jobs of a project, owner or state. Running jobs save their work first."
    )
    parser.add_argument("ids", nargs="*", type=job_ids, metavar="ID", help="the jobs' numbers: 12, 12-14")
    parser.add_argument("--array", type=job_id, metavar="ID", help="instead of numbers: the jobs of this array that have not ended")
    parser.add_argument("--project", default="", help="instead of numbers: all jobs of this project")
    parser.add_argument("--owner", default="", help="instead of numbers: all jobs of this user")
    unfinished = [state for state in STATES if state not in TERMINAL]
    parser.add_argument(
        "--state",
        action="append",
        default=[],
        choices=unfinished,
        help="instead of numbers: all jobs in this state; may be given several times",
    )
    parser.add_argument("--yes", action="store_true", help="cancel without asking for confirmation")
    parsed, _ = parser.values(argv)
    ids = [number for numbers in parsed.ids for number in numbers]
    if sum(map(bool, (ids, parsed.array, parsed.project or parsed.owner or parsed.state))) != 1:
        raise InputError("say which jobs to cancel: either their numbers, or --array, or --project, --owner, --state")
    with client_of(parsed) as client:
        if parsed.array:
            return _cancelled(client.cancel_array(parsed.array))
        if len(ids) == 1:
            return format_summary(client.cancel(ids[0]))
        if ids:
            return _cancel_many(client, ids)
        which: Json = {"states": parsed.state or unfinished, "project": parsed.project, "owner": _owner(client, parsed.owner)}
        ids = [job["id"] for job in client.every_job(**which)]
        return _cancel_many(client, ids) if ids and _is_confirmed(len(ids), yes=parsed.yes) else "nothing was cancelled"


def retry(argv: Sequence[str]) -> str:
    """Continue the work of a job that did not succeed, as a new job: retry ID, retry --array ID; prints its number."""
    parser = service_parser(
        "retry",
        "Submit a new job with the same configuration, which continues where the old one stopped; print its number. The jobs that "
        "were cancelled because it did not succeed are submitted again with it.",
    )
    parser.add_argument("id", nargs="?", type=job_id, metavar="ID", help="a job that failed, timed out or was cancelled")
    parser.add_argument("--array", type=job_id, metavar="ID", help="instead: the jobs of this array that did not succeed")
    parsed, _ = parser.values(argv)
    if (parsed.id is None) == (parsed.array is None):
        raise InputError("say what to try again: either a job's number, or --array with an array's")
    with client_of(parsed) as client:
        if parsed.array:
            jobs = client.retry_array(parsed.array)
            say(f"array {parsed.array}: {len(jobs)} jobs go on with the work of those that did not succeed")
            return format_ids(job["id"] for job in jobs).replace(" ", "")
        job = client.retry(parsed.id)
        say(format_submitted(job, f"continues the work of job {parsed.id}"))
        return str(job["id"])


def queue(argv: Sequence[str]) -> str | None:
    """Show which jobs run, which wait and why, and the limits."""
    parser = service_parser("queue", "Show which jobs run, which wait and why, and the limits.", as_json=True)
    parsed, _ = parser.values(argv)
    with client_of(parsed) as client:
        found = client.queue()
        if parsed.json:
            return _json(found)
        style, running = TextStyle.of_stdout(), client.jobs(states=sorted(LIVE), limit=MAX_PAGE)["jobs"]
        return _show(format_queue(found, running, style), style)


COMMANDS: dict[str, Command] = {
    "submit": submit,
    "list": jobs,
    "show": show,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
    "queue": queue,
    "limits": limits,
    "tokens": tokens,
    "notify": notify,
}


# --- lists


def _more(client: Client, which: Json, shown: Sequence[Json]) -> str:
    """Return how many more jobs match; `there are` where counting would mean to read them all."""
    if which["kind"] or which["project"] or which["owner"] or which["array"] or any(job.get("array") for job in shown):
        return "there are"
    return str(sum(client.queue()["counts"].get(state, 0) for state in which["states"] or STATES) - len(shown))


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
            say(f"the job has not begun yet: {format_summary(client.job(parsed.id))}")
        attempt, offset = part.attempt or None, part.next
        yield part.text
        if part.end or not part.text:
            return


def _last_lines(text: str, lines: int) -> str:
    return "\n".join(text.split("\n")[-(lines + text.endswith("\n")) :])


def _write(text: str) -> None:
    """Write to the real standard output, which `cli.main` redirects to keep it for results."""
    assert sys.__stdout__
    sys.__stdout__.write(text)
    sys.__stdout__.flush()


def _show(text: str, style: TextStyle) -> str | None:
    """Print a text with colours and return None; return one without: `cli.main` prints results without terminal commands.

    Whatever came from elsewhere was cleaned where the text was laid out.
    """
    if not style.colours:
        return text
    _write(f"{text}\n")
    return None


# --- cancelling


def _owner(client: Client, owner: str) -> str:
    """Return whose jobs are meant: the named owner's, else everybody's for an operator, the caller's own for others."""
    me = {} if owner else client.me()
    return owner if me.get("role", "operator") == "operator" else str(me["name"])


def _is_confirmed(count: int, *, yes: bool) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(f"this cancels {count} jobs; confirm with --yes, as there is no terminal to ask on")
    sys.stderr.write(f"cancel {count} jobs? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _cancel_many(client: Client, ids: Sequence[int]) -> str:
    """Cancel all jobs that can be cancelled, then raise RunError if some could not."""
    done: list[int] = []
    rejected: list[Json] = []
    for start in range(0, len(ids), CANCEL_BATCH):
        answer = client.cancel_many(ids=ids[start : start + CANCEL_BATCH])
        done += answer["cancelled"]
        rejected += answer["refused"]
    return _cancelled({"cancelled": done, "refused": rejected})


def _cancelled(answer: Json) -> str:
    """Return the line about jobs that were cancelled. RunError if some could not be."""
    done, rejected = answer["cancelled"], answer["refused"]
    line = f"cancelled, or saving their work first: {', '.join(map(str, done)) or 'none'}"
    if not rejected:
        return line
    for each in rejected:
        say(f"error: {clean(each['error'])}")
    say(line)
    raise RunError(f"{len(rejected)} of {len(done) + len(rejected)} jobs were not cancelled")
