"""What a store refuses ends a command in one line with the way out, within seconds, and without a secret in it.

Ceph RGW says no for real wherever it can; what only Amazon says, a small server says in its words.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import botocore.auth
import pytest
from contracts.conftest import enter
from contracts.refusals import dead_end, error, https, nobody, store_that_says
from servers.rgw import Rgw
from servers.s3 import S3Server

from zsbir import teacher
from zsbir.base import cli, s3
from zsbir.base.arrow import arrow_filesystem
from zsbir.base.artifact import Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import DiskFull, Unreachable
from zsbir.base.storage import open_folder

SOON_S = 15.0
SECRET, TOKEN = "canary-secret-3f9c", "canary-token-77ab"
FAILED, BAD_INPUT = 1, 2

REGION = "the bucket lies in another region: set AWS_REGION"
SKEW = "the clock of this machine and the store's differ by too much: set the clock (NTP)"
KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
DENIED = "the keys are not allowed to do this: ask for the right to list, read and write below this address"

Verb = Callable[[str], str]


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is known of any store yet, and the environment names none."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "ZSBIR_S3_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(s3, "_known", set())
    monkeypatch.setattr(s3, "_conditional", {})


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, of which the secret ones may stand nowhere."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Provide a function that makes a verb fail in this process: it checks exit code, lines and seconds, and returns the line."""

    def ask(uri: str, *, code: int, verb: Verb | None = None) -> str:
        began = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            cli.main((lambda words: verb(words[0])) if verb else teacher._parse, [uri])
        took_s = time.monotonic() - began
        said = capsys.readouterr()
        assert (said.out, ended.value.code) == ("", code), said
        lines = said.err.strip().splitlines()
        assert len(lines) == 1, lines
        assert took_s < SOON_S
        for secret in (SECRET, TOKEN, os.environ.get("AWS_SECRET_ACCESS_KEY", SECRET)):
            assert secret not in lines[0]
        return lines[0].removeprefix("error: ")

    return ask


def write(uri: str) -> str:
    """Do what every stage does at its end."""
    with draft(uri, "index", "test") as work:
        work.file("words.bin").write_bytes(bytes(30_000))
        return work.commit(digest="d").uri


def look(uri: str) -> str:
    """Do what every stage does first with the address of its result."""
    return str(exists(uri))


def test_without_credentials_it_says_where_they_are_looked_for(moto: S3Server, monkeypatch, ask):
    bucket = moto.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    line = ask(f"s3://{bucket}/datasets/x", code=BAD_INPUT)
    assert line == f"s3://{bucket}/datasets/x: no credentials for object storage: {KEYS}"


@pytest.mark.parametrize("half", [{"AWS_ACCESS_KEY_ID": "AKIA"}, {"AWS_SECRET_ACCESS_KEY": SECRET}])
def test_half_of_the_credentials_are_none(moto: S3Server, monkeypatch, ask, half):
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
    for name, value in half.items():
        monkeypatch.setenv(name, value)
    assert KEYS in ask(f"s3://{moto.new_bucket()}/x", code=BAD_INPUT)


