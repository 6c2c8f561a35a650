from __future__ import annotations

import pytest
import torch

from zsbir.training import context
from zsbir.training.context import default_device


@pytest.mark.parametrize(
    ("gpus", "processes", "local_rank", "device"),
    [
        (False, 1, None, "cpu"),
        (False, 2, "1", "cpu"),
        (True, 1, None, "cuda:0"),
        (True, 1, "1", "cuda:0"),  # started by torchrun, but alone
        (True, 4, "3", "cuda:3"),
        (True, 4, None, "cuda:0"),
    ],
)
def test_each_process_of_a_group_has_the_gpu_of_its_number(monkeypatch, gpus, processes, local_rank, device):
    """Every process of a group used to take the first GPU of its machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(context, "world_size", lambda: processes)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert default_device() == torch.device(device)
