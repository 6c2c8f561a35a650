"""The queue's HTTP API from Python: `Client("http://host:8270", token)`. What a lost answer leaves open is asked again, once done.

Errors: InputError with the service's own line for what it refuses; RunError when it fails or cannot be reached.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

import httpx

from services.jobs.local.paths import TOKEN_VARIABLE
from services.jobs.queue.states import TERMINAL
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import warn

Json = dict[str, Any]
Answer = TypeVar("Answer")

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
PAUSES_S = (0.2, 0.8)
"""Before a request whose answer was lost is sent again."""

EVERY_S = 1.0
"""Seconds between two looks at a job that somebody waits for."""

PATIENCE_S = 600.0
"""Seconds that who waits for a job waits for the service too, when it is away."""

MOST = 500
"""Jobs that one page can have."""

WAY_OUT = "python -m services.jobs up"


@dataclass(frozen=True)
class LogPart:
    """A piece of an attempt's log. next: the offset behind it. end: there will be no more. attempt: 0 where there is none yet."""

    text: str
    next: int
    end: bool
    attempt: int


class Client:
    """One method for each thing that the service can be asked; answers are its JSON. InputError for an address that is none."""

    def __init__(self, url: str, token: str = ""):
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {_plain(token)}"} if token else {}
        # Proxies of the environment are for the internet, not for this machine.
        direct = _is_here(self.url)
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT, trust_env=not direct)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise InputError(f"a proxy of the environment (HTTP_PROXY, ALL_PROXY) cannot be used: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    # --- what only looks

    def me(self) -> Json:
        """Who asks: name, role, auth."""
        return self._json("GET", "/api/me", has="name")

    def kinds(self) -> Json:
        """The JSON schema of every kind of job, and what each recipe changes."""
        return self._json("GET", "/api/kinds", has="kinds")

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        kind: str = "",
        project: str = "",
        owner: str = "",
        before: int | None = None,
        limit: int = 100,
    ) -> Json:
        """A page of jobs, the newest first, and the `before` of the next page."""
        words = {"kind": kind, "project": project, "owner": owner, "before": before, "limit": limit}
        params: Json = {name: word for name, word in words.items() if word}
        return self._json("GET", "/api/jobs", params={**params, "state": list(states)}, has="jobs")

    def every_job(self, **which: Any) -> Iterator[Json]:
        """All of them, page by page. which: as for `jobs`."""
        before: int | None = None
        while True:
            page = self.jobs(**which, before=before, limit=MOST)
            yield from page["jobs"]
            before = page["next"]
            if before is None:
                return

    def job(self, job_id: int) -> Json:
        """All that is known of one."""
        return self._json("GET", f"/api/jobs/{job_id}", has="state")

    def log(self, job_id: int, offset: int = 0, attempt: int | None = None) -> LogPart:
        """A piece of an attempt's log, the newest one's by default. offset: in bytes; below 0: so many from its end."""
        params = {"offset": offset} | ({"attempt": attempt} if attempt else {})
        said = self._ask("GET", f"/api/jobs/{job_id}/log", params=params)
        try:
            head = said.headers
            return LogPart(said.text, int(head["X-Next-Offset"]), head["X-Log-End"] == "true", int(head["X-Attempt"]))
        except (KeyError, ValueError):
            raise self._stranger(said) from None

    def curve(self, job_id: int) -> Json:
        """Metrics by optimiser step."""
        return self._json("GET", f"/api/jobs/{job_id}/curve")

    def picture(self, job_id: int, name: str) -> bytes:
        """One of the pictures that a job lists, as PNG."""
        return self._ask("GET", f"/api/jobs/{job_id}/pictures/{name}").content

    def queue(self) -> Json:
        """Limits, what is in use, who waits and why, who dispatches."""
        return self._json("GET", "/api/queue", has="dispatcher")

    def audit(self, *, before: int | None = None, limit: int = 100) -> Json:
        """Who did what, the newest first."""
        return self._json("GET", "/api/audit", params={"limit": limit} | ({"before": before} if before else {}))

    def health(self) -> Json:
        """RunError where the service's store is away."""
        return self._json("GET", "/healthz")

    def metrics(self) -> str:
        """In Prometheus's text format."""
        return self._ask("GET", "/metrics").text

    # --- what changes something

    def submit(self, job: Mapping[str, Any], key: str) -> tuple[Json, bool]:
        """A job from {kind, config, project, ...}, and whether it is new. The same key is the same job, however often sent."""
        said = self._ask("POST", "/api/jobs", key=key, json=dict(job))
        return self._read(said, "state"), said.status_code == httpx.codes.CREATED

    def cancel(self, job_id: int) -> Json:
        """The job; one that has ended stays as it is."""
        return self._json("POST", f"/api/jobs/{job_id}/cancel", again=True, has="state")

    def retry(self, job_id: int) -> Json:
        """A new job that goes on with the work of that one."""
        return self._json("POST", f"/api/jobs/{job_id}/retry", has="state")

    def cancel_many(self, **which: Any) -> Json:
        """Which were cancelled, which not and why. which: ids, or project, states, owner."""
        return self._json("POST", "/api/cancel", json=which, has="cancelled")

    def set_limits(self, limits: Mapping[str, Any]) -> Json:
        """What the queue may use from now on."""
        return self._json("PUT", "/api/limits", json=dict(limits))

    # --- what waits; a service that is away meanwhile is waited for, too

    def watch(self, job_id: int) -> Iterator[Json]:
        """A job again and again until it has ended, how it ended last of all."""
        while True:
            job = self._patiently(partial(self.job, job_id))
            yield job
            if job["state"] in TERMINAL:
                return
            time.sleep(EVERY_S)

    def follow(self, job_id: int, attempt: int = 1, offset: int = 0) -> Iterator[str]:
        """Its log as it grows, from there on to the end of the job's last attempt."""
        while True:
            job = self._patiently(partial(self.job, job_id))
            if attempt <= job["attempts"]:
                yield from self._to_the_end(job_id, attempt, offset)
                attempt, offset = attempt + 1, 0
            elif job["state"] in TERMINAL:
                return
            else:
                time.sleep(EVERY_S)

    def _to_the_end(self, job_id: int, attempt: int, offset: int) -> Iterator[str]:
        while True:
            part = self._patiently(partial(self.log, job_id, offset, attempt))
            offset = part.next
            if part.text:
                yield part.text
            if part.end:
                return
            if not part.text:
                time.sleep(EVERY_S)

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Its answer, when there is one again; said once each time that there is none."""
        until, told = time.monotonic() + PATIENCE_S, False
        while True:
            try:
                return ask()
            except RunError as error:
                if time.monotonic() > until:
                    raise
                if not told:
                    warn(f"{error}; trying again, the job goes on meanwhile")
                told = True
                time.sleep(EVERY_S)

    # --- how

    def _json(self, method: str, path: str, *, has: str = "", **words: Any) -> Json:
        return self._read(self._ask(method, path, **words), has)

    def _read(self, said: httpx.Response, has: str = "") -> Json:
        """has: what every such answer of a job service has."""
        try:
            values = dict(said.json())
        except (ValueError, TypeError):
            raise self._stranger(said) from None
        if has and has not in values:
            raise self._stranger(said)
        return values

    def _ask(self, method: str, path: str, *, key: str = "", again: bool = False, **words: Any) -> httpx.Response:
        """The answer. again: asking twice does no more than asking once; so it is with GET, PUT, and where there is a key."""
        try:
            request = self._http.build_request(method, path, headers={"Idempotency-Key": key} if key else {}, **words)
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"what is sent must be JSON: {error}") from None
        said = self._sent(request, again=again or bool(key) or method in ("GET", "PUT"))
        if said.is_success:
            return said
        raise self._refusal(said)

    def _sent(self, request: httpx.Request, *, again: bool) -> httpx.Response:
        pauses_s = list(PAUSES_S)
        while True:
            try:
                return self._http.send(request)
            except httpx.ConnectError as error:  # nothing was sent, so everything may be sent again
                failure: httpx.TransportError = error
            except httpx.TransportError as error:
                failure = error
                pauses_s = pauses_s if again else []
            if not pauses_s:
                reason = str(failure) or type(failure).__name__
                raise RunError(f"no job service answers at {self.url} ({reason}); start it there: {WAY_OUT}") from None
            time.sleep(pauses_s.pop(0))

    def _refusal(self, said: httpx.Response) -> Exception:
        try:
            line = str(said.json()["error"])
        except (ValueError, TypeError, KeyError):
            line = ""
        if said.status_code >= 500:
            line = line or f"HTTP {said.status_code}"
            return RunError(f"the job service at {self.url} failed: {line}; should that last, start it anew there: {WAY_OUT}")
        if not line:
            return self._stranger(said)
        return InputError(f"{line} (given as {TOKEN_VARIABLE} or --token-file FILE)" if said.status_code == 401 else line)

    def _stranger(self, said: httpx.Response) -> RunError:
        return RunError(f"what answers at {self.url} (HTTP {said.status_code}) is no job service; name it with --server")


def _is_here(url: str) -> bool:
    """Whether that is this machine. InputError for what is no address."""
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


def _plain(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"the token has characters that no token has; see {TOKEN_VARIABLE} and --token-file")
    return token
