"""Python as it is in an image: with this folder on its path, nothing can be imported but the packages of a lock file.

ONLY_LOCKED names the lock file.
"""

import importlib.metadata
import os
import re
import sys
from pathlib import Path

OWN = {"zsbir"}
NOT_OF_IMAGES = {"coverage"}
"""What measures the tests themselves."""


def normal(name: str) -> str:
    """A package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class NotLocked:
    """An import finder that refuses what belongs to a package that is not locked."""

    def __init__(self, lock: Path):
        named = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text("utf-8"), re.MULTILINE)
        allowed = {normal(name) for name in named} | OWN | NOT_OF_IMAGES
        owners = importlib.metadata.packages_distributions()
        self._refused = {name for name, owned_by in owners.items() if not allowed.intersection(map(normal, owned_by))}

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse a module, or leave it to the other finders."""
        if name.partition(".")[0] in self._refused:
            raise ModuleNotFoundError(f"{name} belongs to no package of the lock", name=name)


if lock := os.environ.get("ONLY_LOCKED"):
    sys.meta_path.insert(0, NotLocked(Path(lock)))  # type: ignore[arg-type]
