"""A collection of pictures that grows: another ingest, training, evaluation and promotion, by the real verbs and a real MLflow."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from promotable import SPREAD, Made

from zsbir import artifacts, evaluate, index, ingest, promote
from zsbir.base.artifact import Artifact
from zsbir.base.config import digest_of
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluation.embed import embed, features_of
from zsbir.evaluation_run import several
from zsbir.model.encoder import Encoder

pytestmark = pytest.mark.slow

MODEL = "zsbir"


@pytest.fixture(scope="module")
def root(module_path: Path) -> Path:
    return module_path / "root"


@pytest.fixture(scope="module")
def unseen(dataset: str) -> tuple[str, ...]:
    samples = load_samples(Artifact(dataset))
    return tuple(samples.class_names[number] for number in samples.classes("unseen"))


@pytest.fixture(scope="module")
def pictures(dataset: str, module_path: Path) -> Path:
    """The toy data as somebody's own folder of pictures."""
    opened = Artifact(dataset, "dataset")
    samples = load_samples(opened)
    images = Images(opened, samples)
    for position in range(len(samples)):
        domain = "photo" if samples.domain[position] == 0 else "sketch"
        file = module_path / "pictures" / domain / samples.class_names[samples.class_id[position]] / f"{position}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(images.read(position))
    return module_path / "pictures"


def ingested(folder: Path, root: Path, unseen: tuple[str, ...], *more: str) -> str:
    return ingest._parse(
        ["folder", str(folder), "--name", "mine", "--unseen-classes", ",".join(unseen), "--root", str(root), *more]
    )


@pytest.fixture(scope="module")
def first(pictures: Path, root: Path, unseen: tuple[str, ...]) -> str:
    """The collection as the champion saw it."""
    return ingested(pictures, root, unseen)


