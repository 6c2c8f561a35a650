"""No secret of a whole service turns up anywhere but where it belongs: a real one, with jobs that succeed and fail, is searched.

The secrets are those that an operator gives (the password of the database, the keys of the store, a token for weights) and those
that the service makes (its users' and Ray's tokens, MLflow's password, a browser's session). They are looked for in every file
that the service and its jobs have written, in object storage, in the rows of the database, in all answers over HTTP, in what
commands print and in the command lines of all processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import boto3
import httpx
import psutil
import psycopg
import pytest
from canaries import Canaries
from servers.postgres import new_database
from servers.processes import free_ports

from services.jobs.local.paths import read_state, state_folder
from services.jobs.queue.states import TERMINAL

pytestmark = pytest.mark.slow

OWN_FILES = {"operator.token": "operator's token", "ray.token": "Ray's token", "mlflow.password": "MLflow's password"}
"""The files of the service's own folder that hold a secret each; they are closed to others."""

GIVEN = {
    "S3 secret key": "canary-s3-key-5d1f0c77",
    "password of the database": "canary-postgres-9e02ab41",
    "token for weights": "canary-hf-token-31c7d0ee",
}
SMALL = {"recipe": "toy", "image_px": 32, "classes_per_batch": 4, "per_class": 2, "steps": 4, "log_every_steps": 1}


