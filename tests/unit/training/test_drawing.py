"""What a step draws depends on the seed and the step, and stochastic depth on the place in the global batch alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zsbir.model.stochastic_depth import DropBranch
from zsbir.training.drawing import has_dropout, seed_encoder, seed_losses

IMAGES = 12
CPU = torch.device("cpu")


def drawn(step: int, workers: int = 1, seed: int = 0) -> torch.Tensor:
    """Which images are kept by each of two branches, over all workers."""
    share, parts = IMAGES // workers, []
    for rank in range(workers):
        network = nn.Sequential(DropBranch(0.3), DropBranch(0.6))
        mine = range(rank * share, (rank + 1) * share)
        seed_encoder(network, seed, step, rank, images=IMAGES, mine=mine, device=CPU)
        parts.append(torch.stack([branch.kept for branch in network]))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_leaves_out_the_same_branches(workers):
    assert drawn(5, workers).equal(drawn(5))


def test_every_step_and_every_seed_draws_anew():
    assert not drawn(5).equal(drawn(6))
    assert not drawn(5).equal(drawn(5, seed=1))


def test_branches_are_left_out_as_often_as_their_rates_say():
    kept = torch.stack([drawn(step).float() for step in range(200)]).mean(dim=(0, 2))
    torch.testing.assert_close(kept, torch.tensor([0.7, 0.4]), atol=0.04, rtol=0)


def test_a_step_that_is_done_again_draws_the_same_and_workers_draw_apart():
    def dropped(step: int, rank: int) -> torch.Tensor:
        seed_encoder(nn.Identity(), 3, step, rank, images=2, mine=range(2), device=CPU)
        return torch.rand(4)

    assert dropped(1, 0).equal(dropped(1, 0))
    assert not dropped(1, 0).equal(dropped(1, 1))


def test_losses_draw_the_same_on_every_worker_whatever_was_drawn_before():
    torch.rand(3)
    seed_losses(3, 1)
    first = torch.rand(4)
    torch.rand(5)
    seed_losses(3, 1)
    assert torch.rand(4).equal(first)


def test_dropout_counts_where_it_drops_something():
    assert has_dropout(nn.Sequential(nn.Dropout(0.1)))
    assert not has_dropout(nn.Sequential(nn.Dropout(0.0), nn.Linear(1, 1)))
