"""The executor on Kubernetes: each attempt is a RayJob with a Ray cluster of its own, which KubeRay runs when Kueue admits it.

Which job waits, which fits and which makes room for another is for Kueue to decide: nothing here chooses between two of them. The
manifest is in `services.jobs.runs.rayjob`.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from services.jobs.runs.executor import ExecutorStatus, ExecutorUnavailable, Rejected, Task
from services.jobs.runs.ray_messages import cause_of, split_log
from services.jobs.runs.rayjob import KubeRayConfig, checked_name, render

ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
SUSPENDED = frozenset({"Suspending", "Suspended"})
"""Values of a RayJob's jobDeploymentStatus."""

FINAL_REASONS = frozenset({"BadRequest", "Conflict", "Forbidden", "Invalid", "MethodNotAllowed", "NotFound", "Unauthorized"})
"""Reasons of a Kubernetes API server that has answered, and will not answer otherwise the next time."""

TIMEOUTS = 3
"""kubectl makes several requests a call: it may take this many times as long as the cluster may for one."""

KUBECTL_ERRORS = {
    "no matches for kind": "; is KubeRay installed on this cluster?",
    "doesn't have a resource type": "; is KubeRay installed on this cluster?",
    "must be logged in": "; log kubectl in, or name another context",
    "does not exist": "; kubectl config get-contexts lists those that do",
}
"""Errors of kubectl itself, before it has asked the API server for anything, and the way out. It has no codes for them."""


def status_of(rayjob: Mapping[str, Any]) -> ExecutorStatus:
    """Return what a RayJob's own fields say of the attempt.

    A RayJob that Kueue has suspended again has ended as an attempt: its processes are gone. The API server counts changes of a
    specification, and only Kueue changes these: the first change is the admission.
    """
    status, spec = rayjob.get("status") or {}, rayjob.get("spec") or {}
    stage = str(status.get("jobDeploymentStatus") or "New")
    message, log = split_log(": ".join(str(status[name]) for name in ("reason", "message") if status.get(name)))
    if stage in ENDED:
        return ExecutorStatus("ended", message or str(status.get("jobStatus") or stage), cause_of(message), log)
    if stage in SUSPENDED and spec.get("suspend"):
        if int(rayjob.get("metadata", {}).get("generation", 1)) > 1:
            return ExecutorStatus("ended", "preempted: Kueue gave its place to another", "preempted")
        return ExecutorStatus("pending", "waits for Kueue to admit it")
    # KubeRay says Running as soon as the cluster is up; the job's own status tells whether Ray has started it.
    if stage == "Running" and status.get("jobStatus") not in (None, "", "PENDING"):
        return ExecutorStatus("running", message)
    return ExecutorStatus("pending", ": ".join(filter(None, [stage, message])))


class KubeRay:
    """RayJobs by way of `kubectl`, which knows all the ways to log in to a cluster, a pod's service account included."""

    def __init__(self, config: KubeRayConfig):
        self._config = config

    def start(self, task: Task) -> None:
        """Create a RayJob; see Executor. A field that the cluster does not know is an error, not left out."""
        manifest = json.dumps(render(task, self._config))
        self._kubectl("create", "--validate=strict", "--filename=-", manifest=manifest, expected="AlreadyExists")

    def get_status(self, submission_id: str) -> ExecutorStatus:
        """Return a RayJob's status; see Executor."""
        answer = self._kubectl("get", "rayjobs.ray.io", checked_name(submission_id), "--output=json", expected="NotFound")
        if answer is None:
            return ExecutorStatus("unknown")
        try:
            return status_of(json.loads(answer))
        except (ValueError, AttributeError, TypeError) as error:
            raise ExecutorUnavailable(f"kubectl's answer about {submission_id} is not a RayJob: {answer[:200]!r}") from error

    def stop(self, submission_id: str) -> None:
        """Delete a RayJob; see Executor. Only then KubeRay has Ray stop the job before the pods go; they wait in their hooks.

        Kueue would undo a suspension, and a deadline would leave the stopping to the hooks alone.
        """
        self._kubectl("delete", "rayjobs.ray.io", checked_name(submission_id), "--ignore-not-found", "--wait=false")

    def _kubectl(self, *words: str, manifest: str = "", expected: str = "") -> str | None:
        """Return what kubectl prints; None where the API server gives the expected reason.

        Rejected where the cluster refuses, ExecutorUnavailable where it does not answer.
        """
        config = self._config
        argv = [config.kubectl, f"--namespace={config.namespace}", f"--request-timeout={config.timeout_s}s", *words]
        if config.context:
            argv.insert(1, f"--context={config.context}")
        limit_s = config.timeout_s * TIMEOUTS
        try:
            done = subprocess.run(argv, input=manifest, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise ExecutorUnavailable(f"the cluster does not answer within {limit_s:g} s; {self._way_out()}") from error
        except OSError as error:
            raise ExecutorUnavailable(
                f"cannot run {config.kubectl!r} ({error.strerror}); install kubectl, or name it (kubectl)"
            ) from error
        if not done.returncode:
            return done.stdout
        line = _error_line(done.stderr)
        reason = _api_reason(line)
        if expected and reason == expected:
            return None
        hint = next((hint for text, hint in KUBECTL_ERRORS.items() if text in line and not reason), None)
        if reason in FINAL_REASONS or hint is not None:
            raise Rejected(f"Kubernetes refused: {line}{hint or ''}")
        raise ExecutorUnavailable(f"the cluster does not answer: {line}; {self._way_out()}")

    def _way_out(self) -> str:
        context = f" --context={self._config.context}" if self._config.context else ""
        return f"see what this says: {self._config.kubectl}{context} get rayjobs --namespace={self._config.namespace}"


def _error_line(stderr: str) -> str:
    """Return the line that matters: kubectl's libraries log before it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if not re.match(r"[EWI]\d{4} ", line)]
    return (own or lines or ["kubectl failed without a word"])[0][:300]


def _api_reason(line: str) -> str:
    """Return the API server's reason in one word; empty where the error is not the server's."""
    found = re.match(r"Error from server \((\w+)\)", line)
    return found.group(1) if found else ""
