"""A job service for commands to speak with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.job_service import Service

from services.jobs.cli.commands import COMMANDS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    there = Service(tmp_path / "root", auth="off")
    yield there
    there.stop()


@pytest.fixture
def run_command(service: Service, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a command in this process and returns its result."""
    monkeypatch.setenv("ZSBIR_JOBS_URL", service.url)
    return lambda *words: COMMANDS[words[0]](words[1:])
