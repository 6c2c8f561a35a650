"""Jobs that wait for others, read from the database: `services.jobs.queue.dependencies` says what follows from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Text, cast, func, select

from services.jobs.queue.dependencies import After, cannot_start
from services.jobs.queue.states import State
from services.jobs.queue.tables import JOBS
from zsbir.base.errors import InputError


def states_of(database: Connection, ids: Iterable[int]) -> dict[int, State]:
    """Return the state of the newest retry of each job; jobs that do not exist are left out."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    rows = database.execute(select(JOBS.c.id, JOBS.c.state).where(JOBS.c.id.in_(wanted)))
    states: dict[int, State] = {row.id: row.state for row in rows}
    newest = {job_id: job_id for job_id in states}
    while newest:
        # Later retries of the same job take the place of earlier ones, so the largest id wins.
        query = select(JOBS.c.retry_of, func.max(JOBS.c.id)).where(JOBS.c.retry_of.in_(newest.values())).group_by(JOBS.c.retry_of)
        retries: dict[int, int] = {row[0]: row[1] for row in database.execute(query)}
        newest = {job_id: retries[last] for job_id, last in newest.items() if last in retries}
        if newest:
            found = database.execute(select(JOBS.c.id, JOBS.c.state).where(JOBS.c.id.in_(newest.values())))
            by_id: dict[int, State] = {row.id: row.state for row in found}
            states |= {job_id: by_id[last] for job_id, last in newest.items()}
    return states


def hopeless_jobs(database: Connection) -> list[tuple[int, int, str]]:
    """Return each queued job that can no longer start, with the job whose success cannot come, and the sentence about it.

    Jobs of an array wait for the same others, so each `after` is judged once.
    """
    written = cast(JOBS.c.after, Text)
    waiting = (JOBS.c.state == "queued") & (written != "[]")
    texts = [row[0] for row in database.execute(select(written).where(waiting).distinct())]
    needs = {text: json.loads(text) for text in texts}
    states = states_of(database, (each["job"] for after in needs.values() for each in after))
    found = []
    for text, after in needs.items():
        needed, sentence = cannot_start(after, states)
        if needed:
            rows = database.execute(select(JOBS.c.id).where(waiting & (written == text)))
            found += [(row.id, needed, sentence) for row in rows]
    return sorted(found)


def require_known(database: Connection, after: Sequence[After]) -> None:
    """Raise InputError where a job is named that does not exist: so only older ones can be named, and no circle is possible."""
    wanted = {each.job for each in after}
    found = {row.id for row in database.execute(select(JOBS.c.id).where(JOBS.c.id.in_(wanted)))} if wanted else set()
    if missing := sorted(wanted - found):
        raise InputError(f"after: there is no job {missing[0]}; see python -m services.jobs list")
