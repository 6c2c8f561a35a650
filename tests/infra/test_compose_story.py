"""The deployment of infra/compose without Docker: its commands and environment as processes, with a real S3 server and PostgreSQL.

From the random passwords to a search with a promoted model, with authentication on everywhere, and a Prometheus that answers
every query of the dashboard. Ceph RGW stands in for SeaweedFS, this machine's PostgreSQL for the image's, Debian's Prometheus for
the newer one; Grafana and the proxy are not to be had here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg
import pytest
import yaml
from playwright.sync_api import Browser, Page
from servers.compose import FOLDER, Deployment, deployment, read_compose, read_env
from servers.debian import Unavailable
from servers.postgres import postgres
from servers.processes import HOST
from servers.prometheus import Prometheus, prometheus, promtool
from servers.rgw import Rgw

pytestmark = pytest.mark.long

SMALL = {"image_px": 32, "classes_per_batch": 4, "per_class": 2, "eval_every_steps": 3, "steps": 6}
PIPELINE = {
    "ingest": {"layout": "toy", "toy_photos_per_class": 6, "toy_sketches_per_class": 6, "toy_px": 48},
    "pretrain": {"image_px": 32, "photos_per_class": 4, "epochs": 1},
    "teacher": {"backbone": "resnet18", "image_px": 32},
    "train": {"recipe": "toy", "num_workers": 1, **SMALL},
    "evaluate": {},
    "index": {},
}
DRAWING = {"strokes": [[[10, 90, 50, 10], [90, 90, 10, 90]]], "k": 5}
EMPTY = {"GPUs": "this machine has none"}
"""Panels that may show nothing here, each with the reason."""


@dataclass
class Site:
    """The deployment, its Prometheus, and its passwords."""

    running: Deployment
    metrics: Prometheus
    secrets: dict[str, str]
    token: str

    def types(self, *words: str) -> str:
        """Run a command of the job queue as ann, an operator, and return what it prints."""
        env = {**os.environ, "ZSBIR_JOBS_URL": self.running.url("jobs", 8270), "ZSBIR_JOBS_TOKEN": self.token}
        done = subprocess.run(
            [sys.executable, "-m", "services.jobs", *words], env=env, capture_output=True, text=True, check=False, timeout=1800
        )
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr[-3000:]}\n{self.running.log('dispatcher')[-2000:]}"
        return done.stdout.strip()


@pytest.fixture(scope="module")
def secrets(module_path: Path) -> dict[str, str]:
    """What init.sh writes."""
    copy = shutil.copytree(FOLDER, module_path / "compose")
    (copy / ".env").unlink(missing_ok=True)
    subprocess.run([copy / "init.sh"], check=True, capture_output=True)
    return read_env(copy / ".env")


@pytest.fixture(scope="module")
def database(secrets: dict[str, str]) -> Iterator[str]:
    """The address, host:port, of a PostgreSQL in which postgres.sh has made users, who need their passwords."""
    try:
        with postgres() as url:
            host, port = url.rpartition("@")[2].partition("/")[0].split(":")
            with psycopg.connect(url, autocommit=True) as connection:
                rules = Path(connection.execute("SHOW hba_file").fetchone()[0])  # type: ignore[index]
                rules.write_text(f"host all zsbir {HOST}/32 trust\nhost all all {HOST}/32 scram-sha-256\n")
                connection.execute("SELECT pg_reload_conf()")
            folders = [str(folder) for folder in Path("/usr/lib/postgresql").glob("*/bin")]
            path = os.pathsep.join([*folders, os.environ["PATH"]])
            if not shutil.which("psql", path=path):
                pytest.skip("no psql on this machine, which postgres.sh runs")
            env = {**os.environ, **secrets, "PATH": path, "PGHOST": host, "PGPORT": port, "POSTGRES_USER": "zsbir"}
            subprocess.run([FOLDER / "postgres.sh"], env=env, check=True, capture_output=True, text=True)
            yield f"{host}:{port}"
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def running(rgw: Rgw, database: str, secrets: dict[str, str]) -> Iterator[Deployment]:
    """All services of the file that are ours, well by their own health checks."""
    keys = ["--access-key", secrets["S3_ACCESS_KEY"], "--secret", secrets["S3_SECRET_KEY"]]
    rgw.radosgw_admin("key", "create", "--uid", "test", "--key-type", "s3", *keys)
    file = read_compose(variables={**secrets, "ZSBIR_WORKER_CPUS": "2", "ZSBIR_DOMAIN": "zsbir.example.org"})
    outside = {"postgres:5432": database, "s3:8333": rgw.endpoint.removeprefix("http://")}
    with deployment(file, outside) as started:
        started.start("setup", "mlflow", "jobs", "search", "ray-head", "ray-worker", "dispatcher")
        started.await_all()
        yield started


@pytest.fixture(scope="module")
def site(running: Deployment, secrets: dict[str, str], module_path: Path) -> Iterator[Site]:
    """The deployment, with Prometheus, and a token that was made as the README says."""
    words = ["-m", "services.jobs", "tokens", "make", "ann", "--role", "operator"]
    made = subprocess.run([sys.executable, *words], env=running.environment("jobs"), capture_output=True, text=True, check=True)
    try:
        with prometheus(prometheus_config(running, module_path), module_path) as metrics:
            yield Site(running, metrics, secrets, made.stdout.strip())
    except Unavailable as reason:
        pytest.skip(str(reason))


def prometheus_config(running: Deployment, folder: Path) -> Path:
    """Its files with addresses of this machine, and every second instead of every fifteen."""
    copy = shutil.copytree(FOLDER / "prometheus", folder / "prometheus")
    config = yaml.safe_load((copy / "prometheus.yml").read_text("utf-8"))
    config["global"] = dict.fromkeys(config["global"], "1s")
    # A name of Docker's network stands for all containers of a service, and Prometheus's own port is 9090; neither is so here.
    config["scrape_configs"] = [each for each in config["scrape_configs"] if each["job_name"] != "prometheus"]
    for scraped in config["scrape_configs"]:
        named = [(name, each["port"]) for each in scraped.pop("dns_sd_configs", ()) for name in each["names"]]
        static = [target.split(":") for group in scraped.get("static_configs", ()) for target in group["targets"]]
        targets = [f"{HOST}:{running.port(name, port)}" for name, port in [*named, *static]]
        scraped["static_configs"] = [{"targets": targets}]
    text = json.dumps(config).replace("/etc/prometheus", str(copy)).replace("/run/tokens", str(running.data("setup")))
    (copy / "prometheus.yml").write_text(text, "utf-8")
    promtool("check", "config", copy / "prometheus.yml")
    return copy / "prometheus.yml"


def test_nobody_gets_in_without_a_password_or_a_token(site: Site, database: str, rgw: Rgw):
    jobs, search, mlflow = (site.running.url(name, port) for name, port in (("jobs", 8270), ("search", 8280), ("mlflow", 5000)))
    ray = site.running.url("ray-head", 8265)
    asked = [f"{jobs}/api/jobs", f"{jobs}/metrics", f"{search}/api/models", f"{search}/metrics", f"{mlflow}/", f"{ray}/api/jobs/"]
    assert {address: httpx.get(address).status_code for address in asked} == dict.fromkeys(asked, 401)
    assert httpx.get(f"{mlflow}/", auth=("zsbir", "wrong")).status_code == 401
    for name in ("jobs", "mlflow"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"postgresql://{name}:wrong@{database}/{name}")
    with psycopg.connect(f"postgresql://mlflow:{site.secrets['MLFLOW_DB_PASSWORD']}@{database}/mlflow") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(f"postgresql://mlflow:{site.secrets['MLFLOW_DB_PASSWORD']}@{database}/jobs")
    assert httpx.get(f"{rgw.endpoint}/zsbir/").status_code == 403


def test_pages_behind_the_proxy_answer_under_its_names_and_no_other(site: Site):
    """What Caddy passes on: the name that the browser asked for, and the browser's origin."""
    for name, port, path in (
        ("jobs", 8270, "/"),
        ("search", 8280, "/"),
        ("mlflow", 5000, "/ajax-api/2.0/mlflow/experiments/search"),
    ):
        login = ("zsbir", site.secrets["MLFLOW_PASSWORD"]) if name == "mlflow" else None

        def asked(host: str, origin: str = "", *, name=name, port=port, path=path, login=login) -> int:
            headers = {"Host": host, **({"Origin": origin} if origin else {})}
            method = "POST" if name == "mlflow" else "GET"
            content = {"max_results": 1} if method == "POST" else None
            url = f"{site.running.url(name, port)}{path}"
            return httpx.request(method, url, headers=headers, auth=login, json=content).status_code

        outside = f"{name}.zsbir.example.org"
        assert asked(outside, f"https://{outside}") == 200
        assert asked("evil.example.org") in (403, 421)
        if name == "mlflow":
            assert asked(outside, "https://evil.example.org") == 403


