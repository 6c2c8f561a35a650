"""The service follows a registered model: model and index are switched together, and only once the new index is open."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
from servers.search_service import Registry, client

from services.search.serving.catalogue import Catalogue, Served
from services.search.serving.following import NO_CHAMPION, Followed, Following
from services.search.serving.newest import indexes_of
from services.search.settings import SearchSettings
from services.search.start import open_app
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.storage import join, open_folder
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


# --- as long as there is no champion


@pytest.fixture
def falling_back(registry: Registry, following: Following) -> Following:
    """One that serves the newest index of the registry's root until there is a champion."""
    followed = dataclasses.replace(following._followed, newest=True)
    return Following(followed, Catalogue(), following._open)


def put_index(root: Path, made: Artifact, name: str, written_s: float) -> Path:
    """Copy an index into a root, as one that was written at some time."""
    folder = root / "indexes" / "toy" / name
    shutil.copytree(made.uri, folder)
    os.utime(folder / "manifest.json", (written_s, written_s))
    return folder


def test_without_a_champion_the_newest_index_is_searched_until_there_is_one(
    falling_back: Following, registry: Registry, index: Artifact, other_index: Artifact, capsys
):
    put_index(registry.root, index, "a", 1000)
    put_index(registry.root, other_index, "b", 2000)
    for _ in range(2):
        falling_back.look()
        (served,) = falling_back._catalogue.now
        assert (served.alias, served.model, served.digest, served.note) == ("index", "", other_index.digest, NO_CHAMPION)
    told = capsys.readouterr().err
    assert told.count(NO_CHAMPION) == 1, "said once, not at each look"
    assert "what is served stays" not in told
    assert "has no champion" in falling_back.problem
    registry.set("champion", registry.add(index))
    falling_back.look()
    (served,) = falling_back._catalogue.now
    assert (served.alias, served.model, served.digest, served.note) == ("champion", "models:/zsbir/1", index.digest, "")
    assert falling_back._catalogue.of_digest(other_index.digest), "a page can still show what it has found"
    assert falling_back.problem == ""
    registry.unset("champion")
    falling_back.look()
    assert now(falling_back) == {"champion": ("models:/zsbir/1", index.digest)}, "a model that was served is not given up"


def test_a_newer_index_is_searched_as_soon_as_it_is_there(
    falling_back: Following, registry: Registry, index: Artifact, other_index: Artifact
):
    falling_back.look()
    assert falling_back._catalogue.now == ()
    assert "there is no index that can be opened" in falling_back.problem
    for made, written_s in ((index, 1000), (other_index, 2000)):
        put_index(registry.root, made, made.digest[:16], written_s)
        falling_back.look()
        assert now(falling_back) == {"index": ("", made.digest)}


def test_a_newest_index_that_is_damaged_or_leads_elsewhere_is_passed_over(
    falling_back: Following, registry: Registry, index: Artifact, other_index: Artifact, tmp_path: Path, capsys
):
    put_index(registry.root, index, "good", 1000)
    (put_index(registry.root, other_index, "damaged", 2000) / "vectors.npy").write_bytes(b"nothing")
    (put_index(registry.root, other_index, "no-json", 2500) / "manifest.json").write_text("{")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    put_index(outside, other_index, "x", 3000)
    (registry.root / "indexes" / "toy" / "link").symlink_to(outside / "indexes" / "toy" / "x")
    for _ in range(2):
        falling_back.look()
        assert now(falling_back) == {"index": ("", index.digest)}
    told = capsys.readouterr().err
    assert told.count("is passed over") == 3, "each is said once"
    assert "outside of what this service reads" in told


def test_a_champion_that_does_not_open_leaves_the_newest_index_in_place(
    falling_back: Following, registry: Registry, index: Artifact, other_index: Artifact
):
    put_index(registry.root, index, "good", 1000)
    falling_back.look()
    registry.set("champion", registry.add(other_index, index=str(registry.root / "indexes" / "toy" / "gone")))
    registry.set("challenger", registry.add(other_index))
    falling_back.look()
    assert now(falling_back) == {"index": ("", index.digest)}, "neither nothing, nor the challenger in place of the champion"
    assert "cannot be served as champion" in falling_back.problem


def test_the_command_serves_the_newest_index_for_champion_alone(
    registry: Registry, index: Artifact, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    put_index(registry.root, index, "a", 1000)
    settings = SearchSettings(model="champion", root=str(registry.root), hosts=("testserver",))
    app = open_app(settings)
    answer = client(app, (registry.root / "service" / "search.token").read_text()).get("/api/models").json()
    (model,) = answer["models"]
    assert (answer["default"], model["model"], model["note"]) == ("index", "", NO_CHAMPION)
    app.state.following.close()
    app.state.search.batcher.close()
    for other in ("zsbir@night", "other@champion"):
        with pytest.raises(InputError, match="has no"):
            open_app(settings.replace(model=other))


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_listing_indexes_reads_none_of_them(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    """What is listed as an index is what has a manifest where those of indexes lie."""
    root = str(tmp_path / "root") if kind == "disk" else request.getfixturevalue("s3_root")
    names = ("toy/a/manifest.json", "toy/a/vectors.npy", "toy/b/items.parquet", "toy/manifest.json", "toy/a/x/manifest.json")
    for name in (*names, "other/c/manifest.json"):
        open_folder(join(root, "indexes")).replace(name, b"no manifest")
    assert sorted(found.uri for found in indexes_of(root)) == [
        join(root, "indexes", *path.split("/")) for path in ("other/c", "toy/a")
    ]
