"""An artifact is a folder, on disk or in object storage, whose `manifest.json` is written last: it is seen whole or not at all.

`zsbir.base.draft` makes one. Running a stage again with the same inputs finds the artifact and returns at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zsbir.base import limits
from zsbir.base.cache import cache_name, cached
from zsbir.base.errors import DataError, InputError
from zsbir.base.files import sha256_file
from zsbir.base.folder import TooLarge
from zsbir.base.layout import WEIGHT_FILE, below_root, root_of
from zsbir.base.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    FileEntry,
    Kind,
    Manifest,
    Section,
    checked_file_name,
    read_manifest,
)
from zsbir.base.storage import Folder, folder_name, is_remote, join, open_folder, split_file
from zsbir.base.strict_json import parse_json
from zsbir.base.text import with_article

__all__ = ["MANIFEST", "SCHEMA_VERSION", "Artifact", "FileEntry", "Kind", "Manifest", "exists"]


class Artifact:
    """A finished artifact, opened by its URI.

    Raises InputError when there is none, when it is of another kind, or when a newer version wrote it.
    """

    def __init__(self, uri: str | Path, kind: Kind | None = None):
        check_address(uri, kind or "artifact")
        self.folder = open_folder(uri)
        self.uri = self.folder.uri
        self.manifest = _read_manifest(self.folder, kind)

    @property
    def digest(self) -> str:
        """The artifact's identity: equal digests mean the same configuration and the same inputs."""
        return self.manifest.digest

    @property
    def path(self) -> Path:
        """Its folder on this machine's disk. Raises InputError for an artifact in object storage."""
        path = self.folder.local()
        if path is None:
            raise InputError(f"{self.uri} is not a folder of this machine: copy it here first (python -m zsbir.artifacts copy)")
        return path

    @property
    def folder_name(self) -> str:
        """The last part of its address: of a run, the name its MLflow run has."""
        return folder_name(self.uri)

    def key(self, name: str) -> str:
        """Return the key under which a file lies in its folder. Raises InputError when the manifest does not name the file."""
        if name not in self.manifest.files:
            raise InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}")
        return checked_file_name(self.manifest.key(name))

    def address(self, name: str) -> str:
        """Return the URI of one of its files, for other tools."""
        return join(self.uri, self.key(name))

    def file(self, name: str) -> Path:
        """Return a local path of one of its files: the file itself on disk, a checked copy in the cache for object storage.

        Raises InputError when the manifest does not name the file, when it is gone, when it is a link that leads out of the folder,
        or when its bytes differ from the manifest on arrival.
        """
        path = self._checked_path(name)
        if path is None:
            return cached(cache_name(self.manifest.files[name].sha256, name), lambda file: self.download(name, file))
        return path

    def _checked_path(self, name: str) -> Path | None:
        """Return the path of one of its files on this disk, None in object storage.

        Raises InputError where there is no regular file, or a link that leads out of the folder.
        """
        key = self.key(name)
        if self.folder.leads_out(key):
            raise InputError(f"{self.uri}: its file {name!r} leads out of its folder; copy the file into it")
        path = self.folder.local(key)
        if path is not None and not path.is_file():
            raise self._gone(name)
        return path

    def _gone(self, name: str) -> InputError:
        path = self.folder.local(self.key(name))
        what = "it is gone" if path is None or not path.exists() else "it is not a regular file"
        return InputError(f"{self.uri} ({self.manifest.kind}) has no file {name!r}: {what}")

    def download(self, name: str, file: Path) -> None:
        """Copy one of its files to `file` and check it. Raises InputError when it is gone or differs from the manifest.

        No more bytes are copied than the manifest says.
        """
        tries = 2 if is_remote(self.uri) else 1  # the first copy may have been damaged on its way
        self._checked_path(name)
        for _ in range(tries):
            try:
                self.folder.download(self.key(name), file, self.manifest.files[name].size)
            except FileNotFoundError:
                raise self._gone(name) from None
            except TooLarge:
                raise self._damaged(name) from None
            if self._matches_manifest(name, file):
                return
        raise self._damaged(name)

    def verified(self, name: str) -> Path:
        """Return a local path of one of its files, compared with the manifest. Raises InputError when the bytes differ."""
        path = self.file(name)
        if not is_remote(self.uri) and not self._matches_manifest(name, path):  # copies from object storage are checked on arrival
            raise self._damaged(name)
        return path

    def read_json(self, name: str) -> Any:
        """Return the value of one of its JSON files. Raises InputError when it is damaged, or exceeds `zsbir.base.limits`."""
        path = self.verified(name)
        try:
            if path.stat().st_size > limits.JSON_BYTES:
                raise TooLarge(self.uri, name, limits.JSON_BYTES)
            value = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {join(self.uri, name)}: {error}") from None
        return Section(value) if isinstance(value, dict) else value

    def _matches_manifest(self, name: str, path: Path) -> bool:
        entry = self.manifest.files[name]
        return path.stat().st_size == entry.size and sha256_file(path) == entry.sha256

    def _damaged(self, name: str) -> DataError:
        return DataError(
            f"{join(self.uri, name)} differs from its manifest: the file was changed or damaged; make the artifact again"
        )

    def verify(self) -> None:
        """Compare every file with the manifest. Raises InputError, which names the first that differs."""
        for name in self.manifest.files:
            self.verified(name)

    def reference(self) -> dict[str, str]:
        """Return what the manifest of an artifact made from this one says about it: its URI and digest."""
        return {"uri": self.uri, "digest": self.digest}

    def input(self, role: str, kind: Kind) -> Artifact:
        """Return one of the artifacts it was made from: from this artifact's own root, as after a copy, or from where it was.

        Raises InputError when it is at neither address, or when another artifact lies there by now.
        """
        reference = self.manifest.reference(role)
        if reference is None:
            raise InputError(f"{self.uri} was made from no {role}")
        addresses = self._addresses(reference.uri)
        for uri in addresses:
            if exists(uri):
                found = Artifact(uri, kind)
                if found.digest == reference.digest:
                    return found
        changed = [uri for uri in addresses if exists(uri)]
        if changed:
            raise InputError(f"{changed[0]} is no longer the {kind} that {self.uri} was made from")
        raise InputError(f"the {kind} that {self.uri} was made from is gone: it is not at {' or '.join(addresses)}")

    def input_file(self, role: str) -> str:
        """Return the URI of the single file it was made from: in this artifact's own root, or where it was.

        Raises InputError when it is at neither address. Such files are named by their checksum, which their reader compares.
        """
        reference = self.manifest.reference(role)
        if reference is None or not WEIGHT_FILE.search(reference.uri):
            raise InputError(f"{self.uri} was made from no {role} that are named by their checksum (weights/<sha256>.safetensors)")
        for address in self._addresses(reference.uri):
            folder, name = split_file(address)
            if folder.size(name) is not None:
                return address
        raise InputError(f"the {role} that {self.uri} was made from are gone: there is no {reference.uri}")

    def _addresses(self, uri: str) -> list[str]:
        """Where an input may lie: in this artifact's own root, and where the manifest says."""
        return list(dict.fromkeys([join(root_of(self.uri), below_root(uri)), uri]))

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.kind} {self.manifest.name} {self.digest[:12]} at {self.uri})"


def check_address(uri: str | Path, what: str) -> None:
    """Raise InputError for an empty address, as `"$(python -m zsbir.train ...)"` leaves it when that command fails.

    An empty path would mean the working directory.
    """
    if isinstance(uri, str) and not uri.strip():
        raise InputError(f"no {what} given: an empty address; did the command before fail?")


def exists(uri: str | Path) -> bool:
    """Return whether a whole artifact lies at `uri`."""
    return open_folder(uri).size(MANIFEST) is not None


def is_signed(uri: str | Path) -> bool:
    """Return whether something called manifest.json lies at `uri`, even where it cannot be read."""
    return MANIFEST in open_folder(uri).names()


def _read_manifest(folder: Folder, kind: Kind | None) -> Manifest:
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        found = "the folder exists, but has no manifest.json" if folder.names() else "no such folder"
        raise InputError(f"no {kind or 'artifact'} at {folder.uri!r}: {found}") from None
    if kind and manifest.kind != kind:
        raise InputError(f"{folder.uri} is {with_article(manifest.kind)}, not {with_article(kind)}")
    return manifest
