"""What may be submitted: the commands' own fields, checked by the commands' own classes."""

from __future__ import annotations

import importlib
import json
import re

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from plugged import install, remove

from services.jobs.queue.states import KINDS
from services.jobs.runs.fields import NOT_SUBMITTED, SCHEMAS, describe_kinds
from services.jobs.runs.steps import COMMAND, MODULES, PIPELINE, POSITIONAL, REPEATED, SINGLE
from services.jobs.runs.validation import check_config
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.cli import HelpAsked
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.losses.registry import fields_of, offered
from zsbir.recipes import RECIPES

BIG = 10**9


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A root with an artifact of each kind, and a folder beside it."""
    root = tmp_path / "root"
    for kind in ("dataset", "knowledge", "run"):
        with draft(str(root / kind), kind, kind) as work:
            work.file("x").write_bytes(b"x")
            work.commit(digest=kind)
    for name in ("cat", "dog", "cow", "hen", "owl", "pig", "rat"):
        for domain in ("photo", "sketch"):
            (root / "photos" / domain / name).mkdir(parents=True)
    (root / "photos" / "net.pth").write_bytes(b"x")
    (root / "split.json").write_text('{"unseen": ["cat"]}')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def check(here):
    def check(kind, config):
        return check_config(kind, config, AllowedPaths([str(here)]))

    return check


TRAIN = {"dataset": "dataset", "knowledge": "knowledge"}
GOOD = [
    ("ingest", {"layout": "toy"}),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": ["cat", "dog"], "num_workers": 2}),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": ["./split.json"]}),
    ("pretrain", {}),
    ("pretrain", {"epochs": 1}),
    ("teacher", {"dataset": "dataset"}),
    ("teacher", {"dataset": "dataset", "weights": "imagenet_v2"}),
    ("teacher", {"dataset": "dataset", "weights": "photos/net.pth"}),
    ("train", TRAIN),
    ("train", {**TRAIN, "recipe": "toy", "lr": 1e-3, "steps": 5, "num_workers": 2, "train_on_dev": True}),
    ("evaluate", {"run": "run"}),
    ("evaluate", {"run": "run", "protocol": "dev"}),
    ("sweep", {**TRAIN, "recipe": "toy", "trials": 4, "space": "losses"}),
    ("index", {"run": "run"}),
    ("index", {"run": "run", "gallery": "photos"}),
]


@pytest.mark.parametrize(("kind", "config"), GOOD)
def test_what_is_good_is_kept_as_it_was_given_with_its_addresses_in_full(check, here, kind, config):
    stored = check(kind, config)
    assert list(stored) == list(config)
    for name, value in config.items():
        full = name in ("path", "dataset", "knowledge", "run", "gallery") or str(value).startswith("photos/")
        expected = [str(here / value[0])] if value == ["./split.json"] else value
        assert stored[name] == (str(here / value) if full else expected)
    assert check(kind, stored) == stored, "what is stored can be submitted again"
    Draft202012Validator(describe_kinds()["kinds"][kind]).validate(json.loads(json.dumps(stored)))


BAD = [
    ("ingest", {}, "ingest: field 'layout' is required"),
    ("ingest", {"layout": "folder"}, "ingest: field 'path' is required, the folder that holds the data set"),
    ("ingest", {"layout": "foldr", "path": "photos"}, "layout.*'folder'.*got 'foldr'"),
    ("ingest", {"layout": "toy", "toy_pix": 64}, "unknown field 'toy_pix'; did you mean 'toy_px'"),
    ("ingest", {"layout": "toy", "toy_px": 8}, "'toy_px'.*greater than or equal to 32, got 8"),
    ("ingest", {"layout": "folder", "path": 5}, "field 'path': must be text, got 5"),
    ("ingest", {"layout": "folder", "path": "../elsewhere"}, "path.*outside of what this service reads.*--place"),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": ["../elsewhere/names"]}, "unseen_classes.*outside"),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": "cat"}, "unseen_classes"),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": ["a,b"]}, "unseen_classes.*comma.*'a,b'"),
    ("ingest", {"layout": "folder", "path": "photos", "unseen_classes": ["cat", " dog"]}, "unseen_classes.*space.*' dog'"),
    ("pretrain", {"epochs": 0}, "'epochs'.*greater than or equal to 1, got 0"),
    ("pretrain", {"root": "/etc"}, "unknown field 'root'"),
    ("teacher", {}, "teacher: field 'dataset' is required"),
    ("teacher", {"dataset": "dataset", "temperature": 0}, "'temperature'.*greater than 0"),
    ("teacher", {"dataset": "dataset", "weights": "/etc/passwd"}, "teacher: field 'weights'.*outside"),
    ("teacher", {"dataset": "run"}, "dataset"),
    ("train", {"dataset": ""}, "train: field 'dataset' is required"),
    ("train", {"dataset": "photos"}, "photos"),
    ("train", {**TRAIN, "recipe": "toi"}, "unknown recipe 'toi'; did you mean 'toy'"),
    (
        "train",
        {**TRAIN, "supcon_temperature": 0.2},
        "train: field 'supcon_temperature' is for the loss 'supcon': name it in losses",
    ),
    ("train", {**TRAIN, "losses": ["supcon", "supcon"]}, "train: losses: a loss is named twice"),
    ("train", {**TRAIN, "recipe": ["toy"]}, "field 'recipe': must be text"),
    ("train", {**TRAIN, "lr": -1}, "'lr'.*greater than 0, got -1"),
    ("train", {**TRAIN, "lr": "fast"}, "'lr'.*number.*got 'fast'"),
    ("train", {**TRAIN, "lr": float("nan")}, "'lr'.*finite"),
    ("train", {**TRAIN, "tracking": False}, "unknown field 'tracking'"),
    ("train", {**TRAIN, "parent": "x"}, "unknown field 'parent'"),
    ("train", {**TRAIN, "--root": "/etc"}, "unknown field '--root'"),
    ("evaluate", {}, "evaluate: field 'run' is required"),
    ("evaluate", {"run": "dataset"}, "run"),
    ("evaluate", {"run": "run", "grid_rows": 61}, "'grid_rows'.*less than or equal to 60"),
    ("sweep", {"dataset": "dataset", "trials": 0}, "'trials'.*greater than or equal to 1"),
    ("sweep", {"dataset": "dataset", "space": "../elsewhere/space.yaml"}, "space.*outside"),
    ("index", {"run": "run", "gallery": "../elsewhere"}, "gallery.*outside"),
    ("index", {"run": "run", "name": "Not A Name"}, "'name'"),
]


@pytest.mark.parametrize(("kind", "config", "line"), BAD)
def test_what_is_bad_is_refused_in_a_line_with_the_way_out(check, kind, config, line):
    with pytest.raises(InputError, match=line) as told:
        check(kind, config)
    assert "\n" not in str(told.value)


# --- pipelines


def test_the_toy_pipeline_needs_nothing_but_its_name(check):
    stored = check("pipeline", {"recipe": "toy"})
    assert list(stored) == ["ingest", "pretrain", "teacher", "train", "evaluate", "index"]
    assert stored["ingest"] == {"layout": "toy"}
    assert stored["train"] == {"recipe": "toy"}


def test_what_is_said_of_a_step_goes_over_what_the_recipe_has_of_itself(check):
    stored = check("pipeline", {"recipe": "toy", "teacher": {"image_px": 32}, "sweep": {"trials": 2}})
    assert stored["teacher"] == {"backbone": "resnet18", "image_px": 32}
    assert stored["sweep"] == {"trials": 2, "recipe": "toy"}
    assert list(stored) == [step for step in PIPELINE if step != "promote"]


def test_a_stored_pipeline_can_be_submitted_again(check):
    stored = check("pipeline", {"recipe": "toy"})
    assert check("pipeline", stored) == stored


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({}, "ingest: field 'layout' is required"),
        ({"recipe": "toi"}, "ingest: field 'layout' is required"),
        ({"recipe": "toi", "ingest": {"layout": "toy"}}, "unknown recipe 'toi'; did you mean 'toy'"),
        ({"recipe": "toy", "trane": {}}, "unknown step 'trane'; did you mean 'train'"),
        ({"recipe": "toy", "train": 5}, "train must be an object of field names to values, got 5"),
        ({"recipe": "toy", "train": {"stps": 5}}, "train: unknown field 'stps'; did you mean 'steps'"),
        ({"recipe": "toy", "evaluate": {"run": "../elsewhere"}}, "evaluate: field 'run'.*outside"),
        ({"recipe": "toy", "train": {"dataset": ""}}, "train: field 'dataset' is required"),
        ({"recipe": "toy", "train": {"config": "x.yaml"}}, "unknown field 'config'"),
    ],
)
def test_a_bad_pipeline_names_the_step(check, config, line):
    with pytest.raises(InputError, match=line):
        check("pipeline", config)


def test_a_pipeline_whose_training_starts_from_mean_features_has_its_teacher_keep_them(check):
    start = {"recipe": "toy", "train": {"classifier_start": "prototypes"}}
    assert check("pipeline", start)["teacher"]["mean_features"] is True
    assert "mean_features" not in check("pipeline", {"recipe": "toy"})["teacher"]
    line = "teacher: field 'mean_features': must be true, since train begins with classifier_start prototypes"
    with pytest.raises(InputError, match=line):
        check("pipeline", {**start, "teacher": {"mean_features": False}})
    with pytest.raises(InputError, match=line):
        check("pipeline", {**start, "teacher": {"mean_features": "no"}})
    kept = check("pipeline", {"recipe": "toy", "teacher": {"permute_seed": 3, "mean_features": True}})
    assert kept["teacher"]["permute_seed"] == 3


# --- what packages add


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The package of `tests/plugin`, installed."""
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    install(tmp_path / "packages")
    yield
    remove(tmp_path / "packages")


