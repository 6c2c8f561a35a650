"""Jobs and arrays of jobs as text for people: lines, tables, progress. Nothing here sends requests or prints."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.jobs.cli.style import (
    TextStyle,
    format_bar,
    format_count,
    format_duration,
    format_ids,
    format_number,
    format_time,
    section,
)
from services.jobs.queue.states import LIVE, TERMINAL
from zsbir.base.text import clean

Json = Mapping[str, Any]
PROGRAM = "python -m services.jobs"
MADE = {
    "ingest": "a data set", "pretrain": "weights", "teacher": "knowledge", "train": "a run", "evaluate": "a report",
    "sweep": "a sweep", "index": "an index", "pipeline": "an index",
}  # fmt: skip
"""What jobs of each kind make."""

ENDED = {"succeeded": "has succeeded", "failed": "has failed", "timed_out": "has timed out", "cancelled": "was cancelled"}


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
    """Return what a job waits for, does, how good its result is, or what it failed with."""
    if job["state"] == "queued":
        last = f"the last attempt: {job['message']}" if job["message"] else ""
        return "; ".join(filter(None, [job["reason"] or "starts next", last]))
    if job["state"] in LIVE:
        return "cancelling: saving its work first" if job["cancelling"] else format_activity(job["progress"])
    return format_outcome(job) if job["state"] == "succeeded" else str(job["message"])


def format_outcome(job: Json) -> str:
    """Return what a job that has succeeded has done: its own words, its score, or what it made; and in which attempt."""
    done = str(job["message"]) or format_score(job) or f"made {MADE.get(job['kind'], 'its result')}"
    return f"{done}, in attempt {job['attempts']}" if (job.get("attempts") or 0) > 1 else done


def format_score(job: Json, *, short: bool = False) -> str:
    """Return `map_all 0.849 on dev classes at step 150`, or in short `dev 0.849`; empty where there is no score."""
    score = job.get("score")
    if not score:
        return ""
    if short:
        return f"{score['on']} {score['value']:.3f}"
    step = f" at step {score['step']}" if score["step"] is not None else ""
    return f"{score['metric']} {score['value']:.3f} on {score['on']} classes{step}"


def format_activity(progress: Json) -> str:
    """Return what a job is doing: `stage 3 of 5: train, step 121/200, 3.1/s`."""
    if not progress:
        return ""
    number, _, of = str(progress.get("steps") or "").partition("/")
    stage, label = str(progress.get("step", "")), str(progress.get("label", ""))
    parts = [stage, " ".join(filter(None, ["" if label == stage else label, _format_done(progress)]))]
    parts += [f"{progress['per_s']:.3g}/s"] if progress.get("per_s") else []
    return (f"stage {number} of {of}: " if of else "") + ", ".join(filter(None, parts))


def _format_done(progress: Json) -> str:
    if progress.get("done") is None:
        return ""
    total, unit = progress.get("total"), progress.get("unit", "")
    count = f"{progress['done']}{f'/{total}' if total else ''}"
    return f"step {count}" if unit == "step" else f"{count} {unit if unit.isupper() or not unit else f'{unit}s'}".strip()


def format_name(job: Json) -> str:
    """Return `job 17 (toy seed=1)`: how messages speak of a job."""
    name = f" ({job['name']})" if job.get("name") else ""
    return f"job {job['id']}{name}"


def format_summary(job: Json) -> str:
    """Return one line: `job 17 (toy) is queued: 2 of 2 jobs are running: jobs 15, 16; place 3 in line`."""
    place = f"place {job['place']} in line" if job["place"] else ""
    text = ": ".join(filter(None, [f"{format_name(job)} {ENDED.get(job['state'], 'is ' + job['state'])}", format_reason(job)]))
    result = str(job["result"]) if job["state"] == "succeeded" else ""
    return clean("; ".join(filter(None, [text, result, place if job["state"] == "queued" else format_progress(job)])))


def format_submitted(job: Json, remark: str = "") -> str:
    """Return the line about a job that has just been submitted."""
    return clean("; ".join(filter(None, [format_summary(job), remark, f"{PROGRAM} show {job['id']}"])))


def format_jobs(jobs: Sequence[Json], style: TextStyle) -> str:
    """Return a table of jobs and of arrays. Columns that are empty, or the same for all owners and projects, are left out.

    The reason of a failure is wrapped, everything else in the last column is cut where the terminal ends.
    """
    head = ("ID", "NAME", "KIND", "RECIPE", "SEED", "STATE", "PROGRESS", "SCORE", "OWNER", "PROJECT", "AGE", "WHY")
    rows = [_array_row(job) if job.get("array") else _job_row(job) for job in jobs]
    columns = list(zip(head, *rows, strict=True))
    shown = [column for column in columns if _tells_something(column)]
    wrapped = [
        number for number, job in enumerate(jobs, start=1) if not job.get("array") and job["state"] in ("failed", "timed_out")
    ]
    return "\n".join(style.table(list(zip(*shown, strict=True)), wrapped=wrapped))


def _tells_something(column: Sequence[str]) -> bool:
    name, *cells = column
    if name in ("OWNER", "PROJECT"):
        return len(set(cells)) > 1
    return name == "WHY" or any(cells)


def _job_row(job: Json) -> tuple[str, ...]:
    return (
        str(job["id"]), job.get("name", ""), job["kind"], job.get("recipe", ""), _text(job.get("seed")), job["state"],
        format_progress(job), format_score(job, short=True), job["owner"], job["project"],
        format_duration(time.time() - job["submitted_s"]), format_reason(job),
    )  # fmt: skip


def _array_row(job: Json) -> tuple[str, ...]:
    array = job["array"]
    left = f"{format_duration(array['left_s'])} left" if array["left_s"] is not None else ""
    progress = " · ".join(filter(None, [f"{100 * array['frac']:.0f} %", left])) if array["state"] not in TERMINAL else ""
    return (
        format_ids(array["ids"]), array["name"], f"{job['kind']} x{len(array['ids'])}", job.get("recipe", ""), "", array["state"],
        progress, format_score(array["best"] or {}, short=True), job["owner"], job["project"],
        format_duration(time.time() - job["submitted_s"]), format_array(array),
    )  # fmt: skip


def format_array(array: Json) -> str:
    """Return `2 running, 1 queued; best: job 13 (toy seed=1), dev 0.712`."""
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in array["counts"].items())
    best = f"best: {format_name(array['best'])}, {format_score(array['best'], short=True)}" if array["best"] else ""
    return "; ".join(filter(None, [counts, best, array["reason"] if array["state"] == "queued" else ""]))


def _text(value: object) -> str:
    return "" if value is None else str(value)


# --- one job


def format_job(job: Json, style: TextStyle) -> str:
    """Return everything about one job; no line is cut."""
    style = replace(style, width=None)
    state = style.paint(clean(job["state"]))
    name = f"  {clean(job['name'])}" if job.get("name") else ""
    title = f"job {clean(job['id'])}{name}  {clean(job['kind'])}  {state}{' (cancelling)' if job['cancelling'] else ''}"
    parts = [
        [title],
        style.table([(name, value) for name, value in _fact_rows(job) if value], "  "),
        section("metrics", job["progress"].get("metrics", {}).items(), style),
        section("stages", _stage_rows(job["steps"]), style),
        section("attempts", map(_attempt_row, job["attempts_made"]), style),
        section("events", map(_event_row, job["events"]), style),
        section("configuration", _config_rows(job["config"]), style),
        _next_commands(job),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _fact_rows(job: Json) -> list[tuple[str, str]]:
    holds = format_count(job["cpus"], "CPU") + (f", {format_count(job['gpus'], 'GPU')}" if job["gpus"] else "")
    return [
        ("at" if job["state"] in LIVE else "why", format_reason(job) if job["state"] != "succeeded" else ""),
        ("place", f"{job['place']} in line" if job["place"] else ""),
        ("progress", format_bar(job["progress"].get("frac")) + format_progress(job) if job["state"] in LIVE else ""),
        ("result", job["result"]),
        ("score", format_score(job)),
        ("training", f"{job['recipe']}, seed {_text(job.get('seed'))}" if job.get("recipe") else ""),
        ("array", f"{job['array_of']}: {PROGRAM} list --array {job['array_of']}" if job.get("array_of") else ""),
        ("after", _after(job)),
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


def _after(job: Json) -> str:
    """Return after which jobs a job starts: `the success of 12-14; any end of 15`."""
    words = {"success": "the success of", "end": "any end of"}
    ids = {on: [each["job"] for each in job.get("after", []) if each["on"] == on] for on in words}
    return "; ".join(f"{word} {format_ids(ids[on])}" for on, word in words.items() if ids[on])


def _stage_rows(steps: Sequence[Json]) -> list[tuple[str, str, str]]:
    remarks = {"found": "found, not made again: "}
    rows = [(step["name"], step["state"].replace("_", " "), f"{remarks.get(step['state'], '')}{step['made']}") for step in steps]
    return rows if len(steps) > 1 else []


def _attempt_row(attempt: Json) -> tuple[str, ...]:
    began_s, ended_s = attempt["started_s"] or attempt["claimed_s"], attempt["ended_s"]
    ended = f"took {format_duration(ended_s - began_s)}" if ended_s else "not ended"
    stop = f"asked to end: {attempt['stop_reason']}" if attempt["stop_reason"] and not ended_s else ""
    resumed = f"resumed from {attempt['resumed_from']}" if attempt["resumed_from"] else ""
    remarks = "; ".join(filter(None, [stop, attempt["message"], resumed]))
    return str(attempt["number"]), attempt["cause"] or "running", format_time(began_s), ended, remarks


def _event_row(event: Json) -> tuple[str, str, str, str]:
    detail = ", ".join(f"{name} {format_number(value)}" for name, value in event["detail"].items() if value not in ("", None))
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