def test_an_unknown_profile_is_named(moto: S3Server, monkeypatch, ask):
    enter(moto, monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    line = ask(f"s3://{moto.new_bucket()}/x", code=BAD_INPUT)
    assert "(nobody)" in line
    assert line.endswith("correct AWS_PROFILE")


def test_a_bucket_that_is_not_there_is_named(server: S3Server, ask):
    for verb in (None, write, look):
        line = ask("s3://no-such-bucket/datasets/x", code=BAD_INPUT, verb=verb)
        assert line == "s3://no-such-bucket/datasets/x: there is no bucket 'no-such-bucket': create it, or correct the URI"


def skew(rgw: Rgw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign requests by a clock that is two hours late."""
    real = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: real(*a, **k) - datetime.timedelta(hours=2))


def as_user(rgw: Rgw, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the environment is that of another user of RGW's, whose secret key may stand nowhere."""
    keys = ["--access-key", f"key-of-{name}", "--secret", SECRET]
    if name not in rgw.radosgw_admin("user", "list"):
        rgw.radosgw_admin("user", "create", "--uid", name, "--display-name", name, *keys)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"key-of-{name}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


REFUSALS = {
    f"the secret key is wrong: {KEYS} (SignatureDoesNotMatch)": lambda _, patch: patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET),
    f"the store does not know this access key: {KEYS} (InvalidAccessKeyId)": lambda _, patch: patch.setenv(
        "AWS_ACCESS_KEY_ID", "AK"
    ),
    f"{DENIED} (AccessDenied)": lambda rgw, patch: as_user(rgw, "stranger", patch),
    f"{SKEW} (RequestTimeTooSkewed)": skew,
}
"""What to do so that RGW refuses its user, and what is to be said of it."""


@pytest.mark.parametrize("expected", REFUSALS)
def test_a_refusal_of_a_real_store_is_one_line_for_readers_writers_and_lookups(rgw: Rgw, monkeypatch, ask, expected):
    enter(rgw, monkeypatch)
    uri = f"s3://{rgw.new_bucket()}/datasets/x"
    REFUSALS[expected](rgw, monkeypatch)
    for verb in (None, write, look, lambda uri: str(open_folder(uri).names())):
        line = ask(uri, code=BAD_INPUT, verb=verb)
        assert line.startswith(uri)
        assert line.endswith(f": {expected}")


def test_a_user_who_may_only_read_is_stopped_before_any_work_is_done(rgw: Rgw, monkeypatch, ask):
    enter(rgw, monkeypatch)
    bucket = rgw.new_bucket()
    write(f"s3://{bucket}/indexes/there")
    rgw.client().put_bucket_acl(Bucket=bucket, ACL="public-read")
    for item in rgw.client().list_objects_v2(Bucket=bucket)["Contents"]:
        rgw.client().put_object_acl(Bucket=bucket, Key=item["Key"], ACL="public-read")
    as_user(rgw, "stranger", monkeypatch)
    Artifact(f"s3://{bucket}/indexes/there").verify()
    worked: list[str] = []

    def work(uri: str) -> str:
        with draft(uri, "index", "test"):
            worked.append(uri)
        return uri

    assert "(AccessDenied)" in ask(f"s3://{bucket}/indexes/mine", code=BAD_INPUT, verb=work)
    assert worked == []


def test_a_quota_that_is_used_up_is_said_and_leaves_no_artifact(rgw: Rgw, monkeypatch, ask):
    enter(rgw, monkeypatch)
    as_user(rgw, "small", monkeypatch)
    bucket = "small-bucket"
    S3Server(rgw.endpoint, "key-of-small", SECRET).client().create_bucket(Bucket=bucket)
    rgw.radosgw_admin("quota", "set", "--quota-scope=user", "--uid=small", "--max-size=120K")
    rgw.radosgw_admin("quota", "enable", "--quota-scope=user", "--uid=small")
    for number in range(3):
        write(f"s3://{bucket}/indexes/{number}")
    line = ask(f"s3://{bucket}/indexes/3", code=FAILED, verb=write)
    assert re.fullmatch(
        r"s3://small-bucket/indexes/3/words\.bin: the store is full, or its quota used up \(QuotaExceeded\): "
        r"make room and run the same command again",
        line,
    )
    assert not exists(f"s3://{bucket}/indexes/3")
    assert open_folder(f"s3://{bucket}/indexes/3").names() == []
    open_folder(f"s3://{bucket}/indexes/0").clear()
    write(f"s3://{bucket}/indexes/3")
    Artifact(f"s3://{bucket}/indexes/3").verify()


AMAZON = {
    "ExpiredToken": (400, BAD_INPUT, "the session token has expired: sign in again"),
    "InvalidToken": (400, BAD_INPUT, "the session token is not valid: sign in again"),
    "TokenRefreshRequired": (400, BAD_INPUT, "the session token has expired: sign in again"),
    "InvalidAccessKeyId": (403, BAD_INPUT, f"the store does not know this access key: {KEYS}"),
    "SignatureDoesNotMatch": (403, BAD_INPUT, f"the secret key is wrong: {KEYS}"),
    "AccessDenied": (403, BAD_INPUT, DENIED),
    "RequestTimeTooSkewed": (403, BAD_INPUT, SKEW),
    "PermanentRedirect": (301, BAD_INPUT, REGION),
    "AuthorizationHeaderMalformed": (400, BAD_INPUT, REGION),
    "QuotaExceeded": (403, FAILED, "the store is full, or its quota used up"),
}
"""What Amazon answers, and what is to be said of it."""


@pytest.mark.parametrize("code", AMAZON)
def test_what_amazon_refuses_is_understood(known, monkeypatch, ask, code):
    status, exit_code, expected = AMAZON[code]
    more = "<Region>eu-central-1</Region><Endpoint>bucket.s3.eu-central-1.amazonaws.com</Endpoint>" if expected == REGION else ""
    headers = {"x-amz-bucket-region": "eu-central-1"} if expected == REGION else {}
    with store_that_says(status, error(code, f"in Amazon's words, with {TOKEN[:6]}", more), headers) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for verb in (None, write, look):
            line = ask("s3://bucket/datasets/x", code=exit_code, verb=verb)
            assert line.startswith("s3://bucket/datasets/x")
            assert f": {expected}" in line
            assert line.endswith(f"({code})") or f"({code}): " in line


@pytest.mark.parametrize(("status", "code"), [(507, "XMinioStorageFull"), (507, ""), (503, "SlowDown"), (500, "InternalError")])
def test_a_store_that_is_full_or_ill_when_something_is_put_fails_the_run(known, monkeypatch, ask, status, code):
    monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "2")
    with store_that_says(status, error(code) if code else "", only=("PUT",)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        line = ask("s3://bucket/indexes/x", code=FAILED, verb=write)
        with pytest.raises(DiskFull if status == 507 else Unreachable):  # by which the job queue knows what to wait for
            write("s3://bucket/indexes/x")
    assert re.search("the store is full, or its quota used up" if status == 507 else rf"the store answered {code} each time", line)


def test_a_server_that_is_not_a_store_is_one_line(known, monkeypatch, ask):
    page = "<!doctype html><html><body><p>Please sign in<br></body></html>"
    with store_that_says(200, page, {"Content-Type": "text/html"}) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert "manifest.json" in ask("s3://bucket/datasets/x", code=BAD_INPUT)
        monkeypatch.setenv("ZSBIR_S3_ATTEMPTS", "2")
        ask("s3://bucket/datasets/x", code=FAILED, verb=lambda uri: str(open_folder(uri).names()))  # boto3 takes it for a 500
    item = "<Contents><Key>datasets/x/a</Key><Size>{size}</Size><LastModified>{date}</LastModified></Contents>"
    for size, date in (("many", "2026-01-01T00:00:00Z"), ("1", "yesterday")):
        with store_that_says(200, f"<ListBucketResult>{item.format(size=size, date=date)}</ListBucketResult>") as endpoint:
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
            line = ask("s3://bucket/datasets/x", code=FAILED, verb=lambda uri: str(list(open_folder(uri).walk())))
        assert line.startswith("s3://bucket/datasets/x: this is not the answer of an S3 store")
        assert line.endswith("check AWS_ENDPOINT_URL")


def test_a_self_signed_store_is_not_trusted_until_its_certificate_is_given(moto: S3Server, tmp_path, monkeypatch, ask):
    enter(moto, monkeypatch)
    bucket = moto.new_bucket()
    with https(moto, tmp_path) as (endpoint, certificate):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for verb in (None, write, look):
            line = ask(f"s3://{bucket}/datasets/x", code=BAD_INPUT, verb=verb)
            assert "the certificate is not trusted" in line
            assert line.endswith("give your CA's file as AWS_CA_BUNDLE")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        write(f"s3://{bucket}/indexes/x")
        Artifact(f"s3://{bucket}/indexes/x").verify()
        path, system = arrow_filesystem(f"s3://{bucket}/indexes/x")
        assert system.open_input_stream(f"{path}/words.bin").read() == bytes(30_000), "pyarrow trusts it too"


def test_a_certificate_file_that_is_not_there_is_one_line(moto: S3Server, tmp_path, monkeypatch, ask):
    enter(moto, monkeypatch)
    with https(moto, tmp_path) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
        line = ask("s3://bucket/x", code=BAD_INPUT)
    assert "nowhere.pem" in line
    assert "AWS_CA_BUNDLE" in line


def test_a_store_without_tls_is_not_taken_for_one_with_a_bad_certificate(moto: S3Server, monkeypatch, ask):
    enter(moto, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint.replace("http://", "https://"))
    line = ask("s3://bucket/x", code=BAD_INPUT)
    assert "certificate" not in line
    assert line.endswith("check AWS_ENDPOINT_URL: https:// or http://?")


def test_an_address_where_nothing_listens_is_reported_within_seconds(known, monkeypatch, ask):
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody())
    for verb in (None, write, look):
        line = ask("s3://bucket/datasets/x", code=FAILED, verb=verb)
        assert line.startswith("s3://bucket/datasets/x: the store does not answer")
        assert line.endswith("check AWS_ENDPOINT_URL and the network")
    with pytest.raises(Unreachable):
        write("s3://bucket/datasets/x")


