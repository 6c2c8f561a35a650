"""An empty storage root, once on disk and once in object storage."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path):
    return str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("s3_root")
