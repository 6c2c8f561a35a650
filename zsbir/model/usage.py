"""The documentation of an export: `preprocessing.json`, exact and for programs, and a `README.md` whose code runs."""

from __future__ import annotations

import json
from typing import Any

from zsbir.model.backbones import network_of
from zsbir.model.export import INPUT, OUTPUT
from zsbir.model.export_format import FILES, Format


def preprocessing(facts: dict[str, Any]) -> dict[str, Any]:
    """Describe the steps from the bytes of an image file to the network's input, and its output. `facts`: `Encoder.facts()`."""
    size, network = facts["image_px"], network_of(facts["backbone"])
    return {
        "schema_version": 1,
        "steps": [
            {"step": "decode", "frame": "first"},
            {"step": "orient", "by": "exif", "tag": 0x0112},
            {
                "step": "scale_deep_grey",
                "applies_to": "grey deeper than 8 bit (Pillow modes I, I;16 and F)",
                "from": "65535 for 16 bit, or where the largest value is over 255 and at most 65535; 1 where it is at most 1; "
                "else the larger of it and 255",
                "to": 255,
                "rounding": "half up, after clipping to [0, 255]",
            },
            {"step": "flatten_transparency", "background_rgb": [255, 255, 255]},
            {"step": "convert", "mode": "RGB"},
            {
                "step": "resize",
                "width_px": size,
                "height_px": size,
                "keep_aspect": False,
                "crop": None,
                "interpolation": "bilinear",
                "antialias": True,
                "reference": "Pillow: Image.resize((width, height), Image.Resampling.BILINEAR), on 8-bit values",
            },
            {"step": "layout", "order": "channels first", "channels": ["red", "green", "blue"], "dtype": "uint8"},
        ],
        "input": {"name": INPUT, "dtype": "uint8", "shape": ["batch", 3, size, size]},
        "inside_the_network": {
            "step": "normalise",
            "formula": "(value - 255 * mean) / (255 * std)",
            "mean": list(network.mean),
            "std": list(network.std),
        },
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", facts["embedding_dim"]], "length": 1},
    }


def preprocessing_text(facts: dict[str, Any]) -> str:
    """Return `preprocessing` as the text of its file."""
    return json.dumps(preprocessing(facts), indent=1) + "\n"


def readme(facts: dict[str, Any], run: str, formats: tuple[Format, ...]) -> str:
    """Return the README of an export of `run` (its name), with a block of code for each format that was written."""
    parts = {"pt2": _PT2, "onnx": _ONNX}
    text = "\n".join([_HEAD, *(parts[form] for form in formats)])
    names = {**facts, "run": run, "pt2": FILES["pt2"], "onnx": FILES["onnx"], "input": INPUT, "output": OUTPUT}
    for name, value in names.items():
        text = text.replace(f"@{name}@", str(value))
    return text.replace("@prepare@", _PREPARE.strip().replace("@image_px@", str(facts["image_px"])))


_PREPARE = """
def prepare(file):
    image = ImageOps.exif_transpose(Image.open(file))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    image = image.convert("RGB").resize((@image_px@, @image_px@), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)
"""

_HEAD = """\
# Encoder of @run@

A @backbone@ for sketch-based image retrieval: photos and sketches in, embeddings of @embedding_dim@ dimensions and unit length
out. The higher the dot product of two embeddings, the more alike what the images show. Nothing here needs zsbir.

- input `@input@`: uint8, [batch, 3, @image_px@, @image_px@], any batch from 1 up; red, green, blue
- output `@output@`: float32, [batch, @embedding_dim@]

The whole image is squeezed to a square: no crop, no border. `preprocessing.json` describes it exactly, step by step. `prepare`
below does it with Pillow 10.1 or newer, for all but grey images deeper than 8 bit, which have to be scaled to 8 bit first
(step `scale_deep_grey`). Subtracting the mean and dividing by the standard deviation is part of the network.
"""

_ONNX = """\
## With ONNX Runtime

Needs `onnxruntime`, `numpy` and `pillow`.

```python
import numpy as np
import onnxruntime
from PIL import Image, ImageOps


@prepare@


session = onnxruntime.InferenceSession("@onnx@", providers=["CPUExecutionProvider"])
images = np.stack([prepare(file) for file in ["photo.jpg", "sketch.png"]])
embeddings = session.run(["@output@"], {"@input@": images})[0]
print(embeddings.shape, "similarity", embeddings[0] @ embeddings[1])
```
"""

_PT2 = """\
## With PyTorch

Needs `torch`, of the version that wrote it or newer, `numpy` and `pillow`. The file holds no pickle. But `torch.export.load`
unpickles what a file tells it to, so compare the file with its checksum in `manifest.json` first if others could have changed it.

```python
import numpy as np
import torch
from PIL import Image, ImageOps


@prepare@


model = torch.export.load("@pt2@").module()
images = np.stack([prepare(file) for file in ["photo.jpg", "sketch.png"]])
with torch.inference_mode():
    embeddings = model(torch.from_numpy(images)).numpy()
print(embeddings.shape, "similarity", embeddings[0] @ embeddings[1])
```
"""
