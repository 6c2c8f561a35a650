import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity, normalize

from zsbir.base.errors import InputError
from zsbir.model.backbones import IMAGENET_MEAN, IMAGENET_STD
from zsbir.model.encoder import Encoder, Normalise, saved_facts
from zsbir.model.weights import Weights

PX = 32


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, PX, PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder("resnet18", 16, PX).eval()


@torch.no_grad()
def seen_by(encoder, count=5):
    return encoder(images(count))


def test_embeddings_are_unit_vectors_beside_the_pooled_features(encoder):
    embeddings, features, _ = seen_by(encoder)
    assert (embeddings.shape, features.shape) == ((5, 16), (5, 512))
    assert encoder.feature_dim == 512
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(embeddings, normalize(features @ encoder.embedding.weight.T, dim=1))


def test_both_are_float32_unit_vectors_also_under_autocast(encoder):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings, features, _ = encoder(images(5))
    assert embeddings.dtype == features.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))


def test_an_embedding_depends_on_no_other_image_of_the_batch(encoder):
    alone = torch.cat([encoder(image[None])[0] for image in images(5)])
    torch.testing.assert_close(alone, encoder(images(5))[0], atol=1e-5, rtol=0)


def test_bytes_are_normalised_as_imagenet_networks_expect():
    pixels = images(2)
    expected = torchvision.transforms.functional.normalize(pixels / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(Normalise()(pixels), expected)


def test_a_saved_encoder_comes_back_equal(encoder, tmp_path):
    encoder.save(tmp_path / "encoder.safetensors")
    again = Encoder.load(tmp_path / "encoder.safetensors").eval()
    assert (again.backbone, again.embedding_dim, again.image_px) == ("resnet18", 16, PX)
    assert again.state_dict().keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(seen_by(again)[0], seen_by(encoder)[0])
    assert saved_facts(tmp_path / "encoder.safetensors") == {"backbone": "resnet18", "embedding_dim": 16, "image_px": PX}


def test_saving_twice_gives_the_same_bytes(encoder, tmp_path):
    encoder.save(tmp_path / "a")
    Encoder.load(_copy(encoder, tmp_path)).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def _copy(encoder, folder):
    encoder.save(folder / "copy")
    return folder / "copy"


def test_what_is_no_encoder_is_refused_in_one_line(encoder, tmp_path):
    (tmp_path / "text").write_text("no encoder")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(_copy(encoder, tmp_path).read_bytes()[:100_000])
    save_file({"x": torch.zeros(1)}, tmp_path / "tensor")
    for name in ("text", "empty", "cut", "tensor", "missing", "."):
        with pytest.raises(InputError, match="is not an encoder saved by zsbir") as caught:
            Encoder.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_new_embedding_layer_of_full_width_keeps_every_cosine_of_the_pooled_features():
    torch.manual_seed(1)
    embeddings, features, _ = seen_by(Encoder("resnet18", 512, PX).eval(), count=8)
    expected = cosine_similarity(features[:, None], features[None], dim=2)
    torch.testing.assert_close(embeddings @ embeddings.T, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dim", "seed"), [(16, 0), (512, 1), (700, 2)])
def test_a_new_embedding_layer_is_orthogonal(dim, seed):
    torch.manual_seed(seed)
    weight = Encoder("resnet18", dim, PX).embedding.weight
    gram = weight @ weight.T if dim <= 512 else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(min(dim, 512)), atol=1e-5, rtol=0)


def test_the_trunk_starts_from_the_weights_and_leaves_their_classifier_out():
    torch.manual_seed(3)
    source = torchvision.models.resnet18(num_classes=7).eval()
    weights = Weights("resnet18", "0" * 64, "", tuple("abcdefg"), source.state_dict())
    encoder = Encoder("resnet18", 8, PX).eval()
    encoder.load_trunk(weights)
    with torch.no_grad():
        features = encoder(images(3))[1]
        logits = source(Normalise()(images(3)))
    torch.testing.assert_close(features @ weights.classifier[0].T + weights.classifier[1], logits)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"embedding_dim": 2_000_000}, "embedding_dim"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"embedding_dim": -1}, "embedding_dim"),
        ({"embedding_dim": True}, "embedding_dim"),
        ({"embedding_dim": "16"}, "embedding_dim"),
        ({"embedding_dim": 17}, "1 tensors differ, first 'embedding.weight'"),
        ({"image_px": 200_000}, "image_px"),
        ({"image_px": 0}, "image_px"),
        ({"image_px": 32.5}, "image_px"),
        ({"backbone": "vit_b_16"}, "backbone"),
        ({"backbone": "../resnet18"}, "backbone"),
        ({"backbone": ["resnet18"]}, "backbone"),
        ({"backbone": "resnet50"}, "tensors differ"),
        ({"more": 1}, "unknown field"),
        ([], "not an encoder"),
        ("deep", "nested"),
        (None, "not an encoder"),
    ],
    ids=str,
)
def test_an_encoder_that_asks_for_what_no_training_makes_is_refused(tmp_path, facts, reason):
    saved = Encoder("resnet18", 16, PX)
    text = "[" * 5000 if facts == "deep" else json.dumps({**saved.facts(), **facts} if isinstance(facts, dict) else facts)
    save_file({name: tensor.contiguous() for name, tensor in saved.state_dict().items()}, tmp_path / "a", {"zsbir": text})
    with pytest.raises(InputError, match=reason) as error:
        Encoder.load(tmp_path / "a")
    assert "\n" not in str(error.value)


def test_an_encoder_with_tensors_of_its_own_invention_is_refused(tmp_path):
    saved = Encoder("resnet18", 16, PX)
    tensors = {name: tensor.contiguous() for name, tensor in saved.state_dict().items()}
    for changed in ({**tensors, "extra": torch.zeros(3)}, {name: tensors[name] for name in list(tensors)[1:]}):
        save_file(changed, tmp_path / "a", {"zsbir": json.dumps(saved.facts())})
        with pytest.raises(InputError, match="1 tensors differ"):
            saved_facts(tmp_path / "a")
