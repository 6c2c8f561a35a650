"""What users ask of the queue, without HTTP: whether they may, and the answer as a plain value."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.common.auth import User
from services.common.credentials import split_login
from services.common.errors import Conflict, NotFound
from services.jobs.http.patience import Patience
from services.jobs.http.permissions import PERMISSIONS, Permissions
from services.jobs.http.quotas import require_owner
from services.jobs.http.requests import LARGEST_ID, Filter, Selection, Submission
from services.jobs.http.standing import array_view, best_of, score_of, step_states
from services.jobs.http.submissions import Submissions
from services.jobs.http.views import (
    ArrayView,
    Cancellations,
    Curve,
    JobDetails,
    JobPage,
    JobView,
    LogPart,
    QueueView,
    StepView,
)
from services.jobs.queue.arrays import Array
from services.jobs.queue.limits import Limits, Usage
from services.jobs.queue.order import LOOK_AHEAD
from services.jobs.queue.records import Attempt, Job
from services.jobs.queue.resources import LABELS
from services.jobs.queue.states import LIVE, TERMINAL, State
from services.jobs.queue.store import Store
from services.jobs.runs.attempt_dir import LOG_PIECE, AttemptDir, attempt_dir_of
from services.jobs.runs.names import recipe_of, seed_of
from services.jobs.runs.steps import steps_of
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.edge.mlflow_pages import run_page, runs_page

NEWEST_ATTEMPTS = 3
"""How many of a job's newest attempts are searched for a curve and for links."""


