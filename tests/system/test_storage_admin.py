"""The verb that looks after a root, on what the other verbs really make."""

from __future__ import annotations

import json
import time

import pandas as pd
import pytest

from zsbir import artifacts, evaluate, index
from zsbir.base.artifact import Artifact


def do(*words):
    return artifacts._parse([str(word) for word in words])


@pytest.fixture(scope="module")
def line(pipeline_root, run):
    """An index and a report of the pipeline's run."""
    report = evaluate._parse([run, "--no-tracking", "--grid-rows", "2", "--root", str(pipeline_root)])
    return index._parse([run, "--root", str(pipeline_root)]), report


def test_stages_leave_whole_artifacts_and_nothing_else(line, pipeline_root):
    assert "not named" not in do("verify", "--all", "--root", pipeline_root)
    time.sleep(0.05)
    assert do("gc", "--root", pipeline_root, "--older-than", "0", "--json") == ""


def test_an_index_is_traced_to_its_images(line):
    text = do("show", line[0])
    assert "layout toy, " in text
    assert "knowledge: toy" in text
    assert "weights: sha256 " in text
    assert "GONE" not in text


def test_shards_are_handed_to_pandas(dataset):
    shards = do("show", dataset, "--files", "shards/*").splitlines()
    rows = sum(len(pd.read_parquet(shard)) for shard in shards)
    assert rows == Artifact(dataset).manifest.counts["samples"]


@pytest.mark.parametrize("where", ["disk", "moto"])
def test_a_copy_is_worked_with_where_the_original_is_gone(where, line, run, pipeline_root, tmp_path, request, monkeypatch):
    """To object storage and back: a report made of the copy says the same as that of the original."""
    target, report = str(tmp_path / "copy"), json.loads(Artifact(line[1]).file("report.json").read_text())
    if where == "moto":
        server = request.getfixturevalue("moto")
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        target = f"s3://{server.new_bucket()}/team"
    copied = do("copy", run, target)
    assert " 4 of 4 whole" in f" {do('verify', '--all', '--root', target)}"
    hidden = pipeline_root.with_name("hidden")
    pipeline_root.rename(hidden)
    try:
        again = evaluate._parse([copied, "--no-tracking", "--grid-rows", "2", "--root", target])
        assert do("show", again).count("GONE") == 0
    finally:
        hidden.rename(pipeline_root)
    assert json.loads(Artifact(again).file("report.json").read_text()) == report
    assert Artifact(again).digest == Artifact(line[1]).digest


def test_what_is_swept_from_a_copy_is_what_nothing_needs(line, tmp_path):
    for uri in line:
        do("copy", uri, tmp_path)
    time.sleep(0.05)
    asked = (
        "gc",
        "--root",
        tmp_path,
        "--older-than",
        "0",
        "--unnamed",
        "dataset,knowledge,run,weights,index,checkpoint",
        "--delete",
    )
    (gone,) = [json.loads(text) for text in do(*asked, "--json").splitlines()]
    assert gone["kind"] == "index"
    assert do("verify", "--all", "--root", tmp_path).startswith("5 of 5 whole")
