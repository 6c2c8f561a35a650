"""Debris: what killed writers leave, and what is none."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from building import files_below, make_old, put, put_checkpoint, put_line, put_weights

from zsbir.base import s3
from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import RunError
from zsbir.base.lease import alone
from zsbir.base.storage import join, open_folder
from zsbir.storage_admin import housekeeping
from zsbir.storage_admin.housekeeping import debris, remove_debris, unended_uploads
from zsbir.storage_admin.roots import survey
from zsbir.storage_admin.uploads import Upload


def found(root, hours=0.0):
    """Debris in a root where nothing has changed for so many hours. In object storage times have whole seconds."""
    before_s = time.time() - 3600 * hours + (1 if hours == 0 else 0)
    return debris(survey(root), unended_uploads(root), before_s)


def paths(wastes):
    return sorted(waste.path for waste in wastes)


def removed(root):
    return remove_debris(root, found(root), time.time() + 1)


LEFT = {
    "datasets/toy/0123/.parts/00000.arrow": "datasets/toy/0123/.parts",
    "datasets/toy/0123/shards/part-00000.parquet": "datasets/toy/0123",
    "datasets/toy/.lease-000001": "datasets/toy/.lease-000001",
    "datasets/toy/.parts/0/1.arrow": "datasets/toy/.parts",
    "knowledge/a/b/.writing-1234": "knowledge/a/b/.writing-1234",
    "runs/toy-1/.ray/ab/snapshot.json": "runs/toy-1/.ray",
    "runs/toy-1/.probe-1": "runs/toy-1/.probe-1",
    "runs/toy-1/encoder.safetensors": "runs/toy-1",
    "runs/toy-2/checkpoints/step-000002/state.safetensors": "runs/toy-2/checkpoints/step-000002",
    "reports/abc/report.json": "reports/abc",
    "weights/.writing-12": "weights/.writing-12",
    f"weights/.{'a' * 64}.safetensors.0123abcd": f"weights/.{'a' * 64}.safetensors.0123abcd",
}
"""A file, and under which path it is told of."""

NOT_LEFT = [
    "datasets/toy/quarantine.tsv",
    "datasets/notes.txt",
    "mlflow.db",
    "mlflow-artifacts/1/a/.writing-1/model",
    "notes/.writing-1/text",
    ".writing-1",
    "runs/toy-1/.lock",
    "runs/toy-1/.undelivered",
    "runs/mlflow-1/mlflow.db",
    "weights/mine.safetensors",
    "weights/notes/.hidden",
]


def test_debris_is_found_listed_with_its_reason_and_removed(root):
    line = put_line(root)
    put_checkpoint(root, "toy-2")
    before = set(files_below(root))
    for key in [*LEFT, *NOT_LEFT]:
        open_folder(root).create(key, b"12345")
    line.run.folder.create("curves~1.png", b"123")
    line.run.folder.create("sub/.two.bin.ab12", b"123")
    wastes = found(root)
    run = f"runs/{line.run.folder_name}"
    assert paths(wastes) == sorted({*LEFT.values(), f"{run}/curves~1.png", f"{run}/sub/.two.bin.ab12"})
    assert all(waste.why and waste.size == 5 * waste.files for waste in wastes if waste.path in LEFT.values())
    assert paths(removed(root)) == paths(wastes)
    assert set(files_below(root)) == before | set(NOT_LEFT)
    assert not found(root)
    for artifact in (line.run, line.index):
        artifact.verify()


def test_where_anything_has_changed_lately_nothing_is_touched(tmp_path):
    """Somebody may be at work there."""
    line = put_line(tmp_path)
    for key in LEFT:
        open_folder(tmp_path).create(key, b"1")
    line.run.folder.create("extra.bin", b"1")
    root = str(tmp_path)
    assert not found(root, hours=1)
    make_old(tmp_path)
    assert len(found(root, hours=24)) == len(LEFT) + 1
    assert not found(root, hours=72)
    fresh = {
        "datasets/toy/0123/shards/part-00001.parquet": {"datasets/toy/0123/.parts", "datasets/toy/0123"},
        "runs/toy-1/.lock": {"runs/toy-1/.ray", "runs/toy-1/.probe-1", "runs/toy-1"},
        "datasets/toy/.lease-000002": {"datasets/toy/.parts", "datasets/toy/.lease-000001"},
        f"runs/{line.run.folder_name}/checkpoints/step-000009/state": {f"runs/{line.run.folder_name}/extra.bin"},
    }
    gone = set()
    for key, quiet_no_more in fresh.items():
        open_folder(tmp_path).create(key, b"1")
        gone |= quiet_no_more
        assert not gone & set(paths(found(root, hours=24))), key
    assert len(found(root, hours=24)) == len(LEFT) + 1 - len(gone)


def test_a_writer_that_has_just_begun_is_seen_by_its_empty_workspace(tmp_path):
    open_folder(tmp_path).create("reports/abc/report.json", b"1")
    make_old(tmp_path)
    assert found(str(tmp_path), hours=24)
    with draft(tmp_path / "reports" / "abc", "report", "toy"):
        assert not found(str(tmp_path), hours=24), "it may take the file that lies there for its own"


def test_a_killed_writer_leaves_debris_and_no_more(root):
    script = f"import os\nfrom zsbir.base.draft import draft\nwith draft('{root}/reports/abc', 'report', 'toy') as work:\n"
    script += "    work.file('a.bin').write_bytes(b'1')\n    work.publish('a.bin')\n    os._exit(9)\n"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 9
    assert len(files_below(root)) >= 1
    assert [waste.why for waste in found(root)][-1] == "report without a manifest: never finished"
    removed(root)
    assert not files_below(root)
    assert not Path(root, "reports", "abc").exists()


def test_empty_folders_on_disk_are_swept_where_writers_make_them(tmp_path):
    for name in ("reports/abc/.writing-12", "datasets/toy/0123", "runs/toy-1/checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    root = str(tmp_path)
    assert paths(found(root)) == ["datasets/toy/0123", "reports/abc/.writing-12", "runs/toy-1"]
    assert sum(waste.files for waste in found(root)) == 0
    removed(root)
    assert not (tmp_path / "reports" / "abc").exists() or not list((tmp_path / "reports" / "abc").iterdir())
    assert not (tmp_path / "datasets" / "toy" / "0123").exists()


def test_checkpoints_of_an_unfinished_run_are_never_debris(root):
    """Nor what lies in the run's folder beside them: training goes on from there."""
    put_checkpoint(root, "toy-1")
    open_folder(root).create("runs/toy-1/config.yaml", b"1")
    open_folder(root).create("runs/toy-1/.ray/state", b"1")
    assert paths(found(root)) == ["runs/toy-1/.ray"]


