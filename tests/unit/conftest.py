"""Storage roots on disk and in object storage, empty; and no deadline for an example, which a busy machine misses."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("no deadline", settings.default, deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def new_root(request, tmp_path, monkeypatch):
    """A function that makes empty storage roots: new_root("disk"), new_root("moto"), new_root("rgw")."""

    def make(where):
        if where == "disk":
            folder = tmp_path / f"root{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return str(folder)
        server = request.getfixturevalue(where)
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        return f"s3://{server.new_bucket()}/team/zsbir"

    return make


@pytest.fixture(params=["disk", "moto"])
def root(request, new_root):
    """An empty storage root, once on disk and once in object storage."""
    return new_root(request.param)
