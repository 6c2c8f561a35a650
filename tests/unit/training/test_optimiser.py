from __future__ import annotations

import itertools
import math

import pytest
import torch

from zsbir.losses.further import further_losses
from zsbir.losses.loss import Shapes
from zsbir.model.encoder import Encoder
from zsbir.model.heads import Heads
from zsbir.training.config import TrainConfig
from zsbir.training.optimiser import build_optimiser, layer_shares, rate, set_rate


def test_the_rate_rises_linearly_then_falls_along_a_cosine_to_zero():
    config = TrainConfig(warmup_frac=0.1)
    rates = [rate(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_without_warm_up_training_starts_at_the_peak():
    assert rate(TrainConfig(warmup_frac=0), 0, 50) == 1


def test_every_parameter_is_in_one_group_with_its_own_peak_and_vectors_do_not_decay():
    encoder = Encoder("resnet18", embedding_dim=8)
    heads = Heads(feature_dim=512, embedding_dim=8, classes=3, teacher_labels=5)
    config = TrainConfig(lr=1e-3, lr_backbone=1e-4, lr_preserver=2e-3, weight_decay=0.1)
    optimiser = build_optimiser(config, encoder, heads)
    group_of = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
    named = dict(encoder.named_parameters()) | dict(heads.named_parameters())
    assert len(group_of) == len(named) == sum(len(group["params"]) for group in optimiser.param_groups)
    assert group_of[named["trunk.conv1.weight"]]["peak_lr"] == 1e-4
    assert group_of[named["embedding.weight"]]["peak_lr"] == group_of[named["classifier.weight"]]["peak_lr"] == 1e-3
    assert group_of[named["preserver.weight"]]["peak_lr"] == 2e-3
    assert group_of[named["trunk.bn1.weight"]]["weight_decay"] == 0
    assert group_of[named["trunk.conv1.weight"]]["weight_decay"] == 0.1


def test_every_group_moves_to_the_same_share_of_its_peak_with_and_without_decay():
    encoder, heads = torch.nn.Linear(2, 2), Heads(feature_dim=2, embedding_dim=2, classes=2, teacher_labels=3)
    optimiser = build_optimiser(TrainConfig(lr=1e-3, lr_preserver=2e-3, weight_decay=0.1), encoder, heads)
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.0, 0.1}
    for share in (0.5, 0.1):
        set_rate(optimiser, share)
        assert [group["lr"] for group in optimiser.param_groups] == [group["peak_lr"] * share for group in optimiser.param_groups]


def test_a_rate_of_zero_leaves_the_parameter_as_it_is():
    encoder, heads = torch.nn.Linear(2, 2), Heads(feature_dim=2, embedding_dim=2, classes=2, teacher_labels=3)
    optimiser = build_optimiser(TrainConfig(lr_preserver=0.0), encoder, heads)
    before = heads.preserver.weight.detach().clone()
    set_rate(optimiser, 1.0)
    heads.preserver(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    assert heads.preserver.weight.equal(before)


def test_the_first_layer_of_the_backbone_learns_most_slowly_and_blocks_lie_evenly_between():
    names = [name for name, _ in Encoder("resnet18", embedding_dim=8).named_parameters() if name.startswith("trunk.")]
    shares = layer_shares(names, 0.01)
    assert list(shares) == names
    steps = list(dict.fromkeys(shares.values()))
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(0.01)
    assert steps[-1] == 1
    assert [later / earlier for earlier, later in itertools.pairwise(steps)] == pytest.approx([0.01 ** (-1 / 9)] * 9)
    assert shares["trunk.layer2.0.conv1.weight"] == shares["trunk.layer2.0.downsample.1.bias"]
    assert set(layer_shares(names, 1.0).values()) == {1.0}


def test_while_probing_the_pretrained_layers_stand_still():
    encoder, heads = Encoder("resnet18", embedding_dim=8), Heads(feature_dim=512, embedding_dim=8, classes=3, teacher_labels=0)
    optimiser = build_optimiser(TrainConfig(lr=1e-3, lr_backbone=1e-3), encoder, heads)
    set_rate(optimiser, 0.5, probe=True)
    rates = {parameter: group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    assert {rates[parameter] for parameter in encoder.trunk.parameters()} == {0.0}
    assert {rates[parameter] for parameter in [*encoder.embedding.parameters(), *heads.parameters()]} == {5e-4}


def test_a_further_loss_learns_as_fast_as_it_asks():
    config = TrainConfig(losses=["proxy_anchor"], proxy_anchor_rate_factor=7, lr=1e-3)
    further = {name: loss for name, (_, loss) in further_losses(config, Shapes(8, 512, 3)).items()}
    heads = Heads(feature_dim=512, embedding_dim=8, classes=3, teacher_labels=0)
    optimiser = build_optimiser(config, Encoder("resnet18", embedding_dim=8), heads, torch.nn.ModuleDict(further))
    group_of = {parameter: group for group in optimiser.param_groups for parameter in group["params"]}
    assert group_of[further["proxy_anchor"].proxies]["peak_lr"] == pytest.approx(7e-3)


def test_a_further_loss_that_is_named_like_a_head_changes_nothing_of_that_head():
    class Fast(torch.nn.Module):
        rate_factor = 7.0

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2, 2))

    heads = Heads(feature_dim=2, embedding_dim=2, classes=2, teacher_labels=3)
    further = torch.nn.ModuleDict({"preserver": Fast(), "classifier": Fast()})
    optimiser = build_optimiser(TrainConfig(lr=1e-3, lr_preserver=2e-3), torch.nn.Linear(2, 2), heads, further)
    peak_of = {parameter: group["peak_lr"] for group in optimiser.param_groups for parameter in group["params"]}
    assert peak_of[heads.preserver.weight] == 2e-3
    assert peak_of[heads.classifier.weight] == 1e-3
    assert peak_of[further["preserver"].weight] == pytest.approx(7e-3)


def test_the_power_of_a_learned_pooling_learns_like_a_new_layer():
    encoder, heads = Encoder("resnet18", 8, pooling="gem"), Heads(feature_dim=512, embedding_dim=8, classes=2, teacher_labels=0)
    optimiser = build_optimiser(TrainConfig(lr=1e-3, lr_backbone=1e-5), encoder, heads)
    group = next(group for group in optimiser.param_groups if any(each is encoder.trunk.avgpool.power for each in group["params"]))
    assert (group["peak_lr"], group["pretrained"]) == (1e-3, False)
