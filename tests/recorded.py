"""What artifacts of each kind are known to hold, from `compat/manifests.json`, and whether one of today holds just that.

That file has two lists for each kind: what artifacts of schema version 1 have held since version 0.1.0, and what came later.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from zsbir.base.artifact import SCHEMA_VERSION, Artifact

RECORDED = json.loads(Path(__file__).with_name("compat").joinpath("manifests.json").read_text("utf-8"))[str(SCHEMA_VERSION)]
WAY_OUT = "docs/compatibility.md says what to do: raise SCHEMA_VERSION with a reader of the old one, or list it under `added`"


def contents(artifact: Artifact) -> set[str]:
    """Everything that a reader may look for: keys of the sections, files, columns of tables.

    Shards are one file, however many; the trials among a sweep's inputs are one.
    """
    manifest = artifact.manifest
    found = {f"{section}.{name}" for section in ("inputs", "counts", "facts") for name in getattr(manifest, section)}
    for name in manifest.files:
        shard = name.startswith("shards/")
        found.add("files.shards" if shard else f"files.{name}")
        if name.endswith(".parquet"):
            columns = pq.read_schema(artifact.file(name)).names
            found |= {f"{'shards' if shard else name}.{column}" for column in columns}
    return {re.sub(r"^(inputs\.trial)-\d+$", r"\1", name) for name in found}


def assert_as_recorded(artifact: Artifact) -> None:
    """Fail where an artifact holds more or less than is recorded for its kind."""
    kind, now = artifact.manifest.kind, contents(artifact)
    since, added = set(RECORDED[kind]["since_0.1.0"]), set(RECORDED[kind]["added"])
    gone, new = since - now, now - since - added
    assert not gone, f"{sorted(gone)} of each {kind} is gone, and earlier versions read it; {WAY_OUT}"
    assert not new, f"{sorted(new)} of a {kind} is new; {WAY_OUT}"
