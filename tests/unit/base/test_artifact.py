import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from zsbir.base.artifact import MANIFEST, SCHEMA_VERSION, Artifact, exists
from zsbir.base.config import Config
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError


class Recipe(Config):
    """What decides the artifact."""

    photos: int = 3


def write(parent, text="one", folder="abc", digest="d" * 64, **facts):
    with draft(parent / folder, "index", "test") as work:
        work.file("sub/words.txt").write_text(text)
        work.file("numbers.bin").write_bytes(bytes(100))
        return work.commit(digest=digest, config=Recipe(), counts={"photos": 3}, facts=facts)


def visible(parent):
    """List what a reader of the folder takes for an artifact."""
    return sorted(path.name for path in Path(parent).iterdir() if not path.name.startswith("."))


def test_an_artifact_is_what_its_manifest_says(tmp_path):
    made = write(tmp_path, kind_of_day="sunny")
    opened = Artifact(made.uri, "index")
    assert opened.path == tmp_path / "abc"
    assert opened.digest == "d" * 64
    manifest = opened.manifest
    assert (manifest.kind, manifest.name, manifest.schema_version) == ("index", "test", SCHEMA_VERSION)
    assert (manifest.config, manifest.counts, manifest.facts) == ({"photos": 3}, {"photos": 3}, {"kind_of_day": "sunny"})
    assert sorted(manifest.files) == ["numbers.bin", "sub/words.txt"]
    assert manifest.files["numbers.bin"].size == 100
    assert manifest.code["zsbir"]
    assert manifest.created_utc.endswith("+00:00")
    assert opened.file("sub/words.txt").read_text() == "one"
    assert opened.reference() == {"uri": str(tmp_path / "abc"), "digest": "d" * 64}
    opened.verify()


def test_a_file_uri_and_a_relative_path_open_the_same_artifact(tmp_path, monkeypatch):
    made = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert Artifact("abc").uri == Artifact(f"file://{made.path}").uri == made.uri
    assert exists("abc")


def test_a_draft_is_invisible_until_it_is_committed(tmp_path):
    with draft(tmp_path / "abc", "index", "test") as work:
        work.file("words.txt").write_text("one")
        work.publish("words.txt")
        work.file("more.txt").write_text("two")
        assert not exists(tmp_path / "abc")
        with pytest.raises(InputError, match=r"has no manifest\.json"):
            Artifact(tmp_path / "abc")
        work.commit(digest="d")
        assert exists(tmp_path / "abc")
    assert visible(tmp_path / "abc") == ["manifest.json", "more.txt", "words.txt"], "nothing hidden is left either"
    assert len(list((tmp_path / "abc").iterdir())) == 3


def test_an_error_in_a_draft_leaves_nothing(tmp_path):
    def half_done():
        with draft(tmp_path / "abc", "index", "test") as work:
            work.file("words.txt").write_text("one")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    assert list(tmp_path.iterdir()) == []


def test_of_two_drafts_of_one_digest_one_stays_and_both_return_it(tmp_path, capsys):
    with draft(tmp_path / "abc", "index", "test") as early, draft(tmp_path / "abc", "index", "test") as late:
        early.file("words.txt").write_text("the early one")
        late.file("words.txt").write_text("the late one")
        late.publish("words.txt")
        first = early.commit(digest="d")
        second = late.commit(digest="d")
    assert first.uri == second.uri
    assert second.file("words.txt").read_text() == "the early one"
    second.verify()
    assert "finished" in capsys.readouterr().err, "the late one says so"
    assert {entry.key for entry in second.folder.walk()} == {MANIFEST, second.key("words.txt")}


def test_many_writers_at_once_make_one_whole_artifact(tmp_path):
    start, made = threading.Barrier(8), []

    def writer(number):
        start.wait()
        made.append(write(tmp_path, text=f"writer {number}").uri)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [str(tmp_path / "abc")] * 8
    winner = Artifact(made[0])
    winner.verify()
    found = {entry.key for entry in winner.folder.walk()}
    # A loser that has published after the winner looked leaves its file behind; it takes it away itself.
    assert found == {MANIFEST, *(winner.key(name) for name in winner.manifest.files)}


def test_a_file_that_is_in_the_way_stays_as_it_is_and_the_manifest_names_another(tmp_path):
    (tmp_path / "abc" / "sub").mkdir(parents=True)
    (tmp_path / "abc" / "sub" / "words.txt").write_text("of somebody else")
    made = write(tmp_path)
    assert (tmp_path / "abc" / "sub" / "words.txt").read_text() == "of somebody else"
    assert made.file("sub/words.txt").read_text() == "one"
    assert re.fullmatch(r"sub/words~[0-9a-f]{12}\.txt", made.key("sub/words.txt"))
    made.verify()


def test_another_artifact_that_is_in_the_way_is_an_error_and_stays(tmp_path):
    first = write(tmp_path, digest="e" * 64)
    with pytest.raises(RunError, match="another writer has put a different index"):
        write(tmp_path, text="two")
    first.verify()
    assert {entry.key for entry in first.folder.walk()} == {MANIFEST, *first.manifest.files}


