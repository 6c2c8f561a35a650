"""What artifacts of each kind hold, as recorded: it changes with a schema version, or by a key that readers can do without.

`manifests.json` has two lists for each kind: what artifacts of schema version 1 have held since version 0.1.0, and what came later.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zsbir.base.artifact import SCHEMA_VERSION, Artifact
from zsbir.base.manifest import Manifest

RECORDED = json.loads(Path(__file__).with_name("manifests.json").read_text("utf-8"))
WAY_OUT = "docs/compatibility.md says what to do: raise SCHEMA_VERSION with a reader of the old one, or list it under `added`"


def contents(artifact: Artifact) -> set[str]:
    """Everything that a reader may look for: keys of the sections, files, columns of tables. Shards are one file, however many."""
    manifest = artifact.manifest
    found = {f"{section}.{name}" for section in ("inputs", "counts", "facts") for name in getattr(manifest, section)}
    for name in manifest.files:
        shard = name.startswith("shards/")
        found.add("files.shards" if shard else f"files.{name}")
        if name.endswith(".parquet"):
            columns = pq.read_schema(artifact.file(name)).names
            found |= {f"{'shards' if shard else name}.{column}" for column in columns}
    return found


@pytest.fixture
def made(request) -> Artifact:
    """An artifact of today, made by the real verbs."""
    kind = request.param
    uri = getattr(request.getfixturevalue("fair"), kind) if kind in ("report", "index") else request.getfixturevalue(kind)
    return Artifact(uri, kind)


@pytest.mark.parametrize("made", ["dataset", "knowledge", "run", "report", "index"], indirect=True)
def test_what_an_artifact_holds_changes_with_its_schema_version(made):
    recorded = RECORDED[str(SCHEMA_VERSION)][made.manifest.kind]
    since, added = set(recorded["since_0.1.0"]), set(recorded["added"])
    now = contents(made)
    gone, new = since - now, now - since - added
    assert not gone, f"{sorted(gone)} of each {made.manifest.kind} is gone, and earlier versions read it; {WAY_OUT}"
    assert not new, f"{sorted(new)} of a {made.manifest.kind} is new; {WAY_OUT}"


def test_the_keys_of_a_manifest_change_with_its_schema_version():
    assert sorted(Manifest.model_fields) == RECORDED[str(SCHEMA_VERSION)]["manifest"], f"a manifest's keys have changed; {WAY_OUT}"
