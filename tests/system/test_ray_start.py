"""Commands that want a Ray which is not there, or cannot be started: one line in reasonable time, never a traceback or a wait.

And one that is there: the documented lines that start a head, train on it and end it.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from servers.processes import free_ports

from zsbir.edge.ray_cluster import TEMP_DIR_BYTES

pytestmark = pytest.mark.slow

INGEST = ["-m", "zsbir.ingest", "toy", "--toy-photos-per-class", "2", "--toy-sketches-per-class", "2", "--toy-px", "32"]


def environment(**changes: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return clean | {"RAY_AUTH_MODE": "disabled"} | changes


def ingest(root: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *INGEST, "--root", str(root), "--num-workers", "1"]
    return subprocess.run(words, env=environment(**changes), capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("http://127.0.0.1:8265", 2, "is the address of Ray's job API: submit to it"),
        ("ray://127.0.0.1:10001", 2, "is the address of a Ray client, which sees too little of its cluster"),
        ("https://ray.example.org", 2, "is the address of Ray's job API: submit to it"),
        ("somewhere", 2, "it should read host:port"),
        ("10.0.0.1:port", 2, "it should read host:port"),
        ("tcp://10.0.0.1:6379", 2, "it should read host:port"),
        ("no.such.host.invalid:6379", 1, "no Ray cluster answers at no.such.host.invalid:6379 ("),
        ("127.0.0.1:{dead}", 1, "(Connection refused); start one there (ray start --head), correct RAY_ADDRESS, or unset it"),
        ("127.0.0.1:{mute}", 1, "does not answer as a Ray cluster within 30 s"),
    ],
)
def test_an_address_without_a_cluster_is_one_line_within_a_minute(address, code, words, tmp_path):
    dead, mute = free_ports(2)
    with socket.create_server(("127.0.0.1", mute)):
        began = time.monotonic()
        done = ingest(tmp_path, RAY_ADDRESS=address.format(dead=dead, mute=mute))
    assert done.returncode == code
    assert done.stdout == ""
    assert words in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 120  # far away: the deadline is 30 s


@pytest.mark.parametrize("name", ["d\u00e9p\u00f4t", "x" * 100])
def test_a_temporary_folder_in_which_sockets_have_no_room_is_not_used_for_them(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    done = ingest(tmp_path / "root", TMPDIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip(), "manifest.json").is_file()


def test_the_folder_of_a_ray_of_our_own_belongs_to_its_user_alone():
    from zsbir.edge.ray_cluster import temp_dir

    folder = temp_dir()
    assert len(os.fsencode(folder)) <= TEMP_DIR_BYTES
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_uid == os.getuid()


UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
"""The one that `make env` installs beside Python, else any other."""


@pytest.mark.skipif(not UV, reason="needs uv")
def test_under_uv_run_the_working_directory_is_not_uploaded(tmp_path):
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(700_000_000)  # more than Ray would take
    words = [UV, "run", "--no-project", "--python", sys.executable, sys.executable, *INGEST, "--num-workers", "1"]
    repository = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*words, "--root", str(tmp_path / "root")],
        cwd=tmp_path,
        env=environment(PYTHONPATH=repository),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip(), "manifest.json").is_file()


def test_a_lost_terminal_leaves_a_checkpoint_of_a_training_on_a_ray_of_its_own(dataset, knowledge, tmp_path):
    options = ["--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--steps", "5000", "--no-tracking"]
    rarely = ["--checkpoint-every-steps", "5000", "--eval-every-steps", "5000", "--log-every-steps", "1"]
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(tmp_path)]
    words = [sys.executable, "-m", "zsbir.train", "toy", *inputs, *options, *rarely, "--num-workers", "1"]
    leader, follower = pty.openpty()
    # The whole session belongs to the terminal, as in a shell: Ray's own processes get the signal, too.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *words], env=environment(), stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown, until = "", time.monotonic() + 300
    while "loss" not in shown:
        try:
            shown += os.read(leader, 65536).decode(errors="replace")
        except OSError:  # the other end was closed
            pytest.fail(f"the training ended by itself:\n{shown}")
        assert time.monotonic() < until, shown
    children = psutil.Process(process.pid).children(recursive=True)
    os.close(leader)
    assert process.wait(120) in (130, 128 + signal.SIGHUP, -signal.SIGHUP)
    psutil.wait_procs(children, timeout=60)
    (manifest,) = tmp_path.glob("runs/*/checkpoints/step-*/manifest.json")
    assert int(re.fullmatch(r"step-(\d+)", manifest.parent.name)[1]) > 0


def test_a_ray_of_our_own_writes_no_token_to_the_users_home_and_does_not_talk_of_it(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    clean = {name: value for name, value in environment(HOME=str(home)).items() if name != "RAY_AUTH_MODE"}
    words = [sys.executable, *INGEST, "--root", str(tmp_path / "root"), "--num-workers", "1"]
    done = subprocess.run(words, env=clean, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert not (home / ".ray").exists()
    assert "oken authentication" not in done.stderr
    assert "\x1b[" not in done.stderr


def test_the_lines_of_the_documentation_start_a_head_train_on_it_and_end_it_alone(dataset, knowledge, tmp_path):
    """Pasted by somebody who never had a Ray: their home is empty. Only the ports are others, and the training is shorter."""
    repository, home = Path(__file__).parents[2], tmp_path / "home"
    home.mkdir()
    block = (repository / "docs" / "ray.md").read_text("utf-8").partition("<!-- ray block -->\n```sh\n")[2].partition("```")[0]
    gcs, dashboard = free_ports(2)
    small = "--image-px 32 --classes-per-batch 4 --per-class 2 --steps 2 --no-tracking --num-workers 2"
    for documented, here in (("6379", str(gcs)), ("8265", str(dashboard)), ("--num-workers 2", small)):
        assert documented in block
        block = block.replace(documented, here)
    block = block.replace('"$PWD/artifacts"', str(tmp_path / "root"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    changes = {"HOME": str(home), "DATASET": dataset, "KNOWLEDGE": knowledge, "PATH": path, "PYTHONPATH": str(repository)}
    changes |= {"RAY_TMPDIR": "", "OMP_NUM_THREADS": "1"}
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | changes
    bystander = psutil.Popen([shutil.copy(shutil.which("sleep"), tmp_path / "raylet"), "600"])  # `ray stop` would end it
    script = ["sh", "-c", block + 'echo "RAY_DIR=$RAY_DIR"']
    done = subprocess.run(script, cwd=repository, env=given, capture_output=True, text=True, timeout=400, check=False)
    folder = done.stdout.rpartition("RAY_DIR=")[2].strip()
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.glob("root/runs/*/manifest.json")), done.stdout + done.stderr
    assert folder.startswith("/tmp/ray-")
    assert not Path(folder).exists()
    left = [each for each in psutil.process_iter(["cmdline"]) if folder in " ".join(each.info["cmdline"] or [])]
    assert left == []
    assert bystander.is_running()
    bystander.kill()
    bystander.wait()


RAY_OF_ITS_OWN = """
import urllib.error, urllib.request
import psutil
from ray._private.worker import get_dashboard_url
from zsbir.edge.ray_cluster import connected
from zsbir.edge.ray_room import Need
with connected(Need(1)):
    started = psutil.Process().children(recursive=True)
    where = [(each.name(), at.laddr.ip) for each in started for at in each.net_connections("inet") if at.status == "LISTEN"]
    print(*(f"{name} {ip}" for name, ip in where), sep="\\n")
    try:
        urllib.request.urlopen(f"http://{get_dashboard_url()}/api/jobs/")
    except urllib.error.HTTPError as refused:
        print("without a token:", refused.code)
"""


def test_a_ray_of_our_own_is_reached_from_no_other_machine_and_by_nobody_without_its_token(tmp_path):
    clean = {name: value for name, value in environment(HOME=str(tmp_path)).items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", RAY_OF_ITS_OWN], env=clean, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    *shown, refused = done.stdout.splitlines()
    assert refused == "without a token: 401"
    listening = [line.rsplit(" ", 1) for line in shown]
    assert len(listening) > 5
    assert [(name, ip) for name, ip in listening if not ip_address(ip.removeprefix("::ffff:")).is_loopback] == []
