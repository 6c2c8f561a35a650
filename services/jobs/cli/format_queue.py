"""The queue as a whole as text for people: what runs, what waits and why, the limits, the dispatcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.jobs.cli.format import PROGRAM, format_progress, format_reason
from services.jobs.cli.style import TextStyle, format_count, format_duration, section
from zsbir.base.text import clean

Json = Mapping[str, Any]


def format_queue(queue: Json, live: Sequence[Json], style: TextStyle) -> str:
    """Return what runs, what waits and why, the limits, and whether a dispatcher works. live: the jobs that run."""
    running = [
        (str(job["id"]), job.get("name", ""), job["kind"], job["state"], job["owner"], job["project"], format_progress(job),
         format_reason(job))
        for job in live
    ]  # fmt: skip
    line = [
        (str(job["place"]), str(job["id"]), job.get("name", ""), job["kind"], job["owner"], job["project"],
         f"priority {job['priority']}", job["reason"] or "starts next")
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
        section("running", running, style),
        section("in line" if waiting == len(line) else f"in line: the first {len(line)} of {waiting}", line, style),
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
