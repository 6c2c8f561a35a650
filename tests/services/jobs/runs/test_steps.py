"""Kinds of jobs as commands: what a user gave is what the command itself reads, whatever it looks like."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.jobs.queue.states import KINDS
from services.jobs.runs.steps import (
    PIPELINE,
    PIPELINE_INPUTS,
    SINGLE,
    Step,
    StepInput,
    computes_in_one_process,
    resources_of,
    steps_of,
)
from zsbir.base.errors import InputError

ROOT = "/a root/--of, 'jobs'"
WORKS = {
    "ingest": ("zsbir.ingest", "ingest", ("config", "path", "settings")),
    "pretrain": ("zsbir.pretrain", "pretrain", ("config", "settings")),
    "teacher": ("zsbir.teacher", "teach", ("dataset", "config", "settings")),
    "train": ("zsbir.train", "train", ("config", "uris", "settings")),
    "evaluate": ("zsbir.evaluate", "evaluate", ("run", "config", "settings", "on")),
    "index": ("zsbir.index", "build_index", ("run", "config", "settings")),
    "sweep": ("tuning.__main__", "sweep", ("request",)),
}
"""Of each kind: where its command line is read, and what is called then, with what."""

NASTY = [
    "-x", "--help", "-", "--root=/elsewhere", "-5", "=", "a=b", "a b", " a ", "a\nb", "a,b", ",", "'", '"', "\\", "$(x)", "`x`",
    "%s", "@file", "é", "\u2028", "{}", "None", "no", "a\tb",
]  # fmt: skip
TEXT = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(lambda text: text != "--")
"""What the service takes for text: no NUL, and no half of a surrogate pair."""

quick = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def heard(monkeypatch):
    """What a kind's command is asked to do, as one mapping of fields, when it gets the arguments of a step."""

    def hear(kind, values, made=None):
        module_name, function, names = WORKS[kind]
        module = importlib.import_module(module_name)
        said = {}

        def work(*args):
            said.update(_flat(dict(zip(names, args, strict=True))))
            return SimpleNamespace(uri="made", address=lambda name: name)

        monkeypatch.setattr(module, function, work)
        module._parse(Step(kind, values).argv(made or {}, ROOT))
        return said

    return hear


def _flat(parts):
    flat = {}
    for name, part in parts.items():
        if name == "request":
            flat |= _flat({"base": part.base, "uris": part.uris, "config": part.config, "where": part.where, "set": part.settings})
        else:
            flat |= part.model_dump() if hasattr(part, "model_dump") else {name: part}
    return flat


@quick
@given(text=TEXT)
def test_text_reaches_the_command_as_it_was_given(heard, text):
    for kind, values in (
        ("train", {"experiment": text, "dataset": text, "knowledge": text, "weights": text, "recipe": "toy"}),
        ("sweep", {"experiment": text, "space": text, "dataset": text, "recipe": "toy"}),
        ("evaluate", {"run": "uri", "experiment": text, "protocol": text}),
        ("index", {"run": "uri", "gallery": text, "split": text}),
        ("teacher", {"dataset": "uri", "weights": text, "weights_sha256": text}),
        ("ingest", {"layout": "lists", "path": "folder", "lists_dir": text}),
    ):
        said = heard(kind, values)
        assert said.items() >= values.items()
        assert said["root"] == ROOT


@pytest.mark.parametrize("text", NASTY)
def test_text_that_looks_like_something_else_reaches_the_command_too(heard, text):
    assert heard("evaluate", {"run": text, "experiment": text}).items() >= {"run": text, "experiment": text}.items()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later ones may pass it on")
def test_the_one_text_that_argparse_drops_is_refused(heard):
    """Python 3.11's takes every argument that is nothing but two dashes away, also behind a flag's equals sign."""
    with pytest.raises(InputError, match="field 'experiment'"):
        heard("evaluate", {"run": "uri", "experiment": "--"})


@quick
@given(text=TEXT)
def test_text_without_a_flag_reaches_the_command_as_it_was_given(heard, text):
    for kind, field, values in (
        ("evaluate", "run", {}),
        ("index", "run", {}),
        ("teacher", "dataset", {}),
        ("ingest", "path", {"layout": "folder"}),
    ):
        said = heard(kind, {**values, field: text})
        assert said[field] == text
        assert said["root"] == ROOT


