"""Every deployment that is shipped asks for Ray's token, MLflow's password and the services' tokens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from manifests.objects import INFRA, ROOT, expanded, pods_of, read, rendered

from services.jobs.runs.rayjob import KubeRayConfig

UNITS = sorted((ROOT / "infra" / "systemd").glob("*.service"))
COMPOSE = sorted((ROOT / "infra").glob("compose/**/*compose*.y*ml"))
OPEN_MLFLOW = ("mlflow server", "mlflow ui")


def settings_of(unit: Path) -> dict[str, str]:
    """The variables that a unit itself sets, and its command under ExecStart."""
    found: dict[str, str] = {}
    for line in unit.read_text("utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "Environment":
            found |= dict(word.split("=", 1) for word in shlex.split(value))
        elif key == "ExecStart":
            found[key] = value
    return found


def require_auth(command: str, environment: dict[str, str]) -> None:
    """Fail for a command that starts Ray, MLflow or a service for everybody. Our own MLflow refuses to start without a password."""
    assert "--auth=off" not in command
    assert "--auth off" not in command
    if "ray start" in command or "services.search.serve" in command:
        assert environment.get("RAY_AUTH_MODE") == "token", command
    assert not any(each in command for each in OPEN_MLFLOW) or "--app-name basic-auth" in command, command


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_units_ask_for_a_token_or_a_password(unit):
    settings = settings_of(unit)
    require_auth(settings["ExecStart"], settings)
    assert {"ray-head.service", "ray-node.service", "mlflow.service"} <= {each.name for each in UNITS}


@pytest.mark.parametrize("overlay", ["small", "gpu", "public"])
def test_ray_clusters_and_services_on_kubernetes_ask_for_a_token_or_a_password(overlay):
    objects = rendered(overlay)
    clusters = [each["spec"] for each in objects if each["kind"] == "RayCluster"]
    assert [each["authOptions"] for each in clusters] == [{"mode": "token"}]
    pods = [each for each in pods_of(objects) if not each.ray]
    for pod in pods:
        require_auth(" ".join(expanded(pod.containers[0], objects)), {})
    assert any("tracking_server" in " ".join(pod.containers[0]["command"]) for pod in pods)
    for each in objects:
        if each["kind"] == "ConfigMap" and "kuberay.yaml" in each["data"]:
            assert KubeRayConfig.of(yaml.safe_load(each["data"]["kuberay.yaml"])).ray_auth == "token"


def test_files_of_kubernetes_ask_for_a_token_also_where_nothing_can_be_rendered():
    assert KubeRayConfig().ray_auth == "token"
    assert read("base/raycluster.yaml")[0]["spec"]["authOptions"] == {"mode": "token"}
    assert read("examples/rayjob.yaml")[0]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert not [path for path in INFRA.rglob("*.yaml") if any(each in path.read_text("utf-8") for each in OPEN_MLFLOW)]


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_ask_for_a_token_or_a_password(file):
    """Also where a service's command is a list, and its environment a list or a map."""
    for service in yaml.safe_load(file.read_text("utf-8")).get("services", {}).values():
        parts = [service.get(key) or "" for key in ("entrypoint", "command")]
        command = " ".join(part if isinstance(part, str) else " ".join(map(str, part)) for part in parts)
        environment = service.get("environment") or {}
        if isinstance(environment, list):
            environment = dict(word.partition("=")[::2] for word in environment)
        require_auth(command, {key: str(value) for key, value in environment.items()})


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("ray start --head", {}),
        ("ray start --head", {"RAY_AUTH_MODE": "disabled"}),
        ("mlflow server --host 0.0.0.0", {}),
        ("python -m services.jobs serve --auth off", {}),
        ("python -m services.search --auth=off", {}),
    ],
)
def test_an_open_deployment_is_noticed(command, environment):
    with pytest.raises(AssertionError):
        require_auth(command, environment)


def test_scripts_start_no_open_mlflow_and_no_open_ray():
    for script in [*(ROOT / "infra").glob("*.sh"), ROOT / "Makefile"]:
        text = script.read_text("utf-8")
        assert not any(each in text for each in OPEN_MLFLOW), script
        assert not re.search(r"RAY_AUTH_MODE\W.*disabled", text), script


def test_the_page_on_security_names_tests_that_exist():
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[\w]+/)*test_\w+\.py)`", page))
    there = [path.as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(named) > 15
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