class JobService:
    """The queue as its users see it. Changes take the user who asks. RunError if the store or the storage does not answer."""

    def __init__(
        self, store: Store, root: str, allowed: AllowedPaths, mlflow_url: str = "", permissions: Permissions = PERMISSIONS
    ):
        self._store, self._root, self._allowed = store, root, allowed
        self._mlflow_url = split_login(mlflow_url).address.rstrip("/")
        self._patience = Patience()
        self._submissions = Submissions(store, root, allowed, self._patience, permissions)

    # --- what changes something

    def submit(self, user: User, submission: Submission, key: str | None = None) -> tuple[JobView, bool]:
        """Submit a job or an array; return it, or the array's first job, and whether it is new.

        It is not new where its owner has used that key for the same one before. InputError for what cannot run; KeyTaken for a key
        that stands for another job.
        """
        jobs, is_new = self._submissions.submit(user, submission, key)
        return (self._entries(jobs[:1]) if len(jobs) > 1 else self._views(jobs))[0], is_new

    def retry(self, user: User, job_id: int) -> JobView:
        """Submit a job that goes on with the work of one that has ended without success. Conflict for other jobs.

        The jobs that were cancelled because it did not succeed are submitted again with it.
        """
        return self._views([self._submissions.retry(user, self._job(job_id))])[0]

    def retry_array(self, user: User, array_id: int) -> list[JobView]:
        """Do as `retry` for each job of an array that has ended without success. Conflict where there is none."""
        ids = [member.id for member in self._array(array_id).members]
        jobs = list(reversed(self._store.jobs(ids=ids, limit=len(ids))))
        return self._views(self._submissions.retry_array(user, array_id, jobs))

    def cancel_array(self, user: User, array_id: int) -> Cancellations:
        """Cancel the jobs of an array that have not ended, as far as the user may."""
        ids = [member.id for member in self._array(array_id).members if member.state not in TERMINAL]
        return self.cancel_many(user, Selection(ids=ids)) if ids else Cancellations([], {})

    def cancel(self, user: User, job_id: int) -> JobView:
        """Cancel a job; one that has ended stays as it is."""
        user.require_role("submitter")
        require_owner(user, self._job(job_id))
        return self._views([self._store.cancel(job_id, user.name)])[0]

    def cancel_many(self, user: User, selection: Selection) -> Cancellations:
        """Cancel the selected jobs, as far as the user may. InputError for a selection of nothing."""
        user.require_role("submitter")
        by_property = bool(selection.project or selection.states or selection.owner)
        if bool(selection.ids) == by_property:
            raise InputError("say which jobs: either ids, or a project, states or an owner")
        owner = selection.owner or ("" if user.role == "operator" else user.name)
        cancelled: list[int] = []
        refused: dict[int, str] = {}
        for job_id in dict.fromkeys(selection.ids or self._unfinished(selection, owner)):
            try:
                self._cancel_unfinished(user, job_id)
                cancelled.append(job_id)
            except InputError as error:
                refused[job_id] = str(error)
        return Cancellations(cancelled, refused)

    def _cancel_unfinished(self, user: User, job_id: int) -> None:
        state = self._job(job_id).state
        if state in TERMINAL:
            raise Conflict(f"job {job_id} has ended: it is {state}")
        self.cancel(user, job_id)

    def _unfinished(self, selection: Selection, owner: str) -> list[int]:
        states: Sequence[State] = selection.states or ("queued", *sorted(LIVE))
        found: list[int] = []
        while page := self._store.jobs(
            states=states, project=selection.project, owner=owner, before=found[-1] if found else None, limit=LOOK_AHEAD
        ):
            found += [job.id for job in page]
        return found

    def set_limits(self, user: User, limits: Limits) -> Limits:
        """Set what the queue may use from now on, and return it as it is stored."""
        user.require_role("operator")
        self._store.set_limits(limits, user.name)
        return self._store.limits()

    # --- what only reads

    def jobs(self, wanted: Filter) -> JobPage:
        """Return a page of jobs, the newest first."""
        given = wanted.model_dump(include={"project", "owner", "before"}) | {"array_of": wanted.array}
        given |= {"one_of_each_array": wanted.collapse}
        found = self._store.jobs(states=wanted.state, kind=wanted.kind or "", limit=wanted.limit + 1, **given)
        shown = found[: wanted.limit]
        views = self._entries(shown) if wanted.collapse else self._views(shown)
        return JobPage(views, shown[-1].id if len(found) > wanted.limit else None)

    def array(self, array_id: int) -> tuple[ArrayView, list[JobView]]:
        """Return an array and its jobs in order, also those that were tried again. NotFound where there is none of this id."""
        self._array(array_id)
        jobs = list(reversed(self._store.jobs(array_of=array_id, limit=LARGEST_ID)))
        entry = self._entries(jobs[:1])[0].array
        assert entry is not None
        return entry, self._views(jobs)

    def explain(self, job_id: int) -> JobDetails:
        """Return all that is known of a job."""
        job, attempts = self._job(job_id), self._store.attempts(job_id)
        return self._patience.call(lambda: self._explain(job, attempts))

    def _explain(self, job: Job, attempts: Sequence[Attempt]) -> JobDetails:
        steps = self._steps(job, attempts)
        return JobDetails(
            view=self._views([job])[0],
            attempts=attempts,
            events=self._store.events(job.id),
            steps=steps,
            links=self._mlflow_links(steps, attempts),
            pictures=list(self._pictures(steps)),
        )

    def log(self, job_id: int, offset: int = 0, number: int | None = None) -> LogPart:
        """Return up to 256 KiB of an attempt's log from a byte offset on; below 0: that many bytes before its end.

        number: which attempt; None: the newest.
        """
        job, attempts = self._job(job_id), self._store.attempts(job_id)
        if number is not None and number not in [attempt.number for attempt in attempts]:
            raise NotFound(f"job {job_id} has no attempt {number}; it has {len(attempts)}")
        if not attempts:
            return LogPart("", max(offset, 0), job.state in TERMINAL, 0)
        attempt = attempts[-1 if number is None else number - 1]
        return self._patience.call(lambda: self._log(attempt, offset))

    def _log(self, attempt: Attempt, offset: int) -> LogPart:
        attempt_dir = self._attempt_dir(attempt)
        start = offset if offset >= 0 else max(0, attempt_dir.log_size() + offset)
        data = _read_log(attempt_dir, start)
        ended = attempt.ended_s is not None and not attempt_dir.log(start + len(data), 1)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, final=ended)
        rest = 0 if ended else len(decoder.getstate()[0])  # half a character is left for the next call
        return LogPart(text, start + len(data) - rest, ended, attempt.number)

    def curve(self, job_id: int) -> Curve:
        """Return the metrics of the training where there is one, else of the last command that has some."""
        job, attempts = self._job(job_id), self._store.attempts(job_id)
        return self._patience.call(lambda: self._curve(job, attempts))

    def _curve(self, job: Job, attempts: Sequence[Attempt]) -> Curve:
        names = sorted((step.name for step in steps_of(job.kind, job.config)), key=lambda name: name == "train")
        for attempt in reversed(attempts[-NEWEST_ATTEMPTS:]):
            for name in reversed(names):
                if rows := self._attempt_dir(attempt).curve(name):
                    return Curve(rows, name)
        return Curve([], "")

    def picture(self, job_id: int, name: str) -> bytes:
        """Return a picture's bytes as its artifact's manifest has them. NotFound for a name that `explain` does not list."""
        job, attempts = self._job(job_id), self._store.attempts(job_id)
        return self._patience.call(lambda: self._picture(job, attempts, name))

    def _picture(self, job: Job, attempts: Sequence[Attempt], name: str) -> bytes:
        found = self._pictures(self._steps(job, attempts)).get(name)
        if found is None:
            raise NotFound(f"job {job.id} has no picture {name!r}")
        artifact, file = found
        return artifact.verified(file).read_bytes()

    def queue(self) -> QueueView:
        """Return limits, usage, and who waits and why."""
        limits, counts = self._store.limits(), self._store.counts()
        live = self._store.jobs(states=sorted(LIVE), limit=LARGEST_ID)
        held = {name: sum(job.amount(name) for job in live) for name in LABELS}
        usage = Usage([job.id for job in live], held)
        return QueueView(limits, usage, counts, self._store.turns(limits))

    def audit(self, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return who did what, the newest first. before: an event's id, for the next page."""
        return self._store.audit(before=before, limit=limit)

    def check_store(self) -> None:
        """Raise RunError if the store does not answer; its address is not for everybody's eyes, so the error does not name it."""
        try:
            self._store.seen_lease()
        except RunError:
            raise RunError("the job store does not answer") from None

    # --- how

    def _job(self, job_id: int) -> Job:
        found = self._store.jobs(ids=[job_id])
        if not found:
            raise NotFound(f"there is no job {job_id}; see the list of jobs")
        return found[0]

    def _attempt_dir(self, attempt: Attempt) -> AttemptDir:
        return attempt_dir_of(self._root, attempt.submission_id)

    def _views(self, jobs: Sequence[Job]) -> list[JobView]:
        counts = self._store.attempt_counts([job.id for job in jobs])
        any_queued = any(job.state == "queued" for job in jobs)
        turns = {turn.job.id: turn for turn in self._store.turns(self._store.limits())} if any_queued else {}
        found = []
        for job in jobs:
            attempts, started_s = counts.get(job.id, (0, None))
            turn = turns.get(job.id) if job.state == "queued" else None
            reason = turn.reason if turn else f"more than {LOOK_AHEAD} jobs are before it" if job.state == "queued" else ""
            found.append(
                JobView(
                    job,
                    attempts,
                    started_s,
                    turn.position if turn else None,
                    reason,
                    recipe_of(job.kind, job.config),
                    seed_of(job.kind, job.config),
                    score_of(job.progress),
                )
            )
        return found

    def _entries(self, jobs: Sequence[Job]) -> list[JobView]:
        """Return the views of jobs, with the array of each one that belongs to one."""
        arrays = self._store.arrays([job.array_of for job in jobs if job.array_of])
        waiting = {turn.job.id: turn.reason for turn in self._store.turns(self._store.limits())} if arrays else {}
        best = {array_id: best_of(array) for array_id, array in arrays.items()}
        ids = [each.id for each in best.values() if each]
        jobs_of_best = {job.id: job for job in (self._store.jobs(ids=ids, limit=len(ids)) if ids else [])}
        views = {array_id: array_view(array, best[array_id], jobs_of_best, waiting) for array_id, array in arrays.items()}
        return [replace(view, array=views.get(view.job.array_of or 0)) for view in self._views(jobs)]

    def _array(self, array_id: int) -> Array:
        found = self._store.arrays([array_id])
        if not found:
            raise NotFound(f"there is no array {array_id}; see the list of jobs")
        return found[array_id]

    def _steps(self, job: Job, attempts: Sequence[Attempt]) -> list[StepView]:
        """Return the job's commands and how far each is."""
        steps = steps_of(job.kind, job.config)
        names = [step.name for step in steps]
        made = self._made(job, attempts, names[-1])
        states = step_states(job, names, made, was_begun=bool(attempts))
        return [StepView(step.name, step.module, made.get(step.name, ""), states[step.name]) for step in steps]

    def _made(self, job: Job, attempts: Sequence[Attempt], last_step: str) -> dict[str, str]:
        """Return the URIs of what a job has made, by step."""
        made: dict[str, str] = {}
        for attempt in attempts:
            attempt_dir = self._attempt_dir(attempt)
            end = attempt_dir.read_end() if attempt.ended_s is not None else None
            made |= (end and end.made) or attempt_dir.results()
        if job.state == "succeeded":
            made.setdefault(last_step, job.result)
        return made

    def _pictures(self, steps: Sequence[StepView]) -> dict[str, tuple[Artifact, str]]:
        """Return each picture's artifact and file by a name made here, so that no name from a client ever leads to a file."""
        found = {}
        for step in steps:
            try:
                artifact = Artifact(self._allowed.check("result", step.made)) if step.made else None
            except (InputError, OSError):  # deleted since, or not an artifact
                continue
            for file in artifact.manifest.files if artifact else ():
                if artifact and file.endswith(".png"):
                    found[f"{step.name}-{file.replace('/', '-')}"] = (artifact, file)
        return found

    def _mlflow_links(self, steps: Sequence[StepView], attempts: Sequence[Attempt]) -> dict[str, str]:
        """Return the addresses of the training's MLflow run, or of the last command that has one, and of all runs beside it."""
        names = sorted((step.name for step in steps), key=lambda name: name == "train")
        for attempt in reversed(attempts[-NEWEST_ATTEMPTS:] if self._mlflow_url else ()):
            for name in reversed(names):
                facts = self._attempt_dir(attempt).status(name)["facts"]
                run, experiment = str(facts.get("mlflow_run", "")), str(facts.get("mlflow_experiment", ""))
                if re.fullmatch(r"\w+", run) and re.fullmatch(r"\w+", experiment):
                    runs = runs_page(self._mlflow_url, experiment)
                    return {"mlflow_run": run_page(self._mlflow_url, experiment, run), "mlflow_runs": runs}
        return {"mlflow_run": "", "mlflow_runs": ""}


def _read_log(attempt_dir: AttemptDir, start: int) -> bytes:
    """Return up to LOG_PIECE bytes of a log, whichever of its pieces they lie in."""
    data = b""
    while len(data) < LOG_PIECE and (more := attempt_dir.log(start + len(data), LOG_PIECE - len(data))):
        data += more
    return data
