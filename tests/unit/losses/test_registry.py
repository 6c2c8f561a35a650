"""Losses by name, among them those of a package that is installed: here a folder with its metadata, as pip makes it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from zsbir.base.errors import InputError
from zsbir.losses.registry import fields_of, loss_kind, offered
from zsbir.training.config import TrainConfig

CENTRE = """
from typing import Annotated
import torch
from pydantic import Field
from zsbir.base.config import Added, Config
from zsbir.losses.loss import Loss

class CentreFields(Config):
    centre_power: float = Field(2.0, gt=0, description="power of the distance")

class Centre(Loss):
    Fields = CentreFields
    def __init__(self, fields, shapes):
        super().__init__(fields, shapes)
        self.centres = torch.nn.Parameter(torch.zeros(shapes.classes, shapes.embedding_dim))
    def forward(self, batch):
        away = (batch.embeddings - self.centres[batch.classes]).norm(dim=1) ** self.fields.centre_power
        return away.mean(), {"farthest": away.max()}

class Strange(Loss):
    class Fields(Config):
        margin_cross: float = 1.0

class Later(Loss):
    class Fields(Config):
        later_size: int = 3
        later_share: Annotated[float, Added(neutral=0.5)] = 0.5

class Empty(Loss):
    pass

class Shared(Loss):
    class Fields(Config):
        centre_ring_size: int = 1

class Ring(Loss):
    class Fields(Config):
        centre_ring_size: int = 2

class Batch(Loss):
    class Fields(Config):
        batch_images: int = 3

