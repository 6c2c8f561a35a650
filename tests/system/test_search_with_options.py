"""An opened index that ranks with search options: the answers of the functions that reports rank with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import ImageOps

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.data.images import decode
from zsbir.evaluation.protocol import PROTOCOLS
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.index import IndexConfig, Settings, build_index, delete_photos
from zsbir.promotion.index_check import try_index
from zsbir.retrieval import exact
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.prepared import prepare_gallery
from zsbir.retrieval.whitening import load_statistics
from zsbir.search import _parse
from zsbir.search_run.engine import Engine
from zsbir.training.context import default_device
from zsbir.training.precision import autocast

OPTIONS = SearchOptions(flip=False, caution=0.5)


@pytest.fixture(scope="module")
def index(run: str, pipeline_root) -> Artifact:
    """All photos of the tiny pipeline's data set."""
    return build_index(run, IndexConfig(split="all"), Settings(root=str(pipeline_root)))


def sketches(dimensions: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, dimensions)).astype(np.float32)


@pytest.mark.slow
def test_an_engine_ranks_as_a_report_does(index):
    engine = Engine(index.uri, wanted=OPTIONS)
    vectors, _ = engine.files.living()
    statistics = load_statistics(index.file(STATISTICS_FILE), vectors.shape[1])
    prepared = prepare_gallery(np.ascontiguousarray(vectors), OPTIONS, statistics)
    asked = sketches(vectors.shape[1])
    ids, scores = exact.search(prepared.queries(asked), prepared.vectors, 10)
    for row, hits in enumerate(engine.find(asked, 10)):
        assert [hit.item_id for hit in hits] == ids[row].tolist()
        assert [np.float32(hit.score) for hit in hits] == scores[row].tolist()
    plain = [hit.item_id for hit in Engine(index.uri).find(asked, 10)[0]]
    assert plain != ids[0].tolist()
    assert [hit.item_id for hit in engine.neighbours(3, 5)] == exact.search(prepared.vectors[3:4], prepared.vectors, 6)[0][
        0, 1:
    ].tolist()


@pytest.mark.slow
def test_deleted_photos_have_no_part_in_what_is_ranked(index, pipeline_root):
    engine = Engine(index.uri, wanted=OPTIONS)
    gone = [engine.files.paths[row].as_py() for row in (0, 4, 5)]
    smaller = Engine(delete_photos(index.uri, gone, Settings(root=str(pipeline_root))).uri, wanted=OPTIONS)
    vectors, rows = smaller.files.living()
    prepared = prepare_gallery(
        np.ascontiguousarray(vectors), OPTIONS, load_statistics(index.file(STATISTICS_FILE), vectors.shape[1])
    )
    asked = sketches(vectors.shape[1])
    ids, _ = exact.search(prepared.queries(asked), prepared.vectors, 8)
    found = [[hit.item_id for hit in hits] for hits in smaller.find(asked, 8)]
    assert found == [[int(rows[place]) for place in line] for line in ids]


@pytest.mark.slow
def test_mirror_images_are_refused_for_photos_embedded_one_way(index):
    with pytest.raises(InputError, match="--no-flip"):
        Engine(index.uri, wanted=SearchOptions())


@pytest.mark.slow
def test_classes_are_chosen_by_flags_also_where_queries_are_expanded(index, tmp_path):
    photo = tmp_path / "photo.jpg"
    engine = Engine(index.uri)
    photo.write_bytes(engine.files.original(0))
    every = [json.loads(line) for line in _parse([index.uri, str(photo), "-k", "500", "--plain", "--json"]).splitlines()]
    names = sorted({hit["class_name"] for hit in every})[:2]
    flags = [word for name in names for word in ("--class", name)]
    some = [json.loads(line) for line in _parse([index.uri, str(photo), "-k", "500", "--plain", "--json", *flags]).splitlines()]
    assert [hit["item_id"] for hit in some] == [hit["item_id"] for hit in every if hit["class_name"] in names]
    expanded = _parse([index.uri, str(photo), "-k", "500", "--caution", "0", "--json", *flags]).splitlines()
    assert sorted(json.loads(line)["item_id"] for line in expanded) == sorted(hit["item_id"] for hit in some)


@pytest.mark.slow
def test_an_index_of_both_views_is_searched_as_it_was_made_and_passes_the_check_before_a_promotion(run, pipeline_root):
    made = build_index(run, IndexConfig(split="unseen", flip=True, precision="fp32"), Settings(root=str(pipeline_root)))
    verdict = try_index(made, Artifact(run, "run"), PROTOCOLS["zero_shot"], seed=0, device=default_device(), arithmetic=autocast)
    assert (verdict.photos_found_frac, verdict.recall_at_10) == (1, 1)
    engine = Engine(made.uri, wanted="default")
    assert engine.options == SearchOptions()
    image = decode(engine.files.original(3)).convert("RGB")
    views = engine.embed([image, ImageOps.mirror(image)])
    np.testing.assert_allclose(views[0], views[1], atol=1e-6)
    ids = [[hit.item_id for hit in hits] for hits in engine.find(views, 1, options=engine.plain)]
    assert ids == [[3], [3]]
