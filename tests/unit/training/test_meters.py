from __future__ import annotations

import time

import pytest
import torch

from zsbir.model.encoder import Encoder
from zsbir.training.forecast import seconds_per_image, shown_minutes
from zsbir.training.meters import Clock, ShownLoss
from zsbir.training.precision import autocast


def test_the_loss_shown_is_that_of_the_step_just_done():
    shown = ShownLoss(every_s=0)
    assert [shown.text(torch.tensor(loss)) for loss in (5.5512, 4.25, 3.0)] == ["loss 5.551", "loss 4.250", "loss 3.000"]


def test_a_new_loss_is_shown_at_most_once_in_the_interval():
    shown = ShownLoss(every_s=3600)
    assert [shown.text(torch.tensor(loss)) for loss in (5.0, 4.0, 3.0)] == ["loss 5.000"] * 3


def test_the_loss_of_a_device_is_shown_once_its_copy_has_arrived(monkeypatch):
    """The copy of a loss on a GPU as a fake event: there is no GPU here."""
    arrived = [False]

    class Event:
        def query(self):
            return arrived[0]

    monkeypatch.setattr("zsbir.training.meters._started_copy", lambda loss: (loss.clone(), Event()))
    shown = ShownLoss(every_s=0)
    assert shown.text(torch.tensor(5.0)) == ""
    assert shown.text(torch.tensor(4.0)) == "", "nothing waits, and the first copy is not forgotten for another one"
    arrived[0] = True
    assert shown.text(torch.tensor(3.0)) == "loss 5.000"


def test_a_shown_loss_is_not_changed_by_what_happens_to_the_tensor_later():
    shown, loss = ShownLoss(every_s=3600), torch.tensor(5.0)
    assert shown.text(loss) == "loss 5.000"
    loss.zero_()
    assert shown.text(loss) == "loss 5.000"


def test_the_clock_counts_images_and_waiting():
    clock = Clock(8)
    batches = clock.wait_for(iter([1, 2]))
    time.sleep(0.02)
    assert list(batches) == [1, 2]
    figures = clock.read()
    assert 0 < figures["images_per_s"] <= 2 * 8 / 0.02
    assert 0 <= figures["data_wait_frac"] <= 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measuring_the_time_of_an_image_changes_nothing_of_the_network(precision):
    torch.manual_seed(0)
    encoder = Encoder("resnet18", 8, 32).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    random = torch.get_rng_state()
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert seconds_per_image(encoder, images, autocast(precision, torch.device("cpu"))) > 0
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize(("seconds", "text"), [(3, "less than a minute"), (55, "about 1 min"), (340, "about 6 min")])
def test_durations_are_said_as_people_say_them(seconds, text):
    assert shown_minutes(seconds) == text