@quick
@given(
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(min_value=0),
    ratio=st.floats(0, 1),
    dev=st.booleans(),
    tracking=st.booleans(),
)
def test_numbers_and_yes_or_no_reach_the_command_exactly(heard, lr, seed, ratio, dev, tracking):
    values = {"lr": lr, "seed": seed, "warmup_frac": ratio, "train_on_dev": dev, "tracking": tracking}
    assert heard("train", {**values, "recipe": "toy"}).items() >= values.items()


@pytest.mark.parametrize("names", [(), ("cat",), ("-x", "--help", "a b", "it's", 'a"b', "é"), ("toys/split.json",)])
def test_a_list_of_names_reaches_the_command_as_that_list(heard, names):
    said = heard("ingest", {"layout": "folder", "path": "x", "unseen_classes": list(names)})
    assert said["unseen_classes"] == names


def test_a_field_that_is_none_is_left_to_the_command(heard):
    said = heard("train", {"lr_preserver": None, "recipe": "toy"})
    assert said["lr_preserver"] is None
    assert not [word for word in Step("train", {"lr_preserver": None}).argv({}, ROOT) if "preserver" in word]


def test_a_field_that_is_not_given_is_the_recipes(heard):
    assert heard("train", {"recipe": "toy"})["image_px"] == 64
    assert heard("train", {"recipe": "toy", "image_px": 32})["image_px"] == 32


def test_no_value_of_a_user_is_the_root():
    argv = Step("evaluate", {"run": "--root=/elsewhere", "experiment": "--root=/elsewhere"}).argv({}, ROOT)
    assert [word for word in argv[: argv.index("--")] if word.startswith("--root")] == [f"--root={ROOT}"]
    assert argv[argv.index("--") :] == ["--", "--root=/elsewhere"]


def test_an_input_goes_where_the_users_own_value_would(heard):
    assert heard("evaluate", {"protocol": "dev"}, made={"run": "--uri"}).items() >= {"run": "--uri", "protocol": "dev"}.items()
    assert heard("train", {"recipe": "toy"}, made={"dataset": "a b"})["dataset"] == "a b"


# --- pipelines


def named(config):
    return {step.name: step for step in steps_of("pipeline", config)}


WHOLE = {step: {} for step in PIPELINE} | {"train": {"recipe": "toy"}, "sweep": {"recipe": "toy"}}


@pytest.mark.parametrize("kind", SINGLE)
def test_a_single_kind_is_one_step_without_inputs(kind):
    assert steps_of(kind, {"seed": 1}) == [Step(kind, {"seed": 1})]
    assert {*SINGLE, "pipeline"} <= set(KINDS)


def test_a_pipelines_steps_come_in_its_order_whatever_the_order_of_its_sections():
    assert [step.name for step in steps_of("pipeline", dict(reversed(WHOLE.items())))] == list(PIPELINE)


def test_each_steps_inputs_are_results_of_earlier_steps():
    for step in steps_of("pipeline", WHOLE):
        assert dict(step.inputs) == dict(PIPELINE_INPUTS.get(step.name, {}))
        assert all(PIPELINE.index(source.step) < PIPELINE.index(step.name) for source in step.inputs.values())


def test_a_field_that_the_user_sets_is_not_an_input():
    steps = named({**WHOLE, "train": {"recipe": "toy", "dataset": "mine"}})
    assert "dataset" not in steps["train"].inputs
    assert steps["train"].values["dataset"] == "mine"


def test_a_step_that_is_not_there_gives_no_input():
    steps = named({"ingest": {}, "train": {"recipe": "toy"}})
    assert dict(steps["train"].inputs) == {"dataset": StepInput("ingest")}
    assert steps["train"].values == {"recipe": "toy"}


