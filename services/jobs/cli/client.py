"""The job service's HTTP API from Python: `Client("http://host:8270", token)`.

A request whose answer was lost is sent again where sending it twice does no more than sending it once. Errors: InputError with the
service's own line for a request that it rejects; RunError when it fails or cannot be reached.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from services.jobs.local.paths import TOKEN_VARIABLE
from services.jobs.queue.states import TERMINAL
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import warn

Json = dict[str, Any]
Answer = TypeVar("Answer")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
RETRY_PAUSES_S = (0.2, 0.8)
"""Seconds before each time that a request is sent again."""

POLL_S = 1.0
"""Seconds between two requests while waiting for a job."""

MAX_OUTAGE_S = 600.0
"""Seconds that a wait for a job outlasts a service that cannot be reached."""

MAX_PAGE = 500
"""The largest number of jobs in one page of the list."""

START_COMMAND = "python -m services.jobs up"


@dataclass(frozen=True)
class LogPart:
    """A piece of an attempt's log.

    next: offset in bytes of the following piece. end: whether the log is complete. attempt: its number, 0 where there is none yet.
    """

    text: str
    next: int
    end: bool
    attempt: int


class Client:
    """A connection to the job service, with a method for each of its requests, which returns the answer's JSON.

    InputError for a malformed address or token.
    """

    def __init__(self, url: str, token: str = ""):
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {_checked_token(token)}"} if token else {}
        # A proxy from the environment serves the internet, not this machine.
        direct = _is_this_machine(self.url)
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=not direct)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise InputError(f"a proxy of the environment (HTTP_PROXY, ALL_PROXY) cannot be used: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the HTTP connections to the service; the client cannot be used afterwards."""
        self._http.close()

    # --- requests that change nothing

    def me(self) -> Json:
        """Return the caller's name and role, and whether the service demands tokens."""
        return self._json("GET", "/api/me", has="name")

    def kinds(self) -> Json:
        """Return the JSON schema of every kind of job, and what each recipe changes."""
        return self._json("GET", "/api/kinds", has="kinds")

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        kind: str = "",
        project: str = "",
        owner: str = "",
        array: int | None = None,
        collapse: bool = False,
        before: int | None = None,
        limit: int = 100,
    ) -> Json:
        """Return a page of jobs, the newest first, and as `next` the `before` of the following page.

        array: only the jobs of this array. collapse: one entry for each array, with the whole of it as `array`.
        """
        words = {"kind": kind, "project": project, "owner": owner, "array": array, "before": before, "limit": limit}
        words |= {"collapse": "true" if collapse else ""}
        params: Json = {name: word for name, word in words.items() if word}
        page = self._json("GET", "/api/jobs", params={**params, "state": list(states)}, has="jobs")
        if array is not None and any("array_of" not in job for job in page["jobs"]):
            raise InputError(
                f"the job service at {self.url} is of an earlier version and has no arrays; update it, or ask without one"
            )
        return page

    def every_job(self, **which: Any) -> Iterator[Json]:
        """Yield all jobs that match, page by page. which: the filters of `jobs`."""
        before: int | None = None
        while True:
            page = self.jobs(**which, before=before, limit=MAX_PAGE)
            yield from page["jobs"]
            before = page["next"]
            if before is None:
                return

    def job(self, job_id: int) -> Json:
        """Return everything that is known of a job."""
        return self._json("GET", f"/api/jobs/{job_id}", has="state")

    def array(self, array_id: int) -> Json:
        """Return an array and all of its jobs, in order."""
        return self._json("GET", f"/api/arrays/{array_id}", has="jobs")

    def log(self, job_id: int, offset: int = 0, attempt: int | None = None) -> LogPart:
        """Return a piece of an attempt's log, by default the newest attempt's.

        offset: in bytes; a negative one counts from the end.
        """
        params = {"offset": offset} | ({"attempt": attempt} if attempt else {})
        response = self._request("GET", f"/api/jobs/{job_id}/log", params=params)
        try:
            headers = response.headers
            is_end = headers["X-Log-End"] == "true"
            return LogPart(response.text, int(headers["X-Next-Offset"]), is_end, int(headers["X-Attempt"]))
        except (KeyError, ValueError):
            raise self._not_a_job_service(response) from None

    def curve(self, job_id: int) -> Json:
        """Return a training's metrics by optimiser step."""
        return self._json("GET", f"/api/jobs/{job_id}/curve")

    def picture(self, job_id: int, name: str) -> bytes:
        """Return one of the pictures that a job lists, as PNG."""
        return self._request("GET", f"/api/jobs/{job_id}/pictures/{name}").content

    def queue(self) -> Json:
        """Return the limits, what is in use, which jobs wait and why, and the dispatcher."""
        return self._json("GET", "/api/queue", has="dispatcher")

    def audit(self, *, before: int | None = None, limit: int = 100) -> Json:
        """Return the audit trail, the newest entry first."""
        return self._json("GET", "/api/audit", params={"limit": limit} | ({"before": before} if before else {}))

    def health(self) -> Json:
        """Return whether the service works; RunError where it cannot reach its database."""
        return self._json("GET", "/healthz")

    def metrics(self) -> str:
        """Return the service's metrics in Prometheus's text format."""
        return self._request("GET", "/metrics").text

    # --- requests that change something

    def submit(self, job: Mapping[str, Any], key: str) -> tuple[Json, bool]:
        """Submit {kind, config, project, ...}; return the job and whether it is new. The same key stands for the same job.

        With `each` the jobs are an array, and the answer is its first job, with `array`.
        """
        response = self._request("POST", "/api/jobs", key=key, json=dict(job))
        return self._read(response, "state"), response.status_code == httpx.codes.CREATED

    def cancel(self, job_id: int) -> Json:
        """Cancel a job and return it; one that has ended stays as it is."""
        return self._json("POST", f"/api/jobs/{job_id}/cancel", repeatable=True, has="state")

    def retry(self, job_id: int) -> Json:
        """Return a new job that continues the work of this one, which has not succeeded."""
        return self._json("POST", f"/api/jobs/{job_id}/retry", has="state")

    def cancel_array(self, array_id: int) -> Json:
        """Cancel the jobs of an array that have not ended; return which were cancelled, and which were not and why."""
        return self._json("POST", f"/api/arrays/{array_id}/cancel", repeatable=True, has="cancelled")

    def retry_array(self, array_id: int) -> list[Json]:
        """Return new jobs that continue the work of those of an array which have not succeeded."""
        found: list[Json] = self._json("POST", f"/api/arrays/{array_id}/retry", has="jobs")["jobs"]
        return found

    def cancel_many(self, **which: Any) -> Json:
        """Cancel jobs; return which were cancelled, and which were not and why. which: ids, or project, states, owner."""
        return self._json("POST", "/api/cancel", json=which, has="cancelled")

    def set_limits(self, limits: Mapping[str, Any]) -> Json:
        """Set what the queue may use from now on."""
        return self._json("PUT", "/api/limits", json=dict(limits))

    def tokens(self) -> Json:
        """Return whose tokens there are, without their texts."""
        return self._json("GET", "/api/tokens", has="tokens")

    def make_token(self, name: str, role: str, projects: Sequence[str] = ()) -> Json:
        """Make a token, and return its text, which the service does not tell again."""
        return self._json("POST", "/api/tokens", json={"name": name, "role": role, "projects": list(projects)}, has="token")

    def revoke_token(self, token_id: int) -> Json:
        """Revoke a token by its number."""
        return self._json("POST", f"/api/tokens/{token_id}/revoke")

    def targets(self) -> Json:
        """Return the notification targets, without what may be secret."""
        return self._json("GET", "/api/notify-targets", has="targets")

    def set_targets(self, targets: Mapping[str, Any]) -> Json:
        """Replace all notification targets: {"targets": {name: {"webhook": ...} or {"command": [...]}}}."""
        return self._json("PUT", "/api/notify-targets", json=dict(targets), has="targets")

    def try_target(self, name: str) -> Json:
        """Tell one notification target that this is a test."""
        return self._json("POST", f"/api/notify-targets/{quote(name, safe='')}/test")

    # --- waiting for a job, also while the service cannot be reached

    def watch(self, job_id: int) -> Iterator[Json]:
        """Yield a job once a second until it has ended; the last one yielded is the ended job."""
        while True:
            job = self._through_outage(partial(self.job, job_id))
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(POLL_S)

    def follow(self, job_id: int, attempt: int = 1, offset: int = 0) -> Iterator[str]:
        """Yield a job's log as it grows, from `offset` of `attempt` to the end of the job's last attempt."""
        while True:
            job = self._through_outage(partial(self.job, job_id))
            if attempt <= job["attempts"]:
                yield from self._follow_attempt(job_id, attempt, offset)
                attempt, offset = attempt + 1, 0
            elif job["state"] in TERMINAL:
                return
            else:
                time.sleep(POLL_S)

    def _follow_attempt(self, job_id: int, attempt: int, offset: int) -> Iterator[str]:
        while True:
            part = self._through_outage(partial(self.log, job_id, offset, attempt))
            offset = part.next
            if part.text:
                yield part.text
            if part.end:
                return
            if not part.text:
                time.sleep(POLL_S)

    def _through_outage(self, request: Callable[[], Answer]) -> Answer:
        """Return the answer to a request, repeated for up to `MAX_OUTAGE_S` seconds, with one warning for each outage."""
        until, warned = time.monotonic() + MAX_OUTAGE_S, False
        while True:
            try:
                return request()
            except RunError as error:
                if time.monotonic() > until:
                    raise
                if not warned:
                    warn(f"{error}; trying again, the job continues meanwhile")
                warned = True
                time.sleep(POLL_S)

    # --- requests and answers

    def _json(self, method: str, path: str, *, has: str = "", **words: Any) -> Json:
        return self._read(self._request(method, path, **words), has)

    def _read(self, response: httpx.Response, has: str = "") -> Json:
        """Return the answer's JSON. has: a field by which a job service's answer is known."""
        try:
            values = dict(response.json())
        except (ValueError, TypeError):
            raise self._not_a_job_service(response) from None
        if has and has not in values:
            raise self._not_a_job_service(response)
        return values

    def _request(self, method: str, path: str, *, key: str = "", repeatable: bool = False, **words: Any) -> httpx.Response:
        """Return the answer.

        repeatable: sending it twice does no more than sending it once, as is so for GET, PUT and everything with a key.
        """
        try:
            request = self._http.build_request(method, path, headers={"Idempotency-Key": key} if key else {}, **words)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"a request must be JSON: {error}") from None
        response = self._send(request, repeatable=repeatable or bool(key) or method in ("GET", "PUT"))
        if response.is_success:
            return response
        raise self._error(response)

    def _send(self, request: httpx.Request, *, repeatable: bool) -> httpx.Response:
        pauses_s = list(RETRY_PAUSES_S)
        while True:
            try:
                return self._http.send(request)
            except httpx.ConnectError as error:  # nothing was sent, so any request may be sent again
                failure: httpx.TransportError = error
            except httpx.TransportError as error:
                failure = error
                pauses_s = pauses_s if repeatable else []
            if not pauses_s:
                reason = str(failure) or type(failure).__name__
                raise RunError(f"no job service answers at {self.url} ({reason}); start it there: {START_COMMAND}") from None
            time.sleep(pauses_s.pop(0))

    def _error(self, response: httpx.Response) -> Exception:
        """Return the error for an answer that is no success."""
        try:
            line = str(response.json()["error"])
        except (ValueError, TypeError, KeyError):
            line = ""
        if (
            response.status_code == 502 and line
        ):  # the service is well, and names what it could not reach; a proxy sends no such line
            return RunError(line)
        if response.status_code >= 500:
            line = line or f"HTTP {response.status_code}"
            return RunError(f"the job service at {self.url} failed: {line}; if that persists, restart it there: {START_COMMAND}")
        if not line:
            return self._not_a_job_service(response)
        return InputError(f"{line} (given as {TOKEN_VARIABLE} or --token-file FILE)" if response.status_code == 401 else line)

    def _not_a_job_service(self, response: httpx.Response) -> RunError:
        return RunError(f"the server at {self.url} (HTTP {response.status_code}) is not a job service; name one with --server")


def _is_this_machine(url: str) -> bool:
    """Return whether the address is one of this machine. InputError for a malformed address."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise InputError(f"the job service's address must read http://host:port, got {url!r}")
    try:
        return parsed.host == "localhost" or ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        return False


def _checked_token(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"the token contains spaces or other characters that tokens do not have; see {TOKEN_VARIABLE} and --token-file"
        )
    return token