def test_a_loss_and_a_backbone_of_a_package_are_accepted_with_their_fields(check, example):
    config = {**TRAIN, "losses": ["centre"], "weight_centre": 0.5, "centre_power": 1.5, "backbone": "tiny"}
    stored = check("train", config)
    assert {name: stored[name] for name in config if name not in TRAIN} == {k: v for k, v in config.items() if k not in TRAIN}
    assert check("sweep", {**config, "trials": 2})["losses"] == ["centre"]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"losses": ["centre"], "centre_power": 0}, "train: field 'centre_power': input should be greater than 0"),
        ({"losses": ["centre"], "centre_powr": 1}, "train: unknown field 'centre_powr'; did you mean 'centre_power'"),
        ({"centre_power": 1}, "train: field 'centre_power' is for the loss 'centre'"),
        ({"losses": ["centra"]}, "train: field 'losses': unknown loss 'centra'; did you mean 'centre'"),
        ({"losses": ["centre", "centre"]}, "a loss is named twice"),
        ({"losses": "centre"}, "train: field 'losses'"),
        ({"losses": [["centre"]]}, "train: field 'losses"),
        ({"backbone": "tinny"}, "train: field 'backbone': .*unknown backbone 'tinny'; did you mean 'tiny'"),
    ],
)
def test_what_no_package_offers_is_refused_with_the_way_out(check, example, values, line):
    with pytest.raises(InputError, match=line) as told:
        check("train", {**TRAIN, **values})
    assert "\n" not in str(told.value)


