"""Stochastic depth whose images are told, in networks of timm and of torchvision's modules."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from zsbir.base.errors import InputError
from zsbir.model.encoder import Encoder
from zsbir.model.stochastic_depth import DropBranch, drop_branches, leave_out, use_drop_branches

SMALL = "timm:convnext_atto.d2_in1k"


@pytest.mark.parametrize("theirs", [DropPath(0.25), StochasticDepth(0.25, "row")])
def test_images_are_left_out_as_told_and_the_others_are_scaled_as_the_library_scales_them(theirs):
    network = nn.Sequential(nn.Identity(), theirs)
    use_drop_branches(network)
    leave_out(network, torch.tensor([[0.1, 0.25, 0.9]]))
    branch = torch.ones(3, 2, 4, 4)
    found = network(branch)
    assert found[0].eq(0).all()
    scale = theirs.train()(torch.ones(64, 1)).max().item()
    torch.testing.assert_close(found[1:], branch[1:] * scale)


def test_in_evaluation_nothing_is_left_out():
    network = nn.Sequential(DropBranch(0.5)).eval()
    values = torch.randn(2, 3)
    assert network(values).equal(values)


def test_the_rates_are_those_that_timm_gives_its_blocks():
    theirs = timm.create_model("convnext_atto.d2_in1k", drop_path_rate=0.3)
    wanted = [module.drop_prob for module in theirs.modules() if isinstance(module, DropPath)]
    encoder = Encoder(SMALL, embedding_dim=8, image_px=32, drop_path=0.3)
    assert [branch.rate for branch in drop_branches(encoder)] == pytest.approx(wanted)
    assert not any(isinstance(module, DropPath) for module in encoder.modules())


def test_once_trained_an_encoder_is_the_same_as_one_without(tmp_path):
    encoder = Encoder(SMALL, embedding_dim=8, image_px=32, drop_path=0.3)
    encoder.save(tmp_path / "encoder.safetensors")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert Encoder.load(tmp_path / "encoder.safetensors").eval()(images).embeddings.equal(encoder.eval()(images).embeddings)


@pytest.mark.parametrize("backbone", ["resnet18", "timm:vgg11.tv_in1k"])
def test_a_backbone_without_it_is_refused_in_one_line(backbone):
    with pytest.raises(InputError, match="drop_path: this backbone has no stochastic depth; use drop_path 0"):
        Encoder(backbone, embedding_dim=8, drop_path=0.1)


def test_branches_that_are_not_one_for_each_image_are_refused():
    network = nn.Sequential(DropBranch(0.5))
    leave_out(network, torch.rand(1, 4))
    with pytest.raises(InputError, match="branches are not one for each image"):
        network(torch.ones(8, 2))
