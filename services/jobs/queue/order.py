"""The queue in its order, read from the database, and why each job in it waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import Connection, func, select

from services.jobs.queue.limits import Limits, Turn, WaitingJob, turns
from services.jobs.queue.needs import states_of
from services.jobs.queue.tables import ATTEMPTS, JOBS, LIVE_STATES

LOOK_AHEAD = 1000
"""How many queued jobs are considered for the next turn and listed to people."""


def next_job(database: Connection, limits: Limits, now_s: float) -> WaitingJob | None:
    """Return the job that may start next, also where more than LOOK_AHEAD jobs before it are held back by limits of their own."""
    for most in (LOOK_AHEAD, None):
        found = waiting_turns(database, limits, now_s, most)
        first = next((turn.job for turn in found if not turn.reason), None)
        if first or len(found) < LOOK_AHEAD or any(turn.blocks for turn in found):
            return first
    return None


def waiting_turns(database: Connection, limits: Limits, now_s: float, most: int | None = LOOK_AHEAD) -> list[Turn]:
    """Return the turns of the first queued jobs, by priority and then first come. most: how many; None: all."""
    columns = [JOBS.c[field.name] for field in fields(WaitingJob)]
    waiting = select(*columns).where(JOBS.c.state == "queued").order_by(JOBS.c.priority.desc(), JOBS.c.id).limit(most)
    live = select(*columns).where(JOBS.c.state.in_(LIVE_STATES)).order_by(JOBS.c.id)
    queue, running = ([WaitingJob(**row._mapping) for row in database.execute(query)] for query in (waiting, live))
    budgeted = [name for name, own in limits.projects.items() if own.gpu_hours is not None]
    states = states_of(database, (each["job"] for job in queue for each in job.after))
    return turns(queue, running, _spent_gpu_hours(database, budgeted, now_s), limits, now_s=now_s, states=states)


def _spent_gpu_hours(database: Connection, projects: Sequence[str], now_s: float) -> dict[str, float]:
    """Return GPU-hours by project, each attempt counted from its start; an attempt that has not started has spent nothing."""
    if not projects:
        return {}
    hours = JOBS.c.gpus * (func.coalesce(ATTEMPTS.c.ended_s, now_s) - ATTEMPTS.c.started_s) / 3600
    rows = database.execute(
        select(JOBS.c.project, func.sum(hours)).join(ATTEMPTS).where(JOBS.c.project.in_(projects)).group_by(JOBS.c.project)
    )
    return {project: float(spent or 0) for project, spent in rows}
