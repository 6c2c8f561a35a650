"""The commands that a sweep prints at its end, given as they are printed; its best trial is a run that exists."""

from __future__ import annotations

import shlex

import pytest
import yaml

from tuning.config import SweepConfig, SweepRequest, SweepSettings
from tuning.outcome import Outcome
from tuning.sweep import _absolute, _resolve, _sign
from tuning.table import Trial
from zsbir import train
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, Settings


@pytest.fixture
def printed(pipeline_root, dataset, knowledge, run, weights, capsys):
    """Return the last lines of a sweep whose one trial is `run`, by their beginnings, and the folder of the sweep."""
    base = TrainConfig.of(yaml.safe_load(Artifact(run, "run").file("config.yaml").read_text()))
    settings = Settings(root=str(pipeline_root), tracking=False, experiment="my pictures")
    uris = InputUris(dataset=dataset, knowledge=knowledge, weights=weights)
    request = _absolute(SweepRequest(base, uris, SweepConfig(), [], settings, SweepSettings()))
    found = _resolve(request)
    trial = Trial(0, "base", dict(found.points[0]), "finished", run=run, scores=((2, 0.5),))
    made = _sign(found, request, Outcome(base, found.space, [trial]), None)
    lines = capsys.readouterr().err.splitlines()[-4:]
    return {line.partition(":")[0]: line.partition(": ")[2] for line in lines}, made


def test_they_name_the_best_run_and_every_input_and_can_be_given_as_they_are(printed, run, capsys):
    lines, made = printed
    assert lines["best run"] == run
    assert lines["pictures"] == made.address("sweep.html")
    python, flag, module, address, *rest = shlex.split(lines["score it on the unseen classes"])
    assert (python, flag, module, address) == ("python", "-m", "zsbir.evaluate", run)
    assert set(rest) >= {"--no-tracking", "--experiment=my pictures"}
    (train_line,) = (line for start, line in lines.items() if start.startswith("train its configuration"))
    python, flag, module, *words = shlex.split(train_line)
    assert (python, flag, module) == ("python", "-m", "zsbir.train")
    assert train._parse(words) == run, "the same weights, so the same run"
    assert capsys.readouterr().err.splitlines()[0] == f"already trained: {run}"


def test_without_knowledge_its_weight_is_not_varied_and_a_space_of_ones_own_must_not_name_it(dataset, weights, tmp_path, capsys):
    base = TrainConfig(recipe="toy", backbone="resnet18", image_px=32, classes_per_batch=4, steps=2, weight_preservation=0.0)
    uris = InputUris(dataset=dataset, weights=weights)
    settings = Settings(root=str(tmp_path), tracking=False)
    found = _resolve(_absolute(SweepRequest(base, uris, SweepConfig(space="losses"), [], settings, SweepSettings())))
    assert sorted(found.space) == ["margin_cross", "margin_same", "weight_classification", "weight_quadruplet"]
    assert "weight_preservation is not varied" in capsys.readouterr().err
    own = tmp_path / "space.yaml"
    own.write_text("weight_preservation: {low: 0.1, high: 1}\n")
    with pytest.raises(InputError, match=r"the space varies weight_preservation.*--knowledge"):
        _resolve(_absolute(SweepRequest(base, uris, SweepConfig(space=str(own)), [], settings, SweepSettings())))
