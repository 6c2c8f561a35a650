"""Follows a registered model: when its champion or challenger changes, model and index are switched together.

The registry is asked every few seconds. The new index is opened beside the old one, and replaces it only once it is open: a version
whose index cannot be opened is not switched to, and what is served stays as it was. As long as there has been no champion, the
newest index of the root can stand in for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.search.serving.catalogue import Catalogue, Served
from services.search.serving.newest import NewestIndex, indexes_of
from zsbir.base import events
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import is_remote
from zsbir.base.text import clean
from zsbir.promotion.address import artifact_of

if TYPE_CHECKING:
    from zsbir.search_run.engine import Engine

START_S = 60.0
"""Seconds after the start in which nothing is said of a registry that does not answer: it may start as well."""

POLL_S = 5.0
"""Seconds between two questions to the registry."""

CHAMPION, CHALLENGER = "champion", "challenger"

INDEX_ALIAS = "index"
"""The alias of an index that belongs to no registered model."""

NO_CHAMPION = "there is no champion yet: searching the newest index"

Open = Callable[[str], "Engine"]


@dataclass(frozen=True)
class Followed:
    """A registered model, the aliases that are served, the first as the default, and where its indexes may be read.

    newest: whether the newest index of the root is served as long as the default has never been there.
    """

    model: str
    aliases: tuple[str, ...]
    root: str
    allowed: AllowedPaths
    newest: bool = False


class NoVersion(InputError):  # noqa: N818 - it says what is missing
    """The registered model has no version under the alias that is the default."""


class Following:
    """Keeps a catalogue as the registry says. `look` asks once; `start` asks again and again, in a thread.

    open_engine: opens the index at an address.
    """

    def __init__(self, followed: Followed, catalogue: Catalogue, open_engine: Open):
        self._followed, self._catalogue, self._open = followed, catalogue, open_engine
        self._newest = NewestIndex(followed.root, followed.allowed, open_engine)
        self.problem = ""
        """Why the registry is not followed at the moment, on one line; empty where it is."""
        self._said = ""  # the problem that the log told last
        self._began_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="registry")
        self._poll_s = POLL_S

    def start(self, poll_s: float = POLL_S) -> None:
        """Ask from now on, every `poll_s` seconds; the first time at once."""
        self._poll_s = poll_s
        self._thread.start()

    def close(self) -> None:
        """Stop asking the registry which version of the model to serve. What is served stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Ask the registry, and serve what it names. What goes wrong becomes `problem`, and is said once."""
        problems: list[str] = []
        stands_in = False
        try:
            self._serve(self._wanted(), problems)
        except NoVersion as error:
            problems.append(str(error))
            stands_in = self._stand_in(problems)
        except (InputError, RunError, OSError) as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a damaged index or registry raises, what is served stays
            problems.append(f"{type(error).__name__}: {error}")
        problem = clean("; ".join(problems))
        is_late = time.monotonic() > self._began_s + START_S
        if stands_in:  # it was said when it began
            self._said = ""
        elif problem and problem != self._said and (self._catalogue.now or is_late):
            self._said = problem
            events.warn(f"{problem}; what is served stays as it is")
        elif self._said and not problem:
            self._said = ""
            events.say("the registry is followed again")
        self.problem = problem

    def _run(self) -> None:
        while True:
            if self._may_be_there():
                self.look()
            if self._stop.wait(self._poll_s):
                return

    def _may_be_there(self) -> bool:
        """Return whether to ask at all: without an index in its root there is no champion, and MLflow takes seconds to load."""
        root = self._followed.root
        if self._catalogue.now or is_remote(root) or indexes_of(root):
            return True
        self.problem = f"there is no index below {root} yet: python -m zsbir.index makes one, python -m zsbir.promote a champion"
        return False

    def _wanted(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return the address and the tags of the version of each alias."""
        from zsbir.edge.registered_models import with_aliases

        found = with_aliases(self._followed.model, self._followed.aliases, self._followed.root)
        default = self._followed.aliases[0]
        if default not in found:
            raise NoVersion(
                f"the model {self._followed.model!r} has no {default}: python -m zsbir.promote makes one;"
                f" python -m zsbir.promote list {self._followed.model} shows what there is"
            )
        return {alias: (release.uri, release.tags) for alias, release in found.items()}

    def _stand_in(self, problems: list[str]) -> bool:
        """Serve the newest index, where it may stand in for a version that is not there; return whether it does."""
        before = self._catalogue.now
        if not self._followed.newest or any(served.model for served in before):
            return False
        try:
            engine = self._newest.look()
        except (RunError, OSError) as error:
            problems.append(str(error))
            return bool(before)
        if engine is None:
            problems.append(f"and below {self._followed.root} there is no index that can be opened")
            return False
        if not before or before[0].engine is not engine:
            self._catalogue.put([Served(INDEX_ALIAS, "", engine, NO_CHAMPION)])
            events.say(f"{NO_CHAMPION}, {engine.index.uri}; python -m zsbir.promote makes a champion")
        return True

    def _serve(self, wanted: Mapping[str, tuple[str, Mapping[str, str]]], problems: list[str]) -> None:
        """Open what is new, and put it in place of the old. An alias whose index does not open keeps what it has."""
        before = {served.alias: served for served in self._catalogue.now}
        now: dict[str, Served] = {}
        for alias, (version, tags) in wanted.items():
            try:
                now[alias] = self._opened(alias, version, tags, [*before.values(), *now.values()])
            except Exception as error:  # noqa: BLE001 - whatever a damaged index raises, the other alias can be served
                told = str(error) if isinstance(error, InputError | RunError | OSError) else f"{type(error).__name__}: {error}"
                problems.append(f"{version} cannot be served as {alias}: {told}")
                if alias in before:
                    now[alias] = before[alias]
        if next(iter(wanted)) not in now:
            return  # another one would become the default
        self._newest.forget()
        if list(now.values()) != list(before.values()):
            self._catalogue.put(list(now.values()))
            for alias, served in now.items():
                if served != before.get(alias):
                    events.say(f"{alias} is {served.model} now, with the index {served.engine.index.uri}")
            for alias in before.keys() - now.keys() - {INDEX_ALIAS}:
                events.say(f"there is no {alias} any more")

    def _opened(self, alias: str, version: str, tags: Mapping[str, str], known: list[Served]) -> Served:
        digest = tags.get("index_digest", "")
        for served in known:
            if served.digest == digest and served.model == version:
                return served if served.alias == alias else Served(alias, version, served.engine)
        index: Artifact = artifact_of(version, tags, "index", root=self._followed.root, permitted=self._permitted)
        same = next((served.engine for served in known if served.digest == index.digest), None)
        return Served(alias, version, same or self._open(index.uri))

    def _permitted(self, uri: str) -> str:
        return self._followed.allowed.check("the index", uri)