def test_a_loss_that_is_not_installed_is_refused_with_the_names_that_are(check):
    with pytest.raises(
        InputError, match=r"train: field 'losses': unknown loss 'centre'; .*; a package offers one as an entry point"
    ):
        check("train", {**TRAIN, "losses": ["centre"]})


def test_an_address_among_the_fields_of_a_loss_must_lie_where_jobs_may_read(check, here):
    weights = f"weights/{'a' * 64}.safetensors"
    stored = check("train", {**TRAIN, "losses": ["sake"], "sake_teacher": weights})
    assert stored["sake_teacher"] == str(here / weights)
    with pytest.raises(InputError, match=r"train: field 'sake_teacher': .*outside"):
        check("train", {**TRAIN, "losses": ["sake"], "sake_teacher": f"../elsewhere/{weights}"})


def test_a_loss_without_an_address_that_it_cannot_work_without_is_refused(check):
    with pytest.raises(InputError, match=r"train: field 'sake_teacher': no sake_teacher given: pass --sake-teacher, address of"):
        check("train", {**TRAIN, "losses": ["sake"]})


def test_the_fields_of_every_loss_are_described_and_one_that_cannot_be_imported_spoils_nothing(example, tmp_path):
    points = {
        "centre": "zsbir_example.centre:Centre",
        "broken": "zsbir_example.nothing:Here",
        "decay": "zsbir_example.recent:Recent",
    }
    install(tmp_path / "packages", points={"zsbir.losses": points})
    for kind in ("train", "sweep"):
        said = describe_kinds()["kinds"][kind]["properties"]
        assert said["centre_power"]["description"] == "power of the distance to the centre (where losses names centre)"
        assert {"weight_centre", "weight_supcon", "supcon_temperature"} <= set(said)
        assert not {"weight_broken", "recent_share"} & set(said)
    assert "centre_power" in describe_kinds()["kinds"]["pipeline"]["properties"]["train"]["properties"]


