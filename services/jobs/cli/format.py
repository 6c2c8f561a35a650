"""Jobs and the queue as text for people: lines, tables, progress, durations. Nothing here sends requests or prints."""

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
from zsbir.base.text import clean

Json = Mapping[str, Any]
PROGRAM = "python -m services.jobs"
BAR_WIDTH = 30
"""Characters of a progress bar."""

COLOURS: Mapping[str, int] = {
    "queued": 33, "starting": 36, "running": 36, "succeeded": 32, "done": 32, "failed": 31, "timed_out": 31, "cancelled": 35,
}  # fmt: skip

ENDED = {"succeeded": "has succeeded", "failed": "has failed", "timed_out": "has timed out", "cancelled": "was cancelled"}


@dataclass(frozen=True)
class TextStyle:
    """How text is laid out. width: the longest line; None for no limit, where standard output is not a terminal."""

    width: int | None = None
    colours: bool = False

    @classmethod
    def of_stdout(cls) -> Self:
        """Return the style for this process's standard output: colours only on a terminal, and not where NO_COLOR is set."""
        out = sys.__stdout__
        if out is None or not out.isatty():
            return cls()
        return cls(shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR"))

    def table(self, rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
        """Return rows as lines with aligned columns; the last column is cut where the terminal ends."""
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
        """Return a job's state in its colour, any other text as it is."""
        colour = COLOURS.get(cell.strip()) if self.colours else None
        return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell


def format_log(text: str) -> str:
    """Return a piece of a log for a terminal: lines and tabs stay, other characters that control a terminal become escapes."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.replace("\r\n", "\n").split("\n"))


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: 45 s, 3 min, 2 h 5 min, 4 d 2 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 60:
        return f"{minutes} min"
    if hours < 24:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def format_count(number: float, word: str) -> str:
    """Return `1 CPU`, `2 CPUs`."""
    return f"{number:g} {word}{'' if number == 1 else 's'}"


def format_time(at_s: float) -> str:
    """Return seconds since 1970 as date and time in this machine's zone."""
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")


def format_progress(job: Json) -> str:
    """Return a waiting job's place, a running one's share done and time left, or how long an ended one took."""
    progress = job["progress"]
    if job["state"] == "queued":
        return f"place {job['place']}" if job["place"] else ""
    if job["state"] in LIVE:
        left_s = progress.get("left_s")
        share = f"{100 * progress['frac']:.0f} %" if "frac" in progress else ""
        return " · ".join(filter(None, [share, f"{format_duration(left_s)} left" if left_s is not None else ""]))
    return f"in {format_duration(job['ended_s'] - job['started_s'])}" if job["started_s"] and job["ended_s"] else ""


def format_reason(job: Json) -> str:
    """Return what a job waits for, does, made, or failed with."""
    if job["state"] == "queued":
        last = f"the last attempt: {job['message']}" if job["message"] else ""
        return "; ".join(filter(None, [job["reason"] or "starts next", last]))
    if job["state"] in LIVE:
        return "cancelling: saving its work first" if job["cancelling"] else format_activity(job["progress"])
    return str(job["result"] if job["state"] == "succeeded" else job["message"])


def format_activity(progress: Json) -> str:
    """Return what a job is doing: `train 3/5: training 40/200 steps, 3.1/s`."""
    if not progress:
        return ""
    step = f"{progress.get('step', '')} {progress.get('steps', '')}".strip()
    parts = [f"{progress.get('label', '')} {_format_done(progress)}".strip()]
    parts += [f"{progress['per_s']:.3g}/s"] if progress.get("per_s") else []
    return ": ".join(filter(None, [step, ", ".join(filter(None, parts))]))


def _format_done(progress: Json) -> str:
    if progress.get("done") is None:
        return ""
    total, unit = progress.get("total"), progress.get("unit", "")
    return f"{progress['done']}{f'/{total}' if total else ''} {unit if unit.isupper() or not unit else f'{unit}s'}".strip()


def format_summary(job: Json) -> str:
    """Return one line: `job 17 is queued: 2 of 2 jobs are running: jobs 15, 16; place 3 in line`."""
    place = f"place {job['place']} in line" if job["place"] else ""
    text = ": ".join(filter(None, [f"job {job['id']} {ENDED.get(job['state'], 'is ' + job['state'])}", format_reason(job)]))
    return clean("; ".join(filter(None, [text, place if job["state"] == "queued" else format_progress(job)])))


def format_submitted(job: Json, remark: str = "") -> str:
    """Return the line about a job that has just been submitted."""
    return clean("; ".join(filter(None, [format_summary(job), remark, f"{PROGRAM} show {job['id']}"])))


def format_jobs(jobs: Iterable[Json], style: TextStyle) -> str:
    """Return a table of jobs."""
    head = ("ID", "KIND", "STATE", "PROGRESS", "OWNER", "PROJECT", "AGE", "WHY")
    rows = [
        (str(job["id"]), job["kind"], job["state"], format_progress(job), job["owner"], job["project"],
         format_duration(time.time() - job["submitted_s"]), format_reason(job))
        for job in jobs
    ]  # fmt: skip
    return "\n".join(style.table([head, *rows]))


# --- one job


def format_job(job: Json, style: TextStyle) -> str:
    """Return everything about one job; no line is cut."""
    style = replace(style, width=None)
    state = style.paint(clean(job["state"]))
    title = f"job {clean(job['id'])}  {clean(job['kind'])}  {state}{' (cancelling)' if job['cancelling'] else ''}"
    parts = [
        [title],
        style.table([(name, value) for name, value in _fact_rows(job) if value], "  "),
        _section("metrics", job["progress"].get("metrics", {}).items(), style),
        _section("steps", _step_rows(job["steps"]), style),
        _section("attempts", map(_attempt_row, job["attempts_made"]), style),
        _section("events", map(_event_row, job["events"]), style),
        _section("configuration", _config_rows(job["config"]), style),
        _next_commands(job),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _section(name: str, rows: Iterable[Sequence[Any]], style: TextStyle) -> list[str]:
    cells = [[_format_number(cell) for cell in row] for row in rows]
    return [name, *style.table(cells, "  ")] if cells else []


def _format_number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _fact_rows(job: Json) -> list[tuple[str, str]]:
    holds = format_count(job["cpus"], "CPU") + (f", {format_count(job['gpus'], 'GPU')}" if job["gpus"] else "")
    return [
        ("at" if job["state"] in LIVE else "why", format_reason(job) if job["state"] != "succeeded" else ""),
        ("place", f"{job['place']} in line" if job["place"] else ""),
        ("progress", format_bar(job["progress"].get("frac")) + format_progress(job) if job["state"] in LIVE else ""),
        ("result", job["result"]),
        ("mlflow", job["links"].get("mlflow_run", "")),
        ("owner", f"{job['owner']}, project {job['project']}, priority {job['priority']}"),
        ("holds", holds if job["state"] in LIVE else f"{holds} while it runs" if job["state"] == "queued" else ""),
        ("submitted", f"{format_time(job['submitted_s'])}, {format_duration(time.time() - job['submitted_s'])} ago"),
        ("start by", format_time(job["start_by_s"]) if job["start_by_s"] else ""),
        ("time limit", f"{format_duration(job['time_limit_s'])} an attempt" if job["time_limit_s"] else ""),
        ("started", format_time(job["started_s"]) if job["started_s"] else ""),
        ("ended", f"{format_time(job['ended_s'])}, {format_progress(job)}".rstrip(", ") if job["ended_s"] else ""),
        ("continues", f"the work of job {job['retry_of']}" if job["retry_of"] else ""),
    ]


def format_bar(frac: float | None) -> str:
    """Return a share from 0 to 1 as a bar; empty where it is not known."""
    if frac is None:
        return ""
    full = round(BAR_WIDTH * min(1.0, max(0.0, frac)))
    return "█" * full + "░" * (BAR_WIDTH - full) + " "


def _step_rows(steps: Sequence[Json]) -> list[tuple[str, str, str]]:
    return [(step["name"], step["state"], step["made"]) for step in steps] if len(steps) > 1 else []


def _attempt_row(attempt: Json) -> tuple[str, ...]:
    began_s, ended_s = attempt["started_s"] or attempt["claimed_s"], attempt["ended_s"]
    ended = f"took {format_duration(ended_s - began_s)}" if ended_s else "not ended"
    stop = f"asked to end: {attempt['stop_reason']}" if attempt["stop_reason"] and not ended_s else ""
    resumed = f"resumed from {attempt['resumed_from']}" if attempt["resumed_from"] else ""
    remarks = "; ".join(filter(None, [stop, attempt["message"], resumed]))
    return str(attempt["number"]), attempt["cause"] or "running", format_time(began_s), ended, remarks


def _event_row(event: Json) -> tuple[str, str, str, str]:
    detail = ", ".join(f"{name} {_format_number(value)}" for name, value in event["detail"].items() if value not in ("", None))
    return format_time(event["at_s"]), event["actor"], event["what"], detail


def _config_rows(config: Json, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _config_rows(value, f"{prefix}{name}.") if value else [(f"{prefix}{name}", "all defaults")]
        else:
            yield f"{prefix}{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _next_commands(job: Json) -> list[str]:
    verb = {"queued": "logs -f", "starting": "logs -f", "running": "logs -f", "succeeded": "logs"}.get(job["state"])
    commands = [f"{verb} {job['id']}"] if verb else [f"logs {job['id']}", f"retry {job['id']}"]
    return [clean(f"{PROGRAM} {command}") for command in commands]


# --- the queue


def format_queue(queue: Json, live: Sequence[Json], style: TextStyle) -> str:
    """Return what runs, what waits and why, the limits, and whether a dispatcher works. live: the jobs that run."""
    running = [
        (str(job["id"]), job["kind"], job["state"], job["owner"], job["project"], format_progress(job), format_reason(job))
        for job in live
    ]
    line = [
        (str(job["place"]), str(job["id"]), job["kind"], job["owner"], job["project"], f"priority {job['priority']}",
         job["reason"] or "starts next")
        for job in queue["line"]
    ]  # fmt: skip
    waiting = queue["counts"].get("queued", 0)
    parts = [
        style.table(
            [
                ("running", format_usage(queue)),
                *_limit_rows(queue["limits"]),
                ("dispatcher", format_dispatcher(queue["dispatcher"])),
            ]
        ),
        _section("running", running, style),
        _section("in line" if waiting == len(line) else f"in line: the first {len(line)} of {waiting}", line, style),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def format_usage(queue: Json) -> str:
    """Return `2 of 2 jobs, 4 of 8 CPUs, 0 GPUs`."""
    used, limits = queue["usage"], queue["limits"]
    jobs = f"{used['running']} of {format_count(limits['running'], 'job')}"
    parts = ((used[name], limits.get(name), word) for name, word in (("cpus", "CPU"), ("gpus", "GPU")))
    return ", ".join(
        [jobs, *(format_count(held, word) if of is None else f"{held:g} of {format_count(of, word)}" for held, of, word in parts)]
    )


def _limit_rows(limits: Json) -> list[tuple[str, str]]:
    words = (("cpus", "CPU"), ("gpus", "GPU"), ("gpu_hours", "GPU-hour"))
    return [
        (f"project {name}", "at most " + ", ".join(format_count(own[key], word) for key, word in words if own.get(key) is not None))
        for name, own in limits.get("projects", {}).items()
        if any(own.get(key) is not None for key, _ in words)
    ]


def format_dispatcher(dispatcher: Json) -> str:
    """Return whether a dispatcher works, without which no job starts."""
    name = clean(f"{dispatcher['holder']}, epoch {dispatcher['epoch']}")
    if not dispatcher["holder"]:
        return f"none: no job starts without one; start it with: {PROGRAM} up"
    if dispatcher["alive"]:
        return f"alive ({name}, seen {format_duration(dispatcher['seen_s_ago'])} ago)"
    if dispatcher["seen_s_ago"] is None:
        return f"not seen yet ({name}); ask again in a few seconds"
    return f"silent for {format_duration(dispatcher['seen_s_ago'])} ({name}): no job starts; start it with: {PROGRAM} up"
