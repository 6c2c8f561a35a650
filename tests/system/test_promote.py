"""Promotion against a real MLflow: every way it can come out, each left in the registry as it should be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from promotable import SPREAD, Made, configure
from safetensors.torch import load_file
from servers.mlflow_server import mlflow_server

from zsbir import artifacts, evaluate, index, promote
from zsbir.base.artifact import Artifact, exists
from zsbir.base.draft import draft
from zsbir.base.errors import InputError, RunError
from zsbir.base.storage import open_folder
from zsbir.data.images import eval_image
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.edge.pyfunc import log_model
from zsbir.edge.tracking import RUN_TAG, prepare_store
from zsbir.model.encoder import Encoder
from zsbir.promotion_run import promoting

pytestmark = pytest.mark.slow

MODEL = "zsbir"


@pytest.fixture(scope="module")
def prepared(module_path: Path, fair: Made, good: Made, bad: Made) -> Path:
    """A root whose registry has `fair` as champion, promoted by the verb. The trainings of the two others were tracked there."""
    store = f"sqlite:///{module_path / 'mlflow.db'}"
    prepare_store(store, "zsbir")
    for made in (good, bad):
        tracked = MlflowClient(store).create_run("1", tags={RUN_TAG: Path(made.run).name}).info.run_id
        example = (Path(__file__).parents[2] / "docs/pictures/sketch.png").read_bytes()
        log_model(store, tracked, Artifact(made.run).file("encoder.safetensors"), example)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert promote._parse([fair.report, "--index", fair.index, *SPREAD, "--root", str(module_path)]) == f"models:/{MODEL}/1"
    return module_path


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    """A registry of its own with a champion: the database is copied, the files that it names are shared."""
    shutil.copy(prepared / "mlflow.db", tmp_path / "mlflow.db")
    return tmp_path


def do(made: Made, root: Path, *more: str) -> str:
    return promote._parse([made.report, "--index", made.index, *SPREAD, "--root", str(root), *more])


def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}", f"sqlite:///{root / 'mlflow.db'}")


def aliases(root: Path) -> dict[str, str]:
    return {name: str(version) for name, version in client(root).get_registered_model(MODEL).aliases.items()}


def tags(root: Path, version: str) -> dict[str, str]:
    return dict(client(root).get_model_version(MODEL, version).tags)


def everything(root: Path) -> str:
    """All that the registry says, and all files below the root but the database."""
    store = client(root)
    versions = [vars(version) for version in store.search_model_versions()]
    models = [vars(model) for model in store.search_registered_models()]
    runs = [run.to_dictionary() for run in store.search_runs(["0", "1"])]
    files = sorted(str(path) for path in root.rglob("*") if path.suffix != ".lock")
    return json.dumps([versions, models, runs, files], default=str, sort_keys=True)


def scores(made: Made) -> float:
    return float(Artifact(made.report).manifest.facts["trained"])


def test_the_models_of_these_tests_differ_as_they_should(bad, fair, good):
    frozen = Artifact(fair.report).manifest.facts["frozen"]
    assert scores(bad) < frozen < scores(fair) - 0.1 < scores(good) - 0.3
    assert scores(good) < 1


def test_the_first_champion_beats_its_own_frozen_backbone_and_is_recorded(prepared, fair):
    assert aliases(prepared) == {"champion": "1"}
    found = tags(prepared, "1")
    assert found["zsbir.gate"] == "passed"
    assert found["zsbir.report"] == fair.report
    assert found["zsbir.index"] == fair.index
    assert found["zsbir.run"] == "toy-fair"
    assert found["zsbir.protocol"] == "zero_shot v1"
    assert found["zsbir.dataset_digest"] == Artifact(fair.report).manifest.inputs["dataset"]["digest"]
    assert found["zsbir.previous"] == ""
    assert found["zsbir.promoted_utc"]
    numbers = json.loads(found["zsbir.gate_numbers"])
    assert numbers["opponent"] == "its own frozen backbone"
    assert numbers["challenger_mean"] == pytest.approx(scores(fair))
    assert 0 < numbers["low"] < numbers["difference"] < numbers["high"]
    assert json.loads(found["zsbir.recall"])["recall_at_10"] == 1
    version = client(prepared).get_model_version(MODEL, "1")
    assert version.description.startswith(f"# {MODEL}\n"), "MLflow's page would show front matter as text"
    files = {file.path for file in client(prepared).list_artifacts(version.run_id, "promotion")}
    assert "promotion/README.md" in files
    assert len(files) == 2
    mlflow.set_tracking_uri(f"sqlite:///{prepared / 'mlflow.db'}")
    readme = mlflow.artifacts.load_text(f"runs:/{version.run_id}/promotion/README.md")
    assert yaml.safe_load(readme.split("---\n")[1])["model-index"][0]["name"] == MODEL


def test_a_first_model_that_is_not_better_than_its_backbone_is_refused(bad, tmp_path):
    with pytest.raises(RunError, match=r"refused: map_all .* of its own frozen backbone, .*not above the margin 0"):
        do(bad, tmp_path)
    assert aliases(tmp_path) == {"challenger": "1"}


def test_a_truly_better_model_takes_the_place(root, good, capsys):
    assert do(good, root) == f"models:/{MODEL}/2"
    assert aliases(root) == {"champion": "2"}
    assert tags(root, "2")["zsbir.previous"] == "1"
    assert json.loads(tags(root, "2")["zsbir.gate_numbers"])["opponent"] == "the champion (version 1)"
    assert f"models:/{MODEL}/2 is champion now, in place of models:/{MODEL}/1" in capsys.readouterr().err


def test_an_equal_model_is_refused_with_its_numbers(root, make, fair):
    equal = make("equal", 0.55)
    with pytest.raises(
        RunError, match=r"gain \+0.0000, 95 % interval -0.0277 to \+0.0277 over 7 classes.*as challenger; .*--force --reason"
    ):
        do(equal, root)
    assert aliases(root) == {"champion": "1", "challenger": "2"}
    assert tags(root, "2")["zsbir.gate"] == "refused"
    assert json.loads(tags(root, "2")["zsbir.gate_numbers"])["difference"] == 0


def test_a_worse_model_is_refused_and_its_command_fails_with_one_line(root, bad):
    words = [sys.executable, "-m", "zsbir.promote", bad.report, "--index", bad.index, *SPREAD, "--root", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line[:15] for line in done.stderr.splitlines() if line.startswith("error")] == ["error: refused:"]
    assert aliases(root) == {"champion": "1", "challenger": "2"}
    assert json.loads(tags(root, "2")["zsbir.gate_numbers"])["high"] < 0


def test_one_training_a_side_stays_undecided_until_there_are_more_seeds(root, good, make, capsys):
    """Nobody has recorded how far seeds of these trainings spread; three of them show it."""
    words = [good.report, "--index", good.index, "--root", str(root)]
    with pytest.raises(RunError, match=r"^would be undecided: .* \(zero_shot v1; 1 seed against 1; spread of seeds not known\)"):
        promote._parse([*words, "--dry-run"])
    with pytest.raises(
        RunError, match=r"^undecided: .* is recorded as challenger; train more seeds by the commands above, or pass"
    ):
        promote._parse(words)
    told = capsys.readouterr().err
    assert f"--seed 1 --root {root}" in told
    assert f'python -m zsbir.promote {good.report} "$REPORT_1" "$REPORT_2" --index {good.index} --root {root}' in told
    assert aliases(root) == {"champion": "1", "challenger": "2"}
    assert tags(root, "2")["zsbir.gate"] == "undecided"
    assert json.loads(tags(root, "2")["zsbir.gate_numbers"])["spread"] is None

    seeds = [make(f"good-{seed}", 0.75, seed).report for seed in (1, 2)]
    assert promote._parse([good.report, *seeds, *words[1:]]) == f"models:/{MODEL}/2"
    found = tags(root, "2")
    assert (found["zsbir.gate"], found["zsbir.seeds"]) == ("passed", "3")
    assert [found[f"zsbir.report_{number}"] for number in (2, 3)] == seeds
    assert json.loads(found["zsbir.gate_numbers"])["spread"]["source"] == "estimated from these seeds"


def test_the_next_challenger_is_compared_with_all_seeds_of_the_champion(root, good, make):
    seeds = [make(f"good-{seed}", 0.75, seed).report for seed in (1, 2)]
    promote._parse([good.report, *seeds, "--index", good.index, "--root", str(root)])
    better = make("better", 0.9)
    with pytest.raises(RunError, match=r"1 seed against 3; standard deviation over seeds .* estimated from these seeds"):
        promote._parse([better.report, "--index", better.index, "--margin", "0.9", "--root", str(root)])
    words = [better.report, "--index", better.index, "--margin", "0.9", "--champion-report", good.report, "--root", str(root)]
    with pytest.raises(RunError, match=r"1 seed against 1; standard deviation over seeds .* as estimated for version 2\)"):
        promote._parse(words)


def test_a_margin_may_be_asked_for(root, good):
    with pytest.raises(RunError, match=r"not above the margin 0\.9"):
        do(good, root, "--margin", "0.9")
    assert do(good, root) == f"models:/{MODEL}/2", "the same version, asked again for less"
    assert aliases(root) == {"champion": "2"}


def test_another_protocol_is_not_compared_until_the_champion_has_that_report_too(root, good, fair, pipeline_root):
    def dedup(run: str) -> str:
        options = ["--protocol", "zero_shot_dedup", "--no-tracking", "--grid-rows", "1", "--root", str(pipeline_root)]
        return evaluate._parse([run, *options])

    other, before = Made(good.run, dedup(good.run), good.index), everything(root)
    with pytest.raises(InputError, match=r"evaluate .*toy-fair --protocol zero_shot_dedup and pass .* as --champion-report"):
        do(other, root)
    with pytest.raises(InputError, match=r"is a report of .*toy-good, not of the champion"):
        do(other, root, "--champion-report", other.report)
    assert everything(root) == before
    assert do(other, root, "--champion-report", dedup(fair.run)) == f"models:/{MODEL}/2"
    assert tags(root, "2")["zsbir.protocol"] == "zero_shot_dedup v1"


def test_a_missing_index_or_one_of_another_run_is_bad_input(root, good, fair):
    before = everything(root)
    with pytest.raises(InputError, match="no index given: pass --index URI"):
        promote._parse([good.report, "--root", str(root)])
    with pytest.raises(InputError, match="no index at"):
        do(Made(good.run, good.report, f"{good.index}0"), root)
    with pytest.raises(InputError, match=r"made by .*toy-fair, not by .*toy-good: pass as --index what .* prints"):
        do(Made(good.run, good.report, fair.index), root)
    with pytest.raises(InputError, match="is an index, not a report"):
        do(Made(good.run, good.index, good.report), root)
    assert everything(root) == before


def forged(made: Made, folder: Path, *, vectors: np.ndarray | None = None, encoder: str = "") -> Made:
    """The same index with other contents, and a manifest that agrees with them."""
    old = Artifact(made.index, "index")
    with draft(folder / "indexes/toy/forged", "index", "toy") as work:
        for name in old.manifest.files:
            shutil.copy(old.file(name), work.file(name))
        if vectors is not None:
            np.save(work.file("vectors.npy"), vectors)
        if encoder:
            shutil.copy(Artifact(encoder).file("encoder.safetensors"), work.file("encoder.safetensors"))
        uri = work.commit(digest="f" * 64, inputs=old.manifest.inputs, counts=old.manifest.counts).uri
    configure(uri, old.manifest.config)
    return Made(made.run, made.report, uri)


@pytest.mark.parametrize("damage", ["shuffled", "constant", "noise"])
def test_an_index_that_searches_wrongly_is_refused_whatever_its_manifest_says(root, good, tmp_path, damage):
    vectors = np.load(Artifact(good.index).file("vectors.npy"))
    wrong = {
        "shuffled": np.roll(vectors, 6, axis=0),
        "constant": np.repeat(vectors[:1], len(vectors), axis=0),
        "noise": np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32),
    }[damage]
    broken = forged(good, tmp_path / "other", vectors=wrong)
    with pytest.raises(RunError, match=r"the index failed its recall check: \d+ of 42 photos find themselves .*first lost: "):
        do(broken, root, "--force", "--reason", "it looks fine")
    assert aliases(root) == {"champion": "1", "challenger": "2"}
    assert json.loads(tags(root, "2")["zsbir.recall"])["photos_found_frac"] < 0.5


def test_an_index_whose_files_do_not_belong_together_is_bad_input(root, good, bad, tmp_path):
    vectors = np.load(Artifact(good.index).file("vectors.npy"))
    for number, changes in enumerate(({"vectors": vectors[1:]}, {"vectors": vectors[:, 1:]}, {"vectors": vectors * np.nan})):
        with pytest.raises(InputError, match="make the index again"):
            do(forged(good, tmp_path / str(number), **changes), root)
    with pytest.raises(InputError, match="but holds another encoder"):
        do(forged(good, tmp_path / "encoder", encoder=bad.run), root)


def test_an_index_of_a_folder_is_tried_with_the_folder_s_photos(root, good, dataset, tmp_path):
    """Duplicates among them may find each other; a photo that changed, or is gone, is lost."""
    opened = Artifact(dataset, "dataset")
    samples, images = load_samples(opened), Images(opened, load_samples(opened))
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    for number, position in enumerate(samples.select(split="unseen", domain="photo")[:12]):
        (photos / f"{number}.jpg").write_bytes(images.read(int(position)))
        (photos / "below" / f"{number}.jpg").write_bytes(images.read(int(position)))
    made = index._parse([good.run, "--gallery", str(photos), "--precision", "fp32", "--root", str(tmp_path / "other")])
    theirs = Made(good.run, good.report, made)
    assert "would be promoted (passed)" in do(theirs, root, "--dry-run")
    (photos / "3.jpg").write_bytes((photos / "11.jpg").read_bytes())
    (photos / "below" / "5.jpg").unlink()
    with pytest.raises(RunError, match=r"22 of 24 photos find themselves in the index \(first lost: 3.jpg\)"):
        do(theirs, root, "--dry-run")


def test_a_dry_run_says_what_would_happen_and_changes_nothing(root, good, bad, tmp_path_factory):
    before = everything(root)
    assert do(good, root, "--dry-run").startswith("would be promoted (passed): ")
    assert "(forced)" in do(bad, root, "--dry-run", "--force", "--reason", "only looking")
    with pytest.raises(RunError, match="would be refused: map_all"):
        do(bad, root, "--dry-run")
    assert everything(root) == before
    empty = tmp_path_factory.mktemp("empty")
    assert "as its first champion" in do(good, empty, "--dry-run")
    assert not list(empty.iterdir()), "asking must not make an empty database"


def test_force_needs_a_reason_and_is_recorded_with_it(root, bad):
    for words in (["--force"], ["--force", "--reason", " \n\t"]):
        with pytest.raises(InputError, match="--force needs --reason"):
            do(bad, root, *words)
    with pytest.raises(InputError, match="give it with --force"):
        do(bad, root, "--reason", "because")
    with pytest.raises(InputError, match="at most 500"):
        do(bad, root, "--force", "--reason", "x" * 501)
    hostile = "the old one\nleaks `names`; DROP TABLE versions; -- \x1b[31m ../../etc %2e%2e '\" <b>"
    assert do(bad, root, "--force", "--reason", hostile) == f"models:/{MODEL}/2"
    found = tags(root, "2")
    assert found["zsbir.gate"] == "forced"
    assert found["zsbir.force_reason"] == "the old one leaks `names`; DROP TABLE versions; -- [31m ../../etc %2e%2e '\" <b>"
    assert json.loads(found["zsbir.gate_numbers"])["passed"] is False
    assert aliases(root) == {"champion": "2"}


def test_what_cannot_be_compared_can_be_forced_and_says_so(root, good, pipeline_root):
    options = ["--protocol", "zero_shot_dedup", "--no-tracking", "--grid-rows", "1", "--root", str(pipeline_root)]
    other = Made(good.run, evaluate._parse([good.run, *options]), good.index)
    do(other, root, "--force", "--reason", "a new protocol")
    assert tags(root, "2")["zsbir.gate_numbers"] == "{}"
    assert tags(root, "2")["zsbir.gate_reason"].startswith("not compared with the champion (version 1): the challenger's report")


def test_the_champion_promoted_again_changes_nothing(root, fair, capsys):
    before = everything(root)
    assert do(fair, root) == f"models:/{MODEL}/1"
    assert do(fair, root, "--dry-run") == f"models:/{MODEL}/1"
    assert "is champion already, with this index: nothing was changed" in capsys.readouterr().err
    assert everything(root) == before


def test_the_champion_can_be_given_another_index(root, fair, pipeline_root, tmp_path):
    other = index._parse([fair.run, "--split", "dev", "--precision", "fp32", "--root", str(pipeline_root)])
    new = Made(fair.run, fair.report, other)
    assert "would be given a new index" in do(new, root, "--dry-run")
    assert tags(root, "1")["zsbir.index"] == fair.index
    assert do(new, root) == f"models:/{MODEL}/1"
    assert tags(root, "1")["zsbir.index"] == other
    vectors = np.roll(np.load(Artifact(fair.index).file("vectors.npy")), 6, axis=0)
    with pytest.raises(RunError, match="the new index failed its recall check"):
        do(forged(fair, tmp_path / "other", vectors=vectors), root)
    assert tags(root, "1")["zsbir.index"] == other


def test_rollback_goes_back_one_champion_at_a_time(root, good, bad):
    do(bad, root, "--force", "--reason", "a try")
    do(good, root)
    assert aliases(root)["champion"] == "3"
    back = ["rollback", MODEL, "--root", str(root)]
    with pytest.raises(InputError, match="a rollback needs --reason"):
        promote._parse(back)
    assert promote._parse([*back, "--reason", "misses bicycles"]) == f"models:/{MODEL}/2"
    found = tags(root, "3")
    assert (found["zsbir.rollback_reason"], found["zsbir.rolled_back_to"]) == ("misses bicycles", "2")
    assert promote._parse([*back, "--reason", "worse"]) == f"models:/{MODEL}/1"
    assert aliases(root) == {"champion": "1"}
    with pytest.raises(RunError, match="version 1 of zsbir has no champion before it"):
        promote._parse([*back, "--reason", "further"])
    assert do(good, root) == f"models:/{MODEL}/3", "what was rolled back may be promoted again"
    assert not [name for name in tags(root, "3") if "rolled" in name or "rollback" in name]
    assert promote._parse([*back, "--reason", "again"]) == f"models:/{MODEL}/1"


def test_rollback_passes_over_versions_that_were_deleted(root, good, bad, capsys):
    do(bad, root, "--force", "--reason", "a try")
    do(good, root)
    client(root).delete_model_version(MODEL, "2")
    assert promote._parse(["rollback", MODEL, "--reason", "x", "--root", str(root)]) == f"models:/{MODEL}/1"
    assert "version 2 of zsbir was champion before, but was deleted" in capsys.readouterr().err


def test_a_champion_made_by_hand_is_replaced_only_with_a_report_of_it(root, good, fair):
    store = client(root)
    by_hand = store.create_model_version(MODEL, "file:///nowhere", store.get_model_version(MODEL, "1").run_id)
    store.set_registered_model_alias(MODEL, "champion", by_hand.version)
    with pytest.raises(InputError, match=r"the report of .*/2 is not at any known place.*--champion-report"):
        do(good, root)
    assert do(good, root, "--champion-report", fair.report) == f"models:/{MODEL}/3"
    assert promote._parse(["rollback", MODEL, "--reason", "x", "--root", str(root)]) == f"models:/{MODEL}/2"


@pytest.mark.parametrize(
    "name", ["../../etc", "zsbir' OR 1=1 --", "zsbir/1", "zsbir\n", "%2e%2e", "", "Search", ".zsbir", "z" * 64]
)
def test_no_other_name_reaches_the_registry_or_the_disk(name, root):
    before = everything(root)
    with pytest.raises(InputError, match="cannot be the name of a registered model"):
        promote._parse(["rollback", name, "--reason", "x", "--root", str(root)])
    with pytest.raises(InputError, match="cannot be the name of a registered model"):
        promote._parse(["list", name, "--root", str(root)])
    with pytest.raises(InputError, match="model"):
        promote._parse(["a report", "--model", name, "--root", str(root)])
    assert everything(root) == before


def test_a_model_without_versions_has_nothing_to_roll_back(root, tmp_path_factory):
    with pytest.raises(RunError, match="zsbir-resnet50-512 has no champion to roll back"):
        promote._parse(["rollback", "zsbir-resnet50-512", "--reason", "x", "--root", str(root)])
    empty = tmp_path_factory.mktemp("empty")
    assert promote._parse(["list", "--root", str(empty)]) == ""
    assert not list(empty.iterdir())


def test_the_list_shows_every_version_with_what_the_gate_said(root, good, bad):
    with pytest.raises(RunError):
        do(bad, root)
    do(good, root)
    head, *lines = promote._parse(["list", "--root", str(root)]).splitlines()
    assert head.split()[:8] == ["version", "aliases", "run", "data", "metric", "gain", "gate", "index"]
    assert [line.split()[:3] for line in lines] == [
        [f"models:/{MODEL}/1", "-", "toy-fair"],
        [f"models:/{MODEL}/2", "challenger", "toy-bad"],
        [f"models:/{MODEL}/3", "champion", "toy-good"],
    ]
    rows = [json.loads(line) for line in promote._parse(["list", MODEL, "--json", "--root", str(root)]).splitlines()]
    assert [row["gate"] for row in rows] == ["passed", "refused", "passed"]
    assert rows[2]["metric"] == f"map_all {scores(good):.4f}"
    digest = Artifact(good.report).manifest.inputs["dataset"]["digest"]
    assert (rows[2]["index"], rows[2]["data"]) == (good.index, f"toy {digest}")
    assert f"toy {digest[:8]} " in lines[2]
    assert f" toy/{Path(good.index).name} " in lines[2]


TOGETHER = """
import sys, time
from pathlib import Path
from zsbir import promote
from zsbir.base import cli
from zsbir.promotion_run import promoting
tried = promoting.check_index
def wait_for_the_other(*words):
    # Both have read the champion by now: neither goes on before the other is here too.
    found = tried(*words)
    Path(sys.argv[1], sys.argv[2]).touch()
    while len(list(Path(sys.argv[1]).iterdir())) < 2:
        time.sleep(0.01)
    return found
