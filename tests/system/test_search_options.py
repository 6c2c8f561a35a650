"""Search options on a whole run: its file of statistics, and the protocol that ranks with them."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from zsbir.base.artifact import Artifact
from zsbir.data.samples import load_samples
from zsbir.data.shards import Images
from zsbir.evaluate import EvaluateConfig, Settings, evaluate
from zsbir.evaluation.embed import both_views, embed, embeddings_of
from zsbir.evaluation.metrics import evaluate_embeddings
from zsbir.evaluation.protocol import find_protocol, select
from zsbir.evaluation.statistics import STATISTICS_FILE, measured, run_statistics, statistics_images
from zsbir.model.encoder import Encoder
from zsbir.retrieval.options import SearchOptions
from zsbir.retrieval.prepared import mean_of_views, prepare_gallery
from zsbir.retrieval.whitening import DomainStatistics, load_statistics
from zsbir.training.precision import autocast

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def opened(run: str) -> tuple[Artifact, Encoder]:
    """The run of the tiny pipeline and its encoder."""
    artifact = Artifact(run, "run")
    return artifact, Encoder.load(artifact.verified("encoder.safetensors")).eval()


def same(one: DomainStatistics, other: DomainStatistics) -> bool:
    return all(np.allclose(values, getattr(other, name), atol=1e-3) for name, values in vars(one).items())


@pytest.mark.slow
def test_a_run_holds_the_statistics_that_are_measured_of_its_encoder(opened):
    artifact, encoder = opened
    assert STATISTICS_FILE in artifact.manifest.files
    found = load_statistics(artifact.verified(STATISTICS_FILE), encoder.embedding_dim)
    dataset = artifact.input("dataset", "dataset")
    samples = load_samples(dataset)
    again = measured(
        embeddings_of(encoder),
        samples,
        Images(dataset, samples),
        image_px=encoder.image_px,
        device=CPU,
        autocast=autocast("auto", CPU),
    )
    assert same(found, again)
    sketches, photos = statistics_images(samples)
    assert set(samples.split[sketches]) == set(samples.split[photos]) == {0}
    assert len(found.decoys) == len(photos)


@pytest.mark.slow
def test_a_run_of_a_version_without_statistics_is_measured_by_its_data_set(opened):
    artifact, encoder = opened
    del artifact.manifest.files[STATISTICS_FILE]
    try:
        found = run_statistics(artifact, encoder, CPU, autocast("auto", CPU))
    finally:
        artifact.manifest = Artifact(artifact.uri, "run").manifest
    assert same(found, run_statistics(artifact, encoder, CPU))


@pytest.mark.slow
def test_the_report_has_the_model_with_and_without_options_and_names_the_classes_that_lose(run, pipeline_root):
    settings = Settings(root=str(pipeline_root), tracking=False)
    plain = evaluate(run, EvaluateConfig(protocol="dev"), settings)
    report = evaluate(run, EvaluateConfig(protocol="dev_expanded"), settings)
    values = {name: pq.read_table(each.file("per_query.parquet")) for name, each in (("plain", plain), ("expanded", report))}
    assert values["expanded"]["trained_plain/map_all"].equals(values["plain"]["trained/map_all"])
    summary = report.read_json("report.json")
    assert list(summary["models"]) == ["frozen", "trained_plain", "trained"]
    assert SearchOptions.of(summary["options"]) == SearchOptions()
    rows = pq.read_table(report.file("per_class.parquet")).to_pylist()
    old, new = (
        {row["class_name"]: row["map_all"] for row in rows if row["model"] == name} for name in ("trained_plain", "trained")
    )
    losing = {row["class_name"]: (row["plain"], row["with_options"]) for row in summary["losing"]}
    assert losing == {name: (old[name], new[name]) for name in old if new[name] < old[name]}
    assert "options" not in plain.read_json("report.json")


@pytest.mark.slow
def test_the_report_ranks_as_a_search_with_the_same_options_would(opened, pipeline_root):
    artifact, encoder = opened
    report = evaluate(artifact.uri, EvaluateConfig(protocol="dev_expanded"), Settings(root=str(pipeline_root), tracking=False))
    dataset = artifact.input("dataset", "dataset")
    samples = load_samples(dataset)
    queries, gallery = select(samples, find_protocol("dev_expanded"))
    forward, images = both_views(embeddings_of(encoder)), Images(dataset, samples)
    with autocast("auto", CPU):
        views = embed(forward, images, np.concatenate([queries, gallery]), image_px=encoder.image_px, device=CPU)
    vectors = mean_of_views(views)
    statistics = load_statistics(artifact.verified(STATISTICS_FILE), encoder.embedding_dim)
    prepared = prepare_gallery(vectors[len(queries) :], SearchOptions(), statistics)
    asked = np.concatenate([prepared.queries(vectors[row : row + 1]) for row in range(len(queries))])
    result = evaluate_embeddings(asked, samples.class_id[queries], prepared.vectors, samples.class_id[gallery])
    reported = pq.read_table(report.file("per_query.parquet"))["trained/map_all"].to_numpy()
    assert result.per_query["map_all"].tolist() == reported.tolist()
