import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from building import files_below, put, put_checkpoint, put_line

from zsbir.base import s3
from zsbir.base.artifact import MANIFEST, Artifact, exists
from zsbir.base.disk import DiskFolder
from zsbir.base.draft import remove
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join, open_folder, split_file
from zsbir.storage_admin.checking import verifiable_uris, verify
from zsbir.storage_admin.copying import copy
from zsbir.storage_admin.format import artifact_json
from zsbir.storage_admin.lineage import lineage
from zsbir.storage_admin.roots import survey

TESTS = Path(__file__).parents[2]


def all_whole(root):
    verdicts = verify(verifiable_uris(survey(root)))
    return bool(verdicts) and not any(verdict.problems or verdict.unnamed for verdict in verdicts)


@pytest.mark.parametrize(("here", "there"), [("disk", "disk"), ("disk", "moto"), ("moto", "disk"), ("moto", "moto")])
def test_an_artifact_and_all_it_was_made_from_arrive_byte_for_byte(here, there, new_root):
    source, target = new_root(here), new_root(there)
    line = put_line(source)
    put(source, "report", "unrelated")
    uri = copy(line.index.uri, target)
    assert uri == join(target, *line.index.uri.split("/")[-3:])
    copied, original = files_below(target), files_below(source)
    assert copied == {key: data for key, data in original.items() if key in copied}
    left_behind = {key.split("/")[0] for key in set(original) - set(copied)}
    assert left_behind == {"reports", "runs"}, "reports are made from it, not it from them"
    assert not any("checkpoints" in key for key in copied)
    assert all_whole(target)
    assert all(part.uri.startswith(target) for part in lineage(Artifact(uri)).walk())
    assert Artifact(uri).input("run", "run").digest == line.run.digest


def test_what_is_there_already_is_not_copied_again(root, new_root, monkeypatch):
    line, target = put_line(root), new_root("disk")
    copy(line.run.uri, target)

    def forbidden(*_):
        raise AssertionError("nothing is to be copied")

    monkeypatch.setattr(Artifact, "download", forbidden)
    assert copy(line.run.uri, target) == join(target, "runs", line.run.folder_name)
    assert copy(line.run.uri, root) == line.run.uri, "its own root has it"


def test_alone_it_comes_without_inputs(root, new_root):
    line, target = put_line(root), new_root("disk")
    copy(line.index.uri, target, inputs=False)
    assert {key.split("/")[0] for key in files_below(target)} == {"indexes"}
    weights = copy(line.weights, target)
    assert weights == join(target, "weights", line.weights.rpartition("/")[2])
    checkpoint = put_checkpoint(root, "toy-1")
    assert copy(checkpoint.uri, target) == join(target, "runs", "toy-1", "checkpoints", "step-000001")
    assert all_whole(target)


def test_an_input_that_is_gone_is_reported_before_anything_is_copied(root, new_root):
    line, target = put_line(root), new_root("disk")
    remove(line.knowledge.uri)
    folder, name = split_file(line.weights)
    folder.delete([name])
    with pytest.raises(InputError, match=r"knowledge .*gone.*--no-inputs") as error:
        copy(line.index.uri, target)
    assert "weights" in str(error.value), "every one is named"
    assert not files_below(target)


def test_what_lies_in_no_root_cannot_be_copied_to_another(tmp_path, new_root):
    report = put(tmp_path, "report", where="somewhere/else")
    with pytest.raises(InputError, match="is not in a storage root"):
        copy(report.uri, new_root("disk"))


def test_a_folder_of_photos_is_not_copied_and_said_so(root, new_root, capsys):
    index = put(root, "index", inputs={"gallery": {"uri": "/home/me/photos", "digest": ""}})
    target = new_root("disk")
    assert exists(copy(index.uri, target))
    assert "not copied: gallery /home/me/photos" in capsys.readouterr().err


def test_a_damaged_file_stops_the_copy_and_is_not_signed(root, new_root):
    line, target = put_line(root), new_root("disk")
    line.run.folder.replace("one.bin", b"eno")
    with pytest.raises(InputError, match=r"one\.bin differs from its manifest"):
        copy(line.index.uri, target)
    found = survey(target)
    assert {unit.kind for unit in found.units.values() if unit.artifact} == {"dataset", "knowledge"}, "what came before is whole"
    folder, name = split_file(line.weights)
    folder.replace(name, b"toi")
    with pytest.raises(InputError, match="damaged"):
        copy(line.weights, new_root("disk"))


def test_another_artifact_at_the_target_is_left_alone(root, new_root):
    line, target = put_line(root), new_root("disk")
    put(target, "report", "other", where="/".join(line.report.uri.split("/")[-2:]))
    before = files_below(target)
    with pytest.raises(RunError, match="is another report"):
        copy(line.report.uri, target)
    assert files_below(target) == before
    put(target, "knowledge", "other", where="/".join(line.knowledge.uri.split("/")[-3:]), digest=line.knowledge.digest)
    copy(line.knowledge.uri, target)  # made there itself: the same digest


