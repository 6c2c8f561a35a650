import json
import os
import pickle
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from zsbir.base.errors import InputError, Unreachable
from zsbir.base.files import sha256_file
from zsbir.model.encoder import Encoder
from zsbir.model.weights import load_weights, open_weights, save_weights

LABELS = 7


@pytest.fixture(scope="module")
def state():
    """A classifier of seven labels that nobody trained."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=LABELS).state_dict()


def load(source, root, **words):
    return load_weights(str(source), backbone=words.pop("backbone", "resnet18"), root=root, **words)


def refused(source, root, **words):
    """The one line in which a weight file is refused; nothing is kept of it."""
    with pytest.raises(InputError) as caught:
        load(source, root, **words)
    assert "\n" not in str(caught.value)
    assert not list(Path(root).rglob("*.safetensors"))
    return str(caught.value)


def half(state):
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


def same(left, right):
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_a_float16_pth_is_read_as_the_float32_it_stands_for(state, tmp_path):
    torch.save(half(state), tmp_path / "net.pth")
    weights = load(tmp_path / "net.pth", tmp_path / "root")
    assert all(value.dtype == torch.float32 for value in weights.state.values() if value.is_floating_point())
    assert same(weights.state, {name: value.float() if value.is_floating_point() else value for name, value in half(state).items()})
    assert weights.labels == tuple("0123456")
    assert weights.backbone == "resnet18"


def test_float32_safetensors_and_pth_are_loaded_equal_and_kept_under_one_name(state, tmp_path):
    torch.save(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    first, second = (load(tmp_path / f"net.{ending}", tmp_path / "root") for ending in ("pth", "safetensors"))
    assert same(first.state, state)
    assert same(second.state, state)
    assert first.sha256 == second.sha256
    assert [path.name for path in (tmp_path / "root/weights").iterdir()] == [f"{first.sha256}.safetensors"]


def test_what_is_kept_is_named_by_its_checksum_and_comes_back_with_the_same_one(state, tmp_path):
    torch.save(half(state), tmp_path / "net.pth")
    weights = load(tmp_path / "net.pth", tmp_path / "root")
    assert weights.uri == str(tmp_path / "root" / "weights" / f"{weights.sha256}.safetensors")
    assert sha256_file(Path(weights.uri)) == weights.sha256
    again = load(weights.uri, tmp_path / "root")
    assert (again.sha256, again.uri, again.labels) == (weights.sha256, weights.uri, weights.labels)
    assert same(again.state, weights.state)
    elsewhere = load(weights.uri, tmp_path / "other root")
    assert elsewhere.sha256 == weights.sha256


def test_names_of_labels_travel_with_the_file(state, tmp_path):
    uri, sha256 = save_weights(state, backbone="resnet18", labels=tuple("abcdefg"), root=tmp_path)
    path = Path(uri)
    weights = load(path, tmp_path)
    assert (weights.labels, weights.sha256) == (tuple("abcdefg"), sha256)


def test_a_thousand_labels_are_those_of_imagenet(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "net.pth")
    labels = load(tmp_path / "net.pth", tmp_path / "root").labels
    assert (len(labels), labels[0], labels[-1]) == (1000, "tench", "toilet tissue")


def test_the_usual_wrappings_of_a_state_dict_are_taken_off(state, tmp_path):
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "net.pth")
    assert same(load(tmp_path / "net.pth", tmp_path / "root").state, state)


def test_counters_of_batch_normalisation_may_be_missing(state, tmp_path):
    save_file({name: value for name, value in state.items() if "num_batches" not in name}, tmp_path / "net.safetensors")
    weights = load(tmp_path / "net.safetensors", tmp_path / "root")
    encoder = Encoder("resnet18", 8, 32)
    encoder.load_trunk(weights)
    assert torch.equal(encoder.trunk.conv1.weight, state["conv1.weight"])


def test_the_checksum_that_was_asked_for_is_accepted_and_any_other_refused(state, tmp_path):
    file = tmp_path / "net.pth"
    torch.save(state, file)
    assert f"sha256 is {sha256_file(file)}, expected {'0' * 64}" in refused(file, tmp_path / "root", sha256="0" * 64)
    assert same(load(file, tmp_path / "root", sha256=sha256_file(file)).state, state)


def test_kept_weights_that_were_changed_are_refused_at_the_next_load(state, tmp_path):
    uri, sha256 = save_weights(state, backbone="resnet18", labels=tuple("abcdefg"), root=tmp_path)
    path = Path(uri)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"expected {sha256}: a wrong or damaged weight file"):
        load(path, tmp_path)


def test_another_network_is_refused_by_the_name_of_a_key(state, tmp_path):
    save_file(torchvision.models.resnet34(num_classes=LABELS).state_dict(), tmp_path / "r34.safetensors")
    line = refused(tmp_path / "r34.safetensors", tmp_path / "root")
    assert "does not hold a torchvision resnet18 with its classifier: 'layer1.2.bn1.bias' and" in line
    torch.save(state, tmp_path / "r18.pth")
    assert "'layer1.0.bn3.bias' and" in refused(tmp_path / "r18.pth", tmp_path / "root", backbone="resnet50")


def test_a_network_of_another_width_or_without_classifier_is_refused_by_key(state, tmp_path):
    torch.save({**state, "conv1.weight": torch.zeros(32, 3, 7, 7)}, tmp_path / "narrow.pth")
    assert "'conv1.weight' differ" in refused(tmp_path / "narrow.pth", tmp_path / "root")
    torch.save({name: value for name, value in state.items() if not name.startswith("fc.")}, tmp_path / "headless.pth")
    assert "'fc.bias' and 1 more differ" in refused(tmp_path / "headless.pth", tmp_path / "root")


def test_a_file_that_names_its_own_network_says_which_option_to_pass(state, tmp_path):
    uri, _ = save_weights(state, backbone="resnet18", labels=tuple("abcdefg"), root=tmp_path / "from")
    path = Path(uri)
    assert "holds a resnet18, not a resnet50; pass --backbone resnet18" in refused(path, tmp_path / "root", backbone="resnet50")


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(state, tmp_path):
    mark = tmp_path / "it_ran"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(mark)))
    torch.save(Hostile(mark), tmp_path / "saved.pth")
    torch.save({**state, "extra": Hostile(mark)}, tmp_path / "hidden.pth")
    for name in ("plain", "saved", "hidden"):
        line = refused(tmp_path / f"{name}.pth", tmp_path / "root")
        assert line.endswith("it holds something other than tensors, which is never run")
    assert not mark.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert mark.exists(), "read carelessly it would have run"


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"text file", b"PK\x03\x04 half a zip", bytes(1000)])
def test_a_file_that_is_no_weights_is_one_line(tmp_path, ending, content):
    file = tmp_path / f"net.{ending}"
    file.write_bytes(content)
    assert f"{file} is not a readable weight file" in refused(file, tmp_path / "root")


def test_random_bytes_are_one_line(tmp_path):
    random = np.random.default_rng(0)
    for number in range(300):
        (tmp_path / "net.pth").write_bytes((b"\x80\x02" if number % 2 else b"") + random.bytes(40))
        assert "is not a readable weight file" in refused(tmp_path / "net.pth", tmp_path / "root")


def test_a_truncated_file_is_one_line(state, tmp_path):
    torch.save(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    for name in ("net.pth", "net.safetensors"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[:100_000])
        assert "is not a readable weight file" in refused(file, tmp_path / "root")


def test_a_missing_file_is_an_input_error_and_never_random_weights(tmp_path):
    assert "no file at" in refused(tmp_path / "none.pth", tmp_path / "root")
    assert "no file at" in refused(tmp_path, tmp_path / "root")


@pytest.mark.parametrize("facts", ["[]", "{", '{"backbone": "resnet18", "labels": ["a", "b"]}', '{"labels": 3}'])
def test_a_file_with_malformed_metadata_is_refused_in_one_line(state, tmp_path, facts):
    save_file(state, tmp_path / "net.safetensors", {"zsbir": facts})
    refused(tmp_path / "net.safetensors", tmp_path / "root")


@pytest.mark.parametrize("value", [torch.tensor(1.0), torch.zeros(0), torch.zeros(3, 4)])
def test_a_classifier_of_a_strange_shape_is_refused_by_its_key(state, tmp_path, value):
    torch.save({**state, "fc.weight": value}, tmp_path / "net.pth")
    assert "'fc.weight'" in refused(tmp_path / "net.pth", tmp_path / "root")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """No way out, also where there is a network; torchvision's own cache, empty."""
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of its first request
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


