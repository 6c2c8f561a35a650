"""An artifact is a folder, on disk or in object storage, whose `manifest.json` is written last: who sees one sees a whole artifact.

A `Draft` publishes its files write-once and commits them by creating the manifest where none is: of two writers one wins, and what
a killed one leaves is invisible and used again where the bytes are the same. Running a stage again with the same inputs finds the
artifact and returns at once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from safetensors import SafetensorError

import zsbir
from zsbir.base.cache import cached
from zsbir.base.config import Config
from zsbir.base.errors import DataError, InputError, RunError
from zsbir.base.events import Progress, say
from zsbir.base.files import sha256_file
from zsbir.base.layout import below_root, root_of
from zsbir.base.storage import Folder, checked_key, folder_name, is_remote, join, open_folder, split_file

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Kind = Literal["dataset", "knowledge", "run", "checkpoint", "report", "index", "weights", "sweep", "export"]


class FileEntry(Config):
    """Size and checksum of one file of an artifact."""

    size: int
    sha256: str


class Manifest(Config):
    """What an artifact is, what made it, and the checksum of each of its files.

    stored_as: the key of a file that does not lie under its own name. written_by: tells one writer from another.
    """

    kind: Kind
    schema_version: int = SCHEMA_VERSION
    name: str
    digest: str
    config: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    counts: dict[str, int] = {}
    facts: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}
    stored_as: dict[str, str] = {}
    code: dict[str, str] = {}
    created_utc: str = ""
    written_by: str = ""


class Artifact:
    """A finished artifact, opened by its URI.

    Raises InputError when there is none, it is of another kind, or it was written by a newer version.
    """

    def __init__(self, uri: str | Path, kind: Kind | None = None):
        self.folder = open_folder(uri)
        self.uri = self.folder.uri
        self.manifest = _read_manifest(self.folder, kind)

    @property
    def digest(self) -> str:
        """The artifact's identity: equal digests were asked for the same thing of the same inputs."""
        return self.manifest.digest

    @property
    def path(self) -> Path:
        """Its folder on this machine's disk. InputError for one in object storage."""
        path = self.folder.local()
        if path is None:
            raise InputError(f"{self.uri} is no folder of this machine: copy it here first (python -m zsbir.artifacts copy)")
        return path

    @property
    def folder_name(self) -> str:
        """The last part of its address: of a run, the name its MLflow run has."""
        return folder_name(self.uri)

    def key(self, name: str) -> str:
        """Under which key of its folder a file lies. InputError when the manifest does not name it."""
        if name not in self.manifest.files:
            raise InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}")
        return checked_key(self.manifest.stored_as.get(name, name))

    def address(self, name: str) -> str:
        """The URI of one of its files, for other tools."""
        return join(self.uri, self.key(name))

    def file(self, name: str) -> Path:
        """A local path of one of its files: itself on disk, a checked copy in the cache for object storage.

        InputError when the manifest does not name it, it is gone, it leads elsewhere, or arrives other than it was signed.
        """
        path = self.folder.local(self.key(name))
        if path is None:
            kept = f"{self.manifest.files[name].sha256}{PurePosixPath(name).suffix}"
            return cached(kept, lambda file: self.download(name, file))
        if not path.is_file():
            raise InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}: it is gone")
        if not path.resolve().is_relative_to(self.path):
            raise InputError(f"{self.uri}: its file {name!r} leads out of its folder; copy the file into it")
        return path

    def download(self, name: str, file: Path) -> None:
        """Copy one of its files to `file` and check it. InputError when it is gone or not what was signed."""
        tries = 2 if is_remote(self.uri) else 1  # it may have been damaged on its way
        for _ in range(tries):
            try:
                self.folder.download(self.key(name), file)
            except FileNotFoundError:
                raise InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}: it is gone") from None
            if self._is_signed(name, file):
                return
        raise self._damaged(name)

    def verified(self, name: str) -> Path:
        """A local path of one of its files whose bytes are those that were signed. InputError when they are not."""
        path = self.file(name)
        if not is_remote(self.uri) and not self._is_signed(name, path):  # what came from object storage was checked on its way
            raise self._damaged(name)
        return path

    def _is_signed(self, name: str, path: Path) -> bool:
        entry = self.manifest.files[name]
        return path.stat().st_size == entry.size and sha256_file(path) == entry.sha256

    def _damaged(self, name: str) -> DataError:
        return DataError(
            f"{join(self.uri, name)} differs from its manifest: the file was changed or damaged; make the artifact again"
        )

    def verify(self) -> None:
        """Compare every file with the manifest. InputError names the first that differs."""
        for name in self.manifest.files:
            self.verified(name)

    def reference(self) -> dict[str, str]:
        """What another artifact's manifest says of this one as its input."""
        return {"uri": self.uri, "digest": self.digest}

    def input(self, role: str, kind: Kind) -> Artifact:
        """One of the artifacts it was made from: at its place in this one's own root (it may have been copied), or where it was.

        InputError when it is in neither place, or another one lies there by now.
        """
        reference = self.manifest.inputs.get(role)
        if reference is None:
            raise InputError(f"{self.uri} was made from no {role}")
        places = list(dict.fromkeys([join(root_of(self.uri), below_root(reference["uri"])), reference["uri"]]))
        for folder in places:
            if exists(folder):
                found = Artifact(folder, kind)
                if found.digest == reference["digest"]:
                    return found
        changed = [folder for folder in places if exists(folder)]
        if changed:
            raise InputError(f"{changed[0]} is no longer the {kind} that {self.uri} was made from")
        raise InputError(f"the {kind} that {self.uri} was made from is gone: it is not at {' or '.join(places)}")

    def input_file(self, role: str) -> str:
        """The URI of the single file it was made from: at its place in this one's own root, or where it was.

        InputError when it is in neither place. Such files are named by their checksum, which their reader compares.
        """
        uri = str(self.manifest.inputs[role]["uri"])
        for folder in dict.fromkeys([join(root_of(self.uri), below_root(uri)), uri]):
            parent, name = split_file(folder)
            if parent.size(name) is not None:
                return folder
        raise InputError(f"the {role} that {self.uri} was made from are gone: there is no {uri}")

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.kind} {self.manifest.name} {self.digest[:12]} at {self.uri})"


