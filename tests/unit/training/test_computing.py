from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from zsbir.training import computing


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """Let torch have four threads, and no variable say how many."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("free", "expected"), [(1, 1), (3, 3), (64, 4)])
def test_torch_gets_as_many_threads_as_cores_are_free_and_no_more_than_it_had(monkeypatch, free, expected):
    monkeypatch.setattr(computing, "free_cores", lambda: free)
    with computing.computing():
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_a_users_own_number_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(computing, "free_cores", lambda: 1)
    with computing.computing():
        assert torch.get_num_threads() == 4


def test_the_number_is_put_back_after_a_failure(monkeypatch):
    monkeypatch.setattr(computing, "free_cores", lambda: 1)
    with pytest.raises(ValueError, match="broken"), computing.computing():
        raise ValueError("broken")
    assert torch.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="another C library than glibc")
def test_memory_that_is_freed_is_used_again_instead_of_mapped_anew():
    program = """
import resource, sys
import torch
from zsbir.training.computing import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    torch.ones(10 << 20)  # 40 MiB: 10,240 pages
for _ in range(20):  # until a freed piece fits
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        each: int(subprocess.run([sys.executable, "-c", program, each], capture_output=True, text=True, check=True).stdout)
        for each in ("mapped", "kept")
    }
    assert faults["kept"] < 1000
    assert faults["mapped"] > 10 * faults["kept"]
