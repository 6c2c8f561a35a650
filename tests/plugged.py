"""The package in `tests/plugin`, installed as pip would, without pip and without a network: modules and metadata in a folder.

Whoever has that folder on its path, a child process by PYTHONPATH, has the package.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from zsbir.losses.registry import loss_kind
from zsbir.model import backbones

PLUGIN = Path(__file__).parent / "plugin"


def install(folder: Path, *, version: str | None = None, points: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Install the package into a folder, in place of what is there of it.

    version: in place of its own. points: entry points by group, in place of its own.
    """
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    remove(folder)
    shutil.copytree(PLUGIN / "zsbir_example", folder / "zsbir_example", ignore=shutil.ignore_patterns("__pycache__"))
    info = folder / f"zsbir_example-{version or project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version or project['version']}\n")
    groups = project["entry-points"] if points is None else points
    lines = [line for group, named in groups.items() for line in (f"[{group}]", *(f"{key} = {at}" for key, at in named.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def remove(folder: Path) -> None:
    """Remove the package from a folder, and what this process remembers of it."""
    for part in folder.glob("zsbir_example*"):
        shutil.rmtree(part)
    for module in [name for name in sys.modules if name.partition(".")[0] == "zsbir_example"]:
        del sys.modules[module]
    loss_kind.cache_clear()
    backbones._installed.cache_clear()
