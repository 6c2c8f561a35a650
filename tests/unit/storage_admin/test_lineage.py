import shutil
from pathlib import Path

import pytest
from building import put, put_line

from zsbir.base.artifact import Artifact
from zsbir.base.draft import remove
from zsbir.base.errors import InputError
from zsbir.base.storage import split_file
from zsbir.storage_admin.format import artifact_json, format_artifact, format_lineage
from zsbir.storage_admin.lineage import lineage, references, weight_sha256


def states(origin):
    return {f"{part.role or '-'}: {part.state}" for part in origin.walk()}


def test_an_index_goes_back_to_the_data_set_and_the_weights(root):
    line = put_line(root)
    origin = lineage(Artifact(line.index.uri))
    assert [part.role for part in origin.inputs] == ["run", "gallery"]
    uris = [part.uri for part in origin.walk()]
    assert set(uris) == {line.index.uri, line.run.uri, line.dataset.uri, line.knowledge.uri, line.weights}
    assert uris[-1] == line.index.uri
    assert uris.index(line.dataset.uri) < uris.index(line.knowledge.uri) < uris.index(line.run.uri), "inputs come first"
    assert {part.state for part in origin.walk()} == {"there"}


def test_the_tree_reads_from_the_result_to_the_images(root):
    line = put_line(root)
    text = format_lineage(lineage(line.index))
    assert text.splitlines()[0].startswith("index toy ")
    assert "├─ run: toy" in text
    assert "1,160 photos, 20 sketches, 29 classes, source fingerprint ffffffffffff" in text
    assert "└─ weights: sha256" in text
    assert text.count("see above") == 2, "the data set is told once"
    assert text.count("1,160 photos") == 1


def test_inputs_that_are_gone_or_others_are_marked(root):
    line = put_line(root)
    remove(line.knowledge.uri)
    folder, name = split_file(line.weights)
    folder.delete([name])
    remove(line.dataset.uri)
    put(root, "dataset", where="/".join(line.dataset.uri.split("/")[-3:]), digest="e" * 64)
    origin = lineage(line.run)
    assert states(origin) == {"-: there", "dataset: changed", "weights: gone", "knowledge: gone"}
    text = format_lineage(origin)
    assert "GONE" in text
    assert "CHANGED" in text


def test_an_input_is_found_at_the_root_it_was_copied_to(new_root, tmp_path):
    """And where it came from need not be there, nor answer."""
    line = put_line(new_root("disk"))
    elsewhere = tmp_path / "moved"
    shutil.move(str(Path(line.run.uri).parents[1]), elsewhere)
    origin = lineage(Artifact(elsewhere / "runs" / line.run.folder_name))
    assert {part.state for part in origin.walk()} == {"there"}
    assert all(part.uri.startswith(str(elsewhere)) for part in origin.walk())


def test_an_input_that_is_not_an_artifact_is_named_and_left_alone(root, tmp_path):
    index = put(root, "index", inputs={"gallery": {"uri": "/home/me/photos", "digest": "a" * 64}})
    origin = lineage(index)
    assert origin.inputs[0].state == "outside"
    assert "/home/me/photos (not an artifact of a storage root)" in format_lineage(origin)


def test_a_store_that_does_not_answer_is_not_taken_for_an_input_that_is_gone(new_root, monkeypatch):
    root = new_root("disk")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "1")
    run = put(root, "run", inputs={"dataset": {"uri": "s3://bucket/datasets/toy/0123", "digest": "a" * 64}})
    origin = lineage(run)
    assert origin.inputs[0].state == "silent"
    assert "does not answer" in format_lineage(origin)


def test_manifests_that_name_each_other_end(root):
    """No stage writes such; a lineage must not hang on it."""
    one = put(
        root, "run", "one", inputs={"run": {"uri": f"{root}/runs/two", "digest": "2" * 64}}, where="runs/one", digest="1" * 64
    )
    put(root, "run", "two", inputs={"run": one}, where="runs/two", digest="2" * 64)
    assert len(list(lineage(one).walk())) == 3


def test_inputs_of_any_form_are_references(root):
    inputs = {"a": {"uri": "x", "digest": "1"}, "b": {"c": {"uri": "y"}}, "d": [{"uri": "z"}], "e": 5}
    manifest = put(root, "report", inputs=inputs).manifest
    assert [(found.role, found.uri, found.digest) for found in references(manifest)] == [
        ("a", "x", "1"),
        ("b.c", "y", ""),
        ("d.0", "z", ""),
    ]


def test_a_description_is_short_and_the_json_is_whole(root):
    report = put(root, "report", facts={"long": "x" * 5000, "score": 0.5, "empty": []}, counts={"queries": 1000})
    text = format_artifact(report)
    assert "queries 1,000" in text
    assert "score: 0.5" in text
    assert "empty: none" in text
    assert max(map(len, text.splitlines())) < 200
    assert artifact_json(report, lineage(report))["facts"]["long"] == "x" * 5000


def test_only_a_weight_files_name_is_a_checksum():
    assert weight_sha256(f"s3://b/weights/{'a' * 64}.safetensors") == "a" * 64
    with pytest.raises(InputError):
        weight_sha256("weights/mine.safetensors")
