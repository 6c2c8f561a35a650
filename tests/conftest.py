"""Shared by all tests: shape annotations are checked at run time, and nothing touches the user's own cache or storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before zsbir is imported anywhere: every annotated shape of these packages is checked in every test.
install_import_hook(["zsbir.losses", "zsbir.model", "zsbir.retrieval", "zsbir.evaluation", "zsbir.data"], "beartype.beartype")

SHARED = Path(os.environ.get("ZSBIR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
"""Real images and weights, where they are there: beside the checkout, or where ZSBIR_SHARED says."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that need it are skipped, with the reason, where it is not there."""
    if not (SHARED / "data" / "caltech_qd60").is_dir():
        pytest.skip(f"no real data at {SHARED} (set ZSBIR_SHARED)")
    return SHARED


@pytest.fixture(autouse=True)
def own_storage(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test run has its own cache; plain logs; no tracking server of the user's."""
    monkeypatch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("ZSBIR_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
