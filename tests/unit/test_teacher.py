import pytest
import torchvision
from safetensors.torch import save_file

from zsbir import teacher
from zsbir.base.errors import InputError
from zsbir.ingest import _parse as ingest


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
