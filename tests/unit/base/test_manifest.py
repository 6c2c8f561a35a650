"""Manifests are data from strangers: what one may say, and what its reader does about the rest."""

import json

import pytest
from building import put

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.base.manifest import MANIFEST, Manifest, checked_file_name, manifest_of
from zsbir.base.strict_json import parse_json
from zsbir.data.schema import shard_name

ENTRY = {"size": 3, "sha256": "0" * 64}
GOOD = {"kind": "index", "name": "toy", "digest": "d" * 64, "files": {"one.bin": ENTRY}}


def refused(**changes) -> str:
    with pytest.raises(InputError) as error:
        manifest_of({**GOOD, **changes}, f"/root/indexes/i/{MANIFEST}")
    line = str(error.value)
    assert line.startswith("/root/indexes/i")
    assert len(line) < 4000, "one line, however large the value"
    return line


EVIL_NAMES = [
    "../x", "../../.ssh/authorized_keys", "/etc/passwd", "a/../../x", "a/..", "..", ".", "", "a//b", "a/", "/", "./a", "a/./b",
    "a\\b", "..\\x", "C:\\x", "a\0b", "a\nb", "a\x1b[2J", "a\u202eb", "a\ufeff", "\u200b", "a\x7f", "\x85",
    "manifest.json", "MANIFEST.JSON", "sub/manifest.json", "manifest.json/x", ".lock",
    ".error.json", ".stop", ".lease-000001", ".writing-x/a",
    "sub/.undelivered", ".ssh/config", "x" * 256, "x/" * 300 + "x", "ü" * 128,
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_file_whose_name_leads_elsewhere_hides_or_cannot_be_seen_is_refused(name, tmp_path):
    assert "files" in refused(files={name: ENTRY})
    assert "stored_as" in refused(stored_as={"one.bin": name})
    with pytest.raises(InputError), draft(tmp_path / "abc", "index", "toy") as work:
        work.file(name)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "one.bin",
        shard_name(7),
        "a b.png",
        "part-00000~3f9cab34de12.parquet",
        "dots...",
        "~x",
        "grüße/猫.json",
        "x" * 255,
        "a" * 250 + "/b",
    ],
)
def test_plain_names_are_allowed(name):
    assert checked_file_name(name) == name
    assert manifest_of({**GOOD, "files": {name: ENTRY}, "stored_as": {name: "other"}}, "x").key(name) == "other"


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"a": {"size": 3, "sha256": "../../evil" + "0" * 54}}},
        {"files": {"a": {"size": 3, "sha256": "0" * 63}}},
        {"files": {"a": {"size": 3, "sha256": "0" * 64 + "\n"}}},
        {"files": {"a": {"size": 3, "sha256": "A" * 64}}},
        {"files": {"a": {"size": -1, "sha256": "0" * 64}}},
        {"files": {"a": {"size": 2**60, "sha256": "0" * 64}}},
        {"files": {"a": {"size": 1.5, "sha256": "0" * 64}}},
        {"files": {"a": {"size": "3", "sha256": "0" * 64}}},
        {"files": {"a": {"size": True, "sha256": "0" * 64}}},
        {"files": {"a": {**ENTRY, "mode": "0777"}}},
        {"files": ["a"]},
        {"files": {f"{number}.bin": 5 for number in range(100_000)}},
        {"stored_as": {"two.bin": "x"}},
        {"files": {"a": ENTRY, "b": ENTRY}, "stored_as": {"a": "b"}},
        {"files": {"a": ENTRY, "b": ENTRY}, "stored_as": {"a": "c", "b": "c"}},
        {"kind": "ship"},
        {"kind": ["index"]},
        {"schema_version": "1"},
        {"schema_version": 0},
        {"schema_version": -1},
        {"schema_version": True},
        {"schema_version": [2]},
        {"schema_version": 1.0},
        {"name": "../../x"},
        {"name": "a/b"},
        {"name": ".."},
        {"name": "a\x1bb"},
        {"name": "x" * 10_000},
        {"digest": "../../../../x"},
        {"digest": ""},
        {"digest": "d/d"},
        {"digest": "d" * 1000},
        {"counts": {"photos": 10**40}},
        {"counts": {"photos": "many"}},
        {"inputs": {"weights": {"uri": "s3://bucket/weights/../../victim", "digest": ""}}},
        {"inputs": {"dataset": {"uri": "../datasets/x", "digest": ""}}},
        {"inputs": {"deep": [{"x": {"uri": "/a/..", "digest": ""}}]}},
        {"inputs": {"dataset": {"uri": "/a\0b", "digest": ""}}},
        {"inputs": {"dataset": {"uri": "/" + "x" * 10_000, "digest": ""}}},
        {"inputs": {"runs": [{"uri": "/runs/x", "digest": ""}] * (limits.INPUTS + 1)}},
        {"inputs": "none"},
        {"code": {"zsbir": 5}},
        {"created_utc": "x" * 1000},
        {"anything": "else"},
    ],
    ids=lambda changes: str(changes)[:50],
)  # fmt: skip
def test_a_manifest_that_says_what_no_stage_writes_is_refused(changes):
    refused(**changes)


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_what_is_no_mapping_is_no_manifest(value):
    with pytest.raises(InputError, match="a manifest is a mapping"):
        manifest_of(value, "x")


