"""A registered model as the input of a job: checked at submission, resolved once, and never outside of what jobs may read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from services.jobs.runs.attempt_dir import attempt_dir_of
from services.jobs.runs.model_inputs import check_models, has_models, pin_models
from services.jobs.runs.runner import Attempt
from services.jobs.runs.steps import Step, steps_of
from services.jobs.runs.validation import check_config
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.artifact import Artifact
from zsbir.base.draft import draft, remove
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import open_folder

CHAMPION = "models:/zsbir@champion"


@pytest.fixture
def root(mlflow_database_file: Path, tmp_path: Path) -> Path:
    """A root whose registry has two versions; the first is champion."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(mlflow_database_file, root / "mlflow.db")
    client(root).create_registered_model("zsbir")
    for name in ("a", "b"):
        register(root, made(root / "runs" / name))
    crown(root, "1")
    return root


def made(uri: Path, **inputs: object) -> Artifact:
    """A run that names these inputs."""
    with draft(str(uri), "run", "toy") as work:
        work.file("encoder.safetensors").write_bytes(uri.name.encode())
        return work.commit(digest=uri.name * 8, inputs=inputs)


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}", f"sqlite:///{root / 'mlflow.db'}")


def register(root: Path, run: Artifact, **changes: str) -> None:
    sha256 = run.manifest.files["encoder.safetensors"].sha256
    tags = {"run_uri": run.uri, "run_digest": run.digest, "encoder_sha256": sha256, **changes}
    client(root).create_model_version("zsbir", "file:///nowhere", tags={f"zsbir.{name}": text for name, text in tags.items()})


def crown(root: Path, version: str) -> None:
    client(root).set_registered_model_alias("zsbir", "champion", version)


def allowed(root: Path, *more: str) -> AllowedPaths:
    return AllowedPaths([str(root), *more])


def pinned(root: Path, *steps: Step, memo: str = "jobs/steps/1", places: tuple[str, ...] = ()):
    return pin_models(steps, root=str(root), memo=str(root / memo), allowed=allowed(root, *places))


@pytest.mark.parametrize("kind", ["evaluate", "index"])
def test_a_registered_model_stays_in_the_configuration_as_it_is(root, kind):
    config = check_config(kind, {"run": CHAMPION}, allowed(root))
    assert config == {"run": CHAMPION}
    check_models(kind, config, str(root), allowed(root))
    assert has_models(kind, config)
    assert not has_models(kind, {"run": "/some/runs/a"})


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        ("evaluate", {"run": "models:/zsbir"}, "is not the address of a registered model: write models:/NAME@champion"),
        ("evaluate", {"run": "models:/zsbir/3"}, "has no version 3"),
        ("evaluate", {"run": "models:/other@champion"}, "no model is registered as 'other'; there are zsbir"),
        ("index", {"run": "models:/zsbir@newest"}, "has no alias 'newest'"),
    ],
)
def test_a_model_that_is_not_there_is_refused_when_the_job_is_submitted(root, kind, config, told):
    with pytest.raises(InputError, match=told):
        check_models(kind, check_config(kind, config, allowed(root)), str(root), allowed(root))


@pytest.mark.parametrize("field", ["dataset", "gallery", "path"])
def test_a_field_of_another_kind_takes_no_registered_model(root, field, monkeypatch):
    monkeypatch.chdir(root)
    config = {
        "dataset": ("train", {"dataset": CHAMPION}),
        "gallery": ("index", {"run": CHAMPION, "gallery": CHAMPION}),
        "path": ("ingest", {"layout": "folder", "path": CHAMPION}),
    }[field]
    try:
        stored = check_config(*config, allowed(root))
    except InputError:
        return
    assert stored[field] == str(root / CHAMPION), "a path below an allowed folder, and nothing else"


def test_an_alias_that_moves_changes_nothing_for_later_attempts_and_steps(root):
    first, (found,) = pinned(root, Step("evaluate", {"run": CHAMPION, "protocol": "zero_shot"}))
    assert first[0].values == {"run": str(root / "runs/a"), "protocol": "zero_shot"}
    assert (found.asked, found.version, found.digest) == (CHAMPION, "models:/zsbir/1", "a" * 8)
    crown(root, "2")
    again, _ = pinned(root, Step("evaluate", {"run": CHAMPION}), Step("index", {"run": CHAMPION}))
    assert [step.values["run"] for step in again] == [str(root / "runs/a")] * 2
    other, _ = pinned(root, Step("evaluate", {"run": CHAMPION}), memo="jobs/steps/2")
    assert other[0].values["run"] == str(root / "runs/b"), "another job, which starts now"


def test_of_two_attempts_that_resolve_at_the_same_time_one_counts(root, monkeypatch):
    """The second finds what the first has recorded meanwhile."""
    from services.jobs.runs import model_inputs

    real = model_inputs._resolved

    def late(*words):
        found = real(*words)
        crown(root, "2")
        monkeypatch.setattr(model_inputs, "_resolved", real)
        steps, _ = pinned(root, Step("evaluate", {"run": CHAMPION}))
        assert steps[0].values["run"] == str(root / "runs/b")
        return found

    monkeypatch.setattr(model_inputs, "_resolved", late)
    steps, _ = pinned(root, Step("evaluate", {"run": CHAMPION}))
    assert steps[0].values["run"] == str(root / "runs/b")


