"""Several seeds of one training: `zsbir.train --seeds`."""

from __future__ import annotations

import os
import signal

import pytest

from zsbir import train
from zsbir.base import events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import Busy, InputError, Interrupted, PermanentError, RunError
from zsbir.base.lease import alone
from zsbir.training.config import TrainConfig
from zsbir.training_run.plan import InputUris, Settings, resolve

SMALL = ["--steps", "2", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--no-tracking"]


@pytest.fixture(scope="module")
def words(dataset, knowledge, pipeline_root):
    """The words of the pipeline's own training, which has seed 0."""
    return ["toy", "--dataset", dataset, "--knowledge", knowledge, "--root", str(pipeline_root), *SMALL]


@pytest.fixture(scope="module")
def of_both(run, words):
    """What the training prints with seed 3, which is new, and seed 0, the pipeline's own."""
    return train._parse([*words, "--seeds", "3,0"])


def test_it_prints_a_run_for_each_seed_in_order(run, words, of_both):
    first, second = of_both.splitlines()
    assert second == run
    assert [Artifact(uri, "run").manifest.config["seed"] for uri in (first, second)] == [3, 0]
    assert train._parse([*words, "--seed", "3"]) == first, "the same run as alone"


def test_it_finds_those_that_are_finished(run, words, of_both, capsys):
    assert train._parse([*words, "--seeds", "0,3"]).splitlines() == of_both.splitlines()[::-1]
    told = capsys.readouterr().err
    assert "seed 0, 1 of 2" in told
    assert f"already trained: {run}" in told


def test_a_seed_in_a_file_gives_way_and_one_on_the_command_line_is_refused(run, words, tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text("seed: 9\n")
    assert train._parse([*words, "--config", str(file), "--seeds", "0"]) == run
    with pytest.raises(InputError, match="--seed and --seeds name different trainings: leave one of them out"):
        train._parse([*words, "--seed", "0", "--seeds", "0,1"])


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ("", "got ''"),
        ("0,,1", "got ''"),
        ("-1", "got '-1'"),
        ("1.5", "got '1.5'"),
        ("a", "got 'a'"),
        ("\u0663", "got"),
        ("9" * 40, "got '9"),
        ("1,2,1", "--seeds names 1 twice"),
        (",".join(map(str, range(1001))), "names 1001 seeds, at most 1000"),
    ],
)
def test_what_is_no_list_of_seeds_is_refused(words, seeds, says):
    with pytest.raises(InputError, match=says):
        train._parse([*words, f"--seeds={seeds}"])


def test_an_error_says_which_seed_it_is_of(run, words, dataset, knowledge, pipeline_root):
    config = TrainConfig.of(Artifact(run, "run").manifest.config).replace(seed=8)
    inputs, settings = InputUris(dataset=dataset, knowledge=knowledge), Settings(root=str(pipeline_root), tracking=False)
    address = resolve(config, inputs, settings).run
    with alone(address), pytest.raises(Busy, match=r"^seed 8: "):
        train._parse([*words, "--seeds", "8,9"])
    nine = resolve(config.replace(seed=9), inputs, settings).run
    assert not exists(nine), "what stops one would stop the next"


def test_a_loss_that_is_not_finite_ends_one_training_and_not_the_others(words, capsys):
    with pytest.raises(PermanentError, match=r"^seed 4: training has diverged: .*; all 2 seeds failed$"):
        train._parse([*words, "--lr", "1e30", "--seeds", "4,5"])
    assert "warning: seed 5: training has diverged" in capsys.readouterr().err


def test_what_is_said_when_some_have_failed_is_how_to_get_the_others():
    assert train._failed_among([1], [0, 2]) == "1 of 3 seeds failed; --seeds 0,2 prints the addresses of the others"


@pytest.fixture
def interrupted_at_the_first_step():
    """A signal to stop, as by Ctrl-C, with the first step of the first training."""
    asked = []

    def stop(progress):
        if progress.label == "train" and progress.done and not asked:
            asked.append(progress)
            os.kill(os.getpid(), signal.SIGINT)

    events.subscribe(stop)
    yield asked
    events._listeners.remove(stop)
    assert asked


def test_an_interruption_saves_a_checkpoint_and_begins_no_other_seed(run, words, capsys, interrupted_at_the_first_step):
    with pytest.raises(Interrupted, match=r"^seed 6: checkpoint of step 2 saved in .*; the same command goes on from there$"):
        train._parse([*words, "--steps", "3", "--seeds", "6,7"])
    assert "seed 7" not in capsys.readouterr().err


def test_an_interruption_that_a_training_could_only_finish_at_begins_no_other_seed(run, words, interrupted_at_the_first_step):
    """It is noticed at the next step, and that is the last one."""
    seeds = [*words, "--seeds", "6,0"]
    with pytest.raises(Interrupted, match=r"^the seeds before 0 are done; the same command goes on with it$"):
        train._parse(seeds)
    first, second = train._parse(seeds).splitlines()
    assert (Artifact(first, "run").manifest.config["seed"], second) == (6, run)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--side-by-side", "2"], "give --seeds, or leave it out"),
        (["--seeds", "0,1", "--side-by-side", "0"], "got 0"),
        (["--seeds", "0,1", "--side-by-side", "x"], "side-by-side"),
        (["--seeds", "0,1", "--side-by-side", "2", "--num-workers", "2"], "leave out --num-workers, or --side-by-side"),
    ],
)
def test_what_cannot_train_side_by_side_is_refused(run, words, more, says):
    with pytest.raises(InputError, match=says):
        train._parse([*words, *more])


def test_side_by_side_needs_no_ray_where_all_seeds_are_found(words, of_both, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert train._parse([*words, "--seeds", "3,0", "--side-by-side", "2"]) == of_both


def test_of_several_ends_a_request_to_stop_comes_first_and_no_error_is_lost(run, words, capsys):
    job = train._named_job(TrainConfig.of(Artifact(run, "run").manifest.config), *_inputs_of(words))
    endings = {0: None, 1: RunError("no room"), 2: Interrupted("checkpoint saved; the same command goes on")}
    with pytest.raises(Interrupted, match=r"^seed 2: checkpoint saved; the same command goes on$"):
        train._ended(endings, dict.fromkeys(endings, job), [])
    assert "warning: seed 1: no room" in capsys.readouterr().err
    endings = {0: None, 1: RunError("no room")}
    with pytest.raises(RunError, match=r"^seed 1: no room; 1 of 3 seeds failed; --seeds 5,0 prints the addresses of the others$"):
        train._ended(endings, dict.fromkeys(endings, job), [5])


def _inputs_of(words):
    given = dict(zip(words[1::2], words[2::2], strict=False))
    uris = InputUris(dataset=given["--dataset"], knowledge=given["--knowledge"])
    return uris, Settings(root=given["--root"], tracking=False)