def test_in_the_folder_of_a_damaged_manifest_nothing_is_taken_for_unnamed(root):
    report = put(root, "report")
    report.folder.replace(MANIFEST, b"{")
    assert not found(root)


def test_what_one_manifest_names_in_the_folder_of_another_is_not_debris(root):
    outer = put(root, "run", where="runs/toy-1", files={"checkpoints/odd/state": b"1"})
    assert not found(root)
    outer.verify()


def test_what_changes_between_look_and_removal_stays(root, capsys):
    open_folder(root).create("reports/abc/report.json", b"1")
    open_folder(root).create("reports/def/report.json", b"1")
    wastes = found(root)
    open_folder(root).create("reports/abc/more.json", b"2")
    with draft(join(root, "reports", "def"), "report", "toy") as work:
        work.file("report.json").write_bytes(b"1")
        work.commit(digest="d")
    assert not remove_debris(root, wastes, time.time() + 1)
    assert "reports/abc has changed meanwhile" in capsys.readouterr().err
    Artifact(join(root, "reports", "def")).verify()
    assert exists(join(root, "reports", "def"))


def test_a_run_that_a_process_holds_stays(tmp_path, capsys):
    root = str(tmp_path)
    open_folder(root).create("runs/toy-1/.ray/state", b"1")
    with alone(join(root, "runs", "toy-1")):
        script = "import sys, time\nfrom zsbir.storage_admin.housekeeping import *\nfrom zsbir.storage_admin.roots import survey\n"
        script += "wastes = debris(survey(sys.argv[1]), [], time.time() + 1)\n"
        script += "assert wastes and not remove_debris(sys.argv[1], wastes, time.time() + 1)"
        subprocess.run([sys.executable, "-c", script, root], check=True, timeout=60)
    assert paths(removed(root)) == ["runs/toy-1/.ray"]
    assert (tmp_path / "runs" / "toy-1" / ".lock").is_file()


