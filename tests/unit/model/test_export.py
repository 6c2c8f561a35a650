import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from zsbir.data.images import eval_image
from zsbir.model import export
from zsbir.model.encoder import Encoder
from zsbir.model.export import largest_difference, runner, write_onnx, write_pt2
from zsbir.model.export_format import NEWEST_OPSET, OLDEST_OPSET
from zsbir.model.usage import preprocessing, preprocessing_text, readme

pytestmark = pytest.mark.slow

PX, DIM = 32, 16


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder("resnet18", DIM, PX).eval()


@pytest.fixture(scope="module")
def files(encoder, module_path):
    written = {"pt2": module_path / "encoder.pt2", "onnx": module_path / "encoder.onnx"}
    write_pt2(encoder, written["pt2"])
    write_onnx(encoder, written["onnx"], 20)
    return written


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, PX, PX), np.uint8)


@torch.inference_mode()
def expected(encoder, images):
    return encoder(torch.from_numpy(images))[0].numpy()


@pytest.mark.parametrize("form", ["pt2", "onnx"])
@pytest.mark.parametrize("count", [1, 2, 3, 65])
def test_a_file_says_what_the_encoder_says_for_any_batch(form, count, encoder, files):
    images = noise(count)
    found = runner(form, files[form])(images)
    assert found.dtype == np.float32
    assert found.shape == (count, DIM)
    assert np.abs(found - expected(encoder, images)).max() < 1e-6
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, NEWEST_OPSET])
def test_every_offered_opset_runs(opset, encoder, tmp_path):
    write_onnx(encoder, tmp_path / "encoder.onnx", opset)
    assert [entry.version for entry in onnx.load(tmp_path / "encoder.onnx").opset_import if not entry.domain] == [opset]
    assert largest_difference(runner("onnx", tmp_path / "encoder.onnx"), encoder, noise(3), (1, 2)) < 1e-6


def test_the_onnx_file_is_valid_and_its_names_and_shapes_are_those_described(files):
    model = onnx.load(files["onnx"])
    onnx.checker.check_model(model, full_check=True)
    described = preprocessing({"backbone": "resnet18", "embedding_dim": DIM, "image_px": PX})

    def shape(value):
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    (images,), (embedding,) = model.graph.input, model.graph.output
    assert (images.name, shape(images)) == (described["input"]["name"], described["input"]["shape"])
    assert (embedding.name, shape(embedding)) == (described["output"]["name"], described["output"]["shape"])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert embedding.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_no_member_of_the_pt2_file_is_a_pickle(files):
    with zipfile.ZipFile(files["pt2"]) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    configs = [json.loads(data)["config"] for name, data in members.items() if name.endswith("_config.json")]
    payloads = [entry for config in configs for entry in config.values()]
    assert len(payloads) > 100
    assert not any(entry["use_pickle"] for entry in payloads)
    assert members["data/sample_inputs/model.pt"] == b""
    tensors = {f"data/{kind}/{entry['path_name']}" for entry in payloads for kind in ("weights", "constants")}
    rest = members.keys() - tensors
    text = {"models/model.json", "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"}
    marks = {"archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id"}
    assert rest == text | marks | {"data/sample_inputs/model.pt"}


def test_loading_the_pt2_file_unpickles_nothing(files, encoder, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("something was unpickled")

    for module, name in [(torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")]:
        monkeypatch.setattr(module, name, refuse)
    assert largest_difference(runner("pt2", files["pt2"]), encoder, noise(1), (1,)) == 0


def test_no_path_of_this_machine_is_in_the_files(files):
    for file in files.values():
        data = file.read_bytes()
        here = str(Path(export.__file__).parents[2]).encode()
        assert not [word for word in (b"stack_trace", b"site-packages", b"encoder.py", here) if word in data], file.name


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3, 2 * PX, PX), np.uint8), ((1, 3, PX, PX), np.float32), ((1, 1, PX, PX), np.uint8)]
)
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_images_of_another_size_or_type_are_refused(form, shape, dtype, files):
    with pytest.raises(Exception, match=r"(?i)expected|mismatch|invalid"):
        runner(form, files[form])(np.zeros(shape, dtype))


def test_a_difference_is_found_in_every_batch_and_nan_is_infinitely_far_off(encoder):
    images, seen = noise(8), []

    def wrong(value):
        def run(part):
            seen.append(len(part))
            found = expected(encoder, part).copy()
            if len(part) == 5:
                found[4, 3] = found[4, 3] + 0.25 if value is None else value
            return found

        return run

    assert largest_difference(wrong(None), encoder, images, (1, 2, 5)) == pytest.approx(0.25)
    assert seen == [1, 2, 5]
    assert largest_difference(wrong(np.nan), encoder, images, (1, 2, 5)) == np.inf


def test_without_onnxruntime_there_is_nothing_that_runs_the_onnx_file(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runner("onnx", files["onnx"]) is None


def test_the_described_preprocessing_is_json_and_names_the_size():
    described = json.loads(preprocessing_text({"backbone": "resnet18", "embedding_dim": DIM, "image_px": PX}))
    resize = next(step for step in described["steps"] if step["step"] == "resize")
    assert (resize["width_px"], resize["height_px"], resize["antialias"]) == (PX, PX, True)


def pictures():
    """Encoded images of every kind that `prepare` claims to treat as the evaluation transform does."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (50, 70, 3), np.uint8))
    see_through = colours.copy()
    see_through.putalpha(Image.fromarray(rng.integers(0, 256, (50, 70), np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "colours": (colours, "PNG", {}),
        "jpeg turned by EXIF": (colours, "JPEG", {"exif": turned}),
        "grey": (colours.convert("L"), "PNG", {}),
        "black and white": (colours.convert("1"), "PNG", {}),
        "palette": (colours.convert("P"), "GIF", {}),
        "palette with a hole": (colours.convert("P"), "PNG", {"transparency": 3}),
        "transparent": (see_through, "PNG", {}),
        "transparent grey": (see_through.convert("LA"), "PNG", {}),
        "print colours": (colours.convert("CMYK"), "JPEG", {}),
    }
    for name, (image, form, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        yield pytest.param(buffer.getvalue(), id=name)


@pytest.mark.parametrize("data", pictures())
def test_the_readme_prepares_images_to_the_byte_as_the_evaluation_transform_does(data):
    text = readme({"backbone": "resnet18", "embedding_dim": DIM, "image_px": PX}, "toy-0", ("onnx",))
    assert "@" not in text.replace("embeddings[0] @ embeddings[1]", "")
    code = text.split("```python\n")[1].split("session =")[0]
    space = {}
    exec(code, space)
    assert np.array_equal(space["prepare"](io.BytesIO(data)), eval_image(data, PX))
