"""What an artifact holds changes with a schema version, or by a key that readers can do without.

Sweeps and exports are compared where they are made: tests/system/test_sweep.py and test_export.py.
"""

from __future__ import annotations

import pytest
from recorded import RECORDED, WAY_OUT, assert_as_recorded

from zsbir.base.artifact import Artifact
from zsbir.base.manifest import Manifest


@pytest.fixture
def made(request) -> Artifact:
    """An artifact of today, made by the real verbs."""
    kind = request.param
    if kind == "checkpoint":
        (last,) = (Artifact(request.getfixturevalue("run")).path / "checkpoints").iterdir()
        return Artifact(str(last), kind)
    uri = getattr(request.getfixturevalue("fair"), kind) if kind in ("report", "index") else request.getfixturevalue(kind)
    return Artifact(uri, kind)


@pytest.mark.parametrize("made", ["dataset", "knowledge", "run", "checkpoint", "report", "index"], indirect=True)
def test_what_an_artifact_holds_changes_with_its_schema_version(made):
    assert_as_recorded(made)


def test_the_keys_of_a_manifest_change_with_its_schema_version():
    assert sorted(Manifest.model_fields) == RECORDED["manifest"], f"a manifest's keys have changed; {WAY_OUT}"
