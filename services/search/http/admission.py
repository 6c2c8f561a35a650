"""How many searches may be under way: decided before a request's body is read, so that no load can fill the memory."""

# Without `from __future__ import annotations`: FastAPI reads annotations of routes of this class.
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request

from services.common.auth import User
from services.common.errors import Busy, TooMany
from services.common.limits import LimitedRequest
from services.common.routes import GuardedRoute
from zsbir.base.cores import usable_cores

PLACES = 64
"""Searches that may be under way, those included whose body still arrives."""

PLACES_OF_ONE = 48
"""Searches of one user that may be under way: the others always find some room."""

SEARCH_S = 15.0
"""Seconds in which a search must be answered, from the first byte of its body on."""

Made = TypeVar("Made")
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Admission:
    """The places of one application, and the threads that decode and draw. Used from its event loop alone."""

    def __init__(self, places: int = PLACES, of_one: int = PLACES_OF_ONE, search_s: float = SEARCH_S):
        self._places, self._of_one, self._search_s = places, of_one, search_s
        self._taken: Counter[str] = Counter()
        self._threads: anyio.CapacityLimiter | None = None

    @property
    def under_way(self) -> int:
        """How many searches are under way."""
        return self._taken.total()

    @asynccontextmanager
    async def place(self, user: User) -> AsyncIterator[None]:
        """Hold a place. TooMany where this user has too many already; Busy where there is none left, or it takes too long."""
        if self._taken.total() >= self._places:
            raise Busy("more searches are under way than this service can answer in time; try again")
        if self._taken[user.name] >= self._of_one:
            raise TooMany(f"{user.name!r} has {self._of_one} searches under way, no more are answered at a time; try again")
        self._taken[user.name] += 1
        try:
            async with asyncio.timeout(self._search_s):
                yield
        except TimeoutError:
            raise Busy(f"the search was not answered within {self._search_s:g} s; try again", retry_after_s=2) from None
        finally:
            self._taken[user.name] -= 1
            self._taken += Counter()  # forgets users without a search

    async def compute(self, work: Callable[[], Made]) -> Made:
        """Do something in a thread; as many at a time as there are cores. A decoded image takes up to a hundred megabytes."""
        self._threads = self._threads or anyio.CapacityLimiter(usable_cores())
        return await anyio.to_thread.run_sync(work, limiter=self._threads)


class ParsedRequest(LimitedRequest):
    """A request whose JSON is checked in a thread: a megabyte of numbers would hold up all others."""

    async def json(self) -> Any:
        """Return the body as a JSON value within the limits."""
        await self.body()
        admission: Admission = self.app.state.search.admission
        return await admission.compute(self._parsed)

    def _parsed(self) -> Any:
        from services.common.limits import parse_json

        return parse_json(self._body)


class ImageRequest(LimitedRequest):
    """A request whose body is an image file."""

    max_body = 10 << 20
    media = ("image/*", "application/octet-stream")
    what = "an image"


class BatchRequest(ParsedRequest):
    """A request with many searches in it."""

    max_body = 4 << 20


def search(request_class: type[LimitedRequest] = ParsedRequest) -> Callable[[Handler], Handler]:
    """Mark a route's function as a search, which needs a place, and say how its body is read."""

    def mark(handler: Handler) -> Handler:
        handler.request_class = request_class  # type: ignore[attr-defined]
        return handler

    return mark


class SearchRoute(GuardedRoute):
    """A guarded route; where it is marked as a search, it needs a place once its user is known."""

    def admitted(self, request: Request) -> AbstractAsyncContextManager[None]:
        """Return the place of a search."""
        if not hasattr(self.endpoint, "request_class"):
            return nullcontext()
        admission: Admission = request.app.state.search.admission
        return admission.place(request.state.user)

    def limited(self, request: Request) -> LimitedRequest:
        """Return the request with the limits of its route."""
        kind: type[LimitedRequest] = getattr(self.endpoint, "request_class", LimitedRequest)
        return kind(request.scope, request.receive)
