"""A job that cannot work is refused when it is submitted, by the commands' own checks and with the field's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.jobs.runs.validation import check_config
from zsbir import evaluate, train
from zsbir.base.allowed_paths import AllowedPaths
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.recipes import recipe

CLASSES = ("cat", "cow", "dog", "hen", "owl", "pig", "rat", "yak")


@pytest.fixture
def photos(tmp_path):
    """A folder of eight classes, with nothing in them: their names are all that is looked at."""
    for name in CLASSES:
        for domain in ("photo", "sketch"):
            (tmp_path / "photos" / domain / name).mkdir(parents=True)
    return str(tmp_path / "photos")


@pytest.fixture
def made(tmp_path):
    """A function that makes an artifact with nothing in it but what its manifest says."""

    def make(kind, name, **fields):
        with draft(str(tmp_path / name), kind, name) as work:
            work.file("x").write_bytes(b"x")
            return work.commit(digest=name.ljust(64, "0"), **fields).uri

    return make


@pytest.fixture
def check(tmp_path, pipeline_root, weights):
    allowed = AllowedPaths([str(tmp_path), str(pipeline_root), str(Path(weights).parent)])
    return lambda kind, config: check_config(kind, config, allowed)


COUNTS = {"train_classes": 8, "dev_classes": 2, "unseen_classes": 0, "unseen_photos": 0, "unseen_sketches": 0}


def refused(check, kind, config):
    with pytest.raises(InputError) as told:
        check(kind, config)
    assert "\n" not in str(told.value)
    return str(told.value)


# --- a pipeline over a folder of one's own


def test_a_pipeline_without_an_unseen_class_is_refused(check, photos):
    line = refused(check, "pipeline", {"recipe": "toy", "ingest": {"layout": "folder", "path": photos}})
    assert line.startswith("ingest: no class is unseen (train 6, dev 2, unseen 0): name some with --unseen-classes")


def test_a_pipeline_whose_batches_need_more_classes_than_will_be_trained_on_is_refused(check, photos):
    ingest = {"layout": "folder", "path": photos, "unseen_frac": 0.25}
    line = refused(check, "pipeline", {"ingest": ingest, "teacher": {}, "train": {"classes_per_batch": 12}})
    assert line == (
        "train: field 'classes_per_batch': classes_per_batch is 12, the training split has 4 classes; choose a number from 2 to 4"
    )
    check("pipeline", {"ingest": ingest, "teacher": {}, "train": {"classes_per_batch": 4}})
    check("pipeline", {"ingest": ingest, "teacher": {}, "train": {"classes_per_batch": 6, "train_on_dev": True}})


def test_a_pipeline_that_is_to_score_dev_classes_has_some(check, photos):
    ingest = {"layout": "folder", "path": photos, "unseen_frac": 0.25, "dev_frac": 0.0}
    line = refused(
        check, "pipeline", {"ingest": ingest, "train": {"classes_per_batch": 4}, "teacher": {}, "evaluate": {"protocol": "dev"}}
    )
    assert line == "evaluate: field 'protocol': protocol dev v1 needs the split 'dev', and the data set has no sketch in it"


def test_the_toy_pipeline_is_judged_by_the_classes_that_will_be_drawn(check):
    line = refused(check, "pipeline", {"recipe": "toy", "train": {"classes_per_batch": 99}})
    assert "the training split has 19 classes" in line


def test_what_a_sweep_will_find_best_is_not_judged(check):
    check("pipeline", {"recipe": "toy", "sweep": {"trials": 2}, "train": {}})


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("none", "ingest: field 'path': no folder at"),
        ("empty", "ingest: field 'path': the folder .* is empty"),
        ("odd", "ingest: no photo folder in .*: layout 'folder' expects photo or photos or images"),
    ],
)
def test_a_folder_is_there_and_looks_like_its_layout(check, tmp_path, path, line):
    import re

    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "pictures").mkdir(parents=True)
    assert re.match(line, refused(check, "ingest", {"layout": "folder", "path": str(tmp_path / path), "unseen_frac": 0.2}))


def test_a_prefix_in_object_storage_has_something_below_it_and_is_not_listed_whole(s3_root):
    from zsbir.base.storage import open_folder

    allowed = AllowedPaths([s3_root])
    config = {"layout": "folder", "path": f"{s3_root}/photos"}
    with pytest.raises(InputError, match="ingest: field 'path': there is nothing below"):
        check_config("ingest", config, allowed)
    open_folder(f"{s3_root}/photos").create("photo/cat/1.jpg", b"x")
    check_config("ingest", config, allowed)


# --- artifacts


def test_a_training_is_judged_by_its_data_set_and_its_knowledge(check, made):
    dataset, other = made("dataset", "d", counts=COUNTS), made("dataset", "e", counts=COUNTS)
    knowledge = made("knowledge", "k", inputs={"dataset": {"uri": other, "digest": "e".ljust(64, "0")}})
    good = {"recipe": "toy", "dataset": dataset, "classes_per_batch": 8, "weight_preservation": 0}
    check("train", good)
    assert "field 'classes_per_batch': classes_per_batch is 9" in refused(check, "train", {**good, "classes_per_batch": 9})
    check("train", {**good, "classes_per_batch": 10, "train_on_dev": True})
    line = refused(check, "train", {**good, "knowledge": knowledge})
    assert line.startswith("train: field 'knowledge': ")
    assert "is knowledge of another data set" in line
    assert "field 'knowledge': no knowledge" in refused(check, "train", {**good, "weight_preservation": 1.0})
    assert "field 'num_workers': a batch of" in refused(check, "train", {**good, "num_workers": 7})
    assert "field 'gpus_per_worker'" in refused(check, "train", {**good, "num_workers": 2, "gpus_per_worker": 0.5})
    assert "field 'weights': no file at" in refused(check, "train", {**good, "weights": f"{dataset}/none.pth"})
    assert "field 'dataset': no dataset at" in refused(check, "train", {**good, "dataset": f"{dataset}/none"})
    assert refused(check, "sweep", {**good, "classes_per_batch": 9}).startswith("sweep: field 'classes_per_batch'")


def test_a_run_is_evaluated_and_indexed_on_splits_that_its_data_set_has(check, made):
    dataset = made("dataset", "d", counts=COUNTS)
    run = made("run", "r", inputs={"dataset": {"uri": dataset, "digest": "d".ljust(64, "0")}})
    assert "field 'protocol': protocol zero_shot v1 needs the split 'unseen'" in refused(check, "evaluate", {"run": run})
    check("evaluate", {"run": run, "protocol": "dev"})
    assert "unknown protocol 'dve'; did you mean 'dev'" in refused(check, "evaluate", {"run": run, "protocol": "dve"})
    assert "field 'split': an index needs the split 'unseen'" in refused(check, "index", {"run": run})
    assert "field 'split': must be all" in refused(check, "index", {"run": run, "split": "test"})
    check("index", {"run": run, "split": "all"})


def test_a_promotion_is_of_one_run_and_forced_with_a_reason(check, made):
    runs = {name: made("run", name) for name in ("r", "s")}
    report = made("report", "p", inputs={"run": {"uri": runs["r"], "digest": "r".ljust(64, "0")}})
    same, other = (
        made("index", f"i{name}", inputs={"run": {"uri": runs[name], "digest": name.ljust(64, "0")}}) for name in ("r", "s")
    )
    check("promote", {"report": report, "index": same, "other_reports": [report]})
    assert "field 'index': it is of another run" in refused(check, "promote", {"report": report, "index": other})
    assert "field 'reason'" in refused(check, "promote", {"report": report, "index": same, "force": True})
    assert "field 'reason'" in refused(check, "promote", {"report": report, "index": same, "reason": "why not"})
    assert "field 'other_reports'" in refused(check, "promote", {"report": report, "index": same, "other_reports": [same]})
    assert "field 'index' is required" in refused(check, "promote", {"report": report})


# --- the same checks as the commands'


def test_the_commands_refuse_the_same_with_the_same_words(check, dataset, knowledge, run, tmp_path):
    config = recipe("toy").replace(classes_per_batch=64)
    with pytest.raises(InputError) as told:
        train.train(
            config, train.InputUris(dataset=dataset, knowledge=knowledge), train.Settings(root=str(tmp_path), tracking=False)
        )
    line = refused(check, "train", {"recipe": "toy", "classes_per_batch": 64, "dataset": dataset, "knowledge": knowledge})
    assert line == f"train: field 'classes_per_batch': {told.value}"
    check("train", {"recipe": "toy", "dataset": dataset, "knowledge": knowledge})
    check("evaluate", {"run": run})
    with pytest.raises(InputError) as told:
        evaluate.evaluate(run, evaluate.EvaluateConfig(protocol="dve"), evaluate.Settings(root=str(tmp_path), tracking=False))
    assert refused(check, "evaluate", {"run": run, "protocol": "dve"}).endswith(str(told.value))


def test_a_recipe_that_chooses_by_the_data_is_judged_by_what_it_will_choose(check, made):
    """Eight classes are fewer than `folder` has in a batch where there are enough, and it needs no knowledge."""
    request = {"recipe": "folder", "dataset": made("dataset", "d", counts=COUNTS)}
    check("train", request)
    assert "field 'classes_per_batch'" in refused(check, "train", {**request, "classes_per_batch": 9})


def test_a_registered_model_is_not_looked_up_while_counts_are_checked(check):
    check("evaluate", {"run": "models:/zsbir@champion"})
