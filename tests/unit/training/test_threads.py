from __future__ import annotations

import pytest
import torch

from zsbir.training import threads


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
    monkeypatch.setattr(threads, "free_cores", lambda: free)
    with threads.free_threads():
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_a_users_own_number_wins(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    with threads.free_threads():
        assert torch.get_num_threads() == 4


def test_the_number_is_put_back_after_a_failure(monkeypatch):
    monkeypatch.setattr(threads, "free_cores", lambda: 1)
    with pytest.raises(ValueError, match="broken"), threads.free_threads():
        raise ValueError("broken")
    assert torch.get_num_threads() == 4
