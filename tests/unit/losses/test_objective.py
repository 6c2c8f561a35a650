from __future__ import annotations

import math

import pytest
import torch

from zsbir.base.config import Config
from zsbir.base.errors import InputError
from zsbir.losses.classification import classification
from zsbir.losses.loss import Loss, Shapes
from zsbir.losses.objective import Objective, margin_shares
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.preservation import preservation
from zsbir.losses.quadruplet import quadruplet
from zsbir.model.encoder import Encoded
from zsbir.model.heads import Heads

CLASS_INDEX = torch.tensor([-1, 0, -1, 1, 2])
"""Of a data set's five classes three are trained on."""


def batch() -> tuple[Encoded, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(12, 6, generator=generator)
    class_id = torch.tensor([1, 3, 4]).repeat_interleave(4)
    features = torch.randn(12, 10, generator=generator)
    return Encoded(torch.nn.functional.normalize(raw, dim=1), features, raw.norm(dim=1)), class_id, torch.arange(2).repeat(6)


def objective(**changes) -> Objective:
    torch.manual_seed(1)
    config = ObjectiveConfig(**{"weight_quadruplet": 0.5, "weight_classification": 2.0, "weight_preservation": 0.3} | changes)
    heads = Heads(feature_dim=10, embedding_dim=6, classes=3, teacher_labels=7, place=config.preservation_place)
    return Objective(config, heads, CLASS_INDEX, torch.rand(3, 7).softmax(dim=1))


@pytest.mark.parametrize("place", ["features", "embedding", "unnormalised"])
def test_the_total_is_the_weighted_sum_of_the_three_losses(place):
    ours = objective(preservation_place=place)
    encoded, class_id, domain = batch()
    total, figures = ours(encoded, class_id, domain)
    classes = CLASS_INDEX[class_id]
    class_logits, teacher_logits = ours.heads(encoded)
    expected = (
        0.5 * quadruplet(encoded.embeddings, classes, domain).loss
        + 2.0 * classification(class_logits, classes)
        + 0.3 * preservation(teacher_logits, ours.knowledge[classes])
    )
    assert total.item() == pytest.approx(expected.item())
    assert figures["loss"].item() == pytest.approx(expected.item())


FORMS = {"margin_cross": 0.15, "margin_same": 0.6, "mining": "hard", "label_smoothing": 0.0}
"""Margins far apart: one in the other's place changes the loss."""


@pytest.mark.parametrize(
    "changes", [{}, {"mining": "all"}, {"label_smoothing": 0.2}, {"margin_cross": 0.9}, {"margin_same": 0.0}], ids=str
)
def test_each_loss_gets_the_form_that_the_configuration_names(changes):
    form = FORMS | changes
    encoded, class_id, domain = batch()
    ours = objective(**form)
    _, figures = ours(encoded, class_id, domain)
    classes = CLASS_INDEX[class_id]
    smoothing = form.pop("label_smoothing")
    class_logits, _ = ours.heads(encoded)
    expected = {
        "loss_quadruplet": quadruplet(encoded.embeddings, classes, domain, **form).loss,
        "loss_classification": classification(class_logits, classes, label_smoothing=smoothing),
    }
    assert {name: figures[name].item() for name in expected} == pytest.approx({name: x.item() for name, x in expected.items()})


def test_the_figures_are_named_as_the_quadruplet_loss_names_them():
    encoded, class_id, domain = batch()
    _, figures = objective()(encoded, class_id, domain)
    quad = quadruplet(encoded.embeddings, CLASS_INDEX[class_id], domain)
    for name in quad._fields[1:]:
        assert figures[name].item() == pytest.approx(getattr(quad, name).item()), name
    assert not any(figure.requires_grad for figure in figures.values())


def test_only_the_heads_are_state_of_the_objective():
    assert {name.partition(".")[0] for name in objective().state_dict()} == {"heads"}


def test_losses_of_weight_zero_are_reported_and_pull_at_nothing():
    ours = objective(weight_quadruplet=0.0, weight_preservation=0.0, preservation_place="features")
    encoded, class_id, domain = batch()
    encoded.features.requires_grad_()
    total, figures = ours(encoded, class_id, domain)
    total.backward()
    assert figures["loss_quadruplet"] > 0
    assert figures["loss_preservation"] > 0
    assert encoded.features.grad.eq(0).all()


@pytest.mark.parametrize(("domains", "taught"), [("photo", 0), ("sketch", 1)])
def test_preservation_can_teach_one_domain_alone(domains, taught):
    weights = {"weight_quadruplet": 0.0, "weight_classification": 0.0, "weight_preservation": 1.0}
    ours = objective(preservation_domains=domains, preservation_place="features", **weights)
    encoded, class_id, domain = batch()
    encoded.features.requires_grad_()
    ours(encoded, class_id, domain)[0].backward()
    pulled = encoded.features.grad.abs().sum(dim=1) > 0
    assert pulled.tolist() == (domain == taught).tolist()


def test_the_cosine_schedule_takes_preservation_from_its_weight_to_zero():
    ours = objective(preservation_schedule="cosine", weight_quadruplet=0.0, weight_classification=0.0, weight_preservation=1.0)
    totals = [ours(*batch(), progress)[0].item() for progress in (0.0, 0.5, 1.0)]
    assert totals[1] == pytest.approx(totals[0] / 2)
    assert totals[2] == pytest.approx(0, abs=1e-6)


def test_without_knowledge_there_is_no_preservation():
    heads = Heads(feature_dim=10, embedding_dim=6, classes=3, teacher_labels=0)
    total, figures = Objective(ObjectiveConfig(), heads, CLASS_INDEX, None)(*batch())
    assert "loss_preservation" not in figures
    assert torch.isfinite(total)


class Given(Loss):
    """A loss that returns what it is given."""

    def __init__(self, *values):
        super().__init__(Config(), Shapes(6, 10, 3))
        self.values = values

    def forward(self, batch):
        return self.values


def test_a_further_loss_may_have_the_name_of_anything_that_a_module_has():
    ours = objective()
    names = ("update", "type", "quadruplet_", "heads")
    whole = Objective(
        ours.config, ours.heads, CLASS_INDEX, ours.knowledge, further={name: (1.0, Given(torch.ones(()), {})) for name in names}
    )
    assert [figure for figure in whole(*batch())[1] if figure.removeprefix("loss_") in names] == [f"loss_{name}" for name in names]


def test_figures_may_be_plain_numbers_and_all_are_one_number():
    ours = objective()

    def figures(*values):
        return Objective(ours.config, ours.heads, CLASS_INDEX, ours.knowledge, further={"mine": (2.0, Given(*values))})(*batch())

    total, found = figures(torch.tensor([3.0]), {"share": 0.5})
    assert found["mine_share"].item() == 0.5
    assert total.item() == pytest.approx(ours(*batch())[0].item() + 6)
    for values, line in [
        ((torch.ones(12), {}), r"the loss 'mine': the loss has the shape \(12,\), and must be one number"),
        ((torch.ones(()), {"all": torch.ones(2)}), r"the loss 'mine': its figure 'all' has the shape \(2,\)"),
    ]:
        with pytest.raises(InputError, match=line):
            figures(*values)


def test_a_class_of_which_the_teacher_is_unsure_has_smaller_margins():
    sure, unsure = torch.tensor([1.0, 0.0, 0.0]), torch.full((3,), 1 / 3)
    between = torch.tensor([0.5, 0.5, 0.0])
    shares = margin_shares(torch.stack([sure, unsure, between]), 0.6)
    assert shares.tolist() == pytest.approx([1.0, 0.4, 1 - 0.6 * math.log(2) / math.log(3)])


def test_margins_follow_the_class_of_the_anchor():
    whole, less = objective(margin_ambiguity=0.0), objective(margin_ambiguity=1.0)
    encoded, class_id, domain = batch()
    shares = margin_shares(less.knowledge, 1.0)[CLASS_INDEX[class_id]]
    expected = quadruplet(encoded.embeddings, class_id, domain, margin_cross=0.2 * shares, margin_same=0.2 * shares).loss
    assert less(encoded, class_id, domain)[1]["loss_quadruplet"].item() == pytest.approx(expected.item())
    assert whole(encoded, class_id, domain)[1]["loss_quadruplet"].item() != pytest.approx(expected.item())


def test_a_teacher_that_is_equally_sure_of_all_classes_leaves_the_margins_whole():
    assert margin_shares(torch.eye(3), 0.6).tolist() == [1.0, 1.0, 1.0]
