"""Which name an artifact gets stays the same when a configuration gets a new field."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from tuning.config import SweepConfig
from zsbir.base.config import Added, Config, digest_of
from zsbir.base.layout import run_uri
from zsbir.evaluate import EvaluateConfig
from zsbir.evaluation.protocol import PROTOCOLS, Protocol
from zsbir.export import ExportConfig
from zsbir.index import IndexConfig
from zsbir.ingestion.plan import IngestConfig
from zsbir.pretrain import PretrainConfig
from zsbir.recipes import RECIPES, recipe
from zsbir.teacher import TeacherConfig
from zsbir.training.config import TrainConfig

REPOSITORY = Path(__file__).resolve().parents[3]
RECORDED = json.loads((REPOSITORY / "tests" / "compat" / "identities.json").read_text())
"""Names, digests and hashed fields as version 0.1.0 (commit fa614a3) computed them. Never made again by later code."""

VALUES_THEN = {name: {"lr": 1e-4, "lr_backbone": 1e-5} for name in ("sketchy_ext", "tuberlin_ext", "quickdraw_ext")}
"""Fields of recipes that had other values in version 0.1.0. Recipes that were measured stay as they are."""

HASHED: list[Config] = [
    EvaluateConfig(),
    ExportConfig(),
    IndexConfig(),
    IngestConfig(layout="toy"),
    PretrainConfig(),
    Protocol(name="zero_shot"),
    SweepConfig(),
    TeacherConfig(),
    TrainConfig(),
]
"""Every configuration that a digest is made of, with its defaults."""


def name_of(config: Config) -> str:
    return type(config).__name__


@pytest.mark.parametrize("name", sorted(RECORDED["runs"]))
def test_a_recipe_has_the_run_name_that_it_always_had(name):
    assert name in RECIPES
    config = recipe(name).replace(**VALUES_THEN.get(name, {}))
    identity = [config.identity(), "d" * 64, "k" * 64, "w" * 64]
    assert run_uri("", config.recipe, digest_of(identity)).rpartition("/")[2] == RECORDED["runs"][name]


@pytest.mark.parametrize("config", HASHED, ids=name_of)
def test_a_configuration_has_the_digest_that_it_always_had(config):
    assert digest_of(config.identity()) == RECORDED["digests"][name_of(config)]


@pytest.mark.parametrize("protocol", RECORDED["protocols"])
def test_a_protocol_has_the_digest_that_it_always_had(protocol):
    assert digest_of(PROTOCOLS[protocol].identity()) == RECORDED["protocols"][protocol]


@pytest.mark.parametrize("config", HASHED, ids=name_of)
def test_every_field_is_of_the_first_version_or_marked_as_added(config):
    kind = type(config)
    unmarked = set(kind.model_fields) - kind.added_fields().keys() - kind.outside_identity
    new = unmarked - set(RECORDED["fields"][name_of(config)])
    assert not new, (
        f"{', '.join(sorted(new))} of {name_of(config)} would rename every artifact: mark a new field as"
        " Annotated[..., Added(neutral=...)], or list it in outside_identity if it decides nothing (zsbir/base/config.py)"
    )
    assert unmarked == set(RECORDED["fields"][name_of(config)]), "a field of the first version is part of every name: keep it"


def test_the_recorded_configurations_are_all_that_digests_are_made_of():
    assert sorted(map(name_of, HASHED)) == sorted(RECORDED["fields"]) == sorted(RECORDED["digests"])


class Boat(Config):
    """A configuration of the first version."""

    hull: str = "oak"
    sails: int = 1


class Motorboat(Boat):
    """The same configuration later: it got a field, whose default has changed since."""

    outside_identity = frozenset({"berth"})

    power_kw: Annotated[float, Added(neutral=0)] = Field(30.0, ge=0)
    berth: Annotated[str, Added(neutral="")] = "north"


class Fleet(Config):
    """A configuration that holds another."""

    flagship: Motorboat = Motorboat()


def test_an_added_field_leaves_the_identity_alone_as_long_as_it_is_neutral():
    assert Motorboat(power_kw=0).identity() == Boat().identity()
    assert Motorboat(power_kw=0).fingerprint() == Boat().fingerprint()
    assert Motorboat(power_kw=7).identity() == {"hull": "oak", "sails": 1, "power_kw": 7.0}
    assert Motorboat().fingerprint() != Boat().fingerprint(), "its default is not neutral"


def test_a_field_outside_the_identity_changes_nothing():
    assert Motorboat(berth="south").fingerprint() == Motorboat().fingerprint()


def test_the_identity_of_a_configuration_within_another_follows_the_same_rule():
    assert Fleet(flagship=Motorboat(power_kw=0)).identity() == {"flagship": {"hull": "oak", "sails": 1}}


def test_a_manifest_holds_every_field_whatever_the_identity_leaves_out():
    assert Motorboat(power_kw=0).model_dump(mode="json") == {"hull": "oak", "sails": 1, "power_kw": 0.0, "berth": "north"}


def test_digests_are_made_of_identities_and_never_of_all_fields():
    """A digest of `model_dump` would change with each new field."""
    for file in [*REPOSITORY.glob("zsbir/**/*.py"), *REPOSITORY.glob("tuning/**/*.py")]:
        text = file.read_text()
        if "digest" not in text or "model_dump" not in text or file.name == "config.py":
            continue
        for function in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            digests = [call for call in calls if getattr(call.func, "id", "") in ("digest_of", "streamed_digest")]
            named = {argument.id for call in digests for argument in call.args if isinstance(argument, ast.Name)}
            assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign)]
            parts = [node.value for node in assigned if named & {ast.unparse(target) for target in node.targets}]
            for part in [*digests, *parts]:
                assert "model_dump" not in ast.unparse(part), f"{file}:{part.lineno}"
