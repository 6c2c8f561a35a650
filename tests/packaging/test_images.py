"""What the container images are made of, read without building them: files, locks, labels, the health check."""

from __future__ import annotations

import fnmatch
import http.server
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = (CHECKOUT / "docker" / "Dockerfile").read_text("utf-8")
TARGETS = ("services", "train")
REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    """The packages of a lock file and their versions; where one has two, by marker, the versions together."""
    found: dict[str, str] = {}
    for package, version in REQUIREMENT.findall((CHECKOUT / name).read_text("utf-8")):
        found[package] = " ".join(sorted({*found.get(package, "").split(), version}))
    return found


def hashes(name: str) -> dict[str, set[str]]:
    """The checksums of each package of a lock file."""
    found: dict[str, set[str]] = {}
    package = ""
    for line in (CHECKOUT / name).read_text("utf-8").splitlines():
        if begins := REQUIREMENT.match(line):
            package = begins[1]
        found.setdefault(package, set()).update(re.findall(r"sha256:[0-9a-f]{64}", line))
    return found


def stage(target: str) -> str:
    """The instructions of one stage of the Dockerfile."""
    return re.split(r"^FROM ", DOCKERFILE.split(f" AS {target}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_file_that_an_image_takes_exists_and_is_let_in():
    ignored = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    copied = re.findall(r"^COPY (?:--chmod=\S+ )?(?!--)(.+)$", DOCKERFILE, re.MULTILINE)
    sources = [source for line in copied for source in line.split()[:-1]] + re.findall(r"type=bind,source=([^,\s]+)", DOCKERFILE)
    assert {"zsbir", "services", "tuning", "docker/train.lock", "docker/services.lock"} <= set(sources)
    assert ignored[1] == "*"
    for source in sources:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), f"{source} is not let in by .dockerignore"


@pytest.mark.parametrize(("inner", "outer"), [("train", "requirements.lock"), ("services", "docker/train.lock")])
def test_the_images_hold_versions_and_checksums_of_the_one_lock(inner, outer):
    name = f"docker/{inner}.lock"
    assert locked(name)
    assert locked(name).items() <= locked(outer).items()
    assert all(sums and sums <= hashes(outer)[package] for package, sums in hashes(name).items())


def test_the_train_image_holds_what_the_project_needs_and_no_tool_of_development():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[A-Za-z0-9._-]+", each)[0].lower() for each in requirements}  # type: ignore[index]

    held = set(locked("docker/train.lock"))
    assert names(project["dependencies"]) <= held
    tools = names(project["optional-dependencies"]["dev"]) - names(project["dependencies"])
    # What MLflow needs itself is no tool there.
    assert held & tools == {"scikit-learn", "jsonschema"}


def test_the_services_image_has_no_torch():
    assert not {name for name in locked("docker/services.lock") if name.startswith(("torch", "nvidia", "cuda", "triton"))}


IMPORT_ALL = """
import importlib, pkgutil
for package in ("services.jobs", "services.common"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith((".__main__", ".migrations.env")):  # Alembic runs the latter
            importlib.import_module(module.name)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "refused"), [(IMPORT_ALL, ""), ("import numpy, torch", "torch belongs to no package of the lock")]
)
def test_the_services_import_nothing_but_the_packages_of_their_image(program, refused):
    path = os.pathsep.join([str(CHECKOUT / "tests" / "servers" / "only_locked"), str(CHECKOUT)])
    env = {**os.environ, "PYTHONPATH": path, "ONLY_LOCKED": str(CHECKOUT / "docker" / "services.lock")}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, refused in done.stderr) == (bool(refused), True), done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_it_is_runs_as_nobody_in_particular_and_can_be_asked_whether_it_is_well(target):
    words = stage(target)
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in words
    assert f'image.title="zsbir-{target}"' in words
    assert "USER 1000:1000" in words
    assert 'CMD ["python", "/opt/zsbir/healthy.py"]' in words


@pytest.mark.parametrize("target", TARGETS)
def test_files_of_the_checkout_in_an_image_can_be_read_whatever_umask_it_was_made_under(target):
    """pip writes the rest with modes of its own, from a wheel."""
    copied = re.findall(r"^COPY (?!--from)(.+)$", stage(target), re.MULTILINE)
    assert copied
    assert all(line.startswith("--chmod=0644 ") for line in copied)


def test_the_dockerfile_is_clean():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, CHECKOUT / "docker" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers /200 with 200, and so on."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def service():
    """The address of such a server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def healthy(address: str) -> tuple[int, str]:
    words = [sys.executable, str(CHECKOUT / "docker" / "healthy.py")]
    env = {"ZSBIR_HEALTH_URL": address, "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def test_the_health_check_tells_a_good_answer_from_a_bad_one_and_from_none(service):
    assert healthy(f"{service}/200") == (0, "")
    assert healthy(f"{service}/503") == (1, f"{service}/503: HTTP Error 503: Service Unavailable\n")
    code, why = healthy("http://127.0.0.1:9/")
    assert (code, "refused" in why) == (1, True)
    assert healthy("address")[0] == 1
    assert healthy(f"{service}/200 {service}/204") == (0, "")
    assert healthy(f"{service}/200 {service}/500")[0] == 1
    assert healthy("") == (0, "")