class Needy(Loss):
    class Fields(Config):
        needy_path: str
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package of losses; names of entry points with their values."""

    def install(version: str = "1.2", **points: str) -> None:
        (tmp_path / "more_losses.py").write_text(CENTRE)
        info = tmp_path / f"more_losses-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: more-losses\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[zsbir.losses]", *lines]))
        loss_kind.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    loss_kind.cache_clear()
    sys.modules.pop("more_losses", None)


def test_the_fields_of_an_installed_loss_are_fields_of_a_training(install):
    install(centre="more_losses:Centre")
    assert offered()["centre"] == "more-losses"
    config = TrainConfig(losses=["centre"], weight_centre=0.5)
    assert (config.weight_centre, config.centre_power) == (0.5, 2.0)
    assert config.replace(centre_power=3).centre_power == 3
    assert pickle.loads(pickle.dumps(config)) == config
    assert set(fields_of(["centre"])) == {"weight_centre", "centre_power"}


def test_names_are_read_without_importing_what_they_name(install):
    install(centre="a_module_that_is_not_there:Centre")
    assert "centre" in offered()


def test_the_packages_version_is_part_of_what_names_a_run(install):
    plain = TrainConfig()
    install(centre="more_losses:Centre")
    config = TrainConfig(losses=["centre"])
    assert config.identity()["packages"] == {"losses": {"centre": "more-losses 1.2"}}
    assert config.replace(losses=()).fingerprint() == plain.fingerprint()


def test_a_loss_of_this_project_has_no_version_of_its_own():
    identity = TrainConfig(losses=["supcon"]).identity()
    assert "packages" not in identity
    assert identity["supcon_temperature"] == 0.1


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("no_such_module:Centre", "the loss 'centre' cannot be imported from no_such_module:Centre: ModuleNotFoundError"),
        ("more_losses:Nothing", "the loss 'centre' cannot be imported from more_losses:Nothing: AttributeError"),
        ("more_losses:CentreFields", "more_losses:CentreFields is not a class derived from zsbir.losses.loss.Loss"),
        ("more_losses:Strange", "has a field 'margin_cross', which must begin with 'centre_'"),
    ],
)
def test_what_is_no_loss_is_refused_in_one_line(install, value, line):
    install(centre=value)
    with pytest.raises(InputError) as error:
        TrainConfig(losses=["centre"])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_field_without_a_default_is_refused(install):
    install(needy="more_losses:Needy")
    with pytest.raises(InputError, match="has a field 'needy_path' without a default"):
        TrainConfig(losses=["needy"])


def test_a_field_that_a_loss_got_later_renames_nothing_as_long_as_it_is_neutral(install):
    install(later="more_losses:Later")
    config = TrainConfig(losses=["later"])
    assert "later_size" in config.identity()
    assert "later_share" not in config.identity()
    assert config.replace(later_share=0.6).identity()["later_share"] == 0.6


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("decay", "more_losses:Empty", "weight_decay"),  # of the optimiser
        ("of", "more_losses:Empty", "weight_of"),  # a method of the configuration
        ("batch", "more_losses:Batch", "batch_images"),  # a property of it
    ],
)
def test_a_field_that_means_something_else_in_a_training_is_refused(install, name, value, field):
    install(**{name: value})
    with pytest.raises(InputError, match=f"a field {field!r}, which means something else here"):
        TrainConfig(losses=[name])


def test_two_losses_whose_fields_have_one_name_are_not_trained_together(install):
    install(centre="more_losses:Shared", centre_ring="more_losses:Ring")
    assert TrainConfig(losses=["centre"]).centre_ring_size == 1
    with pytest.raises(InputError, match="'centre_ring' and another loss both have a field 'centre_ring_size'"):
        TrainConfig(losses=["centre", "centre_ring"])


def test_two_packages_that_offer_one_name_are_refused(install, tmp_path):
    install(centre="more_losses:Centre")
    info = tmp_path / "others-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[zsbir.losses]\ncentre = others:Centre\n")
    with pytest.raises(InputError, match=r"the loss 'centre' is offered by more-losses 1.2 and others 3: uninstall all but one"):
        TrainConfig(losses=["centre"])


def test_where_the_weights_of_a_teacher_lie_says_nothing_about_a_run():
    here, there = (TrainConfig(losses=["sake"], sake_teacher=f"{root}/weights/{'a' * 64}.safetensors") for root in ("/x", "s3://y"))
    assert here.fingerprint() == there.fingerprint()
    assert here.identity()["sake_teacher"] == "a" * 64
    with pytest.raises(InputError, match="must be the address of weights below a storage root"):
        TrainConfig.of({"losses": ["sake"], "sake_teacher": "/etc/passwd"})


def test_nobody_takes_the_name_of_the_methods_losses_or_of_this_projects(install):
    install(quadruplet="more_losses:Centre", supcon="more_losses:Centre", Centre="more_losses:Centre")
    assert offered()["supcon"] == "zsbir"
    assert not {"quadruplet", "Centre"} & set(offered())
    assert loss_kind("supcon").offer.package == "zsbir"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"losses": ["supcom"]}, "unknown loss 'supcom'; did you mean 'supcon'?"),
        ({"weight_supcon": 1.0}, "field 'weight_supcon' is for the loss 'supcon'"),
        ({"supcon_temperature": 1.0}, "field 'supcon_temperature' is for the loss 'supcon': name it in losses as well"),
        ({"losses": ["supcon"], "weight_triplet": 1.0}, "field 'weight_triplet' is for the loss 'triplet'"),
        ({"losses": ["supcon"], "supcon_temperatur": 1.0}, "unknown field 'supcon_temperatur'; did you mean 'supcon_temperature'?"),
        (
            {"losses": ["supcon"], "supcon_temperature": 0.0},
            "configuration: field 'supcon_temperature': input should be greater",
        ),
        ({"losses": ["supcon", "supcon"]}, "a loss is named twice"),
        ({"losses": "supcon"}, "field 'losses'"),
        ({"losses": [1]}, "field 'losses"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(values, line):
    with pytest.raises(InputError) as error:
        TrainConfig.of(values)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_order_in_which_losses_are_named_says_nothing():
    one, other = (TrainConfig(losses=names) for names in (["supcon", "triplet"], ["triplet", "supcon"]))
    assert one.fingerprint() == other.fingerprint()


def test_a_training_may_have_further_losses_alone_but_not_none():
    none = {"weight_quadruplet": 0, "weight_classification": 0, "weight_preservation": 0}
    assert TrainConfig(**none, losses=["supcon"]).weight_supcon == 1
    with pytest.raises(InputError, match="all loss weights are 0"):
        TrainConfig.of({**none, "losses": ["supcon"], "weight_supcon": 0})


def test_naming_the_losses_of_this_project_loads_no_torch():
    code = "import sys; from zsbir.training.config import TrainConfig as T; T(losses=['supcon']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])