def test_a_services_command_line_and_ray_hold_no_secret(site: Site):
    secret = [value for name, value in site.secrets.items() if not name.startswith("ZSBIR_")]
    assert len(secret) == 8
    for name in site.running.processes:
        assert not [word for word in site.running.command(name) for value in secret if value in word]
    nodes = site.running.environment("ray-worker")
    assert not {name for name in nodes if "DB_PASSWORD" in name or name == "ZSBIR_JOBS_STORE"}
    logs = "".join(site.running.log(name) for name in site.running.processes)
    assert [value for value in (*secret, site.token) if value in logs] == []


@pytest.fixture(scope="module")
def champion(site: Site, module_path: Path) -> str:
    """The version that became champion: a pipeline, a sweep, and a promotion, as jobs of the queue."""
    (module_path / "pipeline.json").write_text(json.dumps(PIPELINE))
    site.types("limits", "--set", str(write(module_path / "limits.yaml", "running: 4\n")))
    index = site.types("submit", "pipeline", "--recipe", "toy", "--config", str(module_path / "pipeline.json"), "--wait")
    assert index.startswith("s3://zsbir/store/indexes/")
    job = json.loads(site.types("show", "1", "--json"))
    made = {step["name"]: step["made"] for step in job["steps"]}
    fields = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    sweep = site.types(
        "submit", "sweep", "--recipe", "toy", "--dataset", made["ingest"], "--knowledge", made["teacher"], *fields,
        "--space", "losses", "--trials", "2", "--wait",
    )  # fmt: skip
    assert sweep.startswith("s3://zsbir/store/sweeps/")
    reason = ["--force", "--reason", "the first one"]
    version = site.types("submit", "promote", "--report", made["evaluate"], "--index", index, *reason, "--wait")
    assert version.startswith("models:/zsbir/")
    return version


