"""The ledger: which rows are planned, begun by a process that lives, and done. A line of JSON for each that is done or failed."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILE = "experiments.jsonl"


class Key(NamedTuple):
    """What a row measures. final: scored on unseen classes, after training on dev classes too."""

    dataset: str
    setting: str
    seed: int
    final: bool


class Ledger:
    """The rows below a root."""

    def __init__(self, root: Path):
        self._file, self._claims = root / FILE, root / "claims"
        self._claims.mkdir(parents=True, exist_ok=True)

    def rows(self) -> dict[Key, dict[str, Any]]:
        """Return the newest line of each row."""
        return read_rows(self._file) if self._file.exists() else {}

    def write(self, key: Key, state: str, result: dict[str, Any]) -> None:
        """Add the line of a row: state done, or failed with its reason."""
        line = json.dumps({**key._asdict(), "state": state, "commit": _commit(), **result})
        with self._file.open("a") as out:
            out.write(line + "\n")

    def to_do(self, planned: Sequence[Key]) -> Iterator[Key]:
        """Yield planned rows that are neither done nor being worked on by another process, each while it is claimed."""
        for key in planned:
            with self._claimed(key) as is_mine:
                done = self.rows().get(key, {}).get("state") == "done"
                if is_mine and not done:
                    yield key

    @contextmanager
    def _claimed(self, key: Key) -> Iterator[bool]:
        """Hold a lock that ends with the process, and tell whether it could be taken."""
        name = "-".join(map(str, key)).replace("/", "_").replace(" ", "_")
        with (self._claims / name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            file.write(str(os.getpid()))
            yield True


def read_rows(file: Path) -> dict[Key, dict[str, Any]]:
    """Return the newest line of each row of a ledger."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return {Key(*(row[name] for name in Key._fields)): row for row in found}


@cache
def _commit() -> str:
    """Return the commit of the checkout that this file lies in, with "-dirty" where files differ from it."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
