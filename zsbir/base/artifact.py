"""An artifact is a directory whose `manifest.json` is written last: who sees a manifest sees a whole artifact.

A `Draft` is filled in a hidden sibling directory and moved into place in one rename, so a half-written one is never visible.
Running a stage again with the same inputs finds the digest and returns at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

import zsbir
from zsbir.base.config import Config
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import local_path, sha256_file, write_atomic

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

Kind = Literal["dataset", "knowledge", "run", "checkpoint", "report", "index", "weights"]


class FileEntry(Config):
    """Size and checksum of one file of an artifact."""

    size: int
    sha256: str


class Manifest(Config):
    """What an artifact is, what made it, and the checksum of each of its files."""

    kind: Kind
    schema_version: int = SCHEMA_VERSION
    name: str
    digest: str
    config: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    counts: dict[str, int] = {}
    facts: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}
    code: dict[str, str] = {}
    created_utc: str = ""


class Artifact:
    """A finished artifact on disk, opened by its URI.

    Raises InputError when there is none, it is of another kind, or it was written by a newer version.
    """

    def __init__(self, uri: str | Path, kind: Kind | None = None):
        self.path = local_path(str(uri)).resolve()
        self.manifest = _read_manifest(self.path, kind)

    @property
    def uri(self) -> str:
        """The artifact's address, as other stages take it."""
        return str(self.path)

    @property
    def digest(self) -> str:
        """The artifact's identity: equal digests were asked for the same thing of the same inputs."""
        return self.manifest.digest

    def file(self, name: str) -> Path:
        """The path of one of its files. InputError when the manifest does not name it, it is gone, or it leads elsewhere."""
        path = self.path / name
        if name not in self.manifest.files or not path.is_file():
            raise InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}")
        if not path.resolve().is_relative_to(self.path):
            raise InputError(f"{self.uri}: its file {name!r} leads out of its folder; copy the file into it")
        return path

    def verified(self, name: str) -> Path:
        """The path of one of its files whose bytes are those that were signed. InputError when they are not."""
        path, entry = self.file(name), self.manifest.files[name]
        if path.stat().st_size != entry.size or sha256_file(path) != entry.sha256:
            raise InputError(f"{path} differs from its manifest: the file was changed or damaged; make the artifact again")
        return path

    def verify(self) -> None:
        """Compare every file with the manifest. InputError names the first that differs."""
        for name in self.manifest.files:
            self.verified(name)

    def reference(self) -> dict[str, str]:
        """What another artifact's manifest says of this one as its input."""
        return {"uri": self.uri, "digest": self.digest}

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.kind} {self.manifest.name} {self.digest[:12]} at {self.uri})"


def exists(path: str | Path) -> bool:
    """Whether a whole artifact lies at `path`."""
    return (local_path(str(path)) / MANIFEST).is_file()


def _read_manifest(path: Path, kind: Kind | None) -> Manifest:
    file = path / MANIFEST
    try:
        values = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        wanted = kind or "artifact"
        found = "the folder exists, but has no manifest.json" if path.is_dir() else "no such folder"
        raise InputError(f"no {wanted} at {str(path)!r}: {found}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    if isinstance(values, dict) and values.get("schema_version", 0) > SCHEMA_VERSION:
        raise InputError(f"{path} was written by a newer zsbir (schema {values['schema_version']}); upgrade to read it")
    manifest = Manifest.of(values if isinstance(values, dict) else {}, where=str(file))
    if kind and manifest.kind != kind:
        raise InputError(f"{path} is a {manifest.kind}, not a {kind}")
    return manifest


class Draft:
    """An artifact being written, in a hidden directory beside its final place."""

    def __init__(self, parent: Path, kind: Kind, name: str):
        self.kind, self.name, self.parent = kind, name, parent
        self.path = parent / f".writing-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def file(self, name: str) -> Path:
        """Where to write the file `name`; folders on the way are made."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(
        self,
        folder: str,
        *,
        digest: str,
        config: Config | None = None,
        inputs: Mapping[str, Any] | None = None,
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Sign and publish as `parent/folder`. Where a whole one of the same digest is already there, that one stays."""
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        sign(
            self.path,
            self.kind,
            self.name,
            files,
            digest=digest,
            config=config.model_dump(mode="json") if config else {},
            inputs=dict(inputs or {}),
            counts=dict(counts or {}),
            facts=dict(facts or {}),
        )
        final = self.parent / folder
        try:
            self.path.rename(final)
        except OSError:
            if not exists(final):
                raise
        return Artifact(final, self.kind)


def sign(folder: Path, kind: Kind, name: str, files: Sequence[Path], **values: Any) -> Artifact:
    """Write the manifest of `folder` over `files` in it: from this moment it is an artifact. `values`: fields of Manifest."""
    manifest = Manifest(
        kind=kind,
        name=name,
        files={path.relative_to(folder).as_posix(): _entry(path) for path in files},
        code=code_version(),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        **values,
    )
    write_atomic(folder / MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode())
    return Artifact(folder, kind)


def _entry(path: Path) -> FileEntry:
    return FileEntry(size=path.stat().st_size, sha256=sha256_file(path))


@contextmanager
def draft(parent: str | Path, kind: Kind, name: str) -> Iterator[Draft]:
    """A Draft that is removed again unless committed. RunError when the place cannot be written or the disk is full."""
    work = Draft(local_path(str(parent)), kind, name)
    try:
        work.path.mkdir(parents=True)
        yield work
    except (OSError, SafetensorError) as error:
        # NumPy and safetensors tell of a full disk in words of their own, without an error number.
        reason = getattr(error, "strerror", None) or f"{error} (is the disk full?)"
        raise RunError(f"cannot write the {kind} under {work.parent}: {reason}") from error
    finally:
        shutil.rmtree(work.path, ignore_errors=True)


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
