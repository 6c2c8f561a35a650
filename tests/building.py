"""Small artifacts for tests, made with `draft` as stages make them, and put where stages put them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from zsbir.base import layout
from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.draft import draft
from zsbir.base.storage import join, open_folder

ADDRESS = {
    "dataset": layout.dataset_uri,
    "knowledge": layout.knowledge_uri,
    "run": layout.run_uri,
    "report": lambda root, name, digest: layout.report_uri(root, digest),
    "index": layout.index_uri,
    "pretrained": lambda root, name, digest: layout.pretrained_uri(root, digest),
    "sweep": layout.sweep_uri,
    "export": lambda root, name, digest: layout.export_uri(root, digest),
}
"""Where stages put an artifact of a kind, by root, name and digest."""


def put(root, kind, name="toy", *, inputs=None, files=None, where="", digest="", **more) -> Artifact:
    """Make an artifact, with two small files unless others are given. inputs: artifacts, URIs of weight files, or plain mappings.

    where: its path below the root, else where stages put artifacts of that kind.
    """
    digest = digest or digest_of([kind, name, where, sorted(files or ())])
    uri = join(root, *where.split("/")) if where else ADDRESS[kind](root, name, digest)
    with draft(uri, "weights" if kind == "pretrained" else kind, name) as work:
        for file, data in (files or {"one.bin": b"one", "sub/two.bin": digest.encode()}).items():
            work.file(file).write_bytes(data)
        return work.commit(digest=digest, inputs={role: reference(value) for role, value in (inputs or {}).items()}, **more)


def reference(value):
    if isinstance(value, Artifact):
        return value.reference()
    if isinstance(value, str):
        return {"uri": value, "digest": value.rpartition("/")[2].removesuffix(".safetensors")}
    return value


def put_weights(root, data=b"weights") -> str:
    """Make a weight file, named by its checksum."""
    folder, name = open_folder(join(root, "weights")), f"{hashlib.sha256(data).hexdigest()}.safetensors"
    folder.create(name, data)
    return join(folder.uri, name)


def put_checkpoint(root, run: str, name="step-000001", **more) -> Artifact:
    """Make a checkpoint of the run in the folder of that name."""
    return put(root, "checkpoint", name, where=f"runs/{run}/checkpoints/{name}", **more)


@dataclass
class Line:
    """One artifact of each stage."""

    dataset: Artifact
    weights: str
    knowledge: Artifact
    run: Artifact
    report: Artifact
    index: Artifact


def put_line(root, name="toy") -> Line:
    """Make a data set and weights, knowledge, a run with a checkpoint, its report and its index."""
    dataset = put(
        root, "dataset", name, counts={"photos": 1160, "sketches": 20, "classes": 29}, facts={"source_fingerprint": "f" * 64}
    )
    weights = put_weights(root, name.encode())
    knowledge = put(root, "knowledge", name, inputs={"dataset": dataset, "weights": weights})
    run = put(root, "run", name, inputs={"dataset": dataset, "weights": weights, "knowledge": knowledge})
    put_checkpoint(root, run.folder_name)
    report = put(root, "report", name, inputs={"run": run, "dataset": dataset})
    index = put(root, "index", name, inputs={"run": run, "gallery": dataset})
    return Line(dataset, weights, knowledge, run, report, index)


def make_old(folder: str | Path, hours: float = 48.0) -> None:
    """Set the times of a file, or of everything below a folder, to so many hours ago."""
    then_s = time.time() - 3600 * hours
    for directory, _, names in os.walk(folder):
        for path in (Path(directory), *(Path(directory, name) for name in names)):
            os.utime(path, (then_s, then_s), follow_symlinks=False)
    if Path(folder).is_file():
        os.utime(folder, (then_s, then_s))


def files_below(uri: str) -> dict[str, bytes]:
    """Return the bytes of every file of a folder, by key."""
    folder = open_folder(uri)
    return {entry.key: folder.read(entry.key) for entry in folder.walk()}


@contextmanager
def session_root(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A storage root for a session. Its fixtures run before `own_storage`, so the cache is set here, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield tmp_path_factory.mktemp(name) / "root"
