"""The service follows a registered model: model and index are switched together, and only once the new index is open."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from servers.search_service import Registry

from services.search.serving.catalogue import Catalogue, Served
from services.search.serving.following import Followed, Following
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.search_run.engine import Engine


@pytest.fixture
def registry(tmp_path: Path, mlflow_database_file: Path) -> Registry:
    return Registry(tmp_path, mlflow_database_file)


@pytest.fixture
def following(registry: Registry, index_root: Path, opened: Served, other_opened: Served) -> Following:
    """One that opens indexes from the root of the shared ones; these are open already."""
    engines = {served.engine.index.uri: served.engine for served in (opened, other_opened)}
    allowed = AllowedPaths([str(index_root), str(registry.root)])
    followed = Followed("zsbir", ("champion", "challenger"), str(registry.root), allowed)
    return Following(followed, Catalogue(), lambda uri: engines.get(uri) or Engine(uri))


def now(following: Following) -> dict[str, tuple[str, str]]:
    return {served.alias: (served.model, served.digest) for served in following._catalogue.now}


def test_the_champion_is_followed_forth_and_back(following: Following, registry: Registry, index: Artifact, other_index: Artifact):
    following.look()
    assert "has no champion" in following.problem
    first, second = registry.add(index), registry.add(other_index)
    for version, made in ((first, index), (second, other_index), (first, index)):
        registry.set("champion", version)
        following.look()
        assert following.problem == ""
        assert now(following) == {"champion": (f"models:/zsbir/{version}", made.digest)}
    assert following._catalogue.of_digest(other_index.digest).model == f"models:/zsbir/{second}"


def test_a_challenger_is_served_beside_as_long_as_there_is_one(
    following: Following, registry: Registry, index: Artifact, other_index: Artifact
):
    registry.set("champion", registry.add(index))
    registry.set("challenger", registry.add(other_index))
    following.look()
    assert list(now(following)) == ["champion", "challenger"]
    registry.unset("challenger")
    following.look()
    assert list(now(following)) == ["champion"]


def test_a_version_whose_index_does_not_open_is_not_switched_to(
    following: Following, registry: Registry, index: Artifact, other_index: Artifact, tmp_path: Path, capsys
):
    broken = tmp_path / "indexes" / "toy-1" / "broken"
    shutil.copytree(other_index.uri, broken)
    (broken / "vectors.npy").write_bytes(b"nothing")
    registry.set("champion", registry.add(index))
    following.look()
    before = now(following)
    elsewhere = tmp_path.parent / "elsewhere" / "indexes" / "toy-1" / "x"
    shutil.copytree(other_index.uri, elsewhere, dirs_exist_ok=True)
    for tags, told in (
        ({"index": str(broken)}, "vectors.npy"),
        ({"index": str(elsewhere)}, "outside of what this service reads"),
        ({"index": str(tmp_path / "indexes" / "toy-1" / "gone")}, "is gone"),
        ({"index_digest": "0" * 64}, "another index"),
        ({"index": "../../../etc"}, "is not the address of an index"),
    ):
        registry.set("champion", registry.add(other_index, **tags))
        capsys.readouterr()
        for _ in range(2):
            following.look()
        assert now(following) == before
        assert told in following.problem
        assert capsys.readouterr().err.count("cannot be served as champion") == 1, "said once, not at each look"
    registry.set("champion", registry.add(other_index))
    following.look()
    assert (now(following) != before, following.problem) == (True, "")


def test_an_alias_that_is_taken_away_leaves_what_is_served(following: Following, registry: Registry, index: Artifact):
    registry.set("champion", registry.add(index))
    following.look()
    registry.unset("champion")
    following.look()
    assert "has no champion" in following.problem
    assert list(now(following)) == ["champion"]


def test_a_store_that_is_away_leaves_what_is_served(following: Following, registry: Registry, index: Artifact):
    registry.set("champion", registry.add(index))
    following.look()
    (registry.root / "mlflow.db").rename(registry.root / "away")
    following.look()
    assert following.problem
    assert list(now(following)) == ["champion"]
    (registry.root / "away").rename(registry.root / "mlflow.db")
    following.look()
    assert following.problem == ""