KILLED = """
import sys, time
from zsbir.base.draft import draft
with draft(sys.argv[1] + "/abc", "index", "test") as work:
    work.file("first.bin").write_bytes(bytes(1000))
    work.publish("first.bin")
    print("between two files", flush=True)
    time.sleep(60)
    work.file("second.bin").write_bytes(bytes(1000))
    work.commit(digest="d" * 64)
"""


def test_a_writer_killed_between_two_files_leaves_nothing_that_looks_whole(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "between two files\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob(f"**/{MANIFEST}"))
    with pytest.raises(InputError, match="no index at"):
        Artifact(tmp_path / "abc", "index")
    write(tmp_path).verify()
    assert visible(tmp_path) == ["abc"], "the next writer is not in the way of the dead one's leftovers"


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match=rf"^cannot write the index at {tmp_path}/file/indexes/abc: Not a directory$"):
        write(tmp_path / "file" / "indexes")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("ray://127.0.0.1:10001 does not answer"),
        OSError("AF_UNIX path length cannot exceed 107 bytes"),
        FileNotFoundError(2, "No such file or directory", "/photos/a.png"),
        OSError(28, "No space left on device", "/somewhere/else"),
        OSError(5, "Input/output error"),
        SafetensorError("Error while deserializing header: HeaderTooSmall"),
    ],
)
def test_an_error_of_what_makes_the_files_passes_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, draft(tmp_path / "abc", "index", "test"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_files_get_the_permissions_that_the_user_gives_new_files_whatever_wrote_them(tmp_path):
    mask = os.umask(0o027)
    os.umask(mask)
    with draft(tmp_path / "abc", "index", "test") as work:
        save_file({"x": torch.zeros(3)}, work.file("encoder.safetensors"))
        with tempfile.NamedTemporaryFile(dir=work.path, delete=False) as temporary:
            Path(temporary.name).rename(work.file("temporary.bin"))
        work.file("plain.txt").write_text("plain")
        work.file("private.txt").write_text("was made private")
        work.file("private.txt").chmod(0o600)
        made = work.commit(digest="d")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.path.iterdir()}
    assert modes == dict.fromkeys(["encoder.safetensors", "temporary.bin", "plain.txt", "private.txt", MANIFEST], 0o666 & ~mask)


PIPES = """
import sys
from zsbir.base import cli
from zsbir.base.artifact import Artifact
cli.main(lambda argv: Artifact(sys.argv[1]).verify())
"""


