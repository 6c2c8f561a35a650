"""`evaluate "$(python -m zsbir.train ...)"` gets an empty address where the training failed: every verb says so in one line."""

from pathlib import Path

import pytest

from zsbir import artifacts, compare, evaluate, export, index, promote, search, teacher, train
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError

DRAWING = Path(__file__).parents[2] / "docs/pictures/sketch.png"
SAYS = {
    "run": [(evaluate, [""]), (evaluate, ["  "]), (index, [""]), (export, [""])],
    "index": [(search, ["", str(DRAWING)]), (promote, ["report", "--index", ""])],
    "report": [(promote, ["", "--index", "somewhere"]), (compare, [""])],
    "dataset": [(teacher, ["", "--weights", "resnet18.safetensors"]), (train, ["toy", "--dataset", ""])],
    "artifact": [
        (artifacts, ["show", ""]),
        (artifacts, ["verify", ""]),
        (artifacts, ["copy", "", "elsewhere"]),
        (artifacts, ["gc", "--unnamed", "report", "--keep", ""]),
    ],
    "storage root": [(artifacts, ["copy", "somewhere", ""])],
}


@pytest.mark.parametrize(
    ("kind", "verb", "words"),
    [
        pytest.param(kind, verb, words, id=f"{verb.__name__} {' '.join(words)}")
        for kind, calls in SAYS.items()
        for verb, words in calls
    ],
)
def test_an_empty_address_is_named_as_one_and_never_means_the_working_directory(kind, verb, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^no {kind} given: .*did the command before fail\?"):
        verb._parse(words)


def test_another_data_set_that_is_empty_is_no_request_for_the_run_s_own():
    with pytest.raises(InputError, match=r"^no dataset given: an empty address"):
        evaluate._parse(["somewhere", "--dataset", ""])
    with pytest.raises(InputError, match=r"^no run given: an empty address"):
        evaluate._parse(["somewhere", "--unseen-to", ""])


def test_an_artifact_is_not_looked_for_at_an_empty_address():
    with pytest.raises(InputError, match=r"^no artifact given: an empty address; did the command before fail\?$"):
        Artifact("")
