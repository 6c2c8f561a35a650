"""Jobs and the queue as text for people: lines, tables, how far, how long. Nothing is asked here, and nothing printed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from services.jobs.queue.states import LIVE

Json = Mapping[str, Any]
US = "python -m services.jobs"
BAR = 30
"""Characters of a progress bar."""

COLOURS: Mapping[str, int] = {
    "queued": 33, "starting": 36, "running": 36, "succeeded": 32, "done": 32, "failed": 31, "timed_out": 31, "cancelled": 35,
}  # fmt: skip

ENDED = {"succeeded": "has succeeded", "failed": "has failed", "timed_out": "has timed out", "cancelled": "was cancelled"}


@dataclass(frozen=True)
class Look:
    """How standard output takes text. width: of its lines; None where it is no terminal, and lines may be long."""

    width: int | None = None
    colours: bool = False

    @classmethod
    def here(cls) -> Self:
        """As this process finds it; colours on a terminal alone, and not where NO_COLOR is set."""
        out = sys.__stdout__
        if out is None or not out.isatty():
            return cls()
        return cls(shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR"))

    def table(self, rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
        """Columns of equal width; the last one is cut where the terminal ends."""
        cells = [[clean(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return [self._line(row, widths, indent) for row in cells]

    def _line(self, row: Sequence[str], widths: Sequence[int], indent: str) -> str:
        *first, last = row
        padded = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        room = None if self.width is None else max(10, self.width - len(indent) - sum(len(cell) + 2 for cell in padded))
        last = last if room is None or len(last) <= room else last[: room - 1] + "…"
        return (indent + "  ".join(map(self.paint, [*padded, last]))).rstrip()

    def paint(self, cell: str) -> str:
        """A state in its colour, all else as it is."""
        colour = COLOURS.get(cell.strip()) if self.colours else None
        return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell


def clean(text: str) -> str:
    """One line of what others wrote, without what would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def span(seconds: float) -> str:
    """A time as people say it: 45 s, 3 min, 2 h 5 min, 4 d 2 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def some(number: float, word: str) -> str:
    """`1 CPU`, `2 CPUs`."""
    return f"{number:g} {word}{'' if number == 1 else 's'}"


def moment(at_s: float) -> str:
    """In this machine's time."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")


def how_far(job: Json) -> str:
    """Its place, its share with the time left, or how long it took."""
    progress = job["progress"]
    if job["state"] == "queued":
        return f"place {job['place']}" if job["place"] else ""
    if job["state"] in LIVE:
        left_s = progress.get("left_s")
        share = f"{100 * progress['frac']:.0f} %" if "frac" in progress else ""
        return " · ".join(filter(None, [share, f"{span(left_s)} left" if left_s is not None else ""]))
    return f"in {span(job['ended_s'] - job['started_s'])}" if job["started_s"] and job["ended_s"] else ""


def why(job: Json) -> str:
    """What it waits for, does, made or died of."""
    if job["state"] == "queued":
        last = f"the last attempt: {job['message']}" if job["message"] else ""
        return "; ".join(filter(None, [job["reason"] or "starts next", last]))
    if job["state"] in LIVE:
        return "cancelling: saves its work first" if job["cancelling"] else doing(job["progress"])
    return str(job["result"] if job["state"] == "succeeded" else job["message"])


def doing(progress: Json) -> str:
    """What a job is at: `train 3/5: training 40/200 steps, 3.1/s`."""
    if not progress:
        return ""
    step = f"{progress.get('step', '')} {progress.get('steps', '')}".strip()
    parts = [f"{progress.get('label', '')} {_count(progress)}".strip()]
    parts += [f"{progress['per_s']:.3g}/s"] if progress.get("per_s") else []
    return ": ".join(filter(None, [step, ", ".join(filter(None, parts))]))


