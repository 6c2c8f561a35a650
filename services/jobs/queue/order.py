"""The line as the database has it: queued jobs in their order, and why each waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import Connection, func, select

from services.jobs.queue.limits import Limits, Turn, WaitingJob, turns
from services.jobs.queue.tables import ATTEMPTS, JOBS, LIVE_STATES

LOOK_AHEAD = 1000
"""Queued jobs looked at for the next turn, and shown in line."""


def next_job(database: Connection, limits: Limits, now_s: float) -> WaitingJob | None:
    """The job that starts next, if any may: also one behind a thousand that are held back by what is their own affair."""
    for most in (LOOK_AHEAD, None):
        found = waiting_jobs(database, limits, now_s, most)
        first = next((turn.job for turn in found if not turn.reason), None)
        if first or len(found) < LOOK_AHEAD or any(turn.blocks for turn in found):
            return first
    return None


def waiting_jobs(database: Connection, limits: Limits, now_s: float, most: int | None = LOOK_AHEAD) -> list[Turn]:
    """The first queued jobs, by priority and then first come. most: how many; None: all."""
    columns = [JOBS.c[field.name] for field in fields(WaitingJob)]
    waiting = select(*columns).where(JOBS.c.state == "queued").order_by(JOBS.c.priority.desc(), JOBS.c.id).limit(most)
    live = select(*columns).where(JOBS.c.state.in_(LIVE_STATES)).order_by(JOBS.c.id)
    queue, running = ([WaitingJob(*row) for row in database.execute(query)] for query in (waiting, live))
    budgeted = [name for name, own in limits.projects.items() if own.gpu_hours is not None]
    return turns(queue, running, _spent(database, budgeted, now_s), limits, now_s=now_s)


def _spent(database: Connection, projects: Sequence[str], now_s: float) -> dict[str, float]:
    """GPU-hours by project: of attempts that have started, since then."""
    if not projects:
        return {}
    hours = JOBS.c.gpus * (func.coalesce(ATTEMPTS.c.ended_s, now_s) - ATTEMPTS.c.started_s) / 3600
    rows = database.execute(
        select(JOBS.c.project, func.sum(hours)).join(ATTEMPTS).where(JOBS.c.project.in_(projects)).group_by(JOBS.c.project)
    )
    return {project: float(spent or 0) for project, spent in rows}