def test_without_network_the_line_says_how_to_go_on_offline(no_network, tmp_path):
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        load_weights("imagenet", backbone="resnet18", root=tmp_path / "root")
    line = str(caught.value)
    assert "\n" not in line
    assert time.monotonic() - began < 20
    assert line.startswith("cannot download torchvision's resnet18 weights (")
    assert "without network pass --weights FILE, a state dict of torchvision's resnet18 (.pth or .safetensors)" in line


def test_weights_that_torchvision_does_not_have_are_an_input_error(tmp_path):
    assert refused("imagenet_v2", tmp_path / "root") == "torchvision has no weights 'imagenet_v2' for resnet18; use 'imagenet'"


def test_a_hostile_file_in_torchvisions_cache_is_refused_and_not_run(no_network, tmp_path):
    no_network.mkdir(parents=True)
    planted = no_network / Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name
    torch.save(Hostile(tmp_path / "it_ran"), planted)
    assert str(no_network) in refused("imagenet", tmp_path / "root")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.realdata
def test_the_shared_weights_are_those_of_their_note(shared, tmp_path):
    file = shared / "weights/resnet18_pqf_fp16.pth"
    weights = load(file, tmp_path)
    assert sha256_file(file) in (shared / "weights/PROVENANCE.md").read_text()
    assert len(weights.labels) == 1000
    assert json.dumps(weights.labels[:1]) == '["tench"]'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_that_are_not_finite_are_refused_by_the_name_of_the_layer(state, tmp_path, value, ending):
    filter_ = state["layer2.0.conv1.weight"].clone()
    filter_[3] = value
    bad = {**state, "layer2.0.conv1.weight": filter_}
    file = tmp_path / f"net.{ending}"
    save_file(bad, file) if ending == "safetensors" else torch.save(bad, file)
    line = refused(file, tmp_path / "root")
    assert f"{filter_[3].numel()} of {filter_.numel()} numbers in 'layer2.0.conv1.weight' are NaN or infinite" in line