def test_a_file_that_went_missing_at_the_target_is_brought_again(root, new_root):
    line, target = put_line(root), new_root("disk")
    there = open_folder(copy(line.run.uri, target))
    there.delete(["one.bin"])
    copy(line.run.uri, target)
    assert all_whole(target)
    there.replace("one.bin", b"longer")
    with pytest.raises(RunError, match=r"damaged.*one.bin"):
        copy(line.run.uri, target)


KILLED = """
import os, signal, sys
from zsbir.base import {module}
from zsbir.storage_admin.copying import copy
publish, left = {module}.{name}.publish, [{files}]

def dying(self, key, file, sha256):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return publish(self, key, file, sha256)

{module}.{name}.publish = dying
copy(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("where", ["disk", "moto"])
def test_a_copy_that_was_killed_goes_on(where, new_root, monkeypatch):
    source, target = new_root("disk"), new_root(where)
    run = put(
        source, "run", files={f"{number}.bin": bytes([number]) * 1000 for number in range(20)}, inputs={"d": put(source, "dataset")}
    )
    module, name = ("disk", "DiskFolder") if where == "disk" else ("s3", "S3Folder")
    script = KILLED.format(module=module, name=name, files=12)
    done = subprocess.run([sys.executable, "-c", script, run.uri, target], env=dict(os.environ), check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    there = join(target, *run.uri.split("/")[-2:])
    assert not exists(there), "half a copy is none"
    arrived = [key for key in files_below(there) if key.endswith(".bin") and not key.startswith(".")]
    assert arrived
    downloads = []
    download = Artifact.download
    monkeypatch.setattr(Artifact, "download", lambda self, name, file: downloads.append(name) or download(self, name, file))
    assert copy(run.uri, target) == there
    assert len(downloads) == 20 - len(arrived), "what had arrived is not copied again"
    assert not [verdict for verdict in verify([there]) if verdict.problems]


def test_a_store_that_writes_over_files_gets_keys_of_their_own_and_goes_on_too(new_root, monkeypatch):
    """Then the manifest says where they are, and is otherwise the same."""
    source, target = new_root("disk"), new_root("moto")
    run = put(source, "run", files={f"{number}.bin": bytes([number]) * 100 for number in range(6)})
    monkeypatch.setattr(s3.S3Folder, "_honours_conditions", lambda self: False)
    create = s3.S3Folder.create
    monkeypatch.setattr(s3.S3Folder, "create", lambda self, key, data: (_ for _ in ()).throw(RunError("the store is away")))
    with pytest.raises(RunError, match="away"):
        copy(run.uri, target)
    monkeypatch.setattr(s3.S3Folder, "create", create)
    monkeypatch.setattr(Artifact, "download", lambda *_: (_ for _ in ()).throw(AssertionError("all has arrived")))
    there = Artifact(copy(run.uri, target))
    monkeypatch.undo()
    assert all("~" in key for key in there.manifest.stored_as.values())
    assert there.manifest.model_copy(update={"stored_as": {}}) == run.manifest


def test_two_copies_at_once_make_one_artifact(new_root, monkeypatch):
    source, target = new_root("disk"), new_root("disk")
    run = put(source, "run")
    create = DiskFolder.create

    def overtaken(self, key, data):
        if key == MANIFEST and not exists(self.uri):
            monkeypatch.setattr(DiskFolder, "create", create)
            copy(run.uri, target)
        return create(self, key, data)

    monkeypatch.setattr(DiskFolder, "create", overtaken)
    assert exists(copy(run.uri, target))
    assert all_whole(target)


def test_the_manifest_comes_last_and_after_those_of_the_inputs(root, new_root, monkeypatch):
    line, target = put_line(root), new_root("disk")
    written = []
    create, publish = DiskFolder.create, DiskFolder.publish

    def noting(self, key, *rest):
        written.append(join(self.uri, key))
        return (create if len(rest) == 1 else publish)(self, key, *rest)

    monkeypatch.setattr(DiskFolder, "create", noting)
    monkeypatch.setattr(DiskFolder, "publish", noting)
    copy(line.index.uri, target)
    manifests = [uri.rpartition("/")[0] for uri in written if uri.endswith(MANIFEST)]
    parts = [uri.removeprefix(target).split("/")[1] for uri in manifests]
    assert parts == ["datasets", "knowledge", "runs", "indexes"]
    for uri in manifests:
        mine = [file for file in written if file.startswith(uri)]
        assert mine[-1].endswith(MANIFEST)


def test_a_manifest_with_keys_of_its_own_keeps_them(new_root, monkeypatch):
    source, target = new_root("disk"), new_root("disk")
    report = put(source, "report", files={"a.bin": b"a"})
    report.folder.create("a~1.bin", b"a")
    report.folder.delete(["a.bin"])
    manifest = json.loads(report.folder.read(MANIFEST))
    report.folder.replace(MANIFEST, json.dumps({**manifest, "stored_as": {"a.bin": "a~1.bin"}}).encode())
    there = copy(report.uri, target)
    assert files_below(there) == files_below(report.uri)


# What a stranger's artifact may not do


def change(artifact, **changes):
    """Rewrite the manifest of an artifact as a stranger may."""
    text = json.dumps({**json.loads(artifact.folder.read(MANIFEST)), **changes})
    artifact.folder.replace(MANIFEST, text.encode())


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["../../../../victim.txt", "../victim.txt", "{tmp}/victim.txt", "sub/../../../../victim.txt"])
@pytest.mark.parametrize("field", ["files", "stored_as"])
def test_a_copy_writes_nowhere_but_in_its_folder_of_the_target(name, field, tmp_path):
    report = put(tmp_path / "strangers", "report")
    (tmp_path / "victim.txt").write_text("mine")
    (tmp_path / "target").mkdir()
    name = name.format(tmp=tmp_path)
    if field == "files":  # the file itself lies under a plain key, and would be copied under its name
        entry = json.loads(report.folder.read(MANIFEST))["files"]["one.bin"]
        change(report, files={name: entry}, stored_as={name: "one.bin"})
    else:
        change(report, stored_as={"one.bin": name})
    before = everything(tmp_path)
    with pytest.raises(InputError, match="is not the name of a file"):
        copy(report.uri, str(tmp_path / "target"))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("where", ["disk", "moto"])
@pytest.mark.parametrize("uri", ["{root}/weights/../../victim", "{root}/datasets/../../../victim", "{root}/datasets/toy/.."])
def test_a_copy_follows_no_lineage_out_of_a_root(uri, where, new_root):
    source, target = new_root(where), new_root(where)
    report = put(source, "report")
    change(report, inputs={"dataset": {"uri": uri.format(root=source), "digest": "d" * 64}})
    with pytest.raises(InputError, match="the address of its input 'dataset' cannot be used"):
        copy(report.uri, target)
    assert not files_below(target)
    for evil in (f"{target}/weights/../../victim", f"{target}/runs/..", f"{target}/datasets/toy/../../x"):
        with pytest.raises(InputError, match=r"is not the address of an artifact|is not in a storage root"):
            copy(evil, target)


@pytest.mark.parametrize("link", ["one.bin", "sub"])
def test_a_copy_follows_no_link_out_of_an_artifact(link, tmp_path):
    report = put(tmp_path / "strangers", "report", files={"one.bin": b"top secret", "sub/two.bin": b"2"})
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    shutil.move(report.path / link, secrets / link)
    (report.path / link).symlink_to(secrets / link)
    with pytest.raises(InputError, match=rf"{link}.* leads out of its folder"):
        copy(report.uri, str(tmp_path / "target"))
    assert not list((tmp_path / "target").rglob("one.bin" if link == "one.bin" else "two.bin"))
    assert not list((tmp_path / "target").rglob(MANIFEST))


@pytest.mark.parametrize("where", ["disk", "moto"])
def test_a_copy_takes_no_more_bytes_than_the_manifest_says(where, new_root, monkeypatch, tmp_path):
    report = put(new_root(where), "report")
    report.folder.replace("one.bin", bytes(10**6))
    taken = []
    monkeypatch.setattr(shutil, "copyfileobj", lambda *_: taken.append(1))
    with pytest.raises(InputError, match=r"one\.bin differs from its manifest"):
        report.download("one.bin", tmp_path / "copy")
    assert where == "moto" or not taken


def test_a_manifest_that_is_replaced_while_it_is_copied_is_not_signed(tmp_path, monkeypatch):
    report = put(tmp_path / "strangers", "report")
    target = new = str(tmp_path / "target")
    download = Artifact.download

    def and_replace(self, name, file):
        download(self, name, file)
        change(report, files={"../../../../victim.txt": {"size": 3, "sha256": "0" * 64}})

    monkeypatch.setattr(Artifact, "download", and_replace)
    with pytest.raises((InputError, RunError)):
        copy(report.uri, target)
    assert not list(Path(new).rglob(MANIFEST))


def test_artifacts_that_name_each_other_again_and_again_are_copied_in_no_time(root, new_root):
    """Each of these names the next one twice: written out as a tree, that is 2^25 artifacts."""
    below = put(root, "report", where="reports/0", digest="0" * 64)
    for number in range(1, 26):
        below = put(root, "report", where=f"reports/{number}", digest=f"{number}" + "0" * 60, inputs={"a": below, "b": below})
    assert len(list(lineage(below).walk())) <= 2 * 26
    assert exists(copy(below.uri, new_root("disk")))
    with pytest.raises(InputError, match="its lineage has more than"):
        artifact_json(below, lineage(below))
    for number in range(26, 60):
        below = put(root, "report", where=f"reports/{number}", digest=f"{number}" + "0" * 60, inputs={"a": below})
    with pytest.raises(InputError, match=r"lies more than \d+ steps back"):
        copy(below.uri, new_root("disk"))