def exists(uri: str | Path) -> bool:
    """Whether a whole artifact lies at `uri`."""
    return open_folder(uri).size(MANIFEST) is not None


def _read_manifest(folder: Folder, kind: Kind | None) -> Manifest:
    where = join(folder.uri, MANIFEST)
    try:
        values = json.loads(folder.read(MANIFEST))
    except FileNotFoundError:
        found = "the folder exists, but has no manifest.json" if folder.names() else "no such folder"
        raise InputError(f"no {kind or 'artifact'} at {folder.uri!r}: {found}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {where}: {error}") from None
    if isinstance(values, dict) and values.get("schema_version", 0) > SCHEMA_VERSION:
        raise InputError(f"{folder.uri} was written by a newer zsbir (schema {values['schema_version']}); upgrade to read it")
    manifest = Manifest.of(values if isinstance(values, dict) else {}, where=where)
    if kind and manifest.kind != kind:
        raise InputError(f"{folder.uri} is a {manifest.kind}, not a {kind}")
    return manifest


class Draft:
    """An artifact being written: files are made in `path`, a local directory, and published one by one or at the end."""

    def __init__(self, folder: Folder, path: Path, kind: Kind, name: str, *, quiet: bool = False):
        self.kind, self.name, self.folder, self.path, self.quiet = kind, name, folder, path, quiet
        self.written_by = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._entries: dict[str, FileEntry] = {}
        self._keys: dict[str, str] = {}

    def file(self, name: str) -> Path:
        """Where to write the file `name`; folders on the way are made."""
        path = self.path / checked_key(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str) -> FileEntry:
        """The file `name` is finished: put it where the artifact will be. Its local path is no longer valid. Safe in threads."""
        path = self.path / name
        entry = FileEntry(size=path.stat().st_size, sha256=sha256_file(path))
        key = self.folder.publish(name, path, entry.sha256)
        self.adopt(name, key, entry)
        return entry

    def adopt(self, name: str, key: str, entry: FileEntry) -> None:
        """Name a file that lies in the artifact's place already: another process published it."""
        self._entries[name], self._keys[name] = entry, key

    def key(self, name: str) -> str:
        """The key that a published file got."""
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
        """Publish what is not yet, and create the manifest: from this moment it is an artifact.

        Where another writer was first with the same digest, that one stays and is returned. RunError when it is another thing.
        """
        self._publish_rest()
        if not self._all_there():
            return self._second(digest)
        manifest = Manifest(
            kind=self.kind,
            name=self.name,
            digest=digest,
            config=config.model_dump(mode="json") if config else {},
            inputs=dict(inputs or {}),
            counts=dict(counts or {}),
            facts=dict(facts or {}),
            files=dict(sorted(self._entries.items())),
            stored_as={name: key for name, key in sorted(self._keys.items()) if name != key},
            code=code_version(),
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            written_by=self.written_by,
        )
        if not self.folder.create(MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode()):
            return self._second(digest)
        return Artifact(self.folder.uri, self.kind)

    def _publish_rest(self) -> None:
        names = [path.relative_to(self.path).as_posix() for path in sorted(self.path.rglob("*")) if path.is_file()]
        total_mb = sum((self.path / name).stat().st_size for name in names) // 10**6
        quiet = self.quiet or total_mb < TOLD_FROM_MB or not is_remote(self.folder.uri)
        with ThreadPoolExecutor(UPLOADS) as pool, Progress("upload", total=total_mb, unit="MB", quiet=quiet) as progress:
            for entry in pool.map(self.publish, names):
                progress.advance(entry.size // 10**6)

    def _all_there(self) -> bool:
        """Whether all files still are. Not where another writer has won, and a third one took away what it had in common with this.

        RunError where one vanished that was found there already: somebody's debris, cleared away since.
        """
        there = {entry.key for entry in self.folder.walk()}
        name = next((name for name, key in self._keys.items() if key not in there), None)
        if name is not None and self.folder.size(MANIFEST) is None:
            key = self._keys[name]
            raise RunError(f"{join(self.folder.uri, key)} vanished while {name!r} was counted on; run the same command again")
        return name is None

    def _second(self, digest: str) -> Artifact:
        """Another writer's manifest is there. What only this one published is taken away again."""
        winner = Artifact(self.folder.uri)
        named = {winner.key(name) for name in winner.manifest.files}
        self.folder.delete(key for key in self._keys.values() if key not in named)
        if winner.digest != digest or winner.manifest.kind != self.kind:
            raise RunError(f"another writer has put a different {winner.manifest.kind} at {winner.uri} meanwhile; remove it first")
        say(f"another process finished {winner.uri} first ({winner.manifest.written_by}); its result is taken")
        return winner


UPLOADS = 4
"""Files that go up at the same time."""

TOLD_FROM_MB = 50
"""Uploads above this show progress."""


@contextmanager
def draft(uri: str | Path, kind: Kind, name: str, *, quiet: bool = False) -> Iterator[Draft]:
    """A Draft of the artifact that will be at `uri`; `quiet`: large uploads show no progress.

    RunError when the place cannot be written or the disk is full.
    """
    folder = open_folder(uri)
    try:
        with folder.workspace() as path:
            yield Draft(folder, path, kind, name, quiet=quiet)
    except (OSError, SafetensorError) as error:
        # NumPy and safetensors tell of a full disk in words of their own, without an error number.
        reason = getattr(error, "strerror", None) or f"{error} (is the disk full?)"
        raise RunError(f"cannot write the {kind} at {folder.uri}: {reason}") from error


def remove(uri: str | Path) -> None:
    """Take an artifact away, its manifest first: it is gone at once, or not at all."""
    folder = open_folder(uri)
    folder.delete([MANIFEST])
    folder.clear()


@cache
def code_version() -> dict[str, str]:
    """Version of this package, and git commit where it runs from a checkout."""
    version = {"zsbir": zsbir.__version__}
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # Only a checkout of this very project counts: an installed package may lie inside somebody else's repository.
        if Path(git("rev-parse", "--show-toplevel")) == here.parent.parent:
            version["commit"] = git("rev-parse", "HEAD")
            version["dirty"] = "yes" if git("status", "--porcelain", "--untracked-files=no") else "no"
    except (OSError, subprocess.SubprocessError):
        pass
    return version
