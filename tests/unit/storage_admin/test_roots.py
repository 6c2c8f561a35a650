import os

import pytest
from building import files_below, make_old, put, put_checkpoint, put_line, put_weights

from zsbir.base.artifact import MANIFEST
from zsbir.base.errors import InputError
from zsbir.base.storage import join, open_folder
from zsbir.storage_admin.roots import survey, unit_of
from zsbir.storage_admin.tables import bytes_text, count_text, table


def test_a_survey_finds_every_artifact_under_its_kind(root):
    line = put_line(root)
    pretrained = put(root, "pretrained")
    found = survey(root)
    by_uri = {unit.uri: unit for unit in found.units.values()}
    kinds = {by_uri[artifact.uri].kind for artifact in (line.dataset, line.knowledge, line.run, line.report, line.index)}
    assert kinds == {"dataset", "knowledge", "run", "report", "index"}
    assert by_uri[pretrained.uri].kind == "pretrained"
    assert [unit.kind for unit in found.nested(f"runs/{line.run.folder_name}")] == ["checkpoint"]
    assert [join(root, *path.split("/")) for path in found.weights] == [line.weights]
    assert not found.loose
    for unit in found.units.values():
        assert unit.artifact
        assert unit.size == sum(map(len, files_below(unit.uri).values())) - sum(part.size for part in found.nested(unit.path))
        assert unit.newest_s > 0


def test_what_has_no_manifest_is_a_unit_too_and_unfinished(root):
    open_folder(root).create("datasets/toy/0123/shards/a.parquet", b"1")
    open_folder(root).create("runs/toy-1/.lock", b"")
    put_checkpoint(root, "toy-1")
    units = survey(root).units
    assert {path for path, unit in units.items() if unit.is_unfinished} == {"datasets/toy/0123", "runs/toy-1"}
    assert units["runs/toy-1/checkpoints/step-000001"].artifact


def test_a_damaged_manifest_is_a_problem_of_its_artifact_alone(root):
    line = put_line(root)
    folder = open_folder(join(root, "reports", "bad"))
    folder.create(MANIFEST, b"{")
    escaping = open_folder(join(root, "reports", "escaping"))
    text = line.report.folder.read(MANIFEST).replace(b'"stored_as": {}', b'"stored_as": {"one.bin": "../../one.bin"}')
    escaping.create(MANIFEST, text)
    found = survey(root)
    assert [unit.path for unit in found.problems()] == ["reports/bad", "reports/escaping"]
    assert not any(unit.is_unfinished for unit in found.units.values())


def test_manifests_that_have_not_changed_are_not_read_again(root, monkeypatch):
    line = put_line(root)
    before = survey(root)
    put(root, "report", "new")
    opened = []
    monkeypatch.setattr("zsbir.storage_admin.roots.Artifact", lambda uri: opened.append(uri) or line.report)
    survey(root, known=before)
    assert len(opened) == 1


def test_nothing_outside_the_folders_of_a_root_is_seen(root):
    open_folder(root).create("notes/manifest.json", b"{}")
    open_folder(root).create("mlflow.db", b"")
    found = survey(root)
    assert not found.units
    assert not found.loose


def test_a_root_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="--root"):
        survey(str(tmp_path / "nowhere"))


def test_a_folder_that_may_not_be_looked_into_is_a_problem(tmp_path, monkeypatch):
    """What lies there may name anything."""
    line = put_line(tmp_path)
    scandir = os.scandir

    def refusing(path):
        if str(path) == line.report.uri:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (unit,) = survey(str(tmp_path)).problems()
    assert unit.uri == line.report.uri
    assert unit.problem == f"cannot look into {line.report.uri}: Permission denied"


def test_artifacts_behind_links_are_seen_and_marked(tmp_path):
    """Whoever moves a big data set to another disk may leave a link; links in circles end."""
    line = put_line(tmp_path / "root")
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "root" / "datasets" / "toy").rename(elsewhere)
    (tmp_path / "root" / "datasets" / "toy").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(tmp_path / "root" / "datasets")
    (tmp_path / "root" / "runs").rename(tmp_path / "runs")
    (tmp_path / "root" / "runs").symlink_to(tmp_path / "runs")
    found = survey(str(tmp_path / "root"))
    (dataset,) = [unit for unit in found.units.values() if unit.kind == "dataset"]
    assert dataset.is_linked
    assert dataset.artifact.digest == line.dataset.digest
    runs = [unit for unit in found.units.values() if unit.kind == "run"]
    assert [unit.is_linked for unit in runs] == [False], "where a whole folder of the root is a link, the root is simply there"


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("datasets/toy/0123/shards/a.parquet", "datasets/toy/0123"),
        ("datasets/toy/0123/.parts/0.arrow", "datasets/toy/0123"),
        ("datasets/toy/.parts/0.arrow", ""),
        ("datasets/toy/quarantine.tsv", ""),
        ("datasets/toy/0123/", "datasets/toy/0123"),
        ("datasets/moved/shards/a.parquet", "datasets/moved"),
        ("runs/toy-1/history.parquet", "runs/toy-1"),
        ("runs/toy-1/.ray/a/manifest.json", "runs/toy-1"),
        ("runs/toy-1/checkpoints/", "runs/toy-1"),
        ("runs/toy-1/checkpoints/step-1/state", "runs/toy-1/checkpoints/step-1"),
        ("runs/toy-1/checkpoints/step-1/.writing-a/", "runs/toy-1/checkpoints/step-1"),
        ("weights/a.safetensors", ""),
        ("reports/a/report.json", "reports/a"),
    ],
)
def test_a_file_belongs_to_the_folder_of_its_artifact(path, unit):
    assert unit_of(path, {"datasets/moved"}) == unit


def test_a_weight_file_is_one_by_its_name(root):
    uri = put_weights(root)
    open_folder(join(root, "weights")).create("notes.txt", b"")
    found = survey(root)
    assert [join(root, *path.split("/")) for path in found.weights] == [uri]
    assert [item.path for item in found.loose] == ["weights/notes.txt"]


def test_numbers_read_well():
    assert [bytes_text(n) for n in (0, 999, 1000, 12_345, 123_456, 999_600, 5e9)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 kB",
        "123 kB",
        "1.0 MB",
        "5.0 GB",
    ]
    assert [count_text(n, "file") for n in (0, 1, 1160)] == ["0 files", "1 file", "1,160 files"]
    assert table(["a", "n"], [["x", "10"], ["long", "2"]], right=frozenset({"n"})) == "a      n\nx     10\nlong   2"


def test_make_old_makes_old(tmp_path):
    put_line(tmp_path)
    make_old(tmp_path, 48)
    found = survey(str(tmp_path))
    assert len({unit.newest_s for unit in found.units.values()}) == 1
