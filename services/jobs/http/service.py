"""What people ask of the queue, without HTTP: who may do it, and the answer as a value."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from services.jobs.http.models import (
    LARGEST_ID,
    MOST,
    AttemptMade,
    Cancelled,
    Curve,
    Event,
    Explained,
    Filter,
    NotCancelled,
    Page,
    Picture,
    QueuedJob,
    Selection,
    Step,
    Submission,
    Summary,
    Usage,
)
from services.jobs.queue.limits import Limits
from services.jobs.queue.order import LOOK_AHEAD
from services.jobs.queue.records import Attempt, Job, JobRequest
from services.jobs.queue.states import LIVE, ROLES, TERMINAL, Role, State
from services.jobs.queue.store import Store
from services.jobs.runs.allowed_paths import AllowedPaths
from services.jobs.runs.attempt_dir import LOG_PIECE, AttemptDir, attempt_dir_of
from services.jobs.runs.steps import resources_of, steps_of
from services.jobs.runs.validation import check_config
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError

LOOKED_AT = 3
"""Newest attempts whose signs are read for a job's curve and links."""


class Forbidden(InputError):  # noqa: N818 - it says what it is
    """Somebody's role is too low for it, or the job is another's."""


class NotFound(InputError):  # noqa: N818 - it says what it is
    """There is no such job, attempt or picture."""


class Conflict(InputError):  # noqa: N818 - it says what it is
    """The job's state does not allow it."""


@dataclass(frozen=True)
class User:
    """Who asks. The name is the owner of what he submits."""

    name: str
    role: Role

    def require_role(self, role: Role) -> None:
        """Forbidden for a lower one."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise Forbidden(f"{self.name!r} is a {self.role}, this needs a token of a {role}; ask the service's operator for one")

    def require_owner(self, job: Job) -> None:
        """Forbidden for another one's job, but for operators."""
        if self.role != "operator" and job.owner != self.name:
            raise Forbidden(f"job {job.id} belongs to {job.owner!r}; only its owner or an operator may do that")


@dataclass(frozen=True)
class LogPart:
    """A piece of an attempt's log. next: the offset behind it. end: there will be no more."""

    text: str
    next: int
    end: bool
    attempt: int


