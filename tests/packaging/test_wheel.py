"""The wheel works without a checkout: it is built, installed into an environment of its own, and run from another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("zsbir", "services", "tuning")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(module_path):
    """A wheel built from a copy of the checkout, so that no leftover of an earlier build gets into it and none is left behind."""
    copy, wheels = module_path / "source", module_path / "wheels"
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", wheels, copy], module_path)
    return next(wheels.glob("zsbir-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, module_path):
    """The bin folder of a fresh virtual environment that has the wheel, and beside it the packages that these tests run with.

    Python reads the .pth files of an environment's own site-packages only, so a development install of the checkout in the
    environment of the tests is not seen from here.
    """
    environment = module_path / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", environment], module_path)
    python = environment / "bin" / "python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel], module_path)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n", "utf-8")
    return python.parent


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, with nothing in the environment that leads to the checkout."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("ZSBIR_ROOT", str(tmp_path / "root"))
    return tmp_path


def run(command, folder):
    """Run a command in a folder and return what it prints; fail with its standard error."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_its_packages_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.startswith("services/jobs/http/pages/") for name in files)
    assert "services/jobs/queue/migrations/env.py" in files
    assert files <= names, "name these files under [tool.setuptools.package-data] in pyproject.toml"
    assert not [name for name in names if name.startswith("tests/")]
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_installed_packages_are_the_wheels_own(installed, elsewhere):
    found = run(
        [installed / "python", "-c", "import zsbir, services.jobs, tuning; print(zsbir.__file__, tuning.__file__)"], elsewhere
    )
    assert all(Path(path).is_relative_to(installed.parent) for path in found.split())


def test_a_verb_of_the_wheel_makes_an_artifact(installed, elsewhere):
    small = ["--toy-photos-per-class", "2", "--toy-sketches-per-class", "2", "--toy-px", "32"]
    uri = run([installed / "python", "-m", "zsbir.ingest", "toy", *small], elsewhere).strip()
    assert Path(uri, "manifest.json").is_file()
    assert Path(uri).is_relative_to(elsewhere)


def test_the_console_commands_of_the_wheel_explain_themselves(installed, elsewhere):
    for name in tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"].get("scripts", {}):
        assert name in run([installed / name, "--help"], elsewhere)


def test_the_job_queue_of_the_wheel_explains_itself_and_makes_its_database(installed, elsewhere, monkeypatch):
    assert "submit" in run([installed / "python", "-m", "services.jobs", "--help"], elsewhere)
    monkeypatch.setenv("ZSBIR_JOBS_STORE", f"sqlite:///{elsewhere / 'jobs.db'}")
    assert run([installed / "python", "-m", "services.jobs", "tokens", "make", "ann", "--role", "submitter"], elsewhere).strip()
    assert (elsewhere / "jobs.db").is_file()
