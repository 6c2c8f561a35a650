"""The files of infra/compose, without starting anything: what must hold of every service, of the secrets, and of the dashboard."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.server.security_utils import is_allowed_host_header
from prometheus_client.parser import text_string_to_metric_families
from servers.compose import CHECKOUT, FOLDER, VARIABLE, interpolated, read_compose, read_env
from servers.debian import Unavailable
from servers.job_pages import Queue
from servers.prometheus import promtool
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from services.common.guard import RequestGuard
from services.jobs.http.metrics import DispatcherMonitor
from services.jobs.http.metrics import Metrics as JobMetrics
from services.jobs.queue.store import open_store
from services.search.http.metrics import Metrics as SearchMetrics
from services.search.serving.catalogue import Catalogue

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|STORE_URI|JOBS_STORE")
OPEN = {"TOKENS": "a folder", "MLFLOW_TRACKING_USERNAME": "a name"}
OUR_IMAGES = ("zsbir-services", "zsbir-train")
RAY_METRICS = {"ray_resources", "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gpus_utilization", "ray_node_disk_free"}
"""Metrics of Ray that the dashboard and the alerts use; the story asks a real Ray for them."""
RAY_METRICS |= {"ray_node_disk_usage"}
DASHBOARD = json.loads((FOLDER / "grafana" / "dashboards" / "zsbir.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """The file as it is written."""
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8")))


@pytest.fixture(scope="module")
def secrets(module_path: Path) -> dict[str, str]:
    """What init.sh writes."""
    copy = shutil.copytree(FOLDER, module_path / "compose", ignore=shutil.ignore_patterns(".env"))
    subprocess.run([copy / "init.sh"], check=True, capture_output=True)
    return read_env(copy / ".env")


@pytest.fixture(scope="module")
def services(secrets: dict[str, str]) -> dict[str, Any]:
    return dict(read_compose(variables=secrets)["services"])


def test_init_writes_random_secrets_that_nobody_else_can_read_and_never_again(tmp_path):
    copies = [shutil.copytree(FOLDER, tmp_path / name, ignore=shutil.ignore_patterns(".env")) for name in ("one", "two")]
    for copy in copies:
        subprocess.run([copy / "init.sh"], check=True, capture_output=True)
        assert stat.S_IMODE((copy / ".env").stat().st_mode) == 0o600
    one, two = (read_env(copy / ".env") for copy in copies)
    random = {name for name in one if not name.startswith("ZSBIR_")}
    assert len(random) == 8
    assert not {name for name in random if one[name] == two[name] or not re.fullmatch("[a-f0-9]{20,64}", one[name])}
    again = subprocess.run([copies[0] / "init.sh"], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.startswith("error: ")) == (2, True)
    assert read_env(copies[0] / ".env") == one
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/compose/.env"], cwd=CHECKOUT, check=False)
    assert ignored.returncode == 0


def test_what_is_mounted_can_be_read_by_every_user_whatever_umask_the_checkout_was_made_under(raw, tmp_path):
    copy = shutil.copytree(FOLDER, tmp_path / "compose", ignore=shutil.ignore_patterns(".env"))
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    subprocess.run(["sh", "-c", 'umask 077 && exec "$0"', copy / "init.sh"], check=True, capture_output=True)
    mounted = {volume.split(":")[0] for each in raw["services"].values() for volume in each.get("volumes", ()) if volume[0] == "."}
    mounted |= {f"./{name}" for script in copy.glob("*.sh") for name in re.findall(r"\$PWD/([\w.]+):", script.read_text("utf-8"))}
    assert {"./copy_bucket.py", "./setup.py", "./prometheus", "./Caddyfile"} <= mounted
    for path in [path for name in mounted for path in (copy / name, *(copy / name).rglob("*"))]:
        readable = 0o055 if path.is_dir() else 0o044
        assert path.stat().st_mode & readable == readable, path
    assert (copy / "postgres.sh").stat().st_mode & 0o055 == 0o055
    assert stat.S_IMODE((copy / ".env").stat().st_mode) == 0o600


def test_every_variable_is_written_by_init_or_has_a_value_of_its_own(secrets):
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    found = [(each["name"], each["kind"]) for each in VARIABLE.finditer(text) if each["name"]]
    assert {name for name, kind in found if kind == "?"} <= secrets.keys()
    assert {kind for _, kind in found} == {"?", "-"}
    with pytest.raises(KeyError, match=r"run init\.sh first"):
        read_compose(variables={})


def test_every_secret_is_a_variable_that_must_be_set(raw):
    for name, described in raw["services"].items():
        for variable, value in described.get("environment", {}).items():
            if SECRET.search(variable) and variable not in OPEN and "API" not in variable:
                assert re.search(r"\$\{\w+:\?", str(value)), f"{name}: {variable} has a value that everybody knows"
        assert "env_file" not in described


def test_databases_secrets_go_to_their_clients_alone(services):
    def holders(name: str) -> set[str]:
        return {service for service, each in services.items() if name in each.get("environment", {})}

    assert holders("ZSBIR_JOBS_STORE") == {"setup", "jobs", "dispatcher", "search"}
    assert holders("MLFLOW_BACKEND_STORE_URI") == {"mlflow"}
    assert holders("POSTGRES_PASSWORD") == {"postgres"}
    assert holders("GF_SECURITY_ADMIN_PASSWORD") == {"grafana"}
    clients = {name for name, each in services.items() if "database" in each["networks"]}
    assert clients == holders("ZSBIR_JOBS_STORE") | {"mlflow", "postgres"}


def test_every_image_has_a_version(services):
    for name, described in services.items():
        tag = described["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {described['image']}"
        assert (described.get("pull_policy") == "never") == described["image"].startswith(OUR_IMAGES)


def test_ports_are_published_on_the_loopback_address_alone(services):
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}
    assert set(published) == {"mlflow", "jobs", "search", "grafana", "proxy"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_every_service_has_limits_a_restart_policy_and_a_health_check_that_others_wait_for(services):
    for name, described in services.items():
        limits = described["deploy"]["resources"]["limits"]
        assert {"cpus", "memory"} <= limits.keys(), name
        assert described["restart"] == ("no" if name == "setup" else "unless-stopped")
        own = described["image"].startswith(OUR_IMAGES)
        unwell = described.get("healthcheck") == {"disable": True}
        checked = "healthcheck" in described or "ZSBIR_HEALTH_URL" in described.get("environment", {})
        assert checked or unwell, f"{name} has no health check"
        if own:
            assert described["read_only"]
            assert described["cap_drop"] == ["ALL"]
            assert described["init"]
        for before, condition in (described["depends_on"] if isinstance(described.get("depends_on"), dict) else {}).items():
            if condition["condition"] == "service_healthy":
                assert services[before].get("healthcheck") != {"disable": True}
            else:
                assert (condition["condition"], before) == ("service_completed_successfully", "setup")


def test_every_network_volume_and_file_that_is_named_is_there(raw, services):
    for name, described in services.items():
        assert set(described["networks"]) <= raw["networks"].keys()
        for volume in described.get("volumes", ()):
            source = volume.split(":")[0]
            known = source in raw["volumes"] or volume == "/data" or (FOLDER / source).exists()
            assert known, f"{name}: {volume}"
    used = {volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ())}
    assert raw["volumes"].keys() <= used
    assert raw["networks"].keys() == {network for each in services.values() for network in each["networks"]}


def test_ports_in_commands_are_those_that_addresses_name(services):
    listening = {
        name: {port for word in each.get("command", ()) for port in re.findall(r"port=(\d+)", word)}
        for name, each in services.items()
    }
    listening |= {"postgres": {"5432"}}
    words = [
        text for each in services.values() for text in (*each.get("command", ()), *map(str, each.get("environment", {}).values()))
    ]
    named = {found for text in words for found in re.findall(rf"\b({'|'.join(services)}):(\d{{4,5}})\b", text)}
    assert {name for name, _ in named} == {"postgres", "s3", "mlflow", "ray-head"}
    assert [(name, port) for name, port in named if port not in listening[name]] == []
    for name, each in services.items():
        for port in each.get("ports", ()) if name != "proxy" and name != "grafana" else ():
            assert port.split(":")[-1] in listening[name]


@pytest.fixture(scope="module", params=[{}, {"ZSBIR_SUBNET": "10.9.8"}], ids=["default", "chosen"])
def addressed(request, secrets) -> dict[str, Any]:
    """The file, with the subnet that it has by itself or another one."""
    return read_compose(variables={**secrets, **request.param})


def test_fixed_addresses_are_within_their_networks_and_given_to_nobody_else(addressed):
    nets = {name: each["ipam"]["config"][0] for name, each in addressed["networks"].items() if "ipam" in each}
    assert nets.keys() == {"pages", "metrics"}
    pages, metrics = (ip_network(nets[name]["subnet"]) for name in ("pages", "metrics"))
    assert not pages.overlaps(metrics)
    fixed = [
        (network, ip_address(each["ipv4_address"]))
        for described in addressed["services"].values()
        if isinstance(described["networks"], dict)
        for network, each in described["networks"].items()
        if each
    ]
    assert len(fixed) == 2
    for network, address in fixed:
        net, given = ip_network(nets[network]["subnet"]), ip_network(nets[network]["ip_range"])
        assert address in net
        assert ip_address(nets[network]["gateway"]) in net
        assert given.subnet_of(net)
        assert given.num_addresses >= 32
        assert not {address, ip_address(nets[network]["gateway"])} & set(given)
        assert str(address) != nets[network]["gateway"]


def test_what_speaks_http_behind_the_proxy_believes_the_proxy_and_nobody_else(addressed):
    services = addressed["services"]
    behind = set(re.findall(r"reverse_proxy (\w+):", (FOLDER / "Caddyfile").read_text("utf-8")))
    assert behind == {"jobs", "search", "mlflow", "grafana"}
    believed = {name: services[name]["environment"].get("FORWARDED_ALLOW_IPS") for name in behind - {"grafana"}}
    address = services["proxy"]["networks"]["pages"]["ipv4_address"]
    assert believed == dict.fromkeys(believed, address)
    assert not [
        name for name in services.keys() - believed.keys() if "FORWARDED_ALLOW_IPS" in services[name].get("environment", {})
    ]


def test_grafanas_cookie_is_for_tls_alone_where_the_readme_says_how_to_put_it_in_front(services, secrets):
    """It has no regard for what a proxy says."""
    assert services["grafana"]["environment"]["GF_SECURITY_COOKIE_SECURE"] == "false"
    (block,) = re.findall(
        r"^echo '(ZSBIR_DOMAIN=.*?)' >> \.env$", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    given = dict(line.split("=", 1) for line in block.splitlines())
    behind = read_compose(variables={**secrets, **given})["services"]["grafana"]["environment"]
    assert behind["GF_SECURITY_COOKIE_SECURE"] == "true"


def test_prometheus_listens_where_no_job_runs(addressed):
    services = addressed["services"]
    listening = {word.partition("=")[2] for word in services["prometheus"]["command"] if "listen-address" in word}
    assert listening == {"127.0.0.1:9090", f"{services['prometheus']['networks']['metrics']['ipv4_address']}:9090"}
    assert {name for name, each in services.items() if "metrics" in each["networks"]} == {"prometheus", "grafana"}


PORTS = ("ZSBIR_JOBS_PORT", "ZSBIR_SEARCH_PORT", "ZSBIR_MLFLOW_PORT", "ZSBIR_GRAFANA_PORT")


@pytest.mark.parametrize("variable", PORTS)
def test_a_page_is_known_by_the_port_under_which_it_is_published(variable, secrets):
    """A published port is part of the Host header; MLflow compares all of it, our own services its name, and Grafana nothing."""
    text = (FOLDER / "compose.yaml").read_text("utf-8")
    assert set(re.findall(r"ZSBIR_\w+_PORT", text)) == set(PORTS)
    services = read_compose(variables={**secrets, variable: "15999"})["services"]
    (changed,) = [name for name, each in services.items() if any(":15999:" in port for port in each.get("ports", ()))]
    assert changed in variable.lower()
    for name in ("localhost", "127.0.0.1"):
        if changed == "mlflow":
            allowed = services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
            assert is_allowed_host_header(allowed, f"{name}:15999")
            assert is_allowed_host_header(allowed, "mlflow:5000")
            assert not is_allowed_host_header(allowed, "evil.example.org")
        elif changed != "grafana":
            (hosts,) = [word.removeprefix("--hosts=") for word in services[changed]["command"] if word.startswith("--hosts=")]
            guard = RequestGuard(PlainTextResponse("well"), hosts=hosts.split(","), on_served=lambda *_: None)
            browser = TestClient(guard, base_url=f"http://{name}:15999")
            assert browser.get("/").status_code == 200
            assert browser.post("/", headers={"Origin": f"http://{name}:15999"}).status_code == 200
            assert browser.get("/", headers={"Host": "evil.example.org"}).status_code == 421


def test_the_gpu_file_changes_the_workers_alone(services):
    more = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text("utf-8"))["services"]
    assert list(more) == ["ray-worker"]
    assert set(more["ray-worker"]) == {"deploy"}


def test_interpolation_is_that_of_compose():
    variables = {"A": "1", "EMPTY": ""}
    assert interpolated("${A}-${EMPTY:-x}-${NONE:-y z}-$$A", variables) == "1-x-y z-$A"
    assert interpolated({"a": ["${A:?needed}"]}, variables) == {"a": ["1"]}
    with pytest.raises(KeyError, match="needed"):
        interpolated("${EMPTY:?needed}", variables)


# --- what is watched


def expressions() -> list[str]:
    """Every query of the dashboard and of the alerts."""
    rules = yaml.safe_load((FOLDER / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [*shown, *(rule["expr"] for group in rules for rule in group["rules"])]


@pytest.fixture
def exported(tmp_path) -> set[str]:
    """The names of all series that both services export."""
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    Queue(store, str(tmp_path))
    jobs = JobMetrics(store, DispatcherMonitor(store))

    class Waiting:
        waiting, sizes = 0, {1: 1}

    search = SearchMetrics(Catalogue(), Waiting(), lambda: 0)  # type: ignore[arg-type]
    texts = []
    for metrics in (jobs, search):
        metrics.served("/api/x", "GET", 200, 0.1)
        texts.append(metrics.text().decode())
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    return {family.name for family in families} | {sample.name for family in families for sample in family.samples}


def test_every_query_names_metrics_that_the_services_export(exported):
    named = {name for text in expressions() for name in re.findall(r"\b(?:zsbir|ray)_\w+", text)}
    assert {name for name in named if name.startswith("zsbir_")} <= exported
    assert {name for name in named if name.startswith("ray_")} == RAY_METRICS


def test_the_dashboard_has_panels_that_do_not_overlap_and_name_the_provisioned_source():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"], f"{panel['title']} lies over another panel"
        if panel["type"] not in ("row", "text"):
            assert panel["description"]
            letters = [target["refId"] for target in panel["targets"]]
            assert len(set(letters)) == len(letters)
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"][0]
    used = {
        json.dumps(each["datasource"]) for panel in panels for each in (panel, *panel.get("targets", ())) if "datasource" in each
    }
    assert used == {json.dumps({"type": source["type"], "uid": source["uid"]})}
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/zsbir.yml").read_text("utf-8"))["providers"][0]
    mounts = [
        volume.split(":")[:2]
        for volume in yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]["grafana"]["volumes"]
    ]
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounts


def test_what_is_scraped_are_services_of_the_file(services):
    scraped = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    static = {target for each in scraped for group in each.get("static_configs", ()) for target in group["targets"]}
    assert static == {"jobs:8270", "search:8280", "localhost:9090"}
    named = {(name, each["port"]) for job in scraped for each in job.get("dns_sd_configs", ()) for name in each["names"]}
    assert named == {("ray-head", 8080), ("ray-worker", 8080)}
    assert all("--metrics-export-port=8080" in services[name]["command"] for name, _ in named)


@pytest.mark.slow
def test_promtool_finds_no_fault_in_the_rules():
    try:
        assert "8 rules found" in promtool("check", "rules", FOLDER / "prometheus" / "alerts.yml")
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_docker_compose_itself_reads_the_file_where_it_is_there(module_path, secrets):
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no `docker compose` on this machine")
    folder = module_path / "compose"
    words = [
        docker,
        "compose",
        "--file",
        "compose.yaml",
        "--file",
        "compose.gpu.yaml",
        "--profile",
        "tls",
        "config",
        "--format",
        "json",
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ZSBIR_")}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)["services"]
    ours = read_compose(folder, secrets)["services"]
    assert {name: each.get("command") for name, each in read.items()} == {name: each.get("command") for name, each in ours.items()}
    for name, each in ours.items():
        given = {key: str(value) for key, value in each.get("environment", {}).items()}
        assert read[name].get("environment", {}) == given