@pytest.fixture(scope="module")
def grown(pictures: Path, root: Path, unseen: tuple[str, ...], first: str, module_path: Path) -> str:
    """One photo fewer, of an unseen class, and one corrupt file more."""
    later = shutil.copytree(pictures, module_path / "later")
    next((later / "photo" / unseen[0]).iterdir()).unlink()
    (later / "photo" / unseen[1] / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return ingested(later, root, unseen)


@pytest.fixture(scope="module")
def trained(run: str, root: Path) -> Callable[..., Made]:
    """A function that makes a run on a data set with an encoder of some worth, its report and its index, by the real verbs.

    The encoder is the trained run's, with a linear layer that is partly fitted to the very classes it is asked for. That is
    cheating, and costs no training. share: how much of the layer is that fit, the rest is random.
    """
    base, made = Artifact(run, "run"), {}
    (root / "weights").mkdir(parents=True, exist_ok=True)
    shutil.copy(base.input_file("weights"), root / "weights")

    def make(name: str, data: str, share: float, seed: int = 0) -> Made:
        if name not in made:
            opened = Artifact(data, "dataset")
            with draft(root / "runs" / f"toy-{name}", "run", "toy") as work:
                fitted(Encoder.load(base.file("encoder.safetensors")).eval(), opened, share, seed).save(
                    work.file("encoder.safetensors")
                )
                inputs = {**base.manifest.inputs, "dataset": opened.reference()}
                uri = work.commit(digest=digest_of(name), inputs=inputs, counts=base.manifest.counts).uri
            file = Path(uri, "manifest.json")
            file.write_text(json.dumps({**json.loads(file.read_text()), "config": {**base.manifest.config, "seed": seed}}))
            options = ["--root", str(root), "--precision", "fp32"]
            report = evaluate._parse([uri, "--no-tracking", "--grid-rows", "1", *options])
            made[name] = Made(uri, report, index._parse([uri, *options]))
        return made[name]

    return make


def fitted(encoder: Encoder, dataset: Artifact, share: float, seed: int) -> Encoder:
    samples = load_samples(dataset)
    places = samples.select(split="unseen")
    images = Images(dataset, samples)
    features = embed(features_of(encoder), images, places, image_px=encoder.image_px, device=torch.device("cpu"))
    targets = np.eye(encoder.embedding_dim)[np.unique(samples.class_id[places], return_inverse=True)[1]]
    fit = np.linalg.lstsq(features.astype(np.float64), targets, rcond=1e-6)[0].T
    noise = np.random.default_rng(seed).normal(size=fit.shape)
    layer = share * fit / np.linalg.norm(fit) + (1 - share) * noise / np.linalg.norm(noise)
    with torch.no_grad():
        encoder.embedding.weight.copy_(torch.from_numpy(layer.astype(np.float32)))
    return encoder


@pytest.fixture(scope="module")
def champion(trained: Callable[..., Made], first: str) -> Made:
    return trained("champion", first, 0.55)


@pytest.fixture(scope="module")
def prepared(module_path: Path, champion: Made, root: Path) -> Path:
    """A registry whose champion was trained on the collection as it was first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        words = [champion.report, "--index", champion.index, *SPREAD, "--root", str(root)]
        assert promote._parse(words) == f"models:/{MODEL}/1"
    return root / "mlflow.db"


@pytest.fixture
def registry(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A copy of that registry; the files that it names are shared."""
    address = f"sqlite:///{shutil.copy(prepared, tmp_path / 'mlflow.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return MlflowClient(address, address)


def do(made: Made, root: Path, *more: str) -> str:
    return promote._parse([made.report, "--index", made.index, *SPREAD, "--root", str(root), *more])


def test_a_better_model_of_one_photo_fewer_and_one_corrupt_file_more_is_promoted_without_force(
    registry, root, trained, grown, first, champion, capsys
):
    assert Artifact(grown).digest != Artifact(first).digest
    assert Artifact(grown).manifest.counts["quarantined"] == 1
    challenger = trained("better", grown, 0.8)
    capsys.readouterr()
    assert do(challenger, root) == f"models:/{MODEL}/2"
    told = capsys.readouterr().err
    assert "both are measured on what neither has seen of each data set" in told
    assert "7 unseen classes, 42 sketches against 41 photos; left out: nothing" in told
    assert "7 unseen classes, 42 sketches against 42 photos; left out: nothing" in told
    assert "2 evaluations to make: 334 images to embed; the reports are kept" in told, "each model's own report is there"
    assert "not worse there by 0.03 or more" in told
    numbers = json.loads(registry.get_model_version(MODEL, "2").tags["zsbir.gate_numbers"])
    assert numbers["dataset_digest"] == Artifact(grown).digest
    assert numbers["on_champion_data"]["dataset_digest"] == Artifact(first).digest
    assert numbers["on_champion_data"]["verdict"] == numbers["verdict"] == "passed"
    assert numbers["challenger_mean"] == pytest.approx(Artifact(challenger.report).manifest.facts["trained"])
    assert numbers["on_champion_data"]["opponent_mean"] == pytest.approx(Artifact(champion.report).manifest.facts["trained"])

    reports = set((root / "reports").iterdir())
    assert promote._parse(["rollback", "--reason", "again", "--root", str(root)]) == f"models:/{MODEL}/1"
    assert do(challenger, root) == f"models:/{MODEL}/2"
    assert "to make" not in capsys.readouterr().err, "the evaluations are found again"
    assert set((root / "reports").iterdir()) == reports


def test_an_equal_and_a_worse_model_of_more_data_are_refused(registry, root, trained, grown, capsys, monkeypatch):
    monkeypatch.setattr(several, "TIMED_FROM", 1)
    for name, share in (("equal", 0.55), ("worse", 0.2)):
        with pytest.raises(
            RunError, match=r"refused: on the challenger's data \(mine .* not above the margin 0; on the champion's"
        ):
            do(trained(name, grown, share), root)
    assert re.search(r"evaluations? to make: \d+ images to embed, about \d+ (s|min); the reports are kept", capsys.readouterr().err)
    assert dict(registry.get_registered_model(MODEL).aliases)["champion"] in (1, "1")


def test_all_seeds_of_both_sides_are_measured_on_both_sets(registry, root, trained, grown, capsys):
    seeds = [trained(f"seed-{seed}", grown, 0.8, seed) for seed in (1, 2)]
    words = [trained("better", grown, 0.8).report, *(made.report for made in seeds)]
    assert promote._parse([*words, "--index", trained("better", grown, 0.8).index, "--root", str(root)]) == f"models:/{MODEL}/2"
    numbers = json.loads(registry.get_model_version(MODEL, "2").tags["zsbir.gate_numbers"])
    assert (numbers["seeds"], numbers["opponent_seeds"]) == (3, 1)
    assert numbers["on_champion_data"]["seeds"] == 3
    assert numbers["on_champion_data"]["spread"]["source"] == "estimated from these seeds"


def test_a_split_that_was_drawn_anew_leaves_too_few_classes_and_the_way_out_works(
    registry, root, trained, pictures, unseen, grown, champion, capsys
):
    """All that was unseen is trained on now, but one class: nothing is left to compare by."""
    seen = [name for name in sorted(path.name for path in (pictures / "photo").iterdir()) if name not in unseen]
    other = ingested(pictures, root, (unseen[0], *seen[:6]))
    with pytest.raises(RunError, match=r"undecided: too few classes are left that neither model has seen: 1 on .*, 1 on ") as told:
        do(trained("other", other, 0.8), root)
    assert f"--unseen-classes {','.join(unseen)}) and train again, or promote it with --force --reason" in str(told.value)
    assert "to make" not in capsys.readouterr().err
    assert registry.get_model_version(MODEL, "2").tags["zsbir.gate"] == "undecided"
    rows = [json.loads(line) for line in promote._parse(["list", "--json", "--root", str(root)]).splitlines()]
    assert [(row["gain"], row["gate"]) for row in rows[1:]] == [("-", "undecided")]


def test_a_run_is_measured_on_another_data_set_without_what_it_and_another_run_have_seen(
    root, trained, first, pictures, unseen, champion, capsys
):
    seen = sorted(path.name for path in (pictures / "photo").iterdir() if path.name not in unseen)
    other = ingested(pictures, root, (*unseen[:4], *seen[:3]))
    second = trained("half", other, 0.8)
    options = ["--no-tracking", "--grid-rows", "1", "--precision", "fp32", "--root", str(root)]
    capsys.readouterr()
    report = Artifact(evaluate._parse([champion.run, "--dataset", other, *options]), "report")
    assert report.manifest.facts["left_out"]["classes"] == seen[:3]
    assert report.manifest.counts == {"queries": 24, "gallery": 24}
    assert [value["digest"] for value in report.manifest.inputs["seen"]] == [Artifact(first).digest]
    assert f"left out as seen in training: 3 classes ({', '.join(seen[:3])}) with 18 sketches" in capsys.readouterr().err
    assert "left out as seen in training: 3 classes" in artifacts._parse(["show", report.uri])
    assert f"seen.0: dataset mine {Artifact(first).digest[:12]}" in artifacts._parse(["show", report.uri])
    with pytest.raises(InputError, match="on another data set than its own, or on a part of it"):
        promote._parse([report.uri, "--index", champion.index, "--root", str(root), "--dry-run"])

    fair = Artifact(evaluate._parse([champion.run, "--dataset", other, "--unseen-to", second.run, *options]), "report")
    back = Artifact(evaluate._parse([second.run, "--unseen-to", champion.run, *options]), "report")
    assert fair.digest != report.digest
    for one in (fair, back):
        assert sorted(value["digest"] for value in one.manifest.inputs["seen"]) == sorted(
            Artifact(uri).digest for uri in (first, other)
        )
        assert one.manifest.counts == {"queries": 24, "gallery": 24}
    assert evaluate._parse([champion.run, "--dataset", first, *options]) == champion.report, "its own data set is no other"


def test_a_run_of_the_same_data_changes_nothing_of_a_report(root, trained, first, champion):
    words = [champion.run, "--unseen-to", champion.run, "--no-tracking", "--grid-rows", "1", "--precision", "fp32"]
    assert evaluate._parse([*words, "--root", str(root)]) == champion.report


def test_what_was_left_out_is_logged_beside_the_run_s_own_numbers(root, trained, first, grown, champion, tmp_path, monkeypatch):
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    options = ["--grid-rows", "1", "--precision", "fp32", "--root", str(root)]
    evaluate._parse([champion.run, *options])
    report = Artifact(evaluate._parse([champion.run, "--dataset", grown, *options]), "report")
    (run,) = MlflowClient(address).search_runs(["1"])
    prefix = f"unseen_on_mine_{report.digest[:8]}"
    assert run.data.metrics["unseen/map_all"] == pytest.approx(Artifact(champion.report).manifest.facts["trained"])
    assert run.data.metrics[f"{prefix}/map_all"] == pytest.approx(report.manifest.facts["trained"])
    assert {"report", f"report_{report.digest[:8]}"} <= {
        file.path for file in MlflowClient(address).list_artifacts(run.info.run_id)
    }


def test_a_champion_s_data_set_that_is_gone_is_one_line_with_the_way_out(registry, root, trained, grown, first, tmp_path):
    challenger = trained("better", grown, 0.8)
    hidden = shutil.move(first, tmp_path / "hidden")
    try:
        with pytest.raises(InputError, match=r"^the dataset that .* was made from is gone: .* or promote with --force --reason"):
            do(challenger, root)
        assert do(challenger, root, "--force", "--reason", "its data are gone") == f"models:/{MODEL}/2"
    finally:
        shutil.move(hidden, first)