def test_of_many_faults_a_few_are_named():
    line = refused(files={f"../{number}": ENTRY for number in range(1000)})
    assert line.endswith("; and 990 more")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested more than"),
        (b"[" * 100_000, "nested more than"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested more than"),
        (b"[" * 40 + b"]" * 40, "nested more than"),
        (b"[" + b"0," * (limits.JSON_VALUES + 1) + b"0]", "values"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": "\xff"}', "utf-8"),
        (b'\xff\xfe{\x00"\x00a\x00"\x00:\x001\x00}\x00', "utf-8"),
        (b"1" * 5000, "digits"),
        (b"", "Expecting value"),
        (b'{"a": 1', "delimiter"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_read_within_bounds(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        parse_json(text)
    assert "\n" not in str(error.value)


def test_a_reader_reports_a_bad_manifest_by_its_address_in_every_store(root):
    made = put(root, "index")
    for text in (b"[" * 100_000, b'{"kind": "\\ud800"}', b"\xff", b"{}", b" " * (limits.MANIFEST_BYTES + 1)):
        made.folder.replace(MANIFEST, text)
        with pytest.raises(InputError, match=rf"{MANIFEST}"):
            Artifact(made.uri)


def test_a_manifest_behind_a_link_that_leads_out_is_not_read(tmp_path):
    made = put(tmp_path, "index")
    (made.path / MANIFEST).rename(tmp_path / "elsewhere.json")
    (made.path / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"manifest\.json leads out of its folder"):
        Artifact(made.uri)


def test_writers_are_held_to_the_same_rules(tmp_path):
    with pytest.raises(InputError, match="digest"), draft(tmp_path / "abc", "index", "toy") as work:
        work.commit(digest="../../x")
    with pytest.raises(InputError, match="name"), draft(tmp_path / "abc", "index", "../toy") as work:
        work.commit(digest="d")
    assert not list(tmp_path.rglob(MANIFEST))


def test_a_manifest_survives_writing_and_reading(tmp_path):
    made = put(
        tmp_path, "report", inputs={"a": {"b": [{"uri": "/x", "digest": "1"}]}}, counts={"queries": 2**62}, facts={"f": [1.5, None]}
    )
    again = Manifest.of(json.loads(made.folder.read(MANIFEST)))
    assert again == made.manifest == Artifact(made.uri).manifest
    assert made.manifest.reference("a") is None, "a reference is the role's own value"


@pytest.mark.parametrize("run", ["x", ["x"], 5, None, {}, {"digest": "1"}, {"uri": 5}])
def test_an_input_that_is_no_address_is_one_that_is_not_named(run):
    manifest = manifest_of({**GOOD, "inputs": {"run": run}}, "/root")
    assert manifest.reference("run") is None
    with pytest.raises(InputError, match="lacks 'run'"):
        manifest.named("run")
