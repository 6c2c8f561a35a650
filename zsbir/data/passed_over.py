"""What a command passed over in a folder of images: counted and named by reason, printed and recorded alike by every command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from zsbir.base.events import say, say_lines, warn
from zsbir.base.text import clean
from zsbir.data.names import HARMLESS

EXAMPLES = 3
"""Paths that stand for all of a reason where not every one is shown."""

_REASONS_SHOWN = 20


class PassedOver:
    """Paths of files and folders (these end in "/") that no command uses, by the reason why.

    Paths are kept as text that any table can hold: what is no printable character, or no UTF-8, is an escape.
    """

    def __init__(self, found: Iterable[tuple[str, str]] = ()):
        self._paths: dict[str, list[str]] = {}
        for path, reason in found:
            self.add(path, reason)

    def __len__(self) -> int:
        return sum(map(len, self._paths.values()))

    def add(self, path: str, reason: str) -> None:
        """Note a file or folder; `reason` reads well after "passed over: "."""
        self._paths.setdefault(clean(reason), []).append(clean(path))

    def add_all(self, paths: Iterable[str], reason: str) -> None:
        """Note several for one reason."""
        for path in paths:
            self.add(path, reason)

    def rows(self) -> Iterator[dict[str, str]]:
        """Yield path and reason of everything, the most frequent reason first."""
        for reason, paths in self._by_count():
            yield from ({"path": path, "reason": reason} for path in sorted(paths))

    def facts(self) -> list[dict[str, Any]]:
        """Return count and a few paths of each reason, as manifests record them."""
        return [{"reason": reason, "count": len(paths), "examples": sorted(paths)[:EXAMPLES]} for reason, paths in self._by_count()]

    def below(self, folder: str) -> str:
        """Return in a few words what was passed over in a folder and below; "" where nothing was."""
        counts = {reason: sum(path.startswith(f"{clean(folder)}/") for path in paths) for reason, paths in self._by_count()}
        return "; ".join(f"{count} passed over: {reason}" for reason, count in counts.items() if count)

    def show(self, what: str) -> None:
        """Print a table on standard error, as a warning if images may be among it. what: "passed over in /data"."""
        facts = self.facts()
        if not facts:
            return
        (say if HARMLESS.issuperset(self._paths) else warn)(f"{what}: {len(self)}, by reason")
        say_lines(format_facts(facts))

    def _by_count(self) -> list[tuple[str, list[str]]]:
        return sorted(self._paths.items(), key=lambda item: (-len(item[1]), item[0]))


def passed_over_text(facts: list[dict[str, Any]]) -> str:
    """Return `PassedOver.facts` in one line: how many for which reason."""
    shown = [f"{fact['count']:,} {fact['reason']}" for fact in facts[:_REASONS_SHOWN]]
    return "; ".join([*shown, "..."] if len(facts) > len(shown) else shown)


def format_facts(facts: list[dict[str, Any]]) -> str:
    """Return `PassedOver.facts`, as a manifest records them, as lines of a table: count, reason, and paths as examples."""
    shown = facts[:_REASONS_SHOWN]
    width = max((len(fact["reason"]) for fact in shown), default=0)
    lines = []
    for fact in shown:
        more = ", ..." if fact["count"] > len(fact["examples"]) else ""
        lines.append(f"{fact['count']:>8,}  {fact['reason']:{min(width, 60)}}  {', '.join(fact['examples'])}{more}")
    if len(facts) > len(shown):
        lines.append(f"{sum(fact['count'] for fact in facts[_REASONS_SHOWN:]):>8,}  for {len(facts) - len(shown)} other reasons")
    return "\n".join(lines)
