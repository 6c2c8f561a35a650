import pytest
import torch

from zsbir.base.errors import InputError
from zsbir.model.encoder import Encoder, saved_facts
from zsbir.model.pooling import GeneralisedMean, use_gem


def maps() -> torch.Tensor:
    return torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize("power", [1.0, 3.0, 7.5])
def test_the_generalised_mean_is_its_formula(power):
    pooling = GeneralisedMean()
    with torch.no_grad():
        pooling.power.fill_(power)
    expected = [[(sum(v**power for v in channel.flatten().tolist()) / 20) ** (1 / power) for channel in image] for image in maps()]
    torch.testing.assert_close(pooling(maps())[:, :, 0, 0], torch.tensor(expected))


def test_a_power_of_one_is_the_mean_and_a_large_one_nearly_the_maximum():
    pooling = GeneralisedMean()
    with torch.no_grad():
        pooling.power.fill_(1)
        torch.testing.assert_close(pooling(maps())[:, :, 0, 0], maps().mean(dim=(2, 3)))
        pooling.power.fill_(200)
        torch.testing.assert_close(pooling(maps())[:, :, 0, 0], maps().amax(dim=(2, 3)), rtol=0.02, atol=0)


def test_nothing_positive_in_a_map_has_a_finite_gradient():
    pooling, empty = GeneralisedMean(), torch.zeros(1, 2, 3, 3, requires_grad=True)
    pooling(empty).sum().backward()
    assert torch.isfinite(empty.grad).all()
    assert torch.isfinite(pooling.power.grad).all()


@pytest.mark.parametrize("backbone", ["resnet18", "timm:convnext_atto.d2_in1k", "timm:tf_efficientnet_lite0.in1k"])
def test_an_encoder_with_it_is_saved_and_loaded_and_learns_the_power(backbone, tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(backbone, 8, 32, "gem")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    encoder(images).embeddings[:, 0].sum().backward()
    (power,) = [parameter for name, parameter in encoder.named_parameters() if name.endswith(".power")]
    assert power.grad is not None
    encoder.save(tmp_path / "encoder.safetensors")
    assert saved_facts(tmp_path / "encoder.safetensors")["pooling"] == "gem"
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(Encoder.load(tmp_path / "encoder.safetensors").eval()(images), encoder(images))


def test_a_network_without_a_mean_over_a_map_is_refused():
    with pytest.raises(InputError, match="has no mean over a feature map"):
        use_gem(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_the_facts_of_an_encoder_with_the_mean_are_what_they_were():
    assert set(Encoder("resnet18", 8, 32).facts()) == {"backbone", "embedding_dim", "image_px"}
