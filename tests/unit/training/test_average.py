import pytest
import torch

from zsbir.model.encoder import Encoder
from zsbir.training.average import Average


def test_the_average_is_that_of_plain_numbers_and_the_trained_weights_stay_as_they_are():
    torch.manual_seed(0)
    encoder = Encoder("resnet18", embedding_dim=4, image_px=32)
    average = Average(encoder, 0.9)
    expected = encoder.embedding.weight.detach().double().clone()
    for step in range(30):
        with torch.no_grad():
            encoder.embedding.weight.add_(0.1 * torch.randn_like(encoder.embedding.weight))
        before = encoder.embedding.weight.clone()
        average.update(encoder, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * before.double()
        assert encoder.embedding.weight.equal(before)
    torch.testing.assert_close(average.encoder.embedding.weight.double(), expected, atol=1e-5, rtol=0)


def test_batch_statistics_are_those_of_the_encoder_that_is_trained():
    encoder = Encoder("resnet18", embedding_dim=4, image_px=32)
    average = Average(encoder, 0.9)
    encoder.trunk.bn1.running_mean.fill_(3.0)
    average.update(encoder, 0)
    assert average.encoder.trunk.bn1.running_mean.eq(3.0).all()


def test_the_average_is_not_trained():
    average = Average(Encoder("resnet18", embedding_dim=4, image_px=32), 0.9)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert set(average.state_dict()) == {f"encoder.{name}" for name in average.encoder.state_dict()}
    with pytest.raises(RuntimeError):
        average.encoder.eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).embeddings.sum().backward()
