"""Addresses of registered models: their two forms, and what the tags of a version may lead to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from zsbir.base.artifact import Artifact
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.promotion.address import artifact_of, files_digest, is_model_address, parse_address, places

VERSION = "models:/zsbir/3"


def run_in(root: Path, text: bytes = b"weights", digest: str = "d" * 64) -> Artifact:
    with draft(root / "runs/toy-1", "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(text)
        return work.commit(digest=digest)


def index_in(root: Path, of_run: str = "d" * 64, digest: str = "e" * 64) -> Artifact:
    with draft(root / "indexes/toy/1", "index", "toy") as work:
        work.file("vectors.npy").write_bytes(b"vectors")
        return work.commit(digest=digest, inputs={"run": {"uri": "/gone/runs/toy-1", "digest": of_run}})


def tags(run: Artifact, index: Artifact | None = None) -> dict[str, str]:
    found = {
        "run_uri": run.uri,
        "run_digest": run.digest,
        "encoder_sha256": run.manifest.files["encoder.safetensors"].sha256,
    }
    return found | ({"index": index.uri, "index_digest": index.digest} if index else {})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("models:/zsbir@champion", ("zsbir", "champion", "")),
        ("models:/zsbir-resnet18-128/12", ("zsbir-resnet18-128", "", "12")),
        ("models:/a.b_c@challenger", ("a.b_c", "challenger", "")),
    ],
)
def test_the_two_forms_are_read(text, parts):
    found = parse_address(text)
    assert (found.model, found.alias, found.version) == parts
    assert is_model_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "models:/zsbir",
        "models:/zsbir/",
        "models:/zsbir/latest",
        "models:/zsbir/0",
        "models:/zsbir/3/encoder",
        "models:/zsbir@",
        "models:/zsbir@champion\n",
        "models:/zsbir' or 1=1 --@champion",
        "models:/../../etc@champion",
        "models:/m-0123456789abcdef0123456789abcdef/1/../2",
        "models://zsbir@champion",
        "MODELS:/zsbir@champion",
    ],
)
def test_any_other_form_is_refused_with_the_two(text):
    assert is_model_address(text), "it is not taken for a path"
    with pytest.raises(InputError, match=r"write models:/NAME@champion or models:/NAME/3; .*promote list"):
        parse_address(text)


@pytest.mark.parametrize("text", ["artifacts/runs/toy-1", "s3://models/x", "", None, 3, "mymodels:/zsbir@champion"])
def test_what_is_no_such_address_is_left_alone(text):
    assert not is_model_address(text)


def test_the_run_and_the_index_of_a_version_are_found_where_they_were(tmp_path):
    run, index = run_in(tmp_path / "theirs"), index_in(tmp_path / "theirs")
    found = tags(run, index)
    assert artifact_of(VERSION, found, "run", root=str(tmp_path / "mine")).uri == run.uri
    assert artifact_of(VERSION, found, "index", root=str(tmp_path / "mine")).uri == index.uri


def test_a_copy_in_this_root_comes_first_unless_it_is_another_one(tmp_path):
    run = run_in(tmp_path / "theirs")
    copied = tmp_path / "mine/runs/toy-1"
    shutil.copytree(run.uri, copied)
    assert artifact_of(VERSION, tags(run), "run", root=str(tmp_path / "mine")).uri == str(copied)
    shutil.rmtree(copied)
    run_in(tmp_path / "mine", digest="f" * 64)
    assert artifact_of(VERSION, tags(run), "run", root=str(tmp_path / "mine")).uri == run.uri


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"run_digest": "f" * 64}, r"is another run \(digest dddddddddddddddd, promoted was ffffffffffffffff\)"),
        ({"encoder_sha256": "0" * 64}, "is the same training with another result"),
        ({"run_uri": "/gone/runs/toy-2"}, "nothing is at /gone/runs/toy-2"),
        ({"run_uri": "/gone/runs/toy-2\x1b[2J"}, r"its tag '/gone/runs/toy-2\\x1b"),
    ],
)
def test_a_run_that_is_gone_or_another_one_is_an_error_with_the_way_out(tmp_path, change, told):
    found = tags(run_in(tmp_path)) | change
    with pytest.raises(InputError, match=rf"the run of {VERSION} is gone \(.*{told}.*artifacts copy, or promote another run$"):
        artifact_of(VERSION, found, "run", root=str(tmp_path))


def test_an_index_of_another_run_or_with_other_contents_is_not_used(tmp_path):
    run = run_in(tmp_path)
    found = tags(run, index_in(tmp_path))
    with pytest.raises(InputError, match=r"is another index \(digest e.*zsbir.index models:/zsbir/3 and promote"):
        artifact_of(VERSION, found | {"index_digest": "a" * 64}, "index", root=str(tmp_path))
    with pytest.raises(InputError, match="is an index of another run"):
        artifact_of(VERSION, found | {"run_digest": "a" * 64}, "index", root=str(tmp_path))


def test_a_version_that_somebody_registered_by_hand_names_nothing(tmp_path):
    with pytest.raises(InputError, match=r"names no index: python -m zsbir.promote did not register it"):
        artifact_of(VERSION, {}, "index", root=str(tmp_path))


@pytest.mark.parametrize(
    "tag",
    [
        "file:///etc",
        "/etc/passwd",
        "../../runs/toy-1",
        "/a/../../etc/runs/toy-1",
        "s3://bucket/../runs/toy-1",
        "runs/..",
        "runs/\n",
        "/x\\runs/toy-1",
        "https://evil.example/runs/toy-1",
        "/datasets/toy/1",
        "/" + "x" * 2000 + "/runs/toy-1",
        "",
    ],
)
def test_a_tag_that_is_not_the_address_of_such_an_artifact_leads_nowhere(tag):
    assert places(tag, "run", "/mine") in ([], ["/mine/runs/toy-1"]), "at most to this root's own"


def test_a_relative_tag_means_this_root_alone(tmp_path, monkeypatch):
    run = run_in(tmp_path / "artifacts")
    monkeypatch.chdir(tmp_path)
    assert places("artifacts/runs/toy-1", "run", "/mine") == ["/mine/runs/toy-1"]
    found = tags(run) | {"run_uri": "artifacts/runs/toy-1"}
    assert artifact_of(VERSION, found, "run", root="artifacts").uri == run.uri


def test_what_may_not_be_read_is_not_read(tmp_path):
    run = run_in(tmp_path / "theirs")

    def permitted(uri: str) -> str:
        if uri.startswith(str(tmp_path / "theirs")):
            raise InputError("run: outside of what this service reads")
        return uri

    with pytest.raises(InputError, match="outside of what this service reads"):
        artifact_of(VERSION, tags(run), "run", root=str(tmp_path / "mine"), permitted=permitted)
    shutil.copytree(run.uri, tmp_path / "mine/runs/toy-1")
    assert artifact_of(VERSION, tags(run), "run", root=str(tmp_path / "mine"), permitted=permitted).uri.startswith(
        str(tmp_path / "mine")
    )


def test_storage_that_does_not_answer_is_no_proof_that_an_artifact_is_gone(tmp_path, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "1")
    found = tags(run_in(tmp_path)) | {"run_uri": "s3://lost/zsbir/runs/toy-1"}
    with pytest.raises(RunError, match=r"the run of models:/zsbir/3 cannot be read .*try again when the storage answers, or"):
        artifact_of(VERSION, found, "run", root=str(tmp_path / "mine"))


def test_an_index_that_was_made_again_with_another_result_is_not_the_one_that_was_promoted(tmp_path):
    run, index = run_in(tmp_path), index_in(tmp_path)
    found = tags(run, index) | {"index_files": files_digest(index)}
    assert artifact_of(VERSION, found, "index", root=str(tmp_path)).uri == index.uri
    shutil.rmtree(index.uri)
    with draft(index.uri, "index", "toy") as work:
        work.file("vectors.npy").write_bytes(b"others")
        work.commit(digest=index.digest, inputs=dict(index.manifest.inputs))
    with pytest.raises(InputError, match="the same index made again with another result"):
        artifact_of(VERSION, found, "index", root=str(tmp_path))
    assert artifact_of(VERSION, tags(run, index), "index", root=str(tmp_path)).uri == index.uri, "an earlier version said less"
