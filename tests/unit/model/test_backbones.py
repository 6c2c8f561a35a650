"""Backbones by name: torchvision's, timm's, and those of an installed package, here a folder with its metadata as pip makes it."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from zsbir.base.errors import InputError
from zsbir.model import backbones
from zsbir.model.backbones import Network, network_of, split
from zsbir.model.encoder import Encoder, save_encoder, saved_facts
from zsbir.model.weights import load_weights
from zsbir.teacher import TeacherConfig
from zsbir.training.config import TrainConfig

SMALL = "timm:convnext_atto.d2_in1k"

PACKAGE = """
from torch import nn
from zsbir.model.backbones import Network

def build(labels):
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, labels))

TINY = Network(build, classifier="4", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
NOTHING = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    def install(**points: str) -> None:
        (tmp_path / "more_networks.py").write_text(PACKAGE)
        info = tmp_path / "more_networks-2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-networks\nVersion: 2.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[zsbir.backbones]", *lines]))
        backbones._installed.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    backbones._installed.cache_clear()
    sys.modules.pop("more_networks", None)


def test_a_network_of_timm_gives_the_logits_that_timm_gives(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("convnext_atto.d2_in1k", num_classes=7).eval()
    save_file(theirs.state_dict(), tmp_path / "net.safetensors")
    weights = load_weights(str(tmp_path / "net.safetensors"), backbone=SMALL, root=tmp_path / "root")
    encoder = Encoder(SMALL, embedding_dim=8, image_px=64).eval()
    encoder.load_trunk(weights)
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    cfg = theirs.pretrained_cfg
    mean, std = (torch.tensor(cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = theirs((pixels / 255 - mean) / std)
        weight, bias = weights.classifier
        torch.testing.assert_close(encoder(pixels).features @ weight.T + bias, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["convnext", "efficientnet", "vit", "resnet"])
def test_encoders_of_every_family_are_saved_loaded_and_take_images_of_another_size(family, tmp_path):
    backbone = f"timm:test_{family}.r160_in1k"  # as small as timm has them
    encoder = Encoder(backbone, embedding_dim=8, image_px=64).eval()
    encoder.save(tmp_path / "encoder.safetensors")
    assert saved_facts(tmp_path / "encoder.safetensors")["backbone"] == backbone
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        found = Encoder.load(tmp_path / "encoder.safetensors").eval()(images)
        torch.testing.assert_close(found, encoder(images))
    torch.testing.assert_close(found.embeddings.norm(dim=1), torch.ones(2))


def test_a_network_of_a_package_is_a_backbone(install):
    install(tiny="more_networks:TINY")
    assert TrainConfig(backbone="tiny").backbone == "tiny"
    encoder = Encoder("tiny", embedding_dim=4, image_px=32)
    assert encoder.feature_dim == 6
    assert encoder.normalise.mean.flatten().tolist() == [127.5] * 3
    assert encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).embeddings.shape == (2, 4)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("more_networks:NOTHING", "more_networks:NOTHING is not a zsbir.model.backbones.Network"),
        ("more_networks:MISSING", "cannot be imported from more_networks:MISSING: AttributeError"),
        ("not_there:TINY", "cannot be imported from not_there:TINY: ModuleNotFoundError"),
    ],
)
def test_what_is_no_backbone_is_refused_in_one_line(install, value, line):
    install(tiny=value)
    with pytest.raises(InputError) as error:
        network_of("tiny")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("resnet19", "unknown backbone 'resnet19'; did you mean 'resnet18'?"),
        ("timm:../../x", "; a model of timm is timm:NAME"),
        ("", "unknown backbone"),
        ("r\nx", "unknown backbone"),
    ],
)
def test_an_unknown_name_is_one_line(name, line):
    with pytest.raises(InputError) as error:
        TrainConfig.of({"backbone": name})
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_of_timm_is_told_when_the_network_is_built():
    assert TrainConfig(backbone="timm:convnext_tinny").backbone == "timm:convnext_tinny"
    with pytest.raises(InputError, match="unknown timm model 'convnext_tinny'; did you mean 'convnext_tiny'"):
        network_of("timm:convnext_tinny")


@pytest.mark.parametrize(("tag", "line"), [("a1_in1l", "did you mean 'a1_in1k'?"), ("", "known: ")])
def test_weights_that_timm_does_not_know_are_told_as_an_unknown_name_is(tag, line, tmp_path):
    with pytest.raises(InputError, match=f"unknown weights '{tag}'; ") as error:
        network_of(f"timm:resnet18.{tag}")
    assert line in str(error.value)
    assert str(error.value).endswith("; timm:resnet18 has timm's own choice")
    facts = {"backbone": f"timm:resnet18.{tag}", "embedding_dim": 4, "image_px": 32}
    save_encoder(tmp_path / "encoder.safetensors", facts, {"embedding.weight": torch.zeros(4, 512)})
    with pytest.raises(InputError, match=r"/encoder\.safetensors: unknown weights"):
        saved_facts(tmp_path / "encoder.safetensors")


def test_what_is_no_backbone_is_told_before_weights_are_downloaded_for_it(tmp_path):
    with pytest.raises(InputError, match="timm's levit_128 has no single classifier"):
        load_weights("imagenet", backbone="timm:levit_128", root=tmp_path)


@pytest.mark.parametrize("classifier", ["head", "0", "fc.deeper"])
def test_a_network_whose_last_layer_is_not_linear_or_not_there_is_refused(classifier):
    network = torch.nn.Sequential(torch.nn.ReLU())
    with pytest.raises(InputError, match=r"has no layer|is not linear"):
        split(network, classifier)


def test_a_network_knows_imagenets_normalisation_unless_told_otherwise():
    assert Network(lambda labels: torch.nn.Linear(1, labels)).mean == (0.485, 0.456, 0.406)


def test_the_package_of_a_backbone_and_its_version_name_what_is_made_with_it(install):
    install(tiny="more_networks:TINY")
    named = {"backbone": "more-networks 2.0"}
    assert TrainConfig(backbone="tiny").identity()["packages"] == named
    assert TeacherConfig(backbone="tiny").identity()["packages"] == named
    assert TrainConfig(losses=["sake"], sake_backbone="tiny").identity()["packages"] == {"sake_backbone": "more-networks 2.0"}
    assert "packages" not in TrainConfig(backbone=SMALL).identity()


def test_a_network_that_takes_images_of_one_size_alone_says_which():
    assert network_of("timm:mixer_s32_224").image_px == 224
    with pytest.raises(InputError, match="image_px 64: this backbone takes images of 224 px alone"):
        Encoder("timm:mixer_s32_224", embedding_dim=8, image_px=64)
