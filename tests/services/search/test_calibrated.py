"""An index whose scores are calibrated: what it says, and what it grows into; without, nothing is said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from servers.search_service import DRAWING, asked, make_app, make_gallery, make_run, served

from services.search.serving.catalogue import Catalogue
from zsbir.base.artifact import Artifact
from zsbir.data.index_files import IndexFiles
from zsbir.index import GrowthConfig, IndexConfig, Settings, add_photos, build_index, delete_photos
from zsbir.retrieval.calibration import Calibration, HitProbability, NoMatch, Rate, calibration_facts, calibrations_of
from zsbir.retrieval.options import PLAIN
from zsbir.search import _parse
from zsbir.search_run.hits import Hit
from zsbir.search_run.meaning import Meaning, guessed_among

NO_MATCH = NoMatch(
    base=0.5, per_photos=0.29, per_kin=0, false_alarm=Rate(mean=0.1, low=0.05, high=0.2), miss=Rate(mean=0.6, low=0.5, high=0.7)
)
MADE = Calibration(options=PLAIN, no_match=NO_MATCH, hit=HitProbability(intercept=-3, slope=5, error=0.02), classes=11, photos=1000)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated") / "root"


@pytest.fixture(scope="module")
def calibrated(root: Path) -> Artifact:
    """An index of fifteen photos of three classes, by a run that states a calibration."""
    run = make_run(root, **calibration_facts([MADE]))
    config = IndexConfig(gallery=str(make_gallery(root)), precision="fp32")
    return build_index(run.uri, config, Settings(root=str(root)))


@pytest.fixture
def searcher(root: Path, calibrated: Artifact) -> Iterator[TestClient]:
    app = make_app(root, Catalogue([served(calibrated)]))
    with asked(app) as asking:
        yield asking


def test_answers_have_probabilities_and_say_that_nothing_like_it_is_there(searcher: TestClient):
    answer = searcher.post("/api/search", json=DRAWING).json()
    for hit in answer["hits"]:
        odds = math.exp(-3 + 5 * hit["score"]) / 10  # a folder has no classes, so those of the calibration count
        assert hit["probability"] == pytest.approx(odds / (1 + odds))
    assert answer["no_match"] is True, "no cosine reaches .5 + .29 ln 15"
    assert searcher.post("/api/search", json={**DRAWING, "min_score": 1}).json()["no_match"] is None, "nothing is known of the best"


def test_a_filter_that_leaves_few_photos_lowers_the_threshold(searcher: TestClient, root: Path):
    image = (root / "photos" / "cup" / "3.png").read_bytes()
    asked = {"Content-Type": "image/png"}
    everything = searcher.post("/api/search/image", content=image, headers=asked).json()
    assert (everything["no_match"], everything["hits"][0]["path"]) == (True, "cup/3.png")
    few = searcher.post("/api/search/image", params={"filter": '{"folder": "cup"}'}, content=image, headers=asked).json()
    assert (few["no_match"], few["hits"][0]["path"]) == (False, "cup/3.png")


def test_the_model_says_how_often_that_errs_and_on_what_it_was_measured(searcher: TestClient):
    model = searcher.get("/api/models").json()["models"][0]
    assert model["calibrated"] is True
    assert model["no_match"] == {
        "threshold": pytest.approx(0.5 + 0.29 * math.log(15)),
        "false_alarm": 0.1,
        "false_alarm_interval": [0.05, 0.2],
        "miss": 0.6,
        "miss_interval": [0.5, 0.7],
        "measured_on": "11 classes the model was not trained on, in galleries of up to 1000 photos",
    }


def test_photos_near_a_photo_have_none_since_drawings_were_calibrated(searcher: TestClient, calibrated: Artifact):
    answer = searcher.get(f"/api/neighbours/{calibrated.digest}/4").json()
    assert {hit["probability"] for hit in answer["hits"]} == {None}
    assert answer["no_match"] is None


def test_an_index_keeps_its_calibrations_as_it_grows(root: Path, calibrated: Artifact):
    more = make_gallery(root / "more", 1)
    grown = add_photos(calibrated.uri, str(more), GrowthConfig(), Settings(root=str(root)))
    smaller = delete_photos(grown.uri, ["cup/"], Settings(root=str(root)))
    assert calibrations_of(calibrated) == calibrations_of(grown) == calibrations_of(smaller) == [MADE]


def test_the_command_prints_probabilities_and_warns_where_nothing_is_like_the_drawing(root: Path, calibrated: Artifact, capsys):
    lines = _parse([calibrated.uri, str(root / "photos" / "cup" / "3.png"), "-k", "2"]).split("\n")
    assert lines[0].split() == ["rank", "score", "probability", "class", "path"]
    assert float(lines[1].split()[2]) == pytest.approx(math.exp(2) / 10 / (1 + math.exp(2) / 10), abs=0.01)
    assert "nothing like that" in capsys.readouterr().err


def test_an_index_without_a_calibration_says_nothing(opened):
    model = opened.engine.meaning()
    assert (model.threshold(), model.nothing_like([Hit(1, -1.0, 0, "", "a")])) == (None, None)
    hits = opened.engine.find(np.ones((1, 8), np.float32), 3)[0]
    assert [hit.probability for hit in hits] == [None] * 3


@pytest.mark.parametrize(("names", "classes"), [(["a", "b", "a"], 2), (["a", ""], 11), (["a", "a"], 11), ([""], 11)])
def test_a_guess_is_one_among_the_classes_of_the_index_where_it_names_them(names, classes):
    assert guessed_among(pa.chunked_array([names], pa.string()), 11) == classes


def test_with_kin_around_its_photos_a_gallery_has_a_higher_threshold(calibrated: Artifact):
    files = IndexFiles(calibrated, 8)
    made = MADE.replace(no_match=NO_MATCH.replace(per_kin=0.4).model_dump())
    alone, among_kin = (Meaning(made, files, np.full(len(files), kin, np.float32)).threshold() for kin in (0, 1))
    assert alone is not None
    assert among_kin == pytest.approx(alone + 0.2)
