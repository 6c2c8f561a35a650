"""The encoder as files that run without this project: torch.export's `.pt2`, and ONNX. Any number of images a batch from 1 up.

Both take `images`, uint8 [b, 3, s, s], and give `embedding`, float32 [b, d] of unit length: normalisation is inside, decoding and
resizing are not (see `zsbir.model.usage`). They compute in float32 on the CPU.

Legend of shapes: b batch, s image_px, d embedding dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn

from zsbir.model.encoder import Encoder
from zsbir.model.export_format import Format

INPUT, OUTPUT = "images", "embedding"

Run = Callable[[UInt8[np.ndarray, "b 3 s s"]], Float[np.ndarray, "b d"]]


class Embedder(nn.Module):
    """An Encoder without its pooled features, which only the heads of training need."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: UInt8[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """Return unit embeddings."""
        embedding: Tensor = self.encoder(images)[0]
        return embedding


def write_pt2(encoder: Encoder, path: Path) -> None:
    """Write the encoder as `torch.export.load` reads it.

    The archive holds JSON and raw tensors, no pickle: the example images, which torch would pickle, are left out. So are the
    lines of source that each operation came from, with the paths of this machine in them.
    """
    program = torch.export.export(
        Embedder(encoder).eval(), (_example(encoder),), dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}}
    )
    program.example_inputs = None
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    with warnings.catch_warnings():
        # torch warns of every weight in channels-last layout; they are written whole, with their strides.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path)


def write_onnx(encoder: Encoder, path: Path, opset: int) -> None:
    """Write the encoder as one ONNX file with its weights, without the source lines that torch notes beside each operation."""
    program = torch.onnx.export(
        Embedder(encoder).eval(),
        (_example(encoder),),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: "batch"}},
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in program.model.graph.inputs:
        value.metadata_props.clear()
    program.save(path, external_data=False)


def _example(encoder: Encoder) -> UInt8[Tensor, "2 3 s s"]:
    """Return two images, since from one torch.export would conclude that the batch is always 1."""
    return torch.zeros(2, 3, encoder.image_px, encoder.image_px, dtype=torch.uint8)


def runner(form: Format, path: Path) -> Run | None:
    """Return a function that embeds images by an exported file; None for ONNX where onnxruntime is not installed."""
    return _pt2_runner(path) if form == "pt2" else _onnx_runner(path)


def _pt2_runner(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(images: UInt8[np.ndarray, "b 3 s s"]) -> Float[np.ndarray, "b d"]:
        with torch.inference_mode():
            found: np.ndarray = module(torch.from_numpy(images)).numpy()
        return found

    return run


def _onnx_runner(path: Path) -> Run | None:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: UInt8[np.ndarray, "b 3 s s"]) -> Float[np.ndarray, "b d"]:
        found: np.ndarray = session.run([OUTPUT], {INPUT: images})[0]
        return found

    return run


def largest_difference(run: Run, encoder: Encoder, images: UInt8[np.ndarray, "n 3 s s"], batches: tuple[int, ...]) -> float:
    """Return the largest difference between the embeddings of an exported file and of the encoder, over the same images.

    The images are dealt out to batches of these sizes. NaN counts as infinitely far off.
    """
    worst, start = 0.0, 0
    for size in batches:
        part = images[start : start + size]
        assert len(part) == size
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(part))[0].numpy()
        difference = float(np.abs(run(part) - expected).max())
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
        start += size
    return worst