def _count(progress: Json) -> str:
    if progress.get("done") is None:
        return ""
    total, unit = progress.get("total"), progress.get("unit", "")
    return f"{progress['done']}{f'/{total}' if total else ''} {unit if unit.isupper() or not unit else f'{unit}s'}".strip()


def in_a_word(job: Json) -> str:
    """`job 17 is queued: 2 of 2 jobs are running: jobs 15, 16; place 3 in line`."""
    place = f"place {job['place']} in line" if job["place"] else ""
    text = ": ".join(filter(None, [f"job {job['id']} {ENDED.get(job['state'], 'is ' + job['state'])}", why(job)]))
    return clean("; ".join(filter(None, [text, place if job["state"] == "queued" else how_far(job)])))


def submitted(job: Json, remark: str = "") -> str:
    """What to say of a job that has just been put in line."""
    return "; ".join(filter(None, [in_a_word(job), remark, f"{US} show {job['id']}"]))


def listed(jobs: Iterable[Json], look: Look) -> str:
    """A table of jobs."""
    head = ("ID", "KIND", "STATE", "PROGRESS", "OWNER", "PROJECT", "AGE", "WHY")
    rows = [
        (str(job["id"]), job["kind"], job["state"], how_far(job), job["owner"], job["project"],
         span(time.time() - job["submitted_s"]), why(job))
        for job in jobs
    ]  # fmt: skip
    return "\n".join(look.table([head, *rows]))


# --- one job


