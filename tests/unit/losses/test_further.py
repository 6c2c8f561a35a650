"""Further losses, made as a configuration names them: what stands in the way is told by whose fault it is."""

from __future__ import annotations

import pytest
import torch
from plugged import install, remove

from zsbir.base.errors import InputError, Unreachable
from zsbir.losses.further import further_losses
from zsbir.losses.loss import Shapes
from zsbir.training.config import TrainConfig

SHAPES = Shapes(embedding_dim=4, feature_dim=6, classes=3)

BROKEN = """
from zsbir.losses.loss import Loss

class Away(Loss):
    def __init__(self, fields, shapes):
        raise ConnectionRefusedError(111, "refused")

class Wrong(Loss):
    def __init__(self, fields, shapes):
        raise ValueError("two\\nlines")
"""


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = {"zsbir.losses": {"away": "zsbir_example.broken:Away", "wrong": "zsbir_example.broken:Wrong"}}
    install(tmp_path, points=broken)
    (tmp_path / "zsbir_example" / "broken.py").write_text(BROKEN)
    yield
    remove(tmp_path)


def test_workers_make_a_loss_with_the_same_parameters_from_the_same_seed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path)
    config = TrainConfig(losses=["centre"], weight_centre=0.3, centre_power=1.5)
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        weight, loss = further_losses(config, SHAPES)["centre"]
        assert (weight, loss.fields.centre_power) == (0.3, 1.5)
        made.append(loss.centres)
    assert made[0].equal(made[1])
    remove(tmp_path)


def test_a_loss_that_reads_from_what_does_not_answer_fails_for_now(example):
    with pytest.raises(Unreachable, match="the loss 'away' of zsbir-example cannot be made: ConnectionRefusedError"):
        further_losses(TrainConfig(losses=["away"]), SHAPES)


def test_a_loss_that_cannot_be_made_is_one_line(example):
    with pytest.raises(InputError) as error:
        further_losses(TrainConfig(losses=["wrong"]), SHAPES)
    assert str(error.value) == r"the loss 'wrong' of zsbir-example cannot be made: ValueError: two\nlines"
