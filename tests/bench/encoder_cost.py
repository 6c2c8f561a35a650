"""Quality against milliseconds and megabytes: a row of Markdown for each encoder, run by hand.

    python -m bench.encoder_cost r18=RUN lite2=s3://bucket/runs/NAME other=encoder.safetensors
    python -m bench.encoder_cost r18=RUN --untrained resnet50 224 --untrained timm:tf_efficientnet_lite2 128

`PYTHONPATH=.:tests`. An encoder is that of a run, or a file that one was saved in. With --untrained it is made of a backbone and a
size of images in pixels: it costs what a trained one costs. A run's mAP is that of its newest report below the same root, under
--protocol, on its own data set.

Encoders are measured in turn, round after round, on one thread, so that a busy machine hits all alike; a time is the median of its
rounds. "To the first" is the median over rounds of an encoder's time for one image divided by the first encoder's in that round: it
depends less on what else runs than milliseconds do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import NamedTuple

import torch
from bench.machine import described
from safetensors.torch import save
from torch import Tensor

from zsbir.base.artifact import Artifact, exists
from zsbir.base.fetch import fetch
from zsbir.evaluation.reports import TRAINED
from zsbir.model.encoder import Encoder
from zsbir.storage_admin.roots import survey
from zsbir.training.config import PRECISIONS
from zsbir.training.precision import autocast

BATCH = 32

COLUMNS = (
    "encoder",
    "backbone",
    "px",
    "parameters, M",
    "MB fp32",
    "MB fp16",
    "ms, one image",
    "to the first",
    f"ms an image, {BATCH} at once",
    "mAP@all",
)


class Measured(NamedTuple):
    """An encoder, and the mean average precision of its report; None where it has none."""

    encoder: Encoder
    map_all: float | None


def opened(source: str, protocol: str) -> Measured:
    """Return the encoder of a run or of a file. Raises InputError where there is neither."""
    if source.endswith(".safetensors"):
        return Measured(Encoder.load(fetch(source)).eval(), None)
    run = Artifact(source, "run")
    return Measured(Encoder.load(run.verified("encoder.safetensors")).eval(), map_of(run, protocol))


def map_of(run: Artifact, protocol: str) -> float | None:
    """Return the mAP@all of a run on its own data set, as its newest report under a protocol states it; None without one."""
    root = run.uri.removesuffix("/").rpartition("/runs/")[0]
    if not root:
        return None
    made_from = {"run": run.digest, "dataset": run.manifest.inputs["dataset"]["digest"]}
    reports = [unit.artifact for unit in survey(root, below="reports").units.values() if unit.artifact]
    mine = [
        report.manifest
        for report in reports
        if report.manifest.config["protocol"] == protocol
        and "seen" not in report.manifest.inputs
        and all(report.manifest.inputs[role]["digest"] == digest for role, digest in made_from.items())
    ]
    newest = max(mine, key=lambda manifest: manifest.created_utc, default=None)
    return None if newest is None else float(newest.facts[TRAINED])


def megabytes(encoder: Encoder, dtype: torch.dtype) -> float:
    """Return the size of an encoder's file with its numbers in a type, in 10^6 bytes."""
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in encoder.state_dict().items()}
    return len(save({name: value.contiguous() for name, value in state.items()})) / 1e6


def times_s(
    encoders: Sequence[Encoder], images: int, rounds: int, precision: Callable[[], AbstractContextManager[object]]
) -> Tensor:
    """Return the seconds of a forward pass by round and encoder [r e], measured in turn after two rounds that do not count."""
    pixels = [torch.randint(0, 256, (images, 3, encoder.image_px, encoder.image_px), dtype=torch.uint8) for encoder in encoders]
    found = torch.zeros(rounds + 2, len(encoders), dtype=torch.float64)
    with torch.inference_mode(), precision():
        for row in found:
            for place, (encoder, batch) in enumerate(zip(encoders, pixels, strict=True)):
                began = time.perf_counter()
                encoder(batch)
                row[place] = time.perf_counter() - began
    return found[2:]


def table(found: Mapping[str, Measured], one_s: Tensor, many_s: Tensor) -> str:
    """Return the rows of encoders. one_s, many_s: seconds of a pass over one image, and over BATCH, by round and encoder [r e]."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for place, (name, (encoder, map_all)) in enumerate(found.items()):
        cells = [
            name,
            encoder.backbone,
            str(encoder.image_px),
            f"{sum(value.numel() for value in encoder.parameters()) / 1e6:.2f}",
            *(f"{megabytes(encoder, dtype):.1f}" for dtype in (torch.float32, torch.float16)),
            f"{1000 * median(one_s[:, place].tolist()):.1f}",
            f"{median((one_s[:, place] / one_s[:, 0]).tolist()):.2f}",
            f"{1000 * median(many_s[:, place].tolist()) / BATCH:.1f}",
            "" if map_all is None else f"{map_all:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the encoders of the command line."""
    asked = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {name: opened(source, asked.protocol) for name, source in asked.encoders}
    for backbone, px in asked.untrained:
        found[f"{backbone} {px} px, untrained"] = Measured(Encoder(backbone, image_px=int(px)).eval(), None)
    encoders = [measured.encoder for measured in found.values()]

    def precision() -> AbstractContextManager[object]:
        return autocast(asked.precision, torch.device("cpu"))

    print(f"{described()}; one thread, precision {asked.precision}, {asked.rounds} rounds\n", flush=True)
    one_s = times_s(encoders, 1, asked.rounds, precision)
    many_s = times_s(encoders, BATCH, max(3, asked.rounds // 10), precision)
    print(table(found, one_s, many_s))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.encoder_cost")
    parser.add_argument("encoders", nargs="*", type=_named, help="NAME=RUN or NAME=FILE.safetensors, an address or a path")
    parser.add_argument("--untrained", nargs=2, action="append", default=[], metavar=("BACKBONE", "PX"))
    parser.add_argument("--protocol", default="zero_shot", help="of the reports that mAP is read from")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="as that of an index")
    parser.add_argument("--rounds", type=int, default=100, help="of one image; a tenth of them of 32")
    asked = parser.parse_args()
    if not (asked.encoders or asked.untrained):
        parser.error("no encoder: pass NAME=RUN, NAME=FILE.safetensors or --untrained BACKBONE PX")
    return asked


def _named(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=RUN or NAME=FILE.safetensors")
    if not source.endswith(".safetensors") and not exists(source):
        raise argparse.ArgumentTypeError(f"no run at {source}")
    return name, source


if __name__ == "__main__":
    main()