class JobService:
    """The queue's front: every call says who asks. RunError where the store or the storage is away."""

    def __init__(self, store: Store, root: str, allowed: AllowedPaths, mlflow_url: str = ""):
        self.store, self._root, self._allowed, self._mlflow_url = store, root, allowed, mlflow_url.rstrip("/")

    # --- what changes something

    def submit(self, person: User, asked: Submission, key: str | None = None) -> tuple[Summary, bool]:
        """The job, and whether it is new: not, where its owner has used that key for it before.

        InputError for what cannot run; KeyTaken for a key that stands for another job.
        """
        return self._submitted(person, asked, key, None)

    def retry(self, person: User, job_id: int) -> Summary:
        """A new job that goes on with the work of one that has ended without success. Conflict for others."""
        person.require_role("submitter")
        job = self._job(job_id)
        person.require_owner(job)
        if job.state not in TERMINAL or job.state == "succeeded":
            raise Conflict(f"job {job_id} is {job.state}: only one that has failed, timed out or was cancelled can be tried again")
        retries = self.store.jobs(retry_of=job_id, limit=LOOK_AHEAD)
        under_way = next((retry.id for retry in retries if retry.state not in TERMINAL), None)
        if under_way:
            raise Conflict(f"job {under_way} goes on with the work of job {job_id} already")
        asked = Submission.of({name: getattr(job, name) for name in Submission.model_fields if name != "start_by_s"})
        # A second click at the same moment finds the first one's job. Nobody's own key begins with a blank.
        return self._submitted(person, asked, f" retry {len(retries) + 1} of {job_id}", job_id)[0]

    def _submitted(self, person: User, asked: Submission, key: str | None, retry_of: int | None) -> tuple[Summary, bool]:
        person.require_role("submitter")
        try:
            config = check_config(asked.kind, asked.config, self._allowed)
        except (OSError, RuntimeError) as error:  # a name too long for a file, a loop of links
            raise InputError(f"{asked.kind}: an address cannot be looked up ({error})") from error
        needs = resources_of(asked.kind, config)
        values = asked.model_dump() | {"config": config, "owner": person.name, "idempotency_key": key, "retry_of": retry_of}
        values["cpus"] = needs.cpus if asked.cpus is None else asked.cpus
        values["gpus"] = needs.gpus if asked.gpus is None else asked.gpus
        if max(values["cpus"], values["gpus"]) > MOST:
            raise InputError(
                f"{asked.kind}: its workers would hold {values['cpus']:g} CPUs and {values['gpus']:g} GPUs; ask for fewer"
            )
        job, new = self.store.submit_or_find(JobRequest.of(values, where=asked.kind))
        return self._summaries([job])[0], new

    def cancel(self, person: User, job_id: int) -> Summary:
        """Cancel one; one that has ended stays as it is."""
        person.require_role("submitter")
        person.require_owner(self._job(job_id))
        return self._summaries([self.store.cancel(job_id, person.name)])[0]

    def cancel_many(self, person: User, what: Selection) -> Cancelled:
        """Cancel those it names. InputError when it names none; Forbidden for others' jobs as a whole."""
        person.require_role("submitter")
        by_kind = bool(what.project or what.states or what.owner)
        if bool(what.ids) == by_kind:
            raise InputError("say which jobs: either ids, or a project, states or an owner")
        wanted = what.ids or self._unended(what, what.owner or ("" if person.role == "operator" else person.name))
        done = Cancelled(cancelled=[], refused=[])
        for job_id in dict.fromkeys(wanted):
            try:
                self._cancel_live(person, job_id)
                done.cancelled.append(job_id)
            except InputError as error:
                done.refused.append(NotCancelled(id=job_id, error=str(error)))
        return done

    def _cancel_live(self, person: User, job_id: int) -> None:
        state = self._job(job_id).state
        if state in TERMINAL:
            raise Conflict(f"job {job_id} has ended: it is {state}")
        self.cancel(person, job_id)

    def _unended(self, what: Selection, owner: str) -> list[int]:
        states: Sequence[State] = what.states or ("queued", *sorted(LIVE))
        found: list[int] = []
        while page := self.store.jobs(
            states=states, project=what.project, owner=owner, before=found[-1] if found else None, limit=LOOK_AHEAD
        ):
            found += [job.id for job in page]
        return found

    def set_limits(self, person: User, limits: Limits) -> Limits:
        """From now on."""
        person.require_role("operator")
        self.store.set_limits(limits, person.name)
        return self.store.limits()

    # --- what only looks

    def jobs(self, which: Filter) -> Page:
        """A page of jobs."""
        words = which.model_dump(include={"project", "owner", "before"})
        found = self.store.jobs(states=which.state, kind=which.kind or "", limit=which.limit + 1, **words)
        shown = found[: which.limit]
        return Page(jobs=self._summaries(shown), next=shown[-1].id if len(found) > which.limit else None)

    def explain(self, job_id: int) -> Explained:
        """All that is known of one."""
        job, attempts = self._job(job_id), self.store.attempts(job_id)
        steps = self._steps(job, attempts)
        return Explained(
            **self._summaries([job])[0].model_dump(),
            config=job.config,
            attempts_made=[AttemptMade(**asdict(attempt)) for attempt in attempts],
            events=[Event(**event) for event in self.store.events(job_id)],
            steps=steps,
            links={"mlflow_run": self._mlflow_run(steps, attempts)},
            pictures=[
                Picture(name=name, title=_title(name), url=f"/api/jobs/{job_id}/pictures/{name}") for name in self._pictures(steps)
            ],
        )

    def log(self, job_id: int, offset: int = 0, number: int | None = None) -> LogPart:
        """Up to 256 KiB of an attempt's log, the newest one's by default, from a byte on; below 0: so many from its end."""
        job, attempts = self._job(job_id), self.store.attempts(job_id)
        if number is not None and number not in [attempt.number for attempt in attempts]:
            raise NotFound(f"job {job_id} has no attempt {number}; it has {len(attempts)}")
        if not attempts:
            return LogPart("", max(offset, 0), job.state in TERMINAL, 0)
        attempt = attempts[-1 if number is None else number - 1]
        attempt_dir = self._attempt_dir(attempt)
        start = offset if offset >= 0 else max(0, attempt_dir.log_size() + offset)
        data = _read(attempt_dir, start)
        ended = attempt.ended_s is not None and not attempt_dir.log(start + len(data), 1)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data, final=ended)
        rest = 0 if ended else len(decoder.getstate()[0])  # half a character waits for its other half
        return LogPart(text, start + len(data) - rest, ended, attempt.number)

    def curve(self, job_id: int) -> Curve:
        """Of the training where there is one, else of the last command that has one."""
        job, attempts = self._job(job_id), self.store.attempts(job_id)
        names = sorted((step.name for step in steps_of(job.kind, job.config)), key=lambda name: name == "train")
        for attempt in reversed(attempts[-LOOKED_AT:]):
            for name in reversed(names):
                if rows := self._attempt_dir(attempt).curve(name):
                    return Curve(rows=rows, step_name=name)
        return Curve(rows=[], step_name="")

    def picture(self, job_id: int, name: str) -> bytes:
        """One of a job's pictures, as its artifact was signed."""
        job = self._job(job_id)
        found = self._pictures(self._steps(job, self.store.attempts(job_id))).get(name)
        if found is None:
            raise NotFound(f"job {job_id} has no picture {name!r}")
        artifact, file = found
        return artifact.verified(file).read_bytes()

    def line(self, limits: Limits) -> list[QueuedJob]:
        """Who waits, in order."""
        return [QueuedJob(**vars(turn.job), place=turn.position, reason=turn.reason) for turn in self.store.turns(limits)]

    def usage(self) -> Usage:
        """What live attempts hold."""
        live = self.store.jobs(states=sorted(LIVE), limit=LARGEST_ID)
        return Usage(running=len(live), cpus=sum(job.cpus for job in live), gpus=sum(job.gpus for job in live))

    # --- how

    def _job(self, job_id: int) -> Job:
        found = self.store.jobs(ids=[job_id])
        if not found:
            raise NotFound(f"there is no job {job_id}; see the list of jobs")
        return found[0]

    def _attempt_dir(self, attempt: Attempt) -> AttemptDir:
        return attempt_dir_of(self._root, attempt.submission_id)

    def _summaries(self, jobs: Sequence[Job]) -> list[Summary]:
        begun = self.store.attempt_counts([job.id for job in jobs])
        queued = any(job.state == "queued" for job in jobs)
        turns = {turn.job.id: turn for turn in self.store.turns(self.store.limits())} if queued else {}
        found = []
        for job in jobs:
            attempts, started_s = begun.get(job.id, (0, None))
            turn = turns.get(job.id) if job.state == "queued" else None
            reason = turn.reason if turn else f"more than {LOOK_AHEAD} jobs are before it" if job.state == "queued" else ""
            position = turn.position if turn else None
            found.append(Summary(**vars(job), attempts=attempts, started_s=started_s, place=position, reason=reason))
        return found

    def _steps(self, job: Job, attempts: Sequence[Attempt]) -> list[Step]:
        """What is behind a job, what is before it. Its progress names the command that it is at."""
        steps = steps_of(job.kind, job.config)
        made: dict[str, str] = {}
        for attempt in attempts:
            attempt_dir = self._attempt_dir(attempt)
            end = attempt_dir.read_end() if attempt.ended_s is not None else None
            made |= (end and end.made) or attempt_dir.results()
        if job.state == "succeeded":
            made.setdefault(steps[-1].name, job.result)
        names = [step.name for step in steps]
        behind = names[: names.index(job.progress["step"])] if job.progress.get("step") in names else []
        at = next((name for name in names if name not in made and name not in behind), "")
        now: Literal["waiting", "running", "failed"] = "running" if job.state in LIVE else "waiting"
        now = "failed" if job.state in TERMINAL and attempts else now

        def state(name: str) -> Literal["waiting", "running", "done", "failed"]:
            done = job.state == "succeeded" or name in made or name in behind
            return "done" if done else now if name == at else "waiting"

        return [Step(name=step.name, module=step.module, made=made.get(step.name, ""), state=state(step.name)) for step in steps]

    def _pictures(self, steps: Sequence[Step]) -> dict[str, tuple[Artifact, str]]:
        """By a name of their own, so that no name from outside ever leads to a file."""
        found = {}
        for step in steps:
            try:
                artifact = Artifact(self._allowed.check("result", step.made)) if step.made else None
            except (InputError, OSError):  # gone by now, or a file that is no artifact
                continue
            for file in artifact.manifest.files if artifact else ():
                if artifact and file.endswith(".png"):
                    found[f"{step.name}-{file.replace('/', '-')}"] = (artifact, file)
        return found

    def _mlflow_run(self, steps: Sequence[Step], attempts: Sequence[Attempt]) -> str:
        """The page of the training's run, or of the last command that has one."""
        names = sorted((step.name for step in steps), key=lambda name: name == "train")
        for attempt in reversed(attempts[-LOOKED_AT:] if self._mlflow_url else ()):
            for name in reversed(names):
                facts = self._attempt_dir(attempt).status(name)["facts"]
                run, experiment = str(facts.get("mlflow_run", "")), str(facts.get("mlflow_experiment", ""))
                if re.fullmatch(r"\w+", run) and re.fullmatch(r"\w+", experiment):
                    return f"{self._mlflow_url}/#/experiments/{experiment}/runs/{run}"
        return ""


def _read(attempt_dir: AttemptDir, start: int) -> bytes:
    """Up to a piece's length of a log, whichever pieces it lies in."""
    data = b""
    while len(data) < LOG_PIECE and (more := attempt_dir.log(start + len(data), LOG_PIECE - len(data))):
        data += more
    return data


def _title(name: str) -> str:
    step, _, file = name.removesuffix(".png").partition("-")
    return f"{step}: {file.replace('_', ' ')}"
