"""The container images, built and run: as user 1000, with nothing to write to but /data and /tmp.

Needs root, buildah and ten gigabytes; skipped with the reason where these are missing.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from canaries import Canaries
from servers.debian import Unavailable
from servers.images import CHECKOUT, KUBECTL, Image, build_images, have_kubectl, image
from servers.processes import free_ports

pytestmark = pytest.mark.long

SMALL = "--toy-photos-per-class 6 --toy-sketches-per-class 6 --toy-px 48"
STORY = f"""
set -eu
DATASET=$(python -m zsbir.ingest toy {SMALL})
WEIGHTS=$(python -m zsbir.pretrain --image-px 32 --photos-per-class 4 --epochs 1)
KNOWLEDGE=$(python -m zsbir.teacher "$DATASET" --backbone resnet18 --weights "$WEIGHTS" --image-px 32)
RUN=$(python -m zsbir.train toy --dataset "$DATASET" --knowledge "$KNOWLEDGE" --num-workers 2 --image-px 32 --steps 6 \
    --classes-per-batch 4 --per-class 2 --eval-every-steps 3)
REPORT=$(python -m zsbir.evaluate "$RUN")
INDEX=$(python -m zsbir.index "$RUN")
python -m zsbir.promote "$REPORT" --index "$INDEX" --force --reason "a first one"
"""
"""The demo's story (infra/demo.sh), with a training that is too small to be good."""


