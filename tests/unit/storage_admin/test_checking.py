import shutil

import pytest
from building import files_below, put, put_checkpoint, put_line, put_weights

from zsbir.base.artifact import MANIFEST
from zsbir.base.draft import remove
from zsbir.base.errors import InputError
from zsbir.base.storage import open_folder, split_file
from zsbir.storage_admin import checking
from zsbir.storage_admin.checking import verifiable_uris, verify
from zsbir.storage_admin.roots import survey


def problems(verdicts):
    return {(problem.file, problem.what) for verdict in verdicts for problem in verdict.problems}


def test_what_was_just_made_is_whole(root):
    line = put_line(root)
    uris = verifiable_uris(survey(root))
    assert len(uris) == 7
    assert {line.index.uri, line.weights} < set(uris)
    verdicts = verify(uris)
    assert not problems(verdicts)
    assert {verdict.kind for verdict in verdicts} == {"dataset", "knowledge", "run", "checkpoint", "report", "index", "weights"}
    assert sum(verdict.size for verdict in verdicts) == sum(
        len(data) for name, data in files_below(root).items() if not name.endswith(MANIFEST)
    )
    assert not any(verdict.unnamed for verdict in verdicts)


def test_every_problem_is_reported_not_only_the_first(root):
    line = put_line(root)
    line.run.folder.delete(["one.bin"])
    line.run.folder.replace("sub/two.bin", b"x" * 64)
    line.report.folder.replace("one.bin", b"longer")
    line.dataset.folder.replace(MANIFEST, b"{")
    folder, name = split_file(line.weights)
    folder.replace(name, b"other")
    open_folder(line.index.uri).create("extra.bin", b"")
    verdicts = verify(verifiable_uris(survey(root)))
    found = problems(verdicts)
    assert {("one.bin", "missing"), ("sub/two.bin", "changed: as many bytes, but others")} < found
    assert ("one.bin", "6 bytes instead of 3") in found
    assert (name, "changed: as many bytes, but others") in found
    assert any(file == MANIFEST and "cannot read" in what for file, what in found)
    assert len(found) == 5
    assert [verdict.unnamed for verdict in verdicts if verdict.kind == "index"] == [("extra.bin",)]


def test_bytes_are_read_where_they_lie_not_from_the_cache(new_root):
    report = put(new_root("moto"), "report")
    assert report.verified("one.bin").read_bytes() == b"one", "now the cache has it"
    report.folder.replace("one.bin", b"eno")
    assert problems(verify([report.uri])) == {("one.bin", "changed: as many bytes, but others")}


def test_large_and_empty_files_are_read_in_pieces(root, monkeypatch):
    monkeypatch.setattr(checking, "CHUNK_BYTES", 10)
    report = put(root, "report", files={"empty": b"", "ten": b"0123456789", "more": b"x" * 33})
    assert not problems(verify([report.uri]))


def test_a_runs_notes_and_checkpoints_are_not_mentioned(root):
    run = put(root, "run", where="runs/toy-1")
    put_checkpoint(root, "toy-1")
    for name in (".lock", ".undelivered", ".error.json"):
        run.folder.create(name, b"")
    (verdict,) = verify([run.uri])
    assert verdict.unnamed == (".error.json",)


def test_what_is_not_there_is_an_error_of_the_caller(root):
    with pytest.raises(InputError, match="no artifact"):
        verify([f"{root}/reports/none"])
    with pytest.raises(InputError, match="no weight file"):
        verify([f"{root}/weights/{'a' * 64}.safetensors"])


def test_a_checkpoint_that_is_replaced_meanwhile_is_left_out(root, monkeypatch):
    old, new = put_checkpoint(root, "toy-1"), put_checkpoint(root, "toy-1", "step-000002")
    problem_of = checking._problem_of

    def removing(file, advance):
        remove(old.uri)
        return problem_of(file, advance)

    monkeypatch.setattr(checking, "_problem_of", removing)
    assert [verdict.uri for verdict in verify([old.uri, new.uri])] == [new.uri]


def test_a_file_that_leads_out_of_its_folder_is_a_problem(tmp_path):
    report = put(tmp_path / "root", "report")
    shutil.move(report.path / "one.bin", tmp_path / "one.bin")
    (report.path / "one.bin").symlink_to(tmp_path / "one.bin")
    assert problems(verify([report.uri])) == {("one.bin", "leads out of its folder")}


def test_an_artifact_named_twice_is_read_once(root):
    uri = put_weights(root)
    assert len(verify([uri, uri])) == 1
