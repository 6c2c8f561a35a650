import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from zsbir import teacher
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import eval_image
from zsbir.data.knowledge import load_knowledge, load_mean_features
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.ingest import _parse as ingest
from zsbir.model.encoder import Normalise


@pytest.fixture
def ask(tmp_path):
    """Ask a teacher of three labels, whose parameters a function has changed, about two photos of each toy class."""
    sizes = ["--toy-photos-per-class", "2", "--toy-sketches-per-class", "2", "--toy-px", "32"]
    dataset = ingest(["toy", *sizes, "--root", str(tmp_path)])

    def asked(change):
        state = torchvision.models.resnet18(num_classes=3).state_dict()
        change(state)
        save_file(state, tmp_path / "net.safetensors")
        options = ["--backbone", "resnet18", "--image-px", "32", "--precision", "fp32", "--root", str(tmp_path)]
        return teacher._parse([dataset, "--weights", str(tmp_path / "net.safetensors"), *options])

    yield asked
    assert not list((tmp_path / "knowledge").rglob("manifest.json")), "nothing is signed"


def test_a_teacher_with_a_nan_filter_signs_nothing(ask):
    def change(state):
        state["layer1.0.conv1.weight"][5] = float("nan")

    with pytest.raises(InputError, match=r"576 of 36864 numbers in 'layer1\.0\.conv1\.weight' are NaN or infinite"):
        ask(change)


def test_a_teacher_whose_answers_overflow_signs_nothing(ask):
    def change(state):
        state["bn1.weight"][:] = 3e38
        state["layer1.0.bn1.weight"][:] = 3e38

    with pytest.raises(InputError, match=r"the teacher's answers for 22 of 22 classes are not probabilities .* --precision fp32"):
        ask(change)


@pytest.fixture
def taught(tmp_path):
    """Knowledge of the toy classes by a teacher of three labels, with some flags."""
    sizes = ["--toy-photos-per-class", "3", "--toy-sketches-per-class", "2", "--toy-px", "32"]
    dataset = ingest(["toy", *sizes, "--root", str(tmp_path)])
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    save_file(network.state_dict(), tmp_path / "net.safetensors")

    def taught(*flags):
        options = ["--backbone", "resnet18", "--image-px", "32", "--precision", "fp32", "--root", str(tmp_path)]
        knowledge = Artifact(
            teacher._parse([dataset, "--weights", str(tmp_path / "net.safetensors"), *options, *flags]), "knowledge"
        )
        return knowledge, Artifact(dataset, "dataset"), network.eval()

    return taught


def test_mean_features_are_the_means_of_what_the_last_layer_reads(taught):
    knowledge, dataset, network = taught("--mean-features")
    found, samples = load_mean_features(knowledge), load_samples(dataset)
    images = Images(dataset, samples)
    network.fc = torch.nn.Identity()
    for class_id in samples.classes("train")[:3].tolist():
        photos = [place for place in samples.select(domain="photo") if samples.class_id[place] == class_id]
        pixels = torch.from_numpy(np.stack([eval_image(images.read(int(place)), 32) for place in photos]))
        with torch.no_grad():
            expected = network(Normalise()(pixels)).double().mean(dim=0)
        np.testing.assert_allclose(found[class_id], expected, rtol=1e-4, atol=1e-5)


def test_permuted_knowledge_is_that_of_other_classes_and_of_all_of_them(taught):
    (plain, dataset, _), (permuted, _, _) = taught("--mean-features"), taught("--mean-features", "--permute-seed", "0")
    for load in (lambda knowledge: load_knowledge(knowledge, dataset), load_mean_features):
        own, other = load(plain), load(permuted)
        assert own.keys() == other.keys()
        assert not any(np.array_equal(own[class_id], other[class_id]) for class_id in own)
        assert sorted(map(tuple, own.values())) == sorted(map(tuple, other.values()))


def test_another_seed_permutes_otherwise_and_both_have_names_of_their_own(taught):
    found = [taught("--permute-seed", seed)[0] for seed in "01"]
    plain, dataset, _ = taught()
    one, other = (load_knowledge(knowledge, dataset) for knowledge in found)
    assert any(not np.array_equal(one[class_id], other[class_id]) for class_id in one)
    assert len({plain.digest, *(knowledge.digest for knowledge in found)}) == 3
