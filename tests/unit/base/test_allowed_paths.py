"""Where jobs may read: whatever is accepted lies inside, and the way there has no detours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.errors import InputError

REMOTE = "s3://bucket/root"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A root with a data set in it, beside a folder that is none of anybody's business, as the working directory."""
    for name in ("root/data", "root-evil", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret" / "key").write_text("x")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "inside").symlink_to(tmp_path / "root" / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def allowed(home):
    return AllowedPaths([str(home / "root"), REMOTE])


def test_what_lies_inside_is_told_in_full(allowed, home):
    data = str(home / "root" / "data")
    for uri in (data, "root/data", "root/./data/", "root/data/../data", "root/inside", f"file://{data}", "root-evil/../root/data"):
        assert allowed.check("path", uri) == data
    assert allowed.check("path", str(home / "root")) == str(home / "root")
    assert allowed.check("path", "root/not there yet") == str(home / "root" / "not there yet")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "root/..",
        "root/../secret",
        "root/data/../../secret/key",
        "root/out",
        "root/out/key",
        "root/out/../secret",
        "root-evil",
        "ROOT/data",
        "root\\..\\secret",
        "~",
        "~root",
        "~/root",
        "file:///etc/passwd",
        "file:///../etc/passwd",
        "file://localhost/etc/passwd",
    ],
)
def test_what_lies_or_leads_outside_is_refused_with_the_way_out(allowed, uri):
    with pytest.raises(InputError, match=r"(?s)path: .* is outside of what this service reads \(.*root.*--place"):
        allowed.check("path", uri)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/root", "s3://bucket/root/", "s3://bucket/root/a/b c", "s3://bucket/root/..a/b..", "s3://bucket/root/~"]
)
def test_a_prefix_of_a_bucket_has_all_that_is_below_it(allowed, uri):
    assert allowed.check("path", uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/root-evil",
        "s3://bucket/root-evil/a",
        "s3://bucket/roo",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket-evil/root/a",
        "s3://Bucket/root/a",
        "s3://evil@bucket/root/a",
        "s3://bucket/root/../a",
        "s3://bucket/root/./a",
        "s3://bucket/root//a",
        "s3://bucket//root/a",
        "s3://bucket/root/a/..",
        "s3://bucket/root\\..\\a",
        "s3://",
        "s3:///bucket/root/a",
    ],
)
def test_what_only_looks_like_that_prefix_is_refused(allowed, uri):
    with pytest.raises(InputError, match="path: "):
        allowed.check("path", uri)


@pytest.mark.parametrize("uri", ["S3://bucket/root/a", "https://bucket/root", "gs://bucket/root", "ftp://x", "://"])
def test_an_address_of_another_kind_is_none(allowed, uri):
    with pytest.raises(InputError, match="has a scheme that is not known here"):
        allowed.check("path", uri)


@pytest.mark.parametrize("letter", ["\0", "\n", "\r", "\t", "\x1b", "\x7f"])
@pytest.mark.parametrize("base", ["root/a", f"{REMOTE}/a"])
def test_control_characters_are_refused_without_being_repeated(allowed, base, letter):
    with pytest.raises(InputError, match=r"^path has control characters$"):
        allowed.check("path", f"{base}{letter}b")


def test_a_link_that_leads_to_itself_is_refused_in_a_line(allowed, home):
    (home / "root" / "loop").symlink_to(home / "root" / "loop")
    with pytest.raises(InputError, match="leads nowhere"):
        allowed.check("path", "root/loop/a")


def test_a_name_too_long_for_a_file_is_no_error_of_its_own(allowed, home):
    with pytest.raises(InputError):
        allowed.check("path", "/" + "a" * 5000)


def test_the_root_itself_may_be_a_link(home):
    (home / "shortcut").symlink_to(home / "root")
    allowed = AllowedPaths(["shortcut"])
    assert allowed.check("path", "shortcut/data") == allowed.check("path", "root/data") == str(home / "root" / "data")


def test_without_places_nothing_is_allowed(home):
    for uri in ("root/data", f"{REMOTE}/a"):
        with pytest.raises(InputError):
            AllowedPaths([]).check("path", uri)


PART = st.sampled_from(["..", ".", "", "root", "root-evil", "secret", "data", "out", "inside", "~", "key", "..."]) | st.text(
    max_size=4
)
HEAD = st.sampled_from(["", "/", "./", "file://", "file:///", "s3://bucket/", "s3://bucket/root", "s3://bucket/root/", "s3://"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(head=HEAD | st.just("{home}/"), parts=st.lists(PART, max_size=6))
@example("{home}/", ["root", "out", "key"])
@example("", ["\ud800"])
def test_whatever_is_accepted_lies_inside(allowed, home, head, parts):
    uri = head.replace("{home}", str(home)) + "/".join(parts)
    try:
        shown = allowed.check("path", uri)
    except InputError:
        return
    if uri.startswith("s3://"):
        assert shown == uri
        assert (shown.rstrip("/") + "/").startswith("s3://bucket/root/")
        assert not {"", ".", ".."} & set(shown.rstrip("/").removeprefix("s3://").split("/"))
    else:
        assert shown == os.path.realpath(shown)
        assert Path(shown).is_relative_to(home / "root")


@pytest.mark.parametrize("name", ["search.token", "feedback/0123.jsonl", "jobs.db"])
def test_the_folder_of_any_service_below_is_private(allowed, home, name):
    file = home / "root" / "other" / "service" / name
    file.parent.mkdir(parents=True)
    file.write_text("hush")
    with pytest.raises(InputError, match="lies in the folder of a service"):
        allowed.check("path", str(file))