@pytest.mark.parametrize("name", [MANIFEST, "numbers.bin"])
def test_a_pipe_in_place_of_a_file_keeps_no_reader_waiting(tmp_path, name):
    made = write(tmp_path)
    (made.path / name).unlink()
    os.mkfifo(made.path / name)
    done = subprocess.run([sys.executable, "-c", PIPES, made.uri], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: .*{re.escape(name)}.*\n", done.stderr), done.stderr
    with pytest.raises(OSError, match="not a regular file"):
        made.folder.read(name)
    with pytest.raises(OSError, match="not a regular file"):
        made.folder.read_range(name, 0, 10)
    with pytest.raises(OSError, match="not a regular file"):
        made.folder.download(name, tmp_path / "copy")


FULL = """
import resource, sys
import numpy, pyarrow, pyarrow.parquet, torch
from safetensors.torch import save_file
from zsbir.base import cli
from zsbir.base.draft import draft
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
numbers = numpy.random.default_rng(0).random(200_000)
writers = [
    lambda path: path.write_bytes(numbers.tobytes()),
    lambda path: numpy.save(path, numbers),
    lambda path: pyarrow.parquet.write_table(pyarrow.table({"x": numbers}), path),
    lambda path: save_file({"x": torch.from_numpy(numbers)}, path),
]
for write in writers:
    def run(argv):
        with draft(sys.argv[1] + "/abc", "index", "test") as work:
            write(work.file("large.bin"))
            return work.commit(digest="d").uri
    try:
        cli.main(run)
    except SystemExit as end:
        assert end.code == 1
"""


def lines_of_writers(parent, limit_bytes=0):
    """Collect the errors of Python, NumPy, Parquet and safetensors when `parent` takes no more."""
    words = [sys.executable, "-c", FULL, str(parent), str(limit_bytes)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it could not write either
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not list(parent.rglob("*")), "nothing is left, hidden or not"
    start = f"error: cannot write the index at {parent}/abc: "
    lines = done.stderr.splitlines()
    assert [line[: len(start)] for line in lines] == [start] * 4
    return [line.removeprefix(start) for line in lines]


def test_a_file_that_may_not_grow_any_more_ends_in_one_clear_line_and_leaves_nothing(tmp_path):
    plain, numpy, parquet, safetensors = lines_of_writers(tmp_path / "indexes", 100_000)
    assert plain == "File too large"
    assert re.fullmatch(r"200000 requested and \d+ written \(is the disk full\?\)", numpy)
    assert parquet.endswith("File too large")
    assert "File too large" in safetensors


@pytest.fixture
def small_disk(tmp_path):
    """Mount a real disk of 256 KiB, where this user may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_in_one_clear_line_and_leaves_its_room_again(small_disk):
    plain, numpy, parquet, safetensors = lines_of_writers(small_disk / "indexes")
    assert plain == "No space left on device"
    assert "is the disk full?" in numpy
    assert parquet.endswith("No space left on device")
    assert "No space left on device" in safetensors


@pytest.mark.parametrize("change", [lambda path: path.write_text("two"), lambda path: path.write_text("longer than before")])
def test_verify_names_the_file_that_was_changed(tmp_path, change):
    made = write(tmp_path)
    change(made.path / "sub/words.txt")
    with pytest.raises(InputError, match=r"sub/words\.txt differs from its manifest: .*make the artifact again"):
        made.verify()


def test_verify_and_file_name_a_file_that_is_gone(tmp_path):
    made = write(tmp_path)
    (made.path / "numbers.bin").unlink()
    for look in (made.verify, lambda: made.file("numbers.bin")):
        with pytest.raises(InputError, match=r"\(index\) has no file 'numbers.bin'"):
            look()


@pytest.mark.parametrize("name", ["stranger.txt", "../other/secret", "/etc/hostname", "sub/../../x", "sub"])
def test_only_files_of_the_manifest_are_handed_out(tmp_path, name):
    made = write(tmp_path)
    (made.path / "stranger.txt").write_text("not signed")
    with pytest.raises(InputError, match="has no file"):
        made.file(name)


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "sub/../../secret"])
def test_a_file_that_a_manifest_names_outside_its_folder_is_not_handed_out(tmp_path, name):
    made = write(tmp_path)
    (tmp_path / "secret").write_text("of somebody else")
    change_manifest(made.path, files={name: {"size": 16, "sha256": "0" * 64}})
    for look in (lambda: Artifact(made.uri).file(name), lambda: Artifact(made.uri).verify()):
        with pytest.raises(InputError, match="is not the name of a file in a folder"):
            look()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    made = write(tmp_path)
    (tmp_path / "secret").write_text("of somebody else")
    (made.path / "numbers.bin").unlink()
    (made.path / "numbers.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"'numbers.bin' leads out of its folder"):
        made.file("numbers.bin")


def test_an_artifact_reached_through_a_link_is_the_artifact(tmp_path):
    made = write(tmp_path)
    (tmp_path / "newest").symlink_to(made.path)
    Artifact(tmp_path / "newest").verify()
    assert Artifact(tmp_path / "newest").uri == made.uri


def change_manifest(folder, **changes):
    file = folder / MANIFEST
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_what_a_newer_version_wrote_is_refused_and_the_way_out_is_named(tmp_path):
    made = write(tmp_path)
    change_manifest(made.path, schema_version=SCHEMA_VERSION + 1, something_new=[1, 2], code={"zsbir": "7.1"})
    newer = rf"written by a newer zsbir 7\.1 \(schema {SCHEMA_VERSION + 1}; this is zsbir .*, schema {SCHEMA_VERSION}\); upgrade"
    with pytest.raises(InputError, match=newer):
        Artifact(made.uri)


def test_a_key_that_this_version_does_not_know_is_named_with_the_version_that_made_it(tmp_path):
    made = write(tmp_path)
    change_manifest(made.path, code={"zsbir": "7.1"}, something_new=[1, 2])
    with pytest.raises(InputError, match=r"does not know what 'something_new' means; read it with the version.*\(zsbir 7\.1\)"):
        Artifact(made.uri)


def test_what_a_later_version_adds_within_a_section_is_passed_over(tmp_path):
    made = write(tmp_path)
    was = made.manifest.model_dump(mode="json")
    later = {name: {**was[name], "later": 1} for name in ("counts", "facts", "config", "inputs")}
    change_manifest(made.path, **later)
    assert Artifact(made.uri).manifest.counts["later"] == 1
    Artifact(made.uri).verify()


def test_an_artifact_of_another_kind_is_refused_by_both_names(tmp_path):
    made = write(tmp_path)
    with pytest.raises(InputError, match=r"abc is an index, not a run"):
        Artifact(made.uri, "run")


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"kind": "index"}', '{"kind": "ship", "name": "a", "digest": "b"}'])
def test_a_broken_manifest_is_an_input_error_that_names_the_file(tmp_path, content):
    made = write(tmp_path)
    (made.path / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json") as caught:
        Artifact(made.uri)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("nowhere", "no run at '.*nowhere': no such folder"),
        (".", "the folder exists, but has no manifest.json"),
        ("https://example.org/runs/a", "has a scheme that is not known here"),
    ],
)
def test_an_address_without_an_artifact_is_an_input_error(tmp_path, monkeypatch, uri, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no artifact")
    with pytest.raises(InputError, match=line):
        Artifact(uri, "run")
