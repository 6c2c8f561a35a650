"""Links into MLflow's pages, and the view of runs that they open: read as MLflow's page reads it."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH

from zsbir.edge import mlflow_pages
from zsbir.edge.mlflow_pages import VIEW_MADE_MS, VIEW_TAG, is_outdated, pages_of, runs_page, view
from zsbir.edge.tracking import keep_view, prepare_store
from zsbir.training.config import TrainConfig
from zsbir.training.loop import DEV_SCORE

SEARCH = {"searchFilter", "orderByKey", "orderByAsc", "startTime", "lifecycleFilter", "modelVersionFilter", "datasetsFilter"}
LOOK = {
    "selectedColumns",
    "columnOrder",
    "columnWidths",
    "compareRunCharts",
    "compareRunSections",
    "isAccordionReordered",
    "runsHiddenMode",
}
"""The fields of a view that MLflow 3.17 reads; it leaves out any other."""


def opened(tag: str) -> dict:
    """What MLflow's page makes of a tag: its envelope has a name, a time, and the state as text."""
    made = json.loads(tag)
    assert (type(made["name"]), type(made["createdAt"]), type(made["state"])) == (str, int, str)
    return json.loads(made["state"])


def test_the_view_shows_scores_data_seed_weights_and_margins():
    state = opened(view())
    assert state.keys() == SEARCH | LOOK
    columns = [re.fullmatch(r"(metrics|params|attributes)\.`([^`]+)`", column).groups() for column in state["selectedColumns"]]
    assert [name for kind, name in columns if kind == "metrics"] == [DEV_SCORE, "unseen/map_all"]
    fields = [name for kind, name in columns if kind == "params"]
    assert set(fields) <= TrainConfig.model_fields.keys(), "a column of a field that no training has"
    assert {name for name in TrainConfig.model_fields if name.startswith(("weight_", "margin_"))} - {"weight_decay"} < set(fields)
    assert "seed" in fields
    assert state["columnOrder"] == list(state["columnWidths"]), "MLflow gives a column that it is to place the width that is named"
    assert set(state["selectedColumns"]) < set(state["columnOrder"])


def test_each_chart_is_in_a_section_and_none_is_there_twice():
    state = opened(view())
    charts, sections = state["compareRunCharts"], [section["uuid"] for section in state["compareRunSections"]]
    assert {chart["metricSectionId"] for chart in charts} == set(sections)
    assert len({chart["uuid"] for chart in charts}) == len({chart["metricKey"] for chart in charts}) == len(charts)
    assert {"dev/map_all", "unseen/map_all", "train/loss"} <= {chart["metricKey"] for chart in charts}


def test_mlflow_takes_the_view():
    assert len(view()) < MAX_EXPERIMENT_TAG_VAL_LENGTH == mlflow_pages.LONGEST_VIEW


@pytest.mark.parametrize(
    "tag",
    [
        *(None, "", "{", "[]", "7", '"x"', "{}", "[" * 10_000, "\ud800", "x" * 1_000_000),
        *('{"createdAt": 1}', '{"createdAt": true}', '{"createdAt": "now"}', '{"createdAt": 1e30}'),
    ],
)
def test_what_is_no_view_or_an_older_one_is_replaced(tag):
    assert is_outdated(tag)


def test_a_view_of_this_form_stays_whatever_somebody_has_changed_in_it():
    changed = json.dumps({**json.loads(view()), "name": "mine", "updatedAt": VIEW_MADE_MS + 1, "state": "{}"})
    assert not is_outdated(view())
    assert not is_outdated(changed)


@pytest.mark.parametrize(
    ("uri", "pages"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ann:hush@mlflow.example.org/team/", "https://mlflow.example.org/team"),
        ("https://hush-token-of-a-user@mlflow.example.org", "https://mlflow.example.org"),
        ("https://mlflow.example.org/x?token=hush", ""),
        ("http://[::1", ""),
        ("http://", ""),
        ("sqlite:///mlflow.db", ""),
        ("postgresql://ann:hush@db/mlflow", ""),
        ("databricks", ""),
        ("", ""),
    ],
)
def test_a_store_has_pages_if_it_is_a_server_and_their_address_holds_no_secret(uri, pages):
    assert pages_of(uri) == pages


def test_a_link_to_the_runs_names_the_experiment_and_the_view():
    link = runs_page("http://127.0.0.1:5000", "3")
    route = urlsplit(urlsplit(link).fragment)
    assert (route.path, parse_qs(route.query)) == (
        "/experiments/3/runs",
        {"workflowType": ["machine_learning"], "viewStateShareKey": [VIEW_TAG.rpartition(".")[2]]},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    prepare_store(uri, "zsbir")
    return uri


def test_an_experiment_gets_the_view_and_keeps_a_changed_one(store):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("zsbir")
    assert experiment.tags[VIEW_TAG] == view()
    changed = view().replace("Trainings", "Ours")
    client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, changed)
    prepare_store(store, "zsbir")
    assert client.get_experiment_by_name("zsbir").tags[VIEW_TAG] == changed


def test_a_store_that_does_not_take_the_view_is_no_error(store):
    keep_view(MlflowClient(store), "no-such-experiment")
