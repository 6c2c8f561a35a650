"""Shared by the tests of the documentation: small real artifacts at the addresses that it uses as examples."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from documentation.examples import SWEEP, make_artifacts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Return a folder with one small artifact of each kind at the addresses that the documentation names."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.chdir(folder)
        (folder / "docs" / "pictures").mkdir(parents=True)
        shutil.copy(ROOT / "docs" / "pictures" / "sketch.png", folder / "docs" / "pictures")
        (folder / "my.yaml").write_text("margin_cross: 0.3\n", "utf-8")
        (folder / SWEEP).mkdir(parents=True)
        (folder / SWEEP / "best.yaml").write_text("recipe: toy\nmargin_cross: 0.3\n", "utf-8")
        make_artifacts()
    return folder
