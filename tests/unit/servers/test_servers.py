import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError
from PIL import Image
from servers.chromium import WINDOW
from servers.debian import Packages
from servers.faults import Call, FaultProxy
from servers.moto import moto_server
from servers.rgw import Unavailable, rgw_server
from servers.s3 import S3Server

TESTS = Path(__file__).resolve().parents[2]

ORPHAN = """
import time
from servers.moto import moto_server
from servers.rgw import rgw_server
with moto_server() as moto, rgw_server() as rgw:
    print(moto.process.pid, *rgw.pids.values(), rgw.run, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def durable(rgw):
    """An RGW of its own whose data is on disk; skipped with the reason where `rgw` is."""
    with rgw_server("bluestore") as server:
        yield server


def read(server, bucket):
    return server.client().get_object(Bucket=bucket, Key="k")["Body"].read()


@pytest.mark.parametrize("name", ["moto", "rgw"])
def test_the_environment_of_a_server_is_all_that_a_process_needs(request, name):
    server = request.getfixturevalue(name)
    bucket = server.new_bucket()
    code = f"import boto3; boto3.client('s3').put_object(Bucket='{bucket}', Key='k', Body=b'x')"
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | server.env
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    assert read(server, bucket) == b"x"


def test_a_client_goes_to_its_server_whatever_the_environment_says(moto, monkeypatch, tmp_path):
    bucket = moto.new_bucket()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Contents" not in moto.client().list_objects_v2(Bucket=bucket)


def test_moto_can_be_killed():
    with moto_server() as server:
        bucket = server.new_bucket()
        server.kill()
        with pytest.raises(EndpointConnectionError):
            read(server, bucket)


def test_rgw_refuses_a_wrong_secret_and_an_unknown_key(rgw):
    for stranger in (S3Server(rgw.endpoint, rgw.access_key, "wrong"), S3Server(rgw.endpoint, "nobody", rgw.secret_key)):
        with pytest.raises(ClientError) as caught:
            stranger.client().list_buckets()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_rgw_keeps_its_data_on_disk_through_the_death_of_all_its_processes(durable):
    bucket, body = durable.new_bucket(), os.urandom(5 << 20)
    pids = durable.pids
    with FaultProxy(durable) as proxy:
        proxy.arm(1, Call(durable.kill))
        proxy.client().put_object(Bucket=bucket, Key="k", Body=body)
        with pytest.raises(ConnectionClosedError):
            proxy.client().put_object(Bucket=bucket, Key="k", Body=b"never")
        assert not any(psutil.pid_exists(pid) for pid in pids.values())
        with pytest.raises(EndpointConnectionError):
            read(durable, bucket)
        durable.start()
        assert read(proxy, bucket) == body


def test_one_process_of_rgw_can_be_killed_and_started_alone(rgw):
    with rgw_server() as server:
        bucket, pids = server.new_bucket(), server.pids
        server.client().put_object(Bucket=bucket, Key="k", Body=b"x")
        server.kill("rgw")
        assert server.pids == {name: pids[name] for name in ("mon", "osd")}
        server.start()
        assert server.pids["osd"] == pids["osd"]
        assert read(server, bucket) == b"x"
        server.kill()
        server.start()
        with pytest.raises(ClientError, match="NoSuchBucket"):
            read(server, bucket)
        assert server.new_bucket(), "in memory it comes back empty under its old address"


def test_rgw_has_users_with_quotas(rgw):
    rgw.radosgw_admin("user", "create", "--uid", "poor", "--display-name", "poor", "--access-key", "poor", "--secret", "poor12345")
    rgw.radosgw_admin("quota", "set", "--quota-scope", "user", "--uid", "poor", "--max-size", "100K")
    rgw.radosgw_admin("quota", "enable", "--quota-scope", "user", "--uid", "poor")
    poor = S3Server(rgw.endpoint, "poor", "poor12345")
    bucket, s3 = poor.new_bucket(), poor.client()
    s3.put_object(Bucket=bucket, Key="small", Body=b"x" * 50_000)
    with pytest.raises(ClientError, match="QuotaExceeded"):
        s3.put_object(Bucket=bucket, Key="large", Body=b"x" * 60_000)
    with pytest.raises(RuntimeError, match="radosgw-admin"):
        rgw.radosgw_admin("user", "info", "--uid", "nobody")


def test_where_rgw_cannot_run_the_reason_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSBIR_TEST_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no apt-get"), rgw_server():
        pass
    fake = tmp_path / "apt-get"
    fake.write_text("#!/bin/sh\necho 'E: Unable to fetch some archives' >&2\nexit 100\n")
    fake.chmod(0o755)
    (tmp_path / "dpkg").symlink_to(fake)
    with pytest.raises(Unavailable, match="Unable to fetch some archives"), rgw_server():
        pass
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(Unavailable, match="aarch64"), rgw_server():
        pass
    assert not (tmp_path / "ceph" / "root").exists()


def test_no_server_outlives_tests_that_are_killed(rgw):
    words = [sys.executable, "-c", ORPHAN]
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as parent:
        *pids, folder = parent.stdout.readline().split()
        assert len(pids) == 4
        os.kill(parent.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while any(psutil.pid_exists(int(pid)) for pid in pids) or Path(folder).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_where_the_lists_of_packages_are_out_of_date_new_ones_are_fetched_for_this_once(monkeypatch, tmp_path):
    """The archive keeps no old versions of a package; the lists of the machine stay as they are."""
    fake, calls = tmp_path / "bin" / "apt-get", tmp_path / "calls"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\n'
        'case "$*" in *Dir::State::Lists=*) ;; *download*) echo "E: 404  Not Found" >&2; exit 100;; esac\n'
        'case "$*" in *simulate*) echo "Inst libsmall (1.0)"; echo "Inst adduser (1.0)";; *download*) touch small.deb;; esac\n'
    )
    unpack = fake.with_name("dpkg")
    unpack.write_text('#!/bin/sh\nmkdir -p "$3/bin"; printf "#!/bin/sh\\n" > "$3/bin/small"; chmod +x "$3/bin/small"\n')
    for program in (fake, unpack):
        program.chmod(0o755)
    monkeypatch.setenv("ZSBIR_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    packages = Packages("Small", "small", ["small"], ["bin/small"], lambda root: dict(os.environ))
    root = packages.unpacked()
    assert (root / "bin" / "small").exists()
    said = [line for line in calls.read_text().splitlines() if "Lists" in line]
    assert [line.split()[-1] for line in said] == ["update", "small", "libsmall"], "adduser is no library"
    before = calls.read_text()
    assert packages.unpacked() == root
    assert calls.read_text() == before, "what is there is not fetched again"


def test_a_browser_shows_a_page(browser):
    page = browser.new_page(viewport=WINDOW)
    page.set_content("<p>one</p><script>document.querySelector('p').append(' and', ' two')</script>")
    assert page.inner_text("p") == "one and two"
    picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
    assert picture.size == (WINDOW["width"], WINDOW["height"])
    assert picture.getextrema() == (0, 255), "there are fonts to write with"
    page.close()