def test_after_a_sweep_its_best_configuration_says_all_that_the_user_does_not(heard, tmp_path):
    step = named({"sweep": {"recipe": "toy"}, "train": {"recipe": "toy", "lr": 0.5}})["train"]
    assert step.inputs["config"] == StepInput("sweep", "best.yaml")
    best = tmp_path / "best.yaml"
    best.write_text("recipe: caltech_qd60_r18\nlr: 0.25\nimage_px: 48\n")
    said = heard("train", step.values, made={"config": str(best)})
    assert (said["recipe"], said["lr"], said["image_px"]) == ("caltech_qd60_r18", 0.5, 48)


@pytest.mark.parametrize(("asked", "told"), [({}, 1), ({"at_once": 0}, 1), ({"at_once": 3}, 3)])
def test_a_sweep_trains_as_many_at_once_as_its_job_holds_room_for(asked, told):
    config = {"dataset": "d", "recipe": "toy", "cpus_per_worker": 2, **asked}
    (step,) = steps_of("sweep", config)
    assert f"--at-once={told}" in step.argv({}, "root")
    assert resources_of("sweep", config).cpus == 2 * told


def test_steps_survive_an_attempts_specification():
    for step in steps_of("pipeline", WHOLE):
        assert Step.from_json(step.as_json()) == step


# --- what a job holds


@pytest.mark.parametrize(
    ("kind", "config", "needs"),
    [
        ("evaluate", {}, (1, 0, 0)),
        ("train", {"num_workers": 0, "cpus_per_worker": 2, "gpus_per_worker": 1}, (2, 1, 0)),
        ("train", {"num_workers": 4, "cpus_per_worker": 2, "gpus_per_worker": 1}, (8, 4, 4)),
        ("train", {"num_workers": None, "cpus_per_worker": None}, (1, 0, 0)),
        ("sweep", {"num_workers": 2, "gpus_per_worker": 1, "at_once": 3}, (6, 6, 2)),
        ("sweep", {"at_once": 0}, (1, 0, 0)),
        ("pipeline", {"ingest": {"num_workers": 8}, "train": {"num_workers": 2, "gpus_per_worker": 1}, "index": {}}, (8, 2, 8)),
    ],
)
def test_a_job_holds_what_its_largest_step_takes(kind, config, needs):
    found = resources_of(kind, config)
    assert (found.cpus, found.gpus, found.workers) == needs


@pytest.mark.parametrize(
    ("kind", "config", "alone"),
    [
        ("evaluate", {}, True),
        ("train", {"num_workers": 0, "gpus_per_worker": 1}, True),
        ("train", {"num_workers": 2}, False),
        ("teacher", {"num_workers": 1}, False),
        ("sweep", {}, False),
        ("pipeline", {"ingest": {}, "train": {}, "index": {}}, True),
        ("pipeline", {"ingest": {"num_workers": 2}, "train": {}}, False),
        ("pipeline", {"train": {}, "sweep": {}}, False),
    ],
)
def test_who_takes_a_jobs_resources_its_own_process_or_what_it_drives(kind, config, alone):
    assert computes_in_one_process(kind, config) == alone


def test_a_promotion_gets_each_number_also_zero():
    values = {"report": "/r", "index": "/i", "max_loss": 0.0, "seed_spread": 0, "min_recall": 0.0, "margin": 0.01}
    argv = Step("promote", {**values, "force": False, "reason": ""}).argv({}, ROOT)
    assert {"--max-loss=0.0", "--seed-spread=0", "--min-recall=0.0", "--margin=0.01", "--index=/i"} <= set(argv)
    assert not [word for word in argv if word.startswith(("--force", "--no-force", "--reason"))]


def test_a_promotion_is_told_where_the_galleries_that_it_reads_have_to_lie():
    """The champion is looked up by the command itself: whatever its index names by then is checked there."""
    values = {"report": "/r", "index": "/i", "gallery": "champion", "num_workers": 2}
    argv = Step("promote", values).argv({}, ROOT, ["/photos", "s3://bucket/photos"])
    assert [word for word in argv if "places" in word] == [f"--places={ROOT}", "--places=/photos", "--places=s3://bucket/photos"]
    assert {"--gallery=champion", "--num-workers=2"} <= set(argv)
    assert not [word for word in Step("index", {"run": "/r"}).argv({}, ROOT, ["/photos"]) if "places" in word]