def test_weights_that_overflow_when_they_become_float32_are_refused(state, tmp_path):
    torch.save({**state, "fc.bias": torch.full((LABELS,), 1e300, dtype=torch.float64)}, tmp_path / "net.pth")
    assert "7 of 7 numbers in 'fc.bias' are NaN or infinite" in refused(tmp_path / "net.pth", tmp_path / "root")


def test_kept_weights_of_an_earlier_version_that_are_not_finite_are_refused_too(state, tmp_path):
    uri, _ = save_weights(
        {**state, "fc.bias": torch.full((LABELS,), float("nan"))}, backbone="resnet18", labels=tuple("abcdefg"), root=tmp_path
    )
    with pytest.raises(InputError, match=r"numbers in 'fc\.bias' are NaN or infinite"):
        open_weights(uri, backbone="resnet18")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 46830571\n",
            "a Git LFS pointer instead of the file itself",
        ),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title></html>", "a web page instead of the file itself"),
        (b'{"error": "Access to model is restricted"}', "a server's error message instead of the file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(100), "compressed with gzip: unpack it"),
        (bytes(1000), "nothing but zeros at its beginning"),
    ],
)
def test_what_is_given_as_weights_is_named(tmp_path, ending, content, what):
    file = tmp_path / f"net.{ending}"
    file.write_bytes(content)
    assert what in refused(file, tmp_path / "root")


def test_a_weight_file_is_read_by_its_bytes_whatever_its_name_says(state, tmp_path):
    save_file(state, tmp_path / "net.pth")
    torch.save(state, tmp_path / "net.safetensors")
    (tmp_path / "net.bin").write_bytes((tmp_path / "net.pth").read_bytes())
    assert all(same(load(tmp_path / name, tmp_path / "root").state, state) for name in ("net.pth", "net.safetensors", "net.bin"))


def test_an_encoder_that_is_not_finite_is_refused(tmp_path):
    encoder = Encoder("resnet18", 8, 32)
    encoder.save(tmp_path / "encoder.safetensors")
    Encoder.load(tmp_path / "encoder.safetensors")
    with torch.no_grad():
        encoder.embedding.weight[0, 0] = float("nan")
    encoder.save(tmp_path / "encoder.safetensors")
    with pytest.raises(InputError, match=r"1 of 4096 numbers in 'embedding\.weight' are NaN or infinite"):
        Encoder.load(tmp_path / "encoder.safetensors")
