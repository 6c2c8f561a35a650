"""The version is one number wherever it stands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import zsbir

CHECKOUT = Path(__file__).resolve().parents[2]


def test_pyproject_the_package_and_the_newest_section_of_the_changelog_have_one_version():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    sections = re.findall(
        r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", (CHECKOUT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", project)
    assert zsbir.__version__ == project == sections[0][0]
    assert [when for _, when in sections[1:]].count("unreleased") == 0


def test_deployments_name_the_images_of_this_version():
    """`docker/build.sh` tags them so. An older number would go on running the images of before, without a word."""
    named = {
        "infra/compose/compose.yaml": r"ZSBIR_VERSION:-([\d.]+)",
        "infra/compose/README.md": r"^\| `ZSBIR_VERSION`.*?\| ([\d.]+),",
        "infra/kubernetes/components/images/kustomization.yaml": r"newTag: ([\d.]+)",
        "infra/kubernetes/examples/rayjob.yaml": r"zsbir-train:([\d.]+)",
    }
    for file, pattern in named.items():
        versions = re.findall(pattern, (CHECKOUT / file).read_text("utf-8"), re.MULTILINE)
        assert versions, file
        assert set(versions) == {zsbir.__version__}, file
