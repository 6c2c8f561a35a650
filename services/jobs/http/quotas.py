"""What a job counts for: the CPUs and GPUs that it holds, and whose limits it falls under, also where its user would say less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.common.auth import User
from services.common.errors import Forbidden
from services.jobs.http.requests import Submission
from services.jobs.queue.limits import Limits, beyond_limits
from services.jobs.queue.records import Job
from services.jobs.queue.resources import LABELS, MOST, Resources
from services.jobs.runs.steps import least_of, may_use_gpu, resources_of
from zsbir.base.errors import InputError


def held_resources(user: User, submission: Submission | Job, config: Mapping[str, Any], limits: Limits) -> dict[str, float]:
    """Return what the job holds: what is asked for, else what its configuration takes. submission: a job, to be tried again.

    InputError where a user who is not operator asks for less than it will use, so that limits hold for what is used.
    """
    takes, least = resources_of(submission.kind, config), least_of(submission.kind, config)
    found = {}
    for name in LABELS:
        asked, lowest = getattr(submission, name), 0.0 if user.role == "operator" else least.amount(name)
        if asked is not None and asked < lowest:
            raise InputError(
                f"{submission.kind}: asks for {asked:g} {LABELS[name]}, but uses {lowest:g}: leave {name} out, "
                "or configure fewer workers or threads"
            )
        found[name] = max(takes.amount(name), lowest) if asked is None else asked
    counts_gpus = limits.count_gpus(submission.project)
    if submission.gpus is None and not found["gpus"]:
        found["gpus"] = float(counts_gpus and limits.gpus != 0 and may_use_gpu(submission.kind, config))
    if counts_gpus and user.role != "operator" and found["gpus"] != int(found["gpus"]):
        raise InputError(f"{submission.kind}: asks for {found['gpus']:g} GPUs, but uses all of each: ask for whole ones")
    if max(found.values()) > MOST:
        raise InputError(
            f"{submission.kind}: its workers would hold {found['cpus']:g} CPUs and {found['gpus']:g} GPUs; ask for fewer"
        )
    if reason := beyond_limits(Resources(**found), submission.project, limits):
        raise InputError(f"{submission.kind}: {reason}: ask for less, or have the service's operator raise the limit")
    return found


def require_owner(user: User, job: Job) -> None:
    """Raise Forbidden for another user's job, except to operators."""
    if user.role != "operator" and job.owner != user.name:
        raise Forbidden(f"job {job.id} belongs to {job.owner!r}; only its owner or an operator may do that")


def require_project(user: User, project: str, limits: Limits) -> None:
    """Raise Forbidden for a project that is not the user's: a new name would have no limits.

    Operators may name any, and so may everybody as long as no project has limits. Otherwise a user may name those of their token,
    else `default` and those that the limits name.
    """
    known = user.projects or (limits.projects and tuple(dict.fromkeys(["default", *sorted(limits.projects)])))
    if user.role != "operator" and known and project not in known:
        whose = f"the token of {user.name!r} is for" if user.projects else "this queue has"
        raise Forbidden(f"project {project!r} is not open to you: {whose} {', '.join(known)}; ask the service's operator")
