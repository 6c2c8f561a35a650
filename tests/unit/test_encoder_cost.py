"""The table of `bench.encoder_cost`: what it reads of runs and of files, and that it measures in turn."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from bench.encoder_cost import BATCH, COLUMNS, Measured, map_of, megabytes, opened, table, times_s

from zsbir.base.artifact import Artifact
from zsbir.model.encoder import Encoder


def test_the_map_of_a_run_is_that_of_its_own_report_under_the_protocol(fair, good):
    for made in (fair, good):
        assert map_of(Artifact(made.run), "zero_shot") == Artifact(made.report).manifest.facts["trained"]
        assert opened(made.run, "zero_shot").map_all == Artifact(made.report).manifest.facts["trained"]
    assert map_of(Artifact(fair.run), "generalised_all") is None


def test_megabytes_are_those_of_the_saved_file_and_of_half_as_many_bytes(tmp_path):
    encoder = Encoder("resnet18", embedding_dim=8, image_px=32)
    encoder.save(tmp_path / "encoder.safetensors")
    assert opened(str(tmp_path / "encoder.safetensors"), "zero_shot").map_all is None
    size = (tmp_path / "encoder.safetensors").stat().st_size / 1e6
    assert megabytes(encoder, torch.float32) == pytest.approx(size, rel=1e-3)
    assert megabytes(encoder, torch.float16) == pytest.approx(size / 2, rel=1e-2)


class Recorder(torch.nn.Module):
    """What notes when it is called, and with how many images of which side."""

    def __init__(self, name: str, image_px: int, calls: list[tuple[str, int, int]]):
        super().__init__()
        self.name, self.image_px, self.calls = name, image_px, calls

    def forward(self, images: torch.Tensor) -> None:
        self.calls.append((self.name, len(images), images.shape[-1]))


def test_encoders_are_measured_in_turn_each_with_images_of_its_own_size():
    calls: list[tuple[str, int, int]] = []
    found = times_s([Recorder("one", 8, calls), Recorder("two", 16, calls)], 3, 4, nullcontext)
    assert found.shape == (4, 2)
    assert (found > 0).all()
    assert calls == [("one", 3, 8), ("two", 3, 16)] * 6


def test_a_row_has_medians_of_rounds_and_the_ratio_within_a_round():
    encoder = Encoder("resnet18", embedding_dim=8, image_px=32)
    one_s = torch.tensor([[0.010, 0.020], [0.020, 0.060], [0.030, 0.060]])
    lines = table({"a": Measured(encoder, None), "b": Measured(encoder, 0.4321)}, one_s, one_s * BATCH).splitlines()
    header, a, b = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:]))
    assert header == list(COLUMNS)
    assert a[6:] == ["20.0", "1.00", "20.0", ""]
    assert b[6:] == ["60.0", "2.00", "60.0", "0.432"]
    assert b[:4] == ["b", "resnet18", "32", "11.18"]
