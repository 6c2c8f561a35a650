"""Submitting jobs, alone and as arrays, and trying them again: checks first, then one transaction for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from services.common.auth import User
from services.common.errors import Conflict
from services.jobs.http.patience import Patience
from services.jobs.http.permissions import Permissions
from services.jobs.http.quotas import held_resources, require_owner, require_project
from services.jobs.http.requests import Submission
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Job, JobRequest
from services.jobs.queue.states import TERMINAL
from services.jobs.queue.store import Store
from services.jobs.queue.targets import Notify, read_targets
from services.jobs.runs.model_inputs import check_models, has_models
from services.jobs.runs.names import default_name, members_of, shortened
from services.jobs.runs.validation import check_config, check_places
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, RunError

MLFLOW_S, MOST_WITH_MLFLOW = 50.0, 4
"""Seconds that a submission waits for MLflow to say what a registered model is, less than clients wait for an answer; and how many
submissions may. Its library is loaded with the first one, which takes long on a busy machine."""


class Submissions:
    """What makes new jobs in a store. InputError for what cannot run."""

    def __init__(self, store: Store, root: str, allowed: AllowedPaths, patience: Patience, permissions: Permissions):
        self._store, self._root, self._allowed, self._permissions = store, root, allowed, permissions
        self._patience = patience
        self._patience_with_mlflow = Patience(MLFLOW_S, MOST_WITH_MLFLOW, what="MLflow's model registry")

    def submit(self, user: User, submission: Submission, key: str | None) -> tuple[list[Job], bool]:
        """Submit a job, or with `each` an array; return the jobs and whether they are new.

        They are not new where their owner has used that key for the same ones before. KeyTaken for a key that stands for others.
        """
        user.require_role("submitter")
        limits = self._store.limits()
        require_project(user, submission.project, limits)
        requests = [self._request(user, each, limits, differs) for each, differs in _each_job(submission)]
        return self._store.submit_or_find([requests[0].replace(idempotency_key=key), *requests[1:]])

    def retry(self, user: User, job: Job) -> Job:
        """Submit a job that goes on with the work of one that has ended without success; return it. Conflict for other jobs.

        Where that one was tried again before, also without success, the new job goes on with its newest retry. The jobs that were
        cancelled because it did not succeed are submitted again with it, as far as they are the user's.
        """
        user.require_role("submitter")
        require_owner(user, job)
        newest = self._unfinished(job)
        require_owner(user, newest)
        return self._try_again(user, [newest])[0]

    def retry_array(self, user: User, array_id: int, jobs: Sequence[Job]) -> list[Job]:
        """Do as `retry` for the jobs of an array that have ended without success; return the new ones.

        Conflict where there are none. jobs: the newest retry of each job of the array.
        """
        user.require_role("submitter")
        wanted = [job for job in jobs if job.state in TERMINAL and job.state != "succeeded"]
        if not wanted:
            raise Conflict(f"no job of array {array_id} has failed, timed out or was cancelled")
        for job in wanted:
            require_owner(user, job)
        return self._try_again(user, wanted)

    # --- how

    def _unfinished(self, job: Job) -> Job:
        """Return the newest retry of a job that has ended without success, itself where there is none.

        Raises Conflict for other jobs, and where its work was done, or is under way, in a retry.
        """
        if job.state not in TERMINAL or job.state == "succeeded":
            raise Conflict(f"job {job.id} is {job.state}: only one that has failed, timed out or was cancelled can be tried again")
        newest = self._store.retry_chain(job.id)[-1]
        if newest.state not in TERMINAL:
            raise Conflict(f"job {newest.id} goes on with the work of job {job.id} already")
        if newest.state == "succeeded":
            raise Conflict(f"job {newest.id} went on with the work of job {job.id}, and succeeded")
        return newest

    def _try_again(self, user: User, jobs: Sequence[Job]) -> list[Job]:
        """Submit the jobs again, in one transaction with those that were cancelled because of them; return the new ones of these.

        Where somebody else has tried one of them again meanwhile, it is that retry.
        """
        dependents = [dependent for job in jobs for dependent in self._dependents(user, job)]
        again = {job.id: job for job in [*jobs, *dependents]}
        limits = self._store.limits()
        requests = [self._retry_request(user, job, limits) for job in again.values()]
        made, _ = self._store.submit_or_find(requests, actor=user.name)
        return made[: len(jobs)]

    def _retry_request(self, user: User, job: Job, limits: Limits) -> JobRequest:
        """Return the request of a job that goes on with another one's work, and belongs to the same user.

        What the user may do and what the job may hold and read is checked as it is now. Its inputs are not: steps that are done
        need them no longer, registered models were resolved by the first attempt, and a target may be set again before the end.
        """
        self._permissions.require_kind(user, job.kind, job.config)
        require_project(user, job.project, limits)
        self._patience.call(lambda: check_places(job.kind, job.config, self._allowed))
        values = {name: getattr(job, name) for name in JobRequest.model_fields}
        values |= held_resources(user, job, job.config, limits)
        return JobRequest.of(values | {"retry_of": job.id, "idempotency_key": None, "start_by_s": None}, where=job.kind)

    def _dependents(self, user: User, job: Job) -> list[Job]:
        """Return the user's jobs that were cancelled because this one did not succeed, and have not been tried again."""
        ids = self._store.given_up_after([each.id for each in self._store.retry_chain(job.id)])
        found = self._store.jobs(ids=ids, limit=len(ids)) if ids else []
        mine = [each for each in reversed(found) if user.role == "operator" or each.owner == user.name]
        return [each for each in mine if not self._store.jobs(retry_of=each.id, limit=1)]

    def _request(self, user: User, submission: Submission, limits: Limits, differs: str = "") -> JobRequest:
        """Return the checked request of one job. differs: what tells it from the other jobs of its array."""
        self._permissions.require_kind(user, submission.kind, submission.config)
        config = self._checked_config(submission)
        self._require_targets(submission.notify)
        values = submission.model_dump(exclude={"start_within_s", "each"})
        values |= {"config": config, "owner": user.name}
        name = submission.name or default_name(submission.kind, config)
        values["name"] = shortened(name, " ".join(word for word in differs.split() if word not in name.split()))
        if submission.start_within_s is not None:
            start_by_s = self._store.now() + submission.start_within_s
            values["start_by_s"] = min(start_by_s, submission.start_by_s or start_by_s)
        return JobRequest.of(values | held_resources(user, submission, config, limits), where=submission.kind)

    def _require_targets(self, notify: Sequence[Notify]) -> None:
        """Raise InputError for the name of a target that the operator has not set."""
        known = read_targets(self._store) if notify else {}
        unknown = next((each.to for each in notify if each.to not in known), None)
        if unknown is not None:
            way = unknown_name("target", unknown, known) if known else f"unknown target {unknown!r}: no target is set"
            raise InputError(f"notify: {way}; its operator sets targets with: python -m services.jobs notify --set FILE")

    def _checked_config(self, submission: Submission) -> Mapping[str, Any]:
        try:
            config = self._patience.call(lambda: check_config(submission.kind, submission.config, self._allowed))
            if has_models(submission.kind, config):
                self._patience_with_mlflow.call(lambda: check_models(submission.kind, config, self._root, self._allowed))
        except (OSError, RuntimeError) as error:  # a name too long for a file, a loop of links
            if isinstance(error, RunError):
                raise
            raise InputError(f"{submission.kind}: an address cannot be looked up ({error})") from error
        return config


def _each_job(submission: Submission) -> Iterator[tuple[Submission, str]]:
    """Yield a submission for each job of an array, and what tells it from the others; the submission itself where it is none."""
    if not submission.each:
        yield submission, ""
        return
    for config, differs in members_of(submission.config, submission.each):
        yield submission.replace(config=config, each={}), differs