@pytest.mark.parametrize("probe_s", [pytest.param(0.2, id="short"), pytest.param(0, id="as set", marks=pytest.mark.long)])
@pytest.mark.parametrize("backlog", [16, 0], ids=["takes connections", "takes none"])
def test_a_store_that_never_answers_is_given_up_within_seconds(known, monkeypatch, ask, backlog, probe_s):
    """The everyday form shortens the time-out of the first request, which the assertion below holds to what a user waits."""
    assert 2 * s3.PROBE_TIMEOUT_S < SOON_S
    monkeypatch.setattr(s3, "PROBE_TIMEOUT_S", probe_s or s3.PROBE_TIMEOUT_S)
    with dead_end(backlog) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        line = ask("s3://bucket/datasets/x", code=FAILED)
    assert line.startswith("s3://bucket/datasets/x: the store does not answer")
    assert line.endswith("check AWS_ENDPOINT_URL and the network")


def test_a_password_in_the_address_stands_in_no_line(monkeypatch, ask):
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody().replace("http://", f"http://me:{SECRET}@"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    ask("s3://bucket/datasets/x", code=FAILED)


TEACHER, SHOW = ("zsbir.teacher",), ("zsbir.artifacts", "show")
COMMANDS = {
    "no keys": (SHOW, {}, BAD_INPUT, "no credentials for object storage"),
    "wrong secret": (SHOW, {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET}, BAD_INPUT, "the secret key is wrong"),
    "nobody": (SHOW, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": SECRET}, FAILED, "the store does not answer"),
    "silence": (TEACHER, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": SECRET}, FAILED, "the store does not answer"),
}


@pytest.mark.slow
def test_command_lines_end_in_one_line_within_seconds(rgw: Rgw):
    """Of a verb that takes seconds to load, what it takes without a store is not counted."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    plain |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    uri = f"s3://{rgw.new_bucket()}/datasets/x"

    def run(words: tuple[str, ...], env: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], float]:
        began = time.monotonic()
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, env=plain | env, capture_output=True, text=True, check=False, timeout=120)
        return done, time.monotonic() - began

    loading_s = {SHOW: 0.0, TEACHER: run((*TEACHER, "/nowhere"), {})[1]}  # --help loads less
    with dead_end() as silent:
        endpoints = {"no keys": rgw.endpoint, "wrong secret": rgw.endpoint, "nobody": nobody(), "silence": silent}
        for name, (verb, env, code, line) in COMMANDS.items():
            done, took_s = run((*verb, uri), env | {"AWS_ENDPOINT_URL": endpoints[name]})
            assert (done.returncode, done.stdout) == (code, ""), done.stderr
            assert re.fullmatch(rf"error: {uri}\S*: {line}.*\n", done.stderr), done.stderr
            assert SECRET not in done.stderr
            assert took_s - loading_s[verb] < SOON_S, name
