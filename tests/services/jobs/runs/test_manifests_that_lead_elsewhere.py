"""A job reads what an artifact's manifest names, with the rights of the service: that must be allowed as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.jobs.runs.validation import check_config
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.base.files import sha256_file

TRAIN = {"recipe": "toy"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "private").mkdir()
    return tmp_path / "root"


def made(uri: Path, kind: str, **inputs: object) -> str:
    """An artifact whose manifest names these inputs."""
    with draft(str(uri), kind, uri.name) as work:
        work.file("x").write_bytes(b"x")
        return work.commit(digest=f"{kind}-{uri.name}", inputs=inputs).uri


def named(uri: object, digest: str = "") -> dict[str, str]:
    return {"uri": str(uri), "digest": digest}


def weights(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "part"
    file.write_bytes(b"weights")
    return file.rename(folder / f"{sha256_file(file)}.safetensors")


@pytest.mark.parametrize("role", ["dataset", "weights"])
@pytest.mark.parametrize("kind", ["evaluate", "index"])
def test_a_run_whose_manifest_leads_outside_is_refused(root, kind, role):
    outside = root.parent / "private"
    inputs = {
        "dataset": named(made(root / "datasets/toy/0123", "dataset"), "dataset-0123"),
        "weights": named(weights(root / "weights")),
    }
    good = made(root / "runs/good", "run", **inputs)
    allowed = AllowedPaths([str(root)])
    assert check_config(kind, {"run": good}, allowed)["run"] == good
    target = made(outside / "datasets/toy/4567", "dataset") if role == "dataset" else outside / "id_rsa"
    bad = made(root / "runs/bad", "run", **{**inputs, role: named(target, "dataset-4567")})
    with pytest.raises(InputError, match=f"the {role} that its manifest names.*outside of what this service reads"):
        check_config(kind, {"run": bad}, allowed)


def test_a_copy_in_the_artifacts_own_root_is_what_will_be_read(root):
    outside = root.parent / "private"
    was = made(outside / "datasets/toy/0123", "dataset")
    inputs = {"dataset": named(was, "dataset-0123"), "weights": named(outside / weights(root / "weights").relative_to(root))}
    run = made(root / "runs/copied", "run", **inputs)
    with pytest.raises(InputError, match="the dataset that its manifest names"):
        check_config("evaluate", {"run": run}, AllowedPaths([str(root)]))
    made(root / "datasets/toy/0123", "dataset")
    assert check_config("evaluate", {"run": run}, AllowedPaths([str(root)]))["run"] == run
    other = made(root / "runs/other", "run", **{**inputs, "dataset": named(was, "another-digest")})
    with pytest.raises(InputError, match="the dataset that its manifest names"):
        check_config("evaluate", {"run": other}, AllowedPaths([str(root)]))


@pytest.mark.parametrize("address", ["{private}/secret", "/etc/passwd", "s3://other/weights"])
def test_a_teachers_weights_are_checked_too(root, monkeypatch, address):
    monkeypatch.chdir(root)
    dataset = made(root / "datasets/toy/0123", "dataset")
    uri = address.format(private=root.parent / "private")
    knowledge = made(root / "knowledge/0123/4567", "knowledge", weights=named(uri))
    with pytest.raises(InputError, match=r"outside of what this service reads|not a plain address|leads out|'..'"):
        check_config("train", {**TRAIN, "dataset": dataset, "knowledge": knowledge}, AllowedPaths([str(root)]))


@pytest.mark.parametrize("name", ["list.txt", "LIST.TXT", "list.json", "sub/list", "~/list", "./list"])
def test_a_bare_name_that_a_command_takes_for_a_file_is_checked(root, monkeypatch, name):
    """A command runs where it is started: a file there is not in the allowed paths."""
    monkeypatch.chdir(root.parent / "private")
    config = {"layout": "toy", "unseen_classes": [name]}
    with pytest.raises(InputError, match=r"unseen_classes.*outside"):
        check_config("ingest", config, AllowedPaths([str(root)]))
    assert check_config("ingest", {**config, "unseen_classes": ["cup"]}, AllowedPaths([str(root)]))["unseen_classes"] == ["cup"]


def test_a_space_is_a_name_of_the_product_or_an_allowed_file(root, monkeypatch):
    monkeypatch.chdir(root.parent / "private")
    config = {**TRAIN, "dataset": made(root / "datasets/toy/0123", "dataset"), "trials": 1, "weight_preservation": 0}
    with pytest.raises(InputError, match=r"space.*outside"):
        check_config("sweep", {**config, "space": "space"}, AllowedPaths([str(root)]))
    assert check_config("sweep", {**config, "space": "losses"}, AllowedPaths([str(root)]))["space"] == "losses"


@pytest.mark.parametrize("file", ["operator.token", "logs/api.log", ".", "sub/../operator.token"])
@pytest.mark.parametrize("service", ["root/service", "root/other/service"])
def test_a_services_own_folder_is_never_read(root, file, service):
    folder = root.parent / service
    (folder / "logs").mkdir(parents=True)
    for name in ("keeper.lock", "operator.token", "logs/api.log"):
        (folder / name).touch()
    allowed = AllowedPaths([str(root)])
    with pytest.raises(InputError, match="lies in the folder of a service, which is private"):
        allowed.check("ingest: path", str(folder / file))
    (root / "link").symlink_to(folder)
    with pytest.raises(InputError, match="private"):
        allowed.check("ingest: path", str(root / "link" / file))
    (root / "plain" / "service").mkdir(parents=True)
    assert allowed.check("ingest: path", str(root / "plain" / "service")), "a folder of that name may hold pictures"


def test_a_manifest_that_is_no_manifest_leads_nowhere(root):
    run = made(root / "runs/odd", "run")
    file = Path(run) / "manifest.json"
    for odd in ({"dataset": "text"}, {"dataset": {"uri": 5}}, {"weights": ["x"]}, {}):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "inputs": odd}))
        assert check_config("evaluate", {"run": run}, AllowedPaths([str(root)]))["run"] == run
