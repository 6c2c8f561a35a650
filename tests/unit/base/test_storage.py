import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from zsbir.base.cache import cache_dir
from zsbir.base.errors import InputError, RunError
from zsbir.base.fetch import fetch
from zsbir.base.files import sha256_file, write_atomic
from zsbir.base.storage import default_root, join, local_path, open_folder

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def store_url():
    """Provide a real S3 server on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def no_keys(monkeypatch, tmp_path):
    """Clear everything that could name a user from the environment."""
    for name in (*KEYS, "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket(store_url, no_keys, monkeypatch):
    """Provide the bucket `models` of the server, with the environment that leads to it."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_url)
    made = boto3.resource("s3").Bucket("models")
    made.create()
    yield made
    made.objects.all().delete()
    made.delete()


def line(uri, kind=InputError):
    """Return the one line in which `fetch` fails, within seconds."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        fetch(uri)
    assert time.monotonic() - began < 20
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_a_bucket_is_fetched_whole_and_keeps_its_ending(bucket):
    data = bytes(range(256)) * 40_000  # more than one part of a multipart download
    bucket.put_object(Key="trained/net.safetensors", Body=data)
    path = fetch("s3://models/trained/net.safetensors")
    assert path.suffix == ".safetensors"
    assert sha256_file(path) == hashlib.sha256(data).hexdigest()
    assert cache_dir() in path.parents


def test_a_fetched_file_is_not_fetched_again_until_it_changes(bucket):
    bucket.put_object(Key="net.pth", Body=b"first")
    first = fetch("s3://models/net.pth")
    written = first.stat().st_mtime_ns
    assert fetch("s3://models/net.pth") == first
    assert first.stat().st_mtime_ns == written
    bucket.put_object(Key="net.pth", Body=b"second")
    second = fetch("s3://models/net.pth")
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    assert sorted((cache_dir() / "objects").rglob("*.*")) == sorted([first, second]), "no partial file is left"


def test_a_wrong_bucket_and_a_wrong_key_are_input_errors_that_name_the_address(bucket):
    assert line("s3://modles/net.pth").startswith("s3://modles: there is no bucket 'modles'")
    assert line("s3://models/nothing.pth") == "no file at 's3://models/nothing.pth'"


@pytest.mark.parametrize("prefix", ["weights/../../victim", "..", "a/./b", "a//b", "a/.."])
def test_an_address_in_object_storage_that_leads_out_of_its_prefix_is_refused(prefix):
    with pytest.raises(InputError, match="is not an address in object storage"):
        open_folder(f"s3://models/{prefix}")


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://models", "s3://models/", "s3:///net.pth", "s3://no such/net.pth", "s3://../net.pth"]
)
def test_a_malformed_address_is_one_line(bucket, uri):
    assert re.search(
        r"not an address in object storage|not a file in object storage|no such|[Ii]nvalid bucket name|no bucket|no file at|404",
        line(uri),
    )


def test_without_credentials_the_line_says_so(store_url, no_keys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_url)
    assert "credentials" in line("s3://models/net.pth")


def test_an_unknown_profile_is_an_input_error(store_url, no_keys, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in line("s3://models/net.pth")


def test_a_malformed_endpoint_is_an_input_error(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    assert "localhost:9000" in line("s3://models/net.pth")


def test_a_store_that_is_not_there_is_reported_within_seconds(bucket, monkeypatch):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "does not answer" in line("s3://models/net.pth", RunError)


def test_the_secret_key_stands_in_no_message(bucket, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-3f9c")
    assert "canary" not in line("s3://modles/net.pth") + line("s3://models/nothing.pth")


def test_a_local_file_is_itself_and_a_missing_one_an_input_error(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"x")
    assert fetch(str(tmp_path / "net.pth")) == fetch(f"file://{tmp_path}/net.pth") == tmp_path / "net.pth"
    assert line(str(tmp_path / "none.pth")) == f"no file at '{tmp_path}/none.pth'"
    assert "no file at" in line(str(tmp_path)), "a folder is no file"


def test_nothing_is_fetched_from_the_web_on_behalf_of_a_user():
    for uri in ("http://127.0.0.1:1/net.pth", "ftp://127.0.0.1/net.pth"):
        assert "has a scheme that is not known here" in line(uri)


def test_the_root_and_the_cache_come_from_the_environment(monkeypatch, tmp_path):
    assert default_root() == "artifacts"
    monkeypatch.setenv("ZSBIR_ROOT", "elsewhere")
    assert default_root() == "elsewhere"
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("ZSBIR_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "zsbir"
    assert local_path("file:///a/b") == Path("/a/b")


def test_an_atomic_write_replaces_the_whole_file_or_leaves_the_old_one(tmp_path):
    file = tmp_path / "sub" / "words.txt"
    write_atomic(file, b"old")
    write_atomic(file, b"new and longer")
    assert file.read_bytes() == b"new and longer"
    with pytest.raises(TypeError):
        write_atomic(file, "text is no bytes")
    assert file.read_bytes() == b"new and longer"
    assert [path.name for path in file.parent.iterdir()] == ["words.txt"]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///tmp/my%20pictures", "/tmp/my pictures"),
        ("file://localhost/tmp/x", "/tmp/x"),
        ("file://LOCALHOST/tmp/x", "/tmp/x"),
        ("file:/tmp/caf%C3%A9", "/tmp/caf\u00e9"),
        ("FILE:///tmp/100%25", "/tmp/100%"),
        ("file:///tmp/#recycle?x", "/tmp/#recycle?x"),
        ("/tmp/100%25", "/tmp/100%25"),
        ("my%20pictures", "my%20pictures"),
    ],
)
def test_a_file_uri_is_decoded_and_a_path_is_not(uri, path):
    assert local_path(uri) == Path(path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file://server/share/x", "names another machine, 'server': .* with three slashes"),
        ("file://pictures", "names another machine, 'pictures'"),
        ("file:///tmp/caf%E9", r"the path '/tmp/caf\\xe9' is not UTF-8: rename"),
        (os.fsdecode(b"/tmp/caf\xe9"), r"the path '/tmp/caf\\xe9' is not UTF-8: rename"),
        ("file:///tmp/a%00b", "holds a zero byte"),
        ("http://server/x", "has a scheme that is not known"),
    ],
)
def test_an_address_that_is_no_path_of_this_machine_is_an_input_error(uri, message):
    with pytest.raises(InputError, match=message):
        open_folder(uri)


def test_a_folder_below_a_file_uri_is_decoded_once(tmp_path):
    assert join(f"file://{tmp_path}/a%2520b", "c") == f"{tmp_path}/a%20b/c"
    assert join(join(f"file://{tmp_path}/a%2520b", "c"), "d") == f"{tmp_path}/a%20b/c/d"


def test_a_folder_that_cannot_be_listed_is_no_empty_one():
    root, user = Path(tempfile.mkdtemp()), os.geteuid()  # pytest's own folders are closed to other users
    (root / "closed").mkdir()
    (root / "closed/file").touch()
    root.chmod(0o755)
    (root / "closed").chmod(0)
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(PermissionError, match="closed"):
            list(open_folder(root).walk())
    finally:
        os.seteuid(user)
        (root / "closed").chmod(0o755)
        shutil.rmtree(root)
    assert list(open_folder(root).walk()) == [], "a folder that is not there is empty"


def test_a_file_that_its_writer_takes_back_while_another_compares_it_is_published_beside_it(tmp_path, monkeypatch):
    """A writer that lost removes its files; another may have found one of them in its own file's place at that moment."""
    folder = open_folder(str(tmp_path / "artifact"))
    folder.create("one.bin", b"of the writer that lost")

    def taken_back(path):
        assert path == tmp_path / "artifact" / "one.bin"
        path.unlink()
        return sha256_file(path)

    monkeypatch.setattr("zsbir.base.disk.sha256_file", taken_back)
    file = tmp_path / "finished"
    file.write_bytes(b"another")
    key = folder.publish("one.bin", file, hashlib.sha256(b"another").hexdigest())
    assert folder.read(key) == b"another"
    assert [entry.key for entry in folder.walk()] == [key]