class Whole:
    """A service that `up` has started over object storage and PostgreSQL, and everything that it has answered and printed."""

    def __init__(self, root: str, database: str, places: str):
        self.root, self.said = root, ""
        self.lines: set[str] = set()
        self._env = {**os.environ, "ZSBIR_JOBS_STORE": database, "HF_TOKEN": GIVEN["token for weights"]}
        self._places = places

    def up(self) -> None:
        (port,) = free_ports(1)
        options = [f"--root={self.root}", f"--port={port}", f"--places={self._places}", "--cpus=2", "--gpus=0", "--running=2"]
        assert self.command("up", *options).returncode == 0, self.said[-3000:]
        self.state = read_state(self.root)
        self.folder = state_folder(self.root)

    def command(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the queue, and remember what it prints."""
        argv = [sys.executable, "-m", "services.jobs", *words]
        done = subprocess.run(argv, env={**self._env, **env}, capture_output=True, text=True, timeout=400, check=False)
        self.said += done.stdout + done.stderr
        return done

    def watch(self) -> None:
        """Remember the command lines of all processes there are now, which every user of the machine can read."""
        self.lines |= {" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])}

    def ask(self, method: str, path: str, token: str = "", **words: object) -> httpx.Response:
        """Send a request to the API (or an address), and remember the answer with its headers."""
        url = path if path.startswith("http") else f"{self.state['url']}{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = httpx.request(method, url, headers=headers, timeout=60, trust_env=False, **words)  # type: ignore[arg-type]
        self.said += f"{answer.status_code} {answer.headers} {answer.text}\n"
        return answer


@pytest.fixture
def service(moto, postgres, pipeline_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "AWS_", "RAY_"))]:
        monkeypatch.delenv(name)
    for name, value in {**moto.env, "AWS_SECRET_ACCESS_KEY": GIVEN["S3 secret key"]}.items():
        monkeypatch.setenv(name, value)
    database = new_database(postgres).replace("zsbir@", f"zsbir:{GIVEN['password of the database']}@")
    found = Whole(f"s3://{moto.new_bucket()}/zsbir", database, str(pipeline_root))
    yield found
    found.command("down", f"--root={found.root}", "--now")


def test_no_secret_is_anywhere_but_where_it_belongs(service, moto, dataset, knowledge, tmp_path):
    service.up()
    own = {name: (service.folder / file).read_text("utf-8").strip() for file, name in OWN_FILES.items()}
    made = service.command("tokens", "make", "ann", "--role=submitter", f"--root={service.root}")
    ann = next(word for word in made.stdout.split() if word.startswith("zsbir"))
    session = browsers_session(service, own["operator's token"])
    service.said = service.said.replace(ann, "shown once")  # a token is printed once, for the person who made it
    canaries = Canaries({**GIVEN, **own, "ann's token": ann, "browser's session": session})

    ended = run_jobs(service, ann, own["operator's token"], dataset, knowledge)
    assert sorted(job["state"] for job in ended) == ["failed", "failed", "succeeded"], service.said[-3000:]
    ask_everything(service, own["operator's token"], ann)

    assert canaries.in_data(service.said) == set(), "in what was answered or printed"
    lines = "\n".join(service.lines)
    for program in ("services.jobs.local.tracking_server", "services.jobs serve", "services.jobs.runs.runner", "zsbir.train"):
        assert program in lines
    assert canaries.in_data(lines) == set(), "in command lines"
    assert canaries.in_data(rows_of(service._env["ZSBIR_JOBS_STORE"])) == set(), "in the database"

    ray = Path(service.state["ray"]["temp"])
    assert any(path.name == "raylet.out" for path in ray.rglob("*")), "Ray's logs"
    assert canaries.in_folder(ray) == {}, "in Ray's files"

    service.command("down", f"--root={service.root}", "--now")
    found = canaries.in_folder(tmp_path)
    logs = service.folder / "logs"
    assert {each.name for each in logs.iterdir()} >= {"api.log", "dispatcher.log", "mlflow.log", "ray.log"}
    assert {Path(name).name: secrets for name, secrets in found.items()} == {file: {name} for file, name in OWN_FILES.items()}
    assert canaries.in_folder(downloaded(moto, service.root, tmp_path / "bucket")) == {}
    assert any((tmp_path / "bucket").rglob("spec.json"))


def browsers_session(service: Whole, operator: str) -> str:
    """Open a session as a browser does; return its cookie's secret. The answer that sets the cookie is not remembered."""
    code = service.ask("POST", "/api/login-codes", operator).json()["code"]
    answer = httpx.post(f"{service.state['url']}/api/session", json={"code": code}, trust_env=False)
    assert answer.status_code == 201
    (cookie,) = answer.cookies.values()
    return str(cookie)


def run_jobs(service: Whole, ann: str, operator: str, dataset: str, knowledge: str) -> list[dict]:
    """A training, which MLflow hears of, and two jobs that fail: one by its input, one by its exit code. Return how they ended."""
    jobs = [
        (ann, {"kind": "train", "config": {**SMALL, "dataset": dataset, "knowledge": knowledge}}),
        (ann, {"kind": "train", "config": {**SMALL, "dataset": dataset, "knowledge": knowledge, "lr": 1e15}}),
        (operator, {"kind": "command", "config": {"words": ["sh", "-c", "echo failing >&2; exit 3"]}}),
    ]
    ids = []
    for token, job in jobs:
        answer = service.ask("POST", "/api/jobs", token, json=job)
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    until = time.monotonic() + 300
    while True:
        ended = [service.ask("GET", f"/api/jobs/{job}", operator).json() for job in ids]
        service.watch()
        if all(job["state"] in TERMINAL for job in ended):
            return ended
        assert time.monotonic() < until, ended
        time.sleep(1)


def ask_everything(service: Whole, operator: str, ann: str) -> None:
    """Ask every page, with a token, with a wrong one and with mistakes; and as commands do."""
    search, mlflow = service.state["search"], service.state["mlflow"]
    for path in ("/", "/api/jobs", "/api/jobs/1/log", "/api/jobs/2/log", "/api/jobs/3/log", "/api/jobs/1/curve", "/api/queue"):
        service.ask("GET", path, operator)
    for path in ("/api/audit", "/api/tokens", "/metrics", "/openapi.json", f"{search}/metrics", f"{search}/readyz", f"{search}/"):
        service.ask("GET", path, operator)
    for token in ("", "zsbir_wrong", ann):
        assert service.ask("GET", "/api/audit", token).status_code in (401, 403)
        service.ask("GET", f"{search}/api/models", token)
    service.ask("GET", f"{mlflow}/api/2.0/mlflow/experiments/search")
    service.ask("GET", f"{mlflow}/", auth=("zsbir", "wrong"))
    service.ask("POST", "/api/jobs", ann, json={"kind": "train", "config": {"recipe": "toy", "dataset": "s3://other/x"}})
    service.ask("POST", "/api/jobs", ann, content=b"{")
    for words in (["list"], ["show", "1"], ["logs", "1"], ["logs", "2"], ["queue"], ["show", "999"], ["submit", "train", "--lr=x"]):
        service.command(*words, f"--root={service.root}")
    wrong = "postgresql://zsbir:canary-postgres-9e02ab41@127.0.0.1:9/none"
    service.command("dispatch", f"--root={service.root}", "--ray=http://127.0.0.1:9", ZSBIR_JOBS_STORE=wrong)


def rows_of(database: str) -> str:
    """Every row of every table, as text."""
    rows = []
    with psycopg.connect(database) as connection:
        tables = connection.execute("select table_name from information_schema.tables where table_schema = 'public'").fetchall()
        for (table,) in tables:
            rows += [str(row) for row in connection.execute(f'select * from "{table}"').fetchall()]
    assert len(rows) > 10
    return "\n".join(rows)


def downloaded(moto, root: str, folder: Path) -> Path:
    """What the service has written to object storage, as files."""
    bucket = root.removeprefix("s3://").partition("/")[0]
    client = boto3.client("s3", endpoint_url=moto.env["AWS_ENDPOINT_URL"], region_name="us-east-1")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", []):
            path = folder / each["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, each["Key"], str(path))
    assert len(list(folder.rglob("manifest.json"))) >= 1
    return folder