def test_behind_a_link_nothing_is_removed(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    report = put(root, "report", where="reports/abc")
    open_folder(report.uri).create("extra.bin", b"1")
    report.path.rename(elsewhere)
    (root / "reports" / "abc").symlink_to(elsewhere)
    assert not found(str(root))


@pytest.fixture(params=["moto", "rgw"])
def bucket_root(request, new_root):
    return new_root(request.param)


def begin_upload(root, key):
    folder = open_folder(root)
    at = {"Bucket": folder.bucket, "Key": f"{folder.prefix}/{key}"}
    upload_id = s3.client().create_multipart_upload(**at)["UploadId"]
    s3.client().upload_part(**at, UploadId=upload_id, PartNumber=1, Body=b"x" * 1000)
    return upload_id


def test_unfinished_uploads_are_aborted(bucket_root):
    root = bucket_root
    put(root, "report", where="reports/abc")
    for key in ("reports/abc/big.bin", "datasets/toy/0123/shards/a.parquet", "notes/big.bin"):
        begin_upload(root, key)
    wastes = found(root)
    assert paths(wastes) == ["datasets/toy/0123", "reports/abc"]
    assert {waste.size for waste in wastes} == {1000}
    assert len(removed(root)) == 2
    assert not unended_uploads(root)
    folder = open_folder(root)
    left = s3.client().list_multipart_uploads(Bucket=folder.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{folder.prefix}/notes/big.bin"], "outside of the root's folders it stays"


def test_young_uploads_stay(bucket_root, monkeypatch):
    upload = Upload("reports/abc/big.bin", time.time(), "1", 10)
    assert not debris(survey(bucket_root), [upload], time.time() - 3600)
    assert debris(survey(bucket_root), [upload], time.time() + 1)
    put(bucket_root, "report", where="reports/abc")
    old = upload._replace(begun_s=0.0)
    assert not debris(survey(bucket_root), [old], time.time() - 3600), "somebody has just written there"


def test_an_upload_that_is_begun_meanwhile_stops_the_removal(bucket_root):
    begin_upload(bucket_root, "reports/abc/big.bin")
    wastes = found(bucket_root)
    begin_upload(bucket_root, "reports/abc/second.bin")
    assert not remove_debris(bucket_root, wastes, time.time() + 1)
    assert len(unended_uploads(bucket_root)) == 2


def test_an_upload_that_ends_meanwhile_is_not_an_error(bucket_root):
    root = bucket_root
    upload_id = begin_upload(root, "reports/abc/big.bin")
    (upload,) = unended_uploads(root)
    folder = open_folder(root)
    s3.client().abort_multipart_upload(Bucket=folder.bucket, Key=f"{folder.prefix}/reports/abc/big.bin", UploadId=upload_id)
    housekeeping.abort_upload(folder, upload)


def test_a_store_that_does_not_list_uploads_is_not_a_reason_to_stop(bucket_root, monkeypatch, capsys):
    def refuse(folder):
        raise RunError("not allowed")

    monkeypatch.setattr(housekeeping, "pending_uploads", refuse)
    assert not unended_uploads(bucket_root)
    assert "not looked for: not allowed" in capsys.readouterr().err


def test_weight_files_are_not_debris(root):
    uri = put_weights(root)
    assert not found(root)
    assert uri
