"""A root that was moved or copied: what a training reads lies in the root of its inputs, not where their manifests say it was."""

import shutil

import pytest
import torch
import torchvision
from building import put

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.model.weights import save_weights
from zsbir.storage_admin.copying import copy
from zsbir.teacher import TeacherConfig
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, _starting_weights


@pytest.fixture
def knowledge(tmp_path):
    """A teacher's knowledge in root A, made with weights that lie there too."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    uri, _ = save_weights(state, backbone="resnet18", labels=("a", "b", "c"), root=tmp_path / "A")
    dataset = put(str(tmp_path / "A"), "dataset")
    return put(
        str(tmp_path / "A"), "knowledge", inputs={"dataset": dataset, "weights": uri}, config=TeacherConfig(backbone="resnet18")
    )


def starting_weights(knowledge, root):
    return _starting_weights(TrainConfig(recipe="toy", backbone="resnet18"), InputUris(), knowledge, str(root))


@pytest.mark.parametrize("how", ["moved", "copied", "artifacts copy"])
def test_a_training_starts_from_the_weights_in_the_root_of_its_knowledge(knowledge, tmp_path, how):
    before = starting_weights(knowledge, tmp_path / "A")
    old, new = tmp_path / "A", tmp_path / "B"
    if how == "artifacts copy":
        uri = copy(knowledge.uri, str(new))
        shutil.rmtree(old)
    else:
        shutil.copytree(old, new)
        uri = knowledge.uri.replace(str(old), str(new))
        if how == "moved":
            shutil.rmtree(old)
    after = starting_weights(Artifact(uri, "knowledge"), new)
    assert after.sha256 == before.sha256, "so the run has the same name"
    assert after.uri == str(new / "weights" / f"{before.sha256}.safetensors")
    assert how == "copied" or not old.exists(), "nothing is written where the root was"


def test_weights_that_are_gone_are_named(knowledge, tmp_path):
    shutil.rmtree(tmp_path / "A/weights")
    with pytest.raises(InputError, match=r"the weights that .* was made from are gone"):
        starting_weights(knowledge, tmp_path / "A")
