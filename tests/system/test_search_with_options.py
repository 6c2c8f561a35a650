"""An opened index that ranks with search options: the answers of the functions that reports rank with."""

from __future__ import annotations

import numpy as np
import pytest

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.evaluation.statistics import STATISTICS_FILE
from zsbir.index import IndexConfig, Settings, build_index, delete_photos
from zsbir.retrieval import exact
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.prepared import prepare_gallery
from zsbir.retrieval.whitening import load_statistics
from zsbir.search_run.engine import Engine

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
