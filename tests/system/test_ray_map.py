"""Chunks dealt out to real Ray workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zsbir.base.errors import InputError, RunError
from zsbir.edge.ray_map import ray_map

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cluster(head: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds that cluster."""
    for name, value in head.items():
        monkeypatch.setenv(name, value)


def worker_of() -> type:
    """A class that workers get by value: they cannot import this file."""

    class Worker:
        def __init__(self, scale: int):
            if scale < 0:
                raise InputError(f"no scale {scale}")
            self.scale = scale

        def slowly(self, chunks: list[int]) -> Iterator[int]:
            for chunk in chunks:
                time.sleep(0.1 * (chunk % 5 == 0))
                yield chunk * self.scale

        def badly(self, chunks: list[int]) -> Iterator[int]:
            for chunk in chunks:
                if chunk == 3:
                    raise InputError(f"bad chunk {chunk}")
                yield chunk

        def deadly(self, chunks: list[str]) -> Iterator[str]:
            for chunk in chunks:
                if chunk and not Path(chunk).exists():
                    Path(chunk).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield chunk

        def always_deadly(self, chunks: list[int]) -> Iterator[int]:
            os.kill(os.getpid(), signal.SIGKILL)
            yield from chunks

    return Worker


@pytest.mark.parametrize(("chunks_a_task", "tasks_at_once"), [(1, 2), (4, 1)])
def test_results_come_in_order_and_chunks_are_asked_for_as_they_are_needed(chunks_a_task: int, tasks_at_once: int) -> None:
    asked: list[int] = []

    def chunks() -> Iterator[int]:
        for number in range(60):
            asked.append(number)
            yield number

    results = ray_map(worker_of(), (10,), "slowly", chunks(), workers=2, chunks_a_task=chunks_a_task, tasks_at_once=tasks_at_once)
    assert next(results) == 0
    assert len(asked) <= 9 * chunks_a_task
    assert list(results) == [10 * number for number in range(1, 60)]


def test_no_chunks_are_no_results() -> None:
    assert list(ray_map(worker_of(), (1,), "slowly", [], workers=1)) == []


def test_what_a_worker_raises_is_raised_here() -> None:
    results = ray_map(worker_of(), (1,), "badly", range(9), workers=2, chunks_a_task=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^bad chunk 3$"):
        next(results)
    with pytest.raises(InputError, match=r"^no scale -1$"):
        list(ray_map(worker_of(), (-1,), "slowly", range(3), workers=1))


def test_lost_workers_are_replaced_again_and_again(tmp_path: Path) -> None:
    chunks = [str(tmp_path / f"{number}") if number % 3 == 0 else "" for number in range(15)]
    assert list(ray_map(worker_of(), (1,), "deadly", chunks, workers=1, chunks_a_task=1)) == chunks
    assert len(list(tmp_path.iterdir())) == 5, "it was killed five times"


def test_work_that_kills_each_worker_is_given_up() -> None:
    with pytest.raises(RunError, match="a Ray worker was lost 3 times over the same work"):
        list(ray_map(worker_of(), (1,), "always_deadly", range(3), workers=1, chunks_a_task=1))
