from __future__ import annotations

import pytest

from zsbir.base.errors import FieldError
from zsbir.training.config import TrainConfig
from zsbir.training.requirements import check_addresses, check_has_knowledge


@pytest.mark.parametrize(
    ("changes", "way_out"),
    [
        ({}, "or --weight-preservation 0"),
        ({"weight_preservation": 0.0, "margin_ambiguity": 0.5}, "or --margin-ambiguity 0"),
        ({"weight_preservation": 0.0, "classifier_start": "prototypes"}, "--mean-features"),
    ],
)
def test_what_reads_the_knowledge_of_a_teacher_is_refused_without_it(changes, way_out):
    config = TrainConfig(**changes)
    with pytest.raises(FieldError, match=way_out):
        check_has_knowledge(config, given=False)
    check_has_knowledge(config, given=True)


def test_a_training_that_reads_no_knowledge_needs_none():
    check_has_knowledge(TrainConfig(weight_preservation=0.0), given=False)


def test_a_loss_without_an_address_that_it_cannot_work_without_is_refused_with_the_flag_to_pass():
    with pytest.raises(FieldError, match=r"no sake_teacher given: pass --sake-teacher, address of the teacher's weights"):
        check_addresses(TrainConfig().replace(losses=("sake",)))
    weights = f"artifacts/weights/{'a' * 64}.safetensors"
    check_addresses(TrainConfig().replace(losses=("sake",), sake_teacher=weights))
    check_addresses(TrainConfig())