SECRETS = {
    "key of the store": "canary-3f1c8a5be2d7",
    "variables of the compose deployment": "canary-90b4d6e7c1a2",
    "token in a root": "canary-5d2e8f7a6b3c",
    "key beside the code": "canary-c7a9e4b1d805",
    "token of who builds": "canary-1e6b0f9d3a48",
}


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout of which the two large images have been built, with secrets lying about: in files that git does not have,
    and in variables of who built.
    """
    checkout = tmp_path_factory.mktemp("builder") / "check out"
    names = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, checkout / name)
    lying_about = {
        "infra/compose/.env": "variables of the compose deployment",
        "artifacts/service/operator.token": "token in a root",
        "zsbir/key.pem": "key beside the code",
    }
    for name, what in lying_about.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(SECRETS[what])
    env = {"AWS_SECRET_ACCESS_KEY": SECRETS["key of the store"], "RAY_AUTH_TOKEN": SECRETS["token of who builds"]}
    try:
        build_images("services", "train", checkout=checkout, env=env)
    except Unavailable as reason:
        pytest.skip(str(reason))
    return checkout


@pytest.fixture(scope="module")
def dispatcher(images):
    try:
        have_kubectl()
    except Unavailable as reason:
        pytest.skip(str(reason))
    build_images("dispatcher", checkout=images)
    with image("zsbir-dispatcher") as built:
        yield built


@pytest.fixture(scope="module")
def train():
    with image("zsbir-train") as built:
        yield built


@pytest.fixture(scope="module")
def services():
    with image("zsbir-services") as built:
        yield built


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def installed(built: Image, data: Path, tmp: Path) -> dict[str, str]:
    """The packages of an image, by name."""
    program = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = json.loads(built.run(data, tmp, "/opt/zsbir/bin/python", "-c", program).stdout)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}


@pytest.mark.parametrize("name", ["services", "train"])
def test_an_image_holds_the_locked_packages_and_nothing_else(name, request, data, tmp):
    found = installed(request.getfixturevalue(name), data, tmp)
    text = (CHECKOUT / "docker" / f"{name}.lock").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))
    assert found.pop("zsbir")
    assert found.items() <= locked.items()
    by_marker = set(re.findall(r"^([a-z0-9._-]+)==[^\n]*;", text, re.MULTILINE))
    assert set(locked) - set(found) <= by_marker


@pytest.mark.parametrize("name", ["services", "train"])
def test_no_secret_of_who_builds_is_in_an_image(name, request):
    built, canaries = request.getfixturevalue(name), Canaries(SECRETS)
    assert canaries.in_data(json.dumps(built.inspected)) == set()
    assert canaries.in_folder(next(built.root.glob("opt/zsbir/lib/*/site-packages")) / "zsbir") == {}
    # Everything but the locked packages, whose checksums pip has compared.
    for folder in ("bin", "data", "etc", "home", "opt/build", "root", "src", "srv", "tmp", "var", "wheels"):
        assert canaries.in_folder(built.root / folder) == {}, folder
    assert canaries.in_folder(built.root / "opt" / "zsbir" / "bin") == {}


@pytest.mark.parametrize("name", ["services", "train"])
def test_an_image_is_another_users_and_nothing_of_it_can_be_written_to(name, request, data, tmp):
    built = request.getfixturevalue(name)
    tried = "id -u; id -g; for f in /x /opt/zsbir/x /home/x /var/x /etc/x; do touch $f 2>/dev/null && echo $f; done; touch x /tmp/x"
    assert built.run(data, tmp, "sh", "-c", tried).stdout.split() == ["1000", "1000"]
    assert built.config["User"] == "1000:1000"
    assert built.config["Labels"]["org.opencontainers.image.version"]
    assert built.config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/zsbir/healthy.py"]


def test_the_story_of_the_demo_in_the_image(train, data, tmp):
    done = train.run(data, tmp, "sh", "-c", STORY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("models:/")
    assert sorted(path.name for path in data.iterdir()) == ["artifacts", "cache"]
    expected = ("matplotlib", "pymp-", "torchinductor_", "zsbir-ray-", "tmp")
    assert [path.name for path in tmp.iterdir() if not path.name.startswith(expected)] == []


def test_the_job_service_in_its_image_is_well_as_its_own_check_says(services, data, tmp):
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}/healthz"
    env = {"ZSBIR_JOBS_STORE": "sqlite:////data/jobs.db", "ZSBIR_HEALTH_URL": address}
    serving = services.begin(data, tmp, "python", "-m", "services.jobs", "serve", f"--port={port}", env=env)
    check = services.config["Healthcheck"]["Test"][1:]
    try:
        until = time.monotonic() + 60
        while (done := services.run(data, tmp, *check, env=env)).returncode:
            assert serving.poll() is None
            assert time.monotonic() < until, done.stderr
            time.sleep(0.5)
    finally:
        services.end(serving)
    gone = services.run(data, tmp, *check, env=env)
    assert (gone.returncode, "refused" in gone.stderr) == (1, True)


def test_the_commands_of_both_images_explain_themselves(train, services, data, tmp):
    assert "ingest" in train.run(data, tmp, *train.config["Cmd"]).stdout
    assert "submit" in services.run(data, tmp, *services.config["Cmd"]).stdout
    assert "usage" in train.run(data, tmp, "python", "-m", "services.search", "--help").stdout


def test_the_dispatcher_is_the_services_with_kubectl(dispatcher, services, data, tmp):
    """Its kubectl runs as its user, and asks the cluster that its kubeconfig names: here one that is not there."""
    assert f"COPY --from={KUBECTL} " in (CHECKOUT / "docker" / "Dockerfile").read_text("utf-8")
    assert installed(dispatcher, data, tmp) == installed(services, data, tmp)
    assert dispatcher.config["User"] == "1000:1000"
    assert "Client Version" in dispatcher.run(data, tmp, "kubectl", "version", "--client").stdout
    (port,) = free_ports(1)
    asked = dispatcher.run(data, tmp, "kubectl", f"--server=http://127.0.0.1:{port}", "get", "rayjobs")
    assert (asked.returncode, f"127.0.0.1:{port} was refused" in asked.stderr) == (1, True), asked.stderr
    assert "kuberay" in dispatcher.run(data, tmp, "python", "-m", "services.jobs", "dispatch", "--help").stdout
