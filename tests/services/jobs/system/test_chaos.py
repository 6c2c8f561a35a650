"""`up`, `down`, and everything between killed in any order: every job ends in a true state."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import httpx
import psutil
import pytest
from servers.chaos import Service, chaos, submitted

from services.jobs.local.ownership import Leader, of_service
from services.jobs.local.paths import state_folder
from services.jobs.local.tracking_server import USER
from services.jobs.runs.attempt_dir import attempt_dir_of
from zsbir.base.artifact import exists

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path, pipeline_root):
    service = Service(tmp_path / "root", running=2, places=str(pipeline_root))
    yield service
    service.down()


@pytest.mark.parametrize(
    ("jobs", "kills", "every_s"),
    [
        pytest.param(3, 3, (4.0, 8.0), id="three", marks=pytest.mark.long),
        pytest.param(20, 10, (8.0, 20.0), id="twenty", marks=[pytest.mark.long, pytest.mark.timeout(1500)]),
        pytest.param(40, 30, (8.0, 20.0), id="forty", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_trainings_end_true_whatever_is_killed_meanwhile(service, dataset, knowledge, jobs, kills, every_s):
    service.up()
    report = chaos(service, dataset, knowledge, jobs=jobs, kills=kills, seed=5, every_s=every_s)
    print(report)
    assert len(report.kills) == kills
    assert not report.untrue
    assert report.states == {"succeeded": jobs}
    assert report.twice == []
    assert report.most <= 2
    assert set(report.mlflow) <= {"FINISHED", "KILLED", "FAILED"}
    assert report.mlflow["FINISHED"] == jobs
    assert report.left == []


def test_down_lets_trainings_save_and_up_goes_on_with_them(service, dataset, knowledge):
    """Also after its keeper was killed, `down` ends what `up` has started, and nothing else."""
    bystander = psutil.Popen(["sleep", "600"], start_new_session=True)
    service.up()
    config = {"recipe": "toy", "dataset": dataset, "knowledge": knowledge, "image_px": 32, "classes_per_batch": 4, "per_class": 2}
    config |= {"steps": 2000, "checkpoint_every_steps": 100_000, "eval_every_steps": 100_000}
    job_id = submitted(service, {"kind": "train", "config": config}, "long")
    wait_until(lambda: (service.client.job(job_id)["progress"].get("done") or 0) >= 3)
    service.command("up", f"--root={service.root}")
    assert "already up" in service.stderr
    logged = re.findall(
        r"http://127\.0\.0\.1:\d+/#/experiments/\S+", service.command("logs", str(job_id), f"--root={service.root}")
    )
    addresses = {program["name"]: program["address"] for program in service.state["programs"]}
    service.command("down", f"--root={service.root}")
    saved = re.search(rf"job {job_id} \(toy[^)]*\) has saved step \d+: (\S+); it goes on with the next `up`", service.stderr)
    assert exists(saved[1])
    assert service.processes(service.root) == []
    assert not (state_folder(service.root) / "up.json").exists()

    service.up()
    assert {program["name"]: program["address"] for program in service.state["programs"]} == addresses
    run, runs = logged
    assert f"{addresses['mlflow']}/#/experiments/{experiment_of(service, run)}/runs?" in runs, "the links in its log lead nowhere"
    wait_until(lambda: len(service.client.job(job_id)["attempts_made"]) == 2)
    first = service.client.job(job_id)["attempts_made"][0]
    assert first["cause"] == "preempted"
    assert "checkpoint of step" in first["message"]
    wait_until(lambda: service.client.job(job_id)["attempts_made"][1]["resumed_from"])

    second = service.client.job(job_id)["attempts_made"][1]["submission_id"]
    os.kill(service.state["keeper"]["pid"], signal.SIGKILL)
    service.command("down", f"--root={service.root}")
    assert service.processes(service.root) == []
    assert attempt_dir_of(service.root, second).read_end().cause == "preempted", "it had no time to save its work"
    assert bystander.is_running()
    bystander.kill()
    bystander.wait()


def test_what_was_started_is_told_no_secret_is_readable_and_nothing_is_left_of_what_was_killed(service):
    service.up()
    exported = dict(re.findall(r"(RAY_\w+)=(\S+)", service.stderr))
    folder, temp = state_folder(service.root), Path(service.state["ray"]["temp"])
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, temp)] == ["0o700", "0o700"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*") if path.is_file())
    of_it = of_service(list(map(Leader.of, service.state["programs"])), service.state["marker"])
    reachable = [
        each for process in of_it for each in listening(process) if not ip_address(each.removeprefix("::ffff:")).is_loopback
    ]
    assert len(of_it) > 10
    assert reachable == [], "from other machines"
    secrets = [(folder / name).read_text() for name in ("operator.token", "ray.token", "mlflow.password")]
    assert not any(secret in word for process in of_it for word in words_of(process) for secret in secrets)
    assert httpx.get(f"{service.state['url']}/api/jobs").status_code == 401
    assert httpx.get(f"{service.state['mlflow']}/").status_code == 401
    said_of_mlflow = re.search(r"^MLflow +(\S+) +opens on the runs; name (\w+), password in (\S+)$", service.stderr, re.MULTILINE)
    mlflow, *login = said_of_mlflow.groups()
    assert "#/experiments" in httpx.get(mlflow, auth=(login[0], Path(login[1]).read_text())).text
    assert service.command("list", f"--root={service.root}", "--json") == "[]"
    assert service.command("limits", f"--root={service.root}")
    said = json.loads((state_folder(service.root) / "up.json").read_text())
    assert {program["name"] for program in said["programs"]} == {"ray", "mlflow", "dispatcher", "api", "search"}
    token = state_folder(service.root) / "ray.token"
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() not in json.dumps(said)
    assert service.client.queue()["dispatcher"] is not None

    # `ray job submit` beside the queue, as the last lines of `up` say.
    assert set(exported) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"}
    ray = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--", "python", "-m", "zsbir.train", "--help"]
    until = time.monotonic() + 120
    while True:
        beside = subprocess.run(ray, env={**os.environ, **exported}, capture_output=True, text=True, timeout=120, check=False)
        # On a busy machine Ray has no agent yet, or is started again since its agent took too long.
        if not re.search("please try again later|Failed to connect to Ray", beside.stderr) or time.monotonic() > until:
            break
        time.sleep(1)
    assert beside.returncode == 0, beside.stdout + beside.stderr
    assert "Dataset and Knowledge in, Run out" in beside.stdout
    assert service.client.jobs()["jobs"] == []

    # The keeper and every program, killed at once: `down` ends what they had started.
    pids = [service.state["keeper"]["pid"], *(program["pid"] for program in service.state["programs"])]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    service.command("down", f"--root={service.root}")
    assert [process for process in of_it if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []
    assert not temp.exists()


def experiment_of(service, link):
    """The experiment of the run to which a link in a log leads, by the MLflow that is there now."""
    password = Path(service.state["mlflow_password"]).read_text()
    address, run = link.partition("/#/")[0], link.rpartition("/")[2]
    answer = httpx.get(f"{address}/api/2.0/mlflow/runs/get", params={"run_id": run}, auth=(USER, password))
    return answer.json()["run"]["info"]["experiment_id"]


def listening(process):
    """The addresses at which a process can be reached."""
    with suppress(psutil.Error):
        return [each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return []


def words_of(process):
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def wait_until(true, timeout_s=150):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.3)