# --- as data


def test_every_kind_is_described_by_a_valid_schema_that_is_json():
    said = json.loads(json.dumps(describe_kinds()))
    assert list(said["kinds"]) == [kind for kind in KINDS if kind in (*SCHEMAS, "pipeline")]
    for schema in said["kinds"].values():
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
        assert schema["additionalProperties"] is False
    assert set(said["recipes"]) == set(said["about_recipes"]) == set(RECIPES)
    assert all(said["about_recipes"].values())


@pytest.mark.parametrize(
    ("kind", "config"),
    [("train", {"dataset": "x", "lr": -1}), ("pretrain", {"epohcs": 1}), ("evaluate", {}), ("pipeline", {"x": {}})],
)
def test_the_schema_refuses_what_the_service_refuses(kind, config):
    with pytest.raises(ValidationError):
        Draft202012Validator(describe_kinds()["kinds"][kind]).validate(config)


def test_every_field_is_told_in_words():
    for kind in SINGLE:
        for name, field in describe_kinds()["kinds"][kind]["properties"].items():
            assert field.get("description"), f"{kind}: {name}"


@pytest.mark.parametrize("kind", sorted(set(SINGLE) - {COMMAND}))
def test_every_flag_of_a_command_can_be_submitted_but_those_that_the_service_decides(kind):
    """Its own help says which it has. Several seeds of a training are several jobs, an array."""
    module = importlib.import_module("tuning.__main__" if kind == "sweep" else MODULES[kind])
    with pytest.raises(HelpAsked) as asked:
        module._parse(["--help"])
    flags = {flag.replace("-", "_") for flag in re.findall(r"^  --([a-z0-9-]+)", str(asked.value), re.MULTILINE)}
    fields = set(describe_kinds()["kinds"][kind]["properties"]) - set(fields_of(offered()))  # which have flags once they are named
    assert {REPEATED.get(field, field).replace("-", "_") for field in fields - set(POSITIONAL.get(kind, ()))} <= flags
    assert flags - fields - {flag.replace("-", "_") for flag in REPEATED.values()} <= NOT_SUBMITTED | {"config", "start_from"} | (
        {"seeds", "side_by_side"} if kind == "train" else set()
    )
    assert not (NOT_SUBMITTED - {"recipe"}) & fields
    assert "recipe" not in SCHEMAS[kind].fields()
