"""What photos can be chosen by is told by the API: folders, columns and their values, of photos that are not deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from pictures import encoded, picture
from servers.search_service import DRAWING, asked, make_app, make_index, make_known_index, served

from services.search.serving import choices
from services.search.serving.catalogue import Catalogue
from services.search.serving.choices import Count, class_counts
from zsbir.base.artifact import Artifact
from zsbir.data.index_files import IndexFiles
from zsbir.index import Settings, delete_photos


@pytest.fixture(scope="module")
def known(index_root: Path) -> Artifact:
    """An index whose photos have folders and metadata."""
    return make_known_index(index_root)


@pytest.fixture
def asking(index_root: Path, known: Artifact) -> Iterator[TestClient]:
    app = make_app(index_root, Catalogue([served(known)]))
    with asked(app) as asking:
        yield asking


def filters(asking: TestClient, index: Artifact) -> dict:
    return asking.get(f"/api/filters/{index.digest}").raise_for_status().json()


def test_folders_and_columns_are_told_with_their_values(asking: TestClient, known: Artifact):
    said = filters(asking, known)
    counts = {"2025": 3, "2025/summer": 2, "2025/winter": 1, "2026": 2}
    assert said["folders"] == [{"name": name, "photos": photos} for name, photos in counts.items()]
    assert said["complete"]
    columns = {column.pop("name"): column for column in said["columns"]}
    assert {name: (column["kind"], column["photos"]) for name, column in columns.items()} == {
        "colour": ("string", 5), "price": ("int", 4), "weight": ("float", 3), "sold": ("bool", 4), "note": ("string", 4),
    }  # fmt: skip
    assert columns["colour"]["values"] == [
        {"name": name, "photos": photos} for name, photos in (("<b>green</b>", 1), ("blue", 1), ("red", 3))
    ]
    assert [(columns[name]["low"], columns[name]["high"]) for name in ("price", "weight", "sold")] == [
        (-4, 20),
        (0.5, 2.5),
        (None, None),
    ]


def test_each_count_is_that_of_a_search_with_that_filter(asking: TestClient, known: Artifact):
    said = filters(asking, known)
    wanted = [({"folder": folder["name"]}, folder["photos"]) for folder in said["folders"]]
    for column in said["columns"]:
        values = [({"columns": {column["name"]: value["name"]}}, value["photos"]) for value in column["values"]]
        numbers = [({"columns": {column["name"]: {"min": column["low"], "max": column["high"]}}}, column["photos"])]
        wanted += values + (numbers if column["low"] is not None else [])
    assert len(wanted) == 4 + 3 + 4 + 2
    for chosen, photos in wanted:
        answer = asking.post("/api/search", json={**DRAWING, "filter": chosen}).raise_for_status().json()
        assert len(answer["hits"]) == photos, json.dumps(chosen)


def test_deleted_photos_do_not_count(index_root: Path, known: Artifact):
    files = IndexFiles(delete_photos(known.uri, ["2025/summer/bear-1.png"], Settings(root=str(index_root))), 8)
    said = choices.choices_of(files)
    assert [(each.name, each.photos) for each in said.folders][:2] == [("2025", 2), ("2025/summer", 1)]
    assert [column.high for column in said.columns if column.name == "price"] == [3]
    gone = [not alive for alive in files.alive]
    files.class_names = pa.chunked_array([["bear" if deleted else "cup" for deleted in gone]])
    assert class_counts(files) == [Count("cup", 5)]


@pytest.mark.parametrize(
    ("places", "shown"),
    [
        (["cup/1", "cup/2", "owl/1"], []),
        (["photo/cup/1", "photo/cup/2", "photo/owl/1"], []),
        (["new/cup/1", "old/cup/2", "new/owl/1"], ["new", "new/cup", "new/owl", "old", "old/cup"]),
        (["new/cup/1", "new/cup/2", "old/owl/1"], []),
        (["cup/1", "cup/2", "bird/1"], ["bird", "cup"]),
        (["cup\n/1", "cup/2", "owl/1"], ["cup", "cup\n", "owl"]),
    ],
)
def test_folders_that_are_the_classes_again_are_left_out(known: Artifact, places: list[str], shown: list[str]):
    files = IndexFiles(known, 8)
    files.paths, files.class_names = pa.chunked_array([places]), pa.chunked_array([["cup", "cup", "owl"]])
    assert [folder.name for folder in choices.choices_of(files).folders] == shown


def test_an_index_without_folders_and_metadata_has_none(index_root: Path, tmp_path: Path):
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(60 + number, 40).rotate(number)))
    flat = make_index(index_root, gallery=tmp_path)
    said = choices.choices_of(IndexFiles(flat, 8))
    assert (said.folders, said.complete, said.columns) == ((), True, ())


def test_what_is_listed_is_bounded_and_says_so(known: Artifact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choices, "MOST_FOLDERS", 2)
    monkeypatch.setattr(choices, "MOST_VALUES", 1)
    monkeypatch.setattr(choices, "MOST_LEVELS", 1)
    files = IndexFiles(known, 8)
    said = choices.choices_of(files)
    assert [each.name for each in said.folders] == ["2025", "2026"]
    assert not said.complete, "there are folders below these"
    assert [(column.values[0].name, column.complete) for column in said.columns if column.name == "colour"] == [("red", False)]
    monkeypatch.setattr(choices, "LONGEST", 4)
    assert not choices.choices_of(files).columns[0].complete


def test_an_index_that_is_not_served_is_refused(asking: TestClient):
    assert asking.get(f"/api/filters/{'0' * 64}").status_code == 404