promoting.check_index = wait_for_the_other
cli.main(promote._parse, sys.argv[3:])
"""


def test_of_two_promotions_at_once_one_wins(root, good, make, tmp_path):
    rivals, meeting = [good, make("rival", 0.75, 1)], tmp_path / "meeting"
    meeting.mkdir()
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                TOGETHER,
                str(meeting),
                str(n),
                made.report,
                "--index",
                made.index,
                *SPREAD,
                "--root",
                str(root),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for n, made in enumerate(rivals)
    ]
    ends = [(*process.communicate(timeout=180), process.returncode) for process in processes]
    assert sorted(code for _, _, code in ends) == [0, 1], ends
    (winner,) = [out.strip() for out, _, code in ends if code == 0]
    (told,) = [err for _, err, code in ends if code == 1]
    assert winner == f"models:/{MODEL}/{aliases(root)['champion']}"
    assert "another process is working on" in told or f"version {winner[-1]} of {MODEL} became champion meanwhile" in told
    versions = client(root).search_model_versions(f"name = '{MODEL}'")
    assert len([version for version in versions if dict(version.tags).get("zsbir.promoted_utc")]) == 2, "the first, and one more"


def test_who_compared_with_a_champion_that_is_no_more_changes_nothing(root, good, bad, monkeypatch):
    tried = promoting.check_index

    def meanwhile(*words):
        monkeypatch.setattr(promoting, "check_index", tried)
        do(bad, root, "--force", "--reason", "quicker")
        return tried(*words)

    monkeypatch.setattr(promoting, "check_index", meanwhile)
    with pytest.raises(RunError, match=r"version 2 of zsbir became champion meanwhile, and nothing was changed"):
        do(good, root)
    assert aliases(root) == {"champion": "2"}
    assert do(good, root) == f"models:/{MODEL}/3", "the same command again compares with the new champion"


def test_the_champion_loads_without_pickle_and_is_the_run_s_encoder(prepared, fair, dataset, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{prepared / 'mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    opened = Artifact(dataset, "dataset")
    images = Images(opened, load_samples(opened))
    data = [images.read(position) for position in range(5)]
    encoder = Encoder.load(Artifact(fair.run).file("encoder.safetensors")).eval()
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(np.stack([eval_image(item, encoder.image_px) for item in data])))[0].numpy()
    assert np.abs(model.predict(pd.DataFrame({"image": data})) - expected).max() <= 1e-4


def test_a_model_that_training_logged_is_registered_and_one_that_was_not_is_logged_first(root, prepared, good, fair):
    store = client(root)
    (logged,) = [model for model in logged_models(store) if run_name(store, model.source_run_id) == "toy-good"]
    do(good, root)
    assert len(logged_models(store)) == 3
    assert store.get_model_version(MODEL, "2").source == logged.model_uri
    assert run_name(store, store.get_model_version(MODEL, "2").run_id) == "toy-good"
    assert run_name(store, store.get_model_version(MODEL, "1").run_id) == "toy-fair", "was not tracked"


def logged_models(store: MlflowClient) -> list:
    return list(store.search_logged_models(["1"]))


def run_name(store: MlflowClient, run_id: str) -> str:
    return store.get_run(run_id).data.tags[RUN_TAG]


def test_a_logged_model_with_other_weights_is_not_what_is_registered(root, good, bad):
    """The same command trained again elsewhere, say: the run's name is the same, its encoder is not."""
    store = client(root)
    (logged,) = [model for model in logged_models(store) if run_name(store, model.source_run_id) == "toy-good"]
    store.set_tag(logged.source_run_id, RUN_TAG, "toy-bad")
    old = store.search_runs(["1"], "tags.`zsbir.run` = 'toy-bad'")
    for run in old:
        if run.info.run_id != logged.source_run_id:
            store.set_tag(run.info.run_id, RUN_TAG, "elsewhere")
    do(bad, root, "--force", "--reason", "a try")
    version = store.get_model_version(MODEL, "2")
    assert version.run_id == logged.source_run_id
    assert version.source != logged.model_uri
    weights = load_file(Path(mlflow.artifacts.download_artifacts(version.source), "artifacts/encoder.safetensors"))
    assert torch.equal(weights["embedding.weight"], load_file(Artifact(bad.run).file("encoder.safetensors"))["embedding.weight"])