def shown(job: Json, look: Look) -> str:
    """All that a person asks about one; nothing is cut."""
    look = replace(look, width=None)
    title = f"job {job['id']}  {job['kind']}  {look.paint(job['state'])}{' (cancelling)' if job['cancelling'] else ''}"
    parts = [
        [title],
        look.table([(name, value) for name, value in _facts(job) if value], "  "),
        _section("metrics", job["progress"].get("metrics", {}).items(), look),
        _section("steps", _steps(job["steps"]), look),
        _section("attempts", map(_attempt, job["attempts_made"]), look),
        _section("events", map(_event, job["events"]), look),
        _section("configuration", _flat(job["config"]), look),
        _next(job),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _section(name: str, rows: Iterable[Sequence[Any]], look: Look) -> list[str]:
    cells = [[_number(cell) for cell in row] for row in rows]
    return [name, *look.table(cells, "  ")] if cells else []


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _facts(job: Json) -> list[tuple[str, str]]:
    holds = some(job["cpus"], "CPU") + (f", {some(job['gpus'], 'GPU')}" if job["gpus"] else "")
    return [
        ("at" if job["state"] in LIVE else "why", why(job) if job["state"] != "succeeded" else ""),
        ("place", f"{job['place']} in line" if job["place"] else ""),
        ("progress", bar(job["progress"].get("frac")) + how_far(job) if job["state"] in LIVE else ""),
        ("result", job["result"]),
        ("mlflow", job["links"].get("mlflow_run", "")),
        ("owner", f"{job['owner']}, project {job['project']}, priority {job['priority']}"),
        ("holds", holds if job["state"] in LIVE else f"{holds} while it runs" if job["state"] == "queued" else ""),
        ("submitted", f"{moment(job['submitted_s'])}, {span(time.time() - job['submitted_s'])} ago"),
        ("start by", moment(job["start_by_s"]) if job["start_by_s"] else ""),
        ("time limit", f"{span(job['time_limit_s'])} an attempt" if job["time_limit_s"] else ""),
        ("started", moment(job["started_s"]) if job["started_s"] else ""),
        ("ended", f"{moment(job['ended_s'])}, {how_far(job)}".rstrip(", ") if job["ended_s"] else ""),
        ("goes on with", f"the work of job {job['retry_of']}" if job["retry_of"] else ""),
    ]


def bar(frac: float | None) -> str:
    """A share as a bar; empty where it is not known."""
    if frac is None:
        return ""
    full = round(BAR * min(1.0, max(0.0, frac)))
    return "█" * full + "░" * (BAR - full) + " "


def _steps(steps: Sequence[Json]) -> list[tuple[str, str, str]]:
    return [(step["name"], step["state"], step["made"]) for step in steps] if len(steps) > 1 else []


def _attempt(attempt: Json) -> tuple[str, ...]:
    began_s, ended_s = attempt["started_s"] or attempt["claimed_s"], attempt["ended_s"]
    ended = f"took {span(ended_s - began_s)}" if ended_s else "under way"
    stop = f"asked to end: {attempt['stop_reason']}" if attempt["stop_reason"] and not ended_s else ""
    resumed = f"went on from {attempt['resumed_from']}" if attempt["resumed_from"] else ""
    told = "; ".join(filter(None, [stop, attempt["message"], resumed]))
    return str(attempt["number"]), attempt["cause"] or "running", moment(began_s), ended, told


def _event(event: Json) -> tuple[str, str, str, str]:
    detail = ", ".join(f"{name} {_number(value)}" for name, value in event["detail"].items() if value not in ("", None))
    return moment(event["at_s"]), event["actor"], event["what"], detail


def _flat(config: Json, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.") if value else [(f"{prefix}{name}", "as it is by default")]
        else:
            yield f"{prefix}{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _next(job: Json) -> list[str]:
    verb = {"queued": "logs -f", "starting": "logs -f", "running": "logs -f", "succeeded": "logs"}.get(job["state"])
    commands = [f"{verb} {job['id']}"] if verb else [f"logs {job['id']}", f"retry {job['id']}"]
    return [f"{US} {command}" for command in commands]


# --- the queue


def queue_shown(queue: Json, live: Sequence[Json], look: Look) -> str:
    """Who runs, who waits and why, within which limits, and whether somebody dispatches."""
    running = [(str(job["id"]), job["kind"], job["state"], job["owner"], job["project"], how_far(job), why(job)) for job in live]
    line = [
        (str(job["place"]), str(job["id"]), job["kind"], job["owner"], job["project"], f"priority {job['priority']}",
         job["reason"] or "starts next")
        for job in queue["line"]
    ]  # fmt: skip
    waiting = queue["counts"].get("queued", 0)
    parts = [
        look.table([("running", usage(queue)), *_limits(queue["limits"]), ("dispatcher", dispatcher(queue["dispatcher"]))]),
        _section("running", running, look),
        _section("in line" if waiting == len(line) else f"in line: the first {len(line)} of {waiting}", line, look),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def usage(queue: Json) -> str:
    """`2 of 2 jobs, 4 of 8 CPUs, 0 GPUs`."""
    used, limits = queue["usage"], queue["limits"]
    jobs = f"{used['running']} of {some(limits['running'], 'job')}"
    parts = ((used[name], limits.get(name), word) for name, word in (("cpus", "CPU"), ("gpus", "GPU")))
    return ", ".join([jobs, *(some(held, word) if of is None else f"{held:g} of {some(of, word)}" for held, of, word in parts)])


def _limits(limits: Json) -> list[tuple[str, str]]:
    words = (("cpus", "CPU"), ("gpus", "GPU"), ("gpu_hours", "GPU-hour"))
    return [
        (f"project {name}", "at most " + ", ".join(some(own[key], word) for key, word in words if own.get(key) is not None))
        for name, own in limits.get("projects", {}).items()
        if any(own.get(key) is not None for key, _ in words)
    ]


def dispatcher(who: Json) -> str:
    """Whether jobs are started at all."""
    name = f"{who['holder']}, epoch {who['epoch']}"
    if not who["holder"]:
        return f"none: nothing starts before there is one; {US} up"
    if who["alive"]:
        return f"alive ({name}, seen {span(who['seen_s_ago'])} ago)"
    if who["seen_s_ago"] is None:
        return f"not seen yet ({name}); ask again in a few seconds"
    return f"silent for {span(who['seen_s_ago'])} ({name}): nothing starts; {US} up"
