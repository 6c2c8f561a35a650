"""Where a service reads for others: the storage root, and what its operator adds.

A job runs with the rights of the service, not of the person who submits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zsbir.base.errors import InputError
from zsbir.base.layout import service_dir
from zsbir.base.storage import is_remote, local_path

SERVICE_FOLDER = service_dir("root").name

SERVICE_FILES = ("keeper.lock", "jobs.db", "up.json", "search.token", "feedback")
"""Names by which a service's own folder is known, which holds its tokens and passwords, and what people drew."""


class AllowedPaths:
    """Folders and s3:// prefixes, with everything below them except the folders of services.

    private: further folders in which nothing may be read.
    """

    def __init__(self, allowed: Sequence[str], *, private: Sequence[str] = ()):
        self._private = [local_path(uri).resolve() for uri in private]
        self._local = [local_path(uri).resolve() for uri in allowed if not is_remote(uri)]
        self._remote = [uri.rstrip("/") + "/" for uri in allowed if is_remote(uri)]

    def __str__(self) -> str:
        return ", ".join([*(str(path) for path in self._local), *self._remote])

    def check(self, field: str, uri: str) -> str:
        """Return the address, absolute and with links resolved. InputError where it lies, or leads by a link, outside."""
        if any(ord(letter) < 32 or letter == "\x7f" for letter in uri):
            raise InputError(f"{field} has control characters")
        if is_remote(uri):
            parts = uri.removeprefix("s3://").rstrip("/").split("/")
            if "\\" in uri or not {"", ".", ".."}.isdisjoint(parts):
                raise InputError(f"{field}: {uri!r} is not a plain address")
            inside = any((uri.rstrip("/") + "/").startswith(prefix) for prefix in self._remote)
            shown = uri
        else:
            path = _resolved(field, uri)
            inside = any(path.is_relative_to(base) for base in self._local)
            shown = str(path)
            if inside and self._is_private(path):
                raise InputError(f"{field}: {uri!r} lies in the folder of a service, which is private")
        if not inside:
            raise InputError(
                f"{field}: {uri!r} is outside of what this service reads ({self}); its operator can add it to --places"
            )
        return shown

    def _is_private(self, path: Path) -> bool:
        if any(path.is_relative_to(base) for base in self._private):
            return True
        services = [folder for folder in (path, *path.parents) if folder.name == SERVICE_FOLDER]
        return any((folder / name).exists() for folder in services for name in SERVICE_FILES)


def _resolved(field: str, uri: str) -> Path:
    try:
        return local_path(uri).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle; text that cannot be a path
        raise InputError(f"{field}: {uri!a} leads nowhere") from None