def write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


def searched(site: Site, **headers: str) -> httpx.Response:
    return httpx.post(f"{site.running.url('search', 8280)}/api/search", json=DRAWING, headers=headers, timeout=60)


def test_what_was_trained_swept_and_promoted_is_searched(site: Site, champion: str):
    assert searched(site).status_code == 401
    until = time.monotonic() + 120
    while (answer := searched(site, Authorization=f"Bearer {site.token}")).status_code == 503 or answer.json().get(
        "model"
    ) != champion:
        assert time.monotonic() < until, f"{answer.text}\n{site.running.log('search')[-2000:]}"
        time.sleep(1)
    assert len(answer.json()["hits"]) == 5


def test_every_panel_of_the_dashboard_shows_something_and_every_alert_is_quiet(site: Site, champion: str):
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "zsbir.json").read_text("utf-8"))
    for _ in range(20):
        assert searched(site, Authorization=f"Bearer {site.token}").status_code == 200
    time.sleep(5)  # a few rounds of scraping
    silent = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            values = [float(series["value"][1]) for series in site.metrics.query(target["expr"])]
            if not [value for value in values if math.isfinite(value)] and panel["title"] not in EMPTY:
                silent.append((panel["title"], target["expr"], values))
    assert silent == []
    scraped = {(each["labels"]["job"], each["health"]) for each in site.metrics.get("targets")["activeTargets"]}
    assert scraped == {("jobs", "up"), ("search", "up"), ("ray", "up")}
    rules = [rule for group in site.metrics.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 8
    assert {rule["health"] for rule in rules} == {"ok"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_a_browser_sees_the_queue_the_search_and_mlflow(site: Site, champion: str, browser: Browser, tmp_path: Path):
    """ZSBIR_SCREENSHOTS names a folder to keep the pictures in."""
    pictures = Path(os.environ.get("ZSBIR_SCREENSHOTS", tmp_path))

    def opened(name: str, port: int, **context: Any) -> Page:
        page = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
        page.goto(site.running.url(name, port))
        if not context:
            page.get_by_label("Token").fill(site.token)
            page.keyboard.press("Enter")
        return page

    queue = opened("jobs", 8270)
    queue.locator("text=succeeded >> visible=true").first.wait_for(timeout=60_000)
    queue.screenshot(path=pictures / "queue.png")
    search = opened("search", 8280)
    box = search.locator("canvas").first.bounding_box(timeout=60_000)
    assert box
    search.mouse.move(box["x"] + 60, box["y"] + 60)
    search.mouse.down()
    for x, y in ((200, 80), (220, 200), (80, 220), (60, 60)):
        search.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    search.mouse.up()
    search.locator("img >> visible=true").nth(3).wait_for(timeout=60_000)
    search.screenshot(path=pictures / "search.png")
    login = {"username": "zsbir", "password": site.secrets["MLFLOW_PASSWORD"]}
    mlflow = opened("mlflow", 5000, http_credentials=login)
    try:
        mlflow.locator("a[href*='/runs/'] >> visible=true").first.wait_for(timeout=120_000)
    finally:
        mlflow.screenshot(path=pictures / "mlflow.png")


def test_what_was_made_is_in_the_bucket_alone(site: Site, champion: str):
    s3 = boto3.client(
        "s3",
        endpoint_url=site.running.environment("jobs")["AWS_ENDPOINT_URL"],
        aws_access_key_id=site.secrets["S3_ACCESS_KEY"],
        aws_secret_access_key=site.secrets["S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    found = {entry["Prefix"] for entry in s3.list_objects_v2(Bucket="zsbir", Delimiter="/")["CommonPrefixes"]}
    assert found == {"store/", "mlflow/"}
    left = [
        path for name in ("jobs", "dispatcher", "mlflow", "setup") for path in site.running.data(name).rglob("*") if path.is_file()
    ]
    kept = {path.name for path in left if "matplotlib" not in path.parts and "cache" not in path.parts}
    assert kept <= {"prometheus"}
