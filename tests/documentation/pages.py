"""The generated pages of docs/reference, and how each is made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from unittest import mock

REFERENCE = ("commands.md", "service-commands.md", "configuration.md", "files.md", "http-jobs.md", "http-search.md", "metrics.md")
"""Files below docs/reference."""


def reference_pages(root: Path, index: str) -> Mapping[str, str]:
    """Return the text of each page. root: a storage root with the artifacts of a pipeline. index: the address of its index."""
    from documentation import commands, configuration, files, services

    settings = [name for name in os.environ if name.startswith(("ZSBIR_", "MLFLOW_", "AWS_", "RAY_"))]
    without = {name: value for name, value in os.environ.items() if name not in settings}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, without, clear=True):
        made = Path(folder)
        return {
            "commands.md": commands.commands_page(),
            "service-commands.md": commands.service_commands_page(),
            "configuration.md": configuration.configuration_page(),
            "files.md": files.files_page(root),
            "http-jobs.md": services.jobs_page(made),
            "http-search.md": services.search_page(made, index),
            "metrics.md": services.metrics_page(made, index),
        }


def write_pages(to: Path) -> None:
    """Run a small pipeline, and write all pages."""
    from documentation.examples import INDEX, make_artifacts

    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, ZSBIR_CACHE=f"{folder}/cache"), chdir(folder):
        os.environ.pop("ZSBIR_ROOT", None)
        make_artifacts()
        pages = reference_pages(Path("artifacts"), INDEX)
    for name, text in pages.items():
        (to / name).write_text(text, "utf-8")


if __name__ == "__main__":
    write_pages(Path(__file__).resolve().parents[2] / "docs" / "reference")
