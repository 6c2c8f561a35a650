"""An artifact in the making: its files are published write-once, and it is committed by creating the manifest where there is none.

Of two writers one wins. What a killed writer leaves is invisible to readers, and the next writer uses it again where the bytes are
the same.
"""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

import zsbir
from zsbir.base.artifact import Artifact
from zsbir.base.code import package_sha256
from zsbir.base.config import Config
from zsbir.base.errors import DiskFull, RunError
from zsbir.base.events import Progress, say
from zsbir.base.files import is_full, sha256_file, write_failure
from zsbir.base.manifest import MANIFEST, FileEntry, Kind, checked_file_name, manifest_of
from zsbir.base.storage import Folder, is_remote, join, open_folder

UPLOADS = 4
"""Files that go up at the same time."""

SHOWN_FROM_MB = 50
"""Uploads of this size and more show progress."""


class Draft:
    """An artifact being written: files are made in `path`, a local directory, and published one by one or all at the end."""

    def __init__(self, folder: Folder, path: Path, kind: Kind, name: str, *, quiet: bool = False):
        self.kind, self.name, self.folder, self.path, self.quiet = kind, name, folder, path, quiet
        self.written_by = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._entries: dict[str, FileEntry] = {}
        self._keys: dict[str, str] = {}

    def file(self, name: str) -> Path:
        """Return the path at which to write the file `name`; its parent folders are made."""
        path = self.path / checked_file_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str) -> FileEntry:
        """Put the finished file `name` where the artifact will be. Its local path is no longer valid afterwards. Thread-safe."""
        path = self.path / name
        entry = FileEntry(size=path.stat().st_size, sha256=sha256_file(path))
        key = self.folder.publish(name, path, entry.sha256)
        self.adopt(name, key, entry)
        return entry

    def adopt(self, name: str, key: str, entry: FileEntry) -> None:
        """Include a file that another process has already published where the artifact will be."""
        self._entries[checked_file_name(name)], self._keys[name] = entry, checked_file_name(key)

    def key(self, name: str) -> str:
        """Return the key that a published file got."""
        return self._keys[name]

    def commit(
        self,
        *,
        digest: str,
        config: Config | None = None,
        inputs: Mapping[str, Any] | None = None,
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Publish the files that are not published yet, and create the manifest: from this moment on it is an artifact.

        Where the configuration names something of another package, the manifest has package and version as `facts.packages`.
        Where another writer committed the same digest first, that artifact stays and is returned. Raises RunError when it is
        another kind or another digest.
        """
        self._publish_rest()
        if not self._is_complete():
            return self._yield_to_winner(digest)
        values = {
            "kind": self.kind,
            "name": self.name,
            "digest": digest,
            "config": config.model_dump(mode="json") if config else {},
            "inputs": dict(inputs or {}),
            "counts": dict(counts or {}),
            "facts": {**_packages_of(config), **(facts or {})},
            "files": dict(sorted(self._entries.items())),
            "stored_as": {name: key for name, key in sorted(self._keys.items()) if name != key},
            "code": code_version(),
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "written_by": self.written_by,
        }
        manifest = manifest_of(values, join(self.folder.uri, MANIFEST))
        if not self.folder.create(MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode()):
            return self._yield_to_winner(digest)
        return Artifact(self.folder.uri, self.kind)

    def _publish_rest(self) -> None:
        names = [path.relative_to(self.path).as_posix() for path in sorted(self.path.rglob("*")) if path.is_file()]
        total_mb = sum((self.path / name).stat().st_size for name in names) // 10**6
        quiet = self.quiet or total_mb < SHOWN_FROM_MB or not is_remote(self.folder.uri)
        with ThreadPoolExecutor(UPLOADS) as pool, Progress("upload", total=total_mb, unit="MB", quiet=quiet) as progress:
            for entry in pool.map(self.publish, names):
                progress.advance(entry.size // 10**6)

    def _is_complete(self) -> bool:
        """Return whether every published file is still there.

        It is not where another writer has won, and a third one removed files that it shared with this one. Raises RunError when a
        file that an earlier writer had left was cleared away meanwhile.
        """
        there = {entry.key for entry in self.folder.walk()}
        name = next((name for name, key in self._keys.items() if key not in there), None)
        if name is not None and self.folder.size(MANIFEST) is None:
            key = self._keys[name]
            raise RunError(f"{join(self.folder.uri, key)} vanished while {name!r} was counted on; run the same command again")
        return name is None

    def _yield_to_winner(self, digest: str) -> Artifact:
        """Return the artifact that another writer committed first; remove the files that only this writer published."""
        winner = Artifact(self.folder.uri)
        named = {winner.key(name) for name in winner.manifest.files}
        self.folder.delete(key for key in self._keys.values() if key not in named)
        if winner.digest != digest or winner.manifest.kind != self.kind:
            raise RunError(f"another writer has put a different {winner.manifest.kind} at {winner.uri} meanwhile; remove it first")
        say(f"another process finished {winner.uri} first ({winner.manifest.written_by}); its result is taken")
        return winner


@contextmanager
def draft(uri: str | Path, kind: Kind, name: str, *, quiet: bool = False) -> Iterator[Draft]:
    """Open a Draft of the artifact that will be at `uri`. quiet: large uploads show no progress.

    Raises RunError when the folder cannot be written, DiskFull when there is no room. Other errors of what makes the files pass
    unchanged.
    """
    folder = open_folder(uri)
    with ExitStack() as stack:
        try:
            path = stack.enter_context(folder.workspace())
        except OSError as error:
            raise _write_error(error)(f"cannot write the {kind} at {folder.uri}: {error.strerror or error}") from error
        try:
            yield Draft(folder, path, kind, name, quiet=quiet)
        except (OSError, SafetensorError) as error:
            reason = write_failure(error, path, folder.uri)
            if not reason:
                raise
            raise _write_error(error)(f"cannot write the {kind} at {folder.uri}: {reason}") from error


def _write_error(error: Exception) -> type[RunError]:
    return DiskFull if is_full(error) else RunError


def remove(uri: str | Path) -> None:
    """Remove an artifact, its manifest first, so that no reader sees half of it."""
    folder = open_folder(uri)
    folder.delete([MANIFEST])
    folder.clear()


@cache
def code_version() -> dict[str, str]:
    """Return the version of this package, the checksum of its files, and the git commit where it runs from a checkout.

    Code that was sent with a job has no commit; its checksum tells what it was.
    """
    version = {"zsbir": zsbir.__version__, "package_sha256": package_sha256()}
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # Only a checkout of this project counts: an installed package may lie inside another repository.
        if Path(git("rev-parse", "--show-toplevel")) == here.parent.parent:
            version["commit"] = git("rev-parse", "HEAD")
            version["dirty"] = "yes" if git("status", "--porcelain", "--untracked-files=no") else "no"
    except (OSError, subprocess.SubprocessError):
        pass
    return version


def _packages_of(config: Config | None) -> dict[str, Any]:
    """Return the packages that a configuration names something of, with their versions, as a fact; nothing where it names none."""
    identity = config.identity() if config else {}
    return {"packages": identity["packages"]} if "packages" in identity else {}
