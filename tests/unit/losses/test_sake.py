import pytest
import torch
import torchvision
from torch.nn.functional import cross_entropy, normalize

from zsbir.losses.further import further_losses
from zsbir.losses.loss import LossBatch, Shapes
from zsbir.model.encoder import Normalise
from zsbir.model.weights import save_weights
from zsbir.training.config import TrainConfig

SHAPES = Shapes(embedding_dim=6, feature_dim=4, classes=3)


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    uri, _ = save_weights(network.state_dict(), backbone="resnet18", labels=tuple("abcde"), root=tmp_path)
    return network, uri


def made(uri: str, **fields):
    torch.manual_seed(1)
    return further_losses(TrainConfig(losses=["sake"], sake_teacher=uri, **fields), SHAPES)["sake"][1]


def batch() -> LossBatch:
    torch.manual_seed(2)
    raw = torch.randn(6, 6)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    classes, domains = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1]).repeat(3)
    return LossBatch(normalize(raw, dim=1), torch.zeros(6, 4), classes, domains, raw.norm(dim=1), images=images)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_that_of_the_classes_and_of_what_the_teacher_says_of_each_photo(teacher, temperature):
    network, uri = teacher
    loss, given = made(uri, sake_temperature=temperature, sake_preservation=0.5), batch()
    photo = given.domains == 0
    raw = given.embeddings * given.lengths[:, None]
    with torch.no_grad():
        asked = (network(Normalise()(given.images[photo])) / temperature).softmax(dim=1)
        said = (loss.preserver(raw[photo]) / temperature).log_softmax(dim=1)
        kept = temperature**2 * -(asked * said).sum(dim=1).mean()
        expected = cross_entropy(loss.classifier(raw), given.classes) + 0.5 * kept
        assert loss(given)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_teacher_is_neither_trained_nor_kept(teacher):
    loss = made(teacher[1])
    loss.train()
    before = {name: value.clone() for name, value in loss._teacher[0].state_dict().items()}
    loss(batch())[0].backward()
    assert set(dict(loss.named_parameters())) == {"classifier.weight", "classifier.bias", "preserver.weight", "preserver.bias"}
    assert set(loss.state_dict()) == set(dict(loss.named_parameters()))
    assert all(torch.equal(value, before[name]) for name, value in loss._teacher[0].state_dict().items())
