import json
import os
import time

import pytest
from building import files_below, make_old, put, put_checkpoint, put_line, put_weights

from zsbir import artifacts
from zsbir.base.artifact import MANIFEST, exists
from zsbir.base.draft import remove
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import join, open_folder

KINDS = "dataset,knowledge,weights,pretrained,checkpoint,report,index,run"


def do(*words):
    return artifacts._parse([str(word) for word in words])


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def leave(monkeypatch, *words):
    """Return the exit code of the command line."""
    monkeypatch.setattr("sys.argv", ["artifacts", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        artifacts.main()
    return left.value.code


# list


def test_a_list_names_what_there_is_newest_last(root, monkeypatch):
    line = put_line(root)
    newest = put(root, "dataset", "newest")
    text = newest.folder.read(MANIFEST).replace(newest.manifest.created_utc.encode(), b"2999-01-01T00:00:00+00:00")
    newest.folder.replace(MANIFEST, text)
    lines = do("list", "--root", root).splitlines()
    assert lines[0].split() == ["kind", "name", "digest", "size", "files", "created", "(UTC)", "uri"]
    assert len(lines) == 1 + 6, "five of the line without the checkpoint, and the newest"
    assert lines[-1].split() == ["dataset", "newest", newest.digest[:12], "67", "B", "2", "2999-01-01", "00:00:00", newest.uri]
    assert any(line.index.uri in text for text in lines)


def test_a_list_may_be_of_one_kind(root):
    line = put_line(root)
    pretrained = put(root, "pretrained")
    assert [row["uri"] for row in rows(do("list", "--kind", "run", "--json", "--root", root))] == [line.run.uri]
    assert [row["uri"] for row in rows(do("list", "--kind", "pretrained", "--json", "--root", root))] == [pretrained.uri]
    assert [row["uri"] for row in rows(do("list", "--kind", "weights", "--json", "--root", root))] == [line.weights]
    (checkpoint,) = rows(do("list", "--kind", "checkpoint", "--json", "--root", root))
    assert checkpoint["uri"].startswith(line.run.uri)
    assert len(rows(do("list", "--checkpoints", "--json", "--root", root))) == 7
    with pytest.raises(InputError, match="did you mean 'dataset'"):
        do("list", "--kind", "datasets", "--root", root)


def test_a_list_goes_on_past_damaged_manifests(root, capsys):
    put_line(root)
    open_folder(root).create("reports/bad/manifest.json", b"{")
    put_checkpoint(root, "toy-9")
    assert len(rows(do("list", "--json", "--root", root))) == 5
    told = capsys.readouterr().err
    assert "warning: damaged: " in told
    assert "reports/bad" in told
    assert "not finished: " in told
    assert "runs/toy-9, with 1 checkpoint\n" in told


def test_what_a_stranger_wrote_into_a_manifest_gives_no_orders_to_the_terminal(root):
    evil = "\x1b]0;owned\x07\n\u202ereversed"
    report = put(
        root, "report", facts={"note": evil, f"key{evil}": 1}, inputs={f"role{evil}": {"uri": f"/photos/{evil}", "digest": ""}}
    )
    change = json.loads(report.folder.read(MANIFEST)) | {"created_utc": evil}
    report.folder.replace(MANIFEST, json.dumps(change).encode())
    for text in (do("list", "--root", root), do("show", report.uri)):
        assert all(line.isprintable() for line in text.split("\n")), text
        assert "\\x1b]0;owned\\x07\\n\\u202ereverse" in text
    assert len(do("list", "--root", root).split("\n")) == 2, "one line of headings and one row"
    assert json.loads(do("show", report.uri, "--json"))["facts"]["note"] == evil, "programs get it as it is"


def test_an_empty_root_has_an_empty_list(root, capsys):
    assert do("list", "--json", "--root", root) == ""
    assert "nothing in " in capsys.readouterr().err


def test_the_root_comes_from_the_environment_too(root, monkeypatch):
    put_line(root)
    monkeypatch.setenv("ZSBIR_ROOT", root)
    assert len(do("list").splitlines()) == 6


# show


def test_show_says_what_it_is_and_where_from(root):
    line = put_line(root)
    text = do("show", line.index.uri)
    assert text.startswith(f"index toy\n  uri     {line.index.uri}\n  digest  {line.index.digest}\n")
    assert "├─ run: toy" in text
    whole = json.loads(do("show", line.index.uri, "--json"))
    assert whole["kind"] == "index"
    assert [part["role"] for part in whole["lineage"]["inputs"]] == ["run", "gallery"]


def test_show_hands_the_addresses_of_files_to_other_tools(root):
    line = put_line(root)
    assert do("show", line.index.uri, "--files") == "\n".join(
        [join(line.index.uri, "one.bin"), join(line.index.uri, "sub", "two.bin")]
    )
    assert do("show", line.index.uri, "--files", "sub/*") == join(line.index.uri, "sub", "two.bin")
    with pytest.raises(InputError, match=r"no file '\*.parquet'; it has one.bin, sub/two.bin"):
        do("show", line.index.uri, "--files", "*.parquet")


def test_show_knows_weight_files(root):
    uri = put_weights(root)
    assert do("show", uri).startswith(f"weights\n  uri     {uri}\n")
    assert json.loads(do("show", uri, "--json"))["size"] == 7
    assert do("show", uri, "--files") == uri
    remove(uri.rpartition("/")[0])
    with pytest.raises(InputError, match="no weight file"):
        do("show", uri)


# verify


def test_verify_says_how_much_is_whole(root, monkeypatch, capsys):
    line = put_line(root)
    assert do("verify", "--all", "--root", root).startswith("7 of 7 whole, ")
    assert do("verify", line.run.uri, line.weights).startswith("2 of 2 whole, ")
    assert leave(monkeypatch, "verify", line.run.uri) == 0


def test_verify_lists_every_problem_and_fails(root, monkeypatch, capsys):
    line = put_line(root)
    line.run.folder.delete(["one.bin", "sub/two.bin"])
    line.index.folder.create("extra.bin", b"")
    assert leave(monkeypatch, "verify", "--all", "--root", root) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"{line.run.uri}: one.bin: missing",
        f"{line.run.uri}: sub/two.bin: missing",
        f"{line.index.uri}: extra.bin: not named by its manifest",
        out[-1],
    ]
    assert out[-1].startswith("6 of 7 whole")
    assert leave(monkeypatch, "verify", line.run.uri, "--json") == 1
    (verdict,) = rows(capsys.readouterr().out)
    assert verdict["problems"] == [{"file": "one.bin", "what": "missing"}, {"file": "sub/two.bin", "what": "missing"}]


def test_verify_wants_artifacts_or_all(root):
    with pytest.raises(InputError, match="name artifacts, or pass --all"):
        do("verify", "--root", root)
    with pytest.raises(InputError, match="not both"):
        do("verify", "--all", "somewhere", "--root", root)


# copy


def test_copy_prints_the_new_address(root, new_root):
    line, target = put_line(root), new_root("disk")
    uri = do("copy", line.index.uri, target)
    assert uri == join(target, "indexes", "toy", line.index.digest[:16])
    assert do("verify", "--all", "--root", target).startswith("5 of 5 whole")
    alone = new_root("disk")
    do("copy", line.index.uri, alone, "--no-inputs")
    assert do("verify", "--all", "--root", alone).startswith("1 of 1 whole")


# gc


def test_gc_lists_and_removes_only_with_delete(root, capsys):
    line = put_line(root)
    open_folder(root).create("reports/abc/report.json", b"12345")
    before = files_below(root)
    time.sleep(1.1 if root.startswith("s3") else 0.01)
    asked = ("gc", "--root", root, "--older-than", "0", "--unnamed", "index,report", "--no-registry")
    text = do(*asked)
    assert files_below(root) == before
    assert line.index.uri in text
    assert "report without a manifest: never finished" in text
    assert "would go with --delete: 7 files" in capsys.readouterr().err
    assert len(rows(do(*asked, "--json"))) == 3
    assert do(*asked, "--delete") == text
    assert "removed: 7 files" in capsys.readouterr().err
    assert not exists(line.index.uri)
    assert exists(line.run.uri)
    assert do(*asked, "--json") == ""
    assert do("verify", "--all", "--root", root).startswith("5 of 5 whole")


def test_gc_leaves_the_young_alone(root):
    put_line(root)
    open_folder(root).create("reports/abc/report.json", b"12345")
    assert do("gc", "--root", root, "--unnamed", KINDS, "--no-registry", "--json") == ""


def test_gc_keeps_what_keep_names(tmp_path):
    line = put_line(tmp_path)
    make_old(tmp_path)
    asked = ("gc", "--root", tmp_path, "--unnamed", KINDS, "--delete")
    do(*asked, "--keep", line.run.uri, line.report.uri)
    assert exists(line.dataset.uri)
    assert exists(line.report.uri)
    assert not exists(line.index.uri)
    with pytest.raises(InputError, match="there is no such artifact"):
        do(*asked, "--keep", line.index.uri)
    with pytest.raises(InputError, match="there is no such artifact"):
        do(*asked, "--keep", "s3://elsewhere/runs/toy")


def test_gc_says_why_things_stay(tmp_path, capsys):
    put_line(tmp_path)
    make_old(tmp_path)
    do("gc", "--root", tmp_path, "--unnamed", "run,dataset,knowledge")
    told = capsys.readouterr().err
    assert "stays: 3 artifacts named by others that stay\n" in told
    put_checkpoint(tmp_path, "toy-9")
    do("gc", "--root", tmp_path, "--unnamed", "index,report,dataset")
    told = capsys.readouterr().err
    assert "stays: 1 artifact runs/toy-9 is not finished and may read it" in told


def test_gc_does_not_count_debris_twice(tmp_path):
    line = put_line(tmp_path)
    line.index.folder.create("extra.bin", b"1")
    make_old(tmp_path)
    (row,) = rows(do("gc", "--root", tmp_path, "--unnamed", "index", "--json"))
    assert (row["kind"], row["files"]) == ("index", 4)
    removed = rows(do("gc", "--root", tmp_path, "--unnamed", "index", "--json", "--delete"))
    assert sum(row["files"] for row in removed) == 4
    assert not exists(line.index.uri)


def test_gc_refuses_while_it_cannot_know_what_is_named(tmp_path, capsys):
    put_line(tmp_path)
    open_folder(tmp_path).create("reports/bad/manifest.json", b"{")
    make_old(tmp_path)
    before = files_below(str(tmp_path))
    asked = ("gc", "--root", tmp_path, "--unnamed", "index,report")
    assert do(*asked, "--json") == ""
    assert "--delete would refuse: not all manifests can be read (1)" in capsys.readouterr().err
    with pytest.raises(RunError, match="nothing was removed: not all manifests can be read"):
        do(*asked, "--delete")
    assert files_below(str(tmp_path)) == before


DEEP = b'{"a":' * 100_000


@pytest.mark.parametrize("what", ["deep", "pipe", "linked", "large number", "surrogate"])
def test_one_bad_manifest_stops_neither_list_nor_verify_nor_gc(what, tmp_path, monkeypatch, capsys):
    line = put_line(tmp_path)
    bad = put(tmp_path, "report", "bad", files={"two.bin": b"2"})
    manifest = bad.path / MANIFEST
    text = manifest.read_text()
    manifest.unlink()
    if what == "pipe":
        os.mkfifo(manifest)
    elif what == "linked":
        manifest.symlink_to("/dev/zero")
    else:
        evil = {
            "deep": DEEP,
            "large number": text.replace('"size": 1', '"size": ' + "9" * 30).encode(),
            "surrogate": b'{"\\ud800": 1}',
        }
        manifest.write_bytes(evil[what])
    line.index.folder.create("left-over.bin", b"1")
    make_old(tmp_path)
    assert line.index.uri in do("list", "--root", tmp_path)
    assert f"damaged: {bad.uri}: " in capsys.readouterr().err
    assert leave(monkeypatch, "verify", "--all", "--root", tmp_path) == 1
    out = capsys.readouterr().out
    assert f"{bad.uri}: {MANIFEST}: " in out
    assert "7 of 8 whole" in out
    with pytest.raises(RunError, match="nothing was removed: not all manifests can be read"):
        do("gc", "--root", tmp_path, "--unnamed", "index,report,dataset", "--delete")
    (row,) = rows(do("gc", "--root", tmp_path, "--delete", "--json"))
    assert row["uri"] == join(line.index.uri, "left-over.bin"), "debris elsewhere goes, and nothing of the bad artifact"
    assert f"damaged, and left as it is: {bad.uri}" in capsys.readouterr().err
    assert (bad.path / "two.bin").read_bytes() == b"2"


def test_gc_in_object_storage_wants_to_know_the_registry(new_root, monkeypatch, tmp_path):
    """On disk it lies beside the runs; which one belongs to a bucket, only its users know."""
    root = new_root("moto")
    put_line(root)
    monkeypatch.chdir(tmp_path)
    asked = ("gc", "--root", root, "--older-than", "0", "--delete")
    with pytest.raises(RunError, match="MLFLOW_TRACKING_URI, or pass --no-registry"):
        do(*asked, "--unnamed", "index,run")
    with pytest.raises(RunError, match="MLFLOW_TRACKING_URI, or pass --no-registry"):
        do(*asked, "--unnamed", "index,report")
    do(*asked, "--unnamed", "sweep,export")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/gone/mlflow.db")
    with pytest.raises(RunError, match="nothing was removed: there is no MLflow store"):
        do(*asked, "--unnamed", "index,report")


def test_gc_understands_hours_and_kinds(root):
    with pytest.raises(InputError, match="--older-than"):
        do("gc", "--root", root, "--older-than", "-1")
    with pytest.raises(InputError, match="--older-than"):
        do("gc", "--root", root, "--older-than", "nan")
    with pytest.raises(InputError, match="unknown kind 'runs'; did you mean 'run'"):
        do("gc", "--root", root, "--unnamed", "runs")


# the command line


def test_help_names_every_command(monkeypatch, capsys):
    assert leave(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert "python -m zsbir.artifacts" in text
    for name in artifacts.COMMANDS:
        assert f"\n  {name} " in text
        assert leave(monkeypatch, name, "--help") == 0
        assert f"python -m zsbir.artifacts {name}" in capsys.readouterr().out
    assert leave(monkeypatch) == 0, "no command is a question too"


def test_an_unknown_command_is_bad_input(monkeypatch, capsys):
    assert leave(monkeypatch, "lst") == 2
    assert "unknown command 'lst'; did you mean 'list'?" in capsys.readouterr().err


def test_results_and_the_story_do_not_mix(root, monkeypatch, capsys):
    line, target = put_line(root), f"{root}-copy"
    assert leave(monkeypatch, "copy", line.run.uri, target) == 0
    told = capsys.readouterr()
    assert told.out == f"{join(target, 'runs', line.run.folder_name)}\n"
    assert "copied 2 files" in told.err
    assert leave(monkeypatch, "show", f"{root}/runs/none") == 2
    assert leave(monkeypatch, "list", "--root", target, "--kind", "run") == 0
