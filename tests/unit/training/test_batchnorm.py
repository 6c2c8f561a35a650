from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d

from zsbir.training.batchnorm import SyncedBatchNorm2d, set_train_mode


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))


def test_frozen_keeps_the_statistics_and_still_learns_scale_and_shift():
    net = network()
    set_train_mode(net, "frozen")
    net(torch.randn(5, 3, 2, 2) * 7).sum().backward()
    assert net[1].running_mean.eq(0).all()
    assert net[1].running_var.eq(1).all()
    assert net[1].weight.grad is not None
    assert net[2].training


def test_sync_takes_the_statistics_of_the_batch():
    net = network()
    set_train_mode(net, "sync")
    net(torch.randn(5, 3, 2, 2) * 7)
    assert not net[1].running_mean.eq(0).any()


def test_a_layer_of_timm_keeps_the_activation_that_it_holds():
    theirs = BatchNormAct2d(4, act_layer=torch.nn.SiLU)
    ours = SyncedBatchNorm2d.like(theirs)
    values = torch.randn(5, 4, 2, 2) * 7
    torch.testing.assert_close(ours(values), theirs(values))
    torch.testing.assert_close(ours.eval()(values), theirs.eval()(values))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