def test_what_a_tag_names_must_be_allowed(root, tmp_path):
    outside = made(tmp_path / "private/runs/c")
    register(root, outside)
    with pytest.raises(InputError, match=r"evaluate: run: '.*private/runs/c' is outside of what this service reads"):
        check_models("evaluate", {"run": "models:/zsbir/3"}, str(root), allowed(root))
    with pytest.raises(InputError, match="outside of what this service reads"):
        pinned(root, Step("evaluate", {"run": "models:/zsbir/3"}))
    assert open_folder(str(root / "jobs/steps/1")).names() == []
    steps, _ = pinned(root, Step("evaluate", {"run": "models:/zsbir/3"}), places=(str(tmp_path / "private"),))
    assert steps[0].values["run"] == outside.uri


def test_a_link_out_of_the_root_is_followed_no_further(root, tmp_path):
    outside = made(tmp_path / "private/runs/c")
    (root / "runs/c").symlink_to(outside.uri)
    register(root, outside, run_uri=str(root / "runs/c"))
    with pytest.raises(InputError, match="outside of what this service reads"):
        check_models("evaluate", {"run": "models:/zsbir/3"}, str(root), allowed(root))


def test_what_the_run_of_a_model_leads_to_must_be_allowed_too(root, tmp_path):
    with draft(str(tmp_path / "private/datasets/toy/1"), "dataset", "toy") as work:
        dataset = work.commit(digest="d" * 8)
    register(root, made(root / "runs/c", dataset=dataset.reference()))
    with pytest.raises(InputError, match="the dataset that its manifest names"):
        check_models("evaluate", {"run": "models:/zsbir/3"}, str(root), allowed(root))


def test_a_run_that_has_changed_since_the_job_started_is_not_used(root):
    pinned(root, Step("evaluate", {"run": CHAMPION}))
    remove(root / "runs/a")
    with pytest.raises(InputError, match="no run at"):
        pinned(root, Step("evaluate", {"run": CHAMPION}))
    shutil.copytree(root / "runs/b", root / "runs/a")
    with pytest.raises(InputError, match=r"is another run than when the job started .*submit the job again"):
        pinned(root, Step("evaluate", {"run": CHAMPION}))


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"asked": NaN}', b"\xff"])
def test_a_damaged_record_is_an_error_with_the_way_out(root, damage):
    pinned(root, Step("evaluate", {"run": CHAMPION}))
    (record,) = (root / "jobs/steps/1").glob("model-run-*.json")
    record.write_bytes(damage)
    with pytest.raises(InputError, match=r"model-run-.*json is damaged: remove it"):
        pinned(root, Step("evaluate", {"run": CHAMPION}))


def attempt(root: Path, number: int) -> Attempt:
    folder = attempt_dir_of(str(root), f"zsbir-test-1-a{number}")
    steps = [step.as_json() for step in steps_of("evaluate", {"run": CHAMPION})]
    spec = {"job": 1, "root": str(root), "places": [], "memo": str(root / "jobs/steps/zsbir-test-1"), "env": {}, "steps": steps}
    folder.write_spec(spec)
    return Attempt(folder)


def test_an_attempt_records_what_its_models_stand_for(root):
    first = attempt(root, 1)
    assert first._resolve_models() is None
    crown(root, "2")
    second = attempt(root, 2)
    assert second._resolve_models() is None
    assert first.steps[0].values == second.steps[0].values == {"run": str(root / "runs/a")}
    sentence = f"{CHAMPION} is models:/zsbir/1: run {root / 'runs/a'} (digest aaaaaaaa)"
    assert second.attempt_dir.models() == {f"run {CHAMPION}": sentence}
    assert sentence in second.log.tail()


def test_a_model_that_is_gone_ends_the_job_and_a_registry_that_is_away_only_the_attempt(root, monkeypatch):
    client(root).delete_registered_model_alias("zsbir", "champion")
    end = attempt(root, 1)._resolve_models()
    assert end.cause == "user_error"
    assert "has no alias 'champion'" in end.message
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    end = attempt(root, 2)._resolve_models()
    assert end.cause == "unreachable"
    assert "does not answer" in end.message
    with pytest.raises(RunError, match="does not answer"):
        check_models("evaluate", {"run": CHAMPION}, str(root), allowed(root))


def test_an_attempt_without_registered_models_asks_nobody(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    steps, found = pinned(root, Step("evaluate", {"run": str(root / "runs/a")}))
    assert (steps[0].values, found) == ({"run": str(root / "runs/a")}, [])
    assert json.dumps(steps[0].as_json())


def test_the_models_of_a_list_are_checked_kept_to_allowed_places_and_recorded_too(root, tmp_path):
    config = {"run": str(root / "runs/b"), "unseen_to": [CHAMPION, str(root / "runs/b")]}
    assert has_models("evaluate", config)
    check_models("evaluate", config, str(root), allowed(root))
    (step,), _ = pinned(root, *steps_of("evaluate", config))
    assert step.values["unseen_to"] == [str(root / "runs/a"), str(root / "runs/b")]
    with pytest.raises(InputError, match="nothere"):
        check_models("evaluate", {**config, "unseen_to": ["models:/nothere@champion"]}, str(root), allowed(root))
    with pytest.raises(InputError, match="outside of what this service reads"):
        check_models("evaluate", config, str(root), allowed(tmp_path / "elsewhere"))