def test_gc_keeps_what_versions_name_and_refuses_to_guess(root, fair, pipeline_root, tmp_path):
    """A copy of the champion's line in another root: the tags name the first root's addresses, and the same things are meant."""
    other = tmp_path / "copy"
    for uri in (fair.report, fair.index):
        artifacts._parse(["copy", uri, str(other)])
    shutil.copy(root / "mlflow.db", other / "mlflow.db")
    spare = index._parse([fair.run, "--name", "spare", "--precision", "fp32", "--root", str(other)])
    gone = artifacts._parse(
        ["gc", "--unnamed", "report,index,run", "--older-than", "0", "--delete", "--json", "--root", str(other)]
    )
    assert [json.loads(line)["uri"] for line in gone.splitlines()] == [spare]
    assert exists(other / "indexes/toy" / Path(fair.index).name)
    assert exists(other / "reports" / Path(fair.report).name)


def test_a_registry_that_does_not_answer_is_an_error_and_changes_nothing(good, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RunError, match=r"the model registry of MLflow at http://127\.0\.0\.1:9 does not answer"):
        do(good, tmp_path)


def test_over_a_server_with_everything_in_object_storage(fair, good, s3_root, tmp_path, monkeypatch):
    copies = [
        Made(*(artifacts._parse(["copy", uri, s3_root]) for uri in (made.run, made.report, made.index))) for made in (fair, good)
    ]
    (tmp_path / "server").mkdir()
    with mlflow_server(f"sqlite:///{tmp_path / 'registry.db'}", tmp_path / "server") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        for number, made in enumerate(copies, start=1):
            words = [made.report, "--index", made.index, *SPREAD, "--root", s3_root]
            assert promote._parse(words) == f"models:/{MODEL}/{number}"
        assert promote._parse(["rollback", MODEL, "--reason", "too good", "--root", s3_root]) == f"models:/{MODEL}/1"
        found = MlflowClient(address).get_model_version_by_alias(MODEL, "champion")
        assert (str(found.version), found.tags["zsbir.report"]) == ("1", copies[0].report)
    assert not [entry.key for entry in open_folder(s3_root).walk() if ".lease" in entry.key]
