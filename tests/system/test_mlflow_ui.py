"""What a person sees of trainings and of the registry in MLflow's own pages, in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page, Route, expect
from servers.chromium import WINDOW
from servers.mlflow_server import mlflow_server

from zsbir import train

pytestmark = pytest.mark.slow

EXPERIMENT, MODEL = "zsbir", "zsbir"
SEEN_MS = 30_000
NOT_NEW = """
    localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
    localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
"""
"""Makes the page that of one who came before, and trains models: it opens without the assistant of a first visit."""


@dataclass(frozen=True)
class Store:
    """An MLflow store with two trainings that differ in a margin."""

    uri: str
    experiment: str
    runs: list[Run]


@pytest.fixture(scope="module")
def store(dataset: str, knowledge: str, module_path: Path) -> Store:
    """Two trainings by the verb, and a registered model with a version of each: the champion and the challenger."""
    uri = f"sqlite:///{module_path / 'mlflow.db'}"
    inputs = ["--dataset", dataset, "--knowledge", knowledge, "--root", str(module_path), "--experiment", EXPERIMENT]
    options = ["--steps", "3", "--image-px", "32", "--classes-per-batch", "4", "--per-class", "2", "--log-every-steps", "1"]
    client = MlflowClient(uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        names = [Path(train._parse(["toy", *inputs, *options, "--margin-cross", margin])).name for margin in ("0.2", "0.35")]
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    found = {run.info.run_name: run for run in client.search_runs([experiment])}
    runs = [found[name] for name in names]
    client.create_registered_model(MODEL)
    models = {model.source_run_id: model for model in mlflow_models(uri, experiment)}
    for run, alias in zip(runs, ("champion", "challenger"), strict=True):
        model = models[run.info.run_id]
        version = client.create_model_version(MODEL, model.model_uri, run.info.run_id, model_id=model.model_id)
        client.set_registered_model_alias(MODEL, alias, version.version)
    return Store(uri, experiment, runs)


def mlflow_models(uri: str, experiment: str) -> list:
    mlflow.set_tracking_uri(uri)
    return mlflow.search_logged_models([experiment], output_format="list")


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's server over the store."""
    with mlflow_server(store.uri, tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    """A new user's page, which can reach nothing but the server, and must not try to."""
    outside: list[str] = []

    def stay(route: Route) -> None:
        if route.request.url.startswith(f"{server}/"):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context = browser.new_context(viewport=WINDOW, reduced_motion="reduce")
    context.add_init_script(NOT_NEW)
    context.route("**/*", stay)
    page = context.new_page()
    page.set_default_timeout(SEEN_MS)
    expect.set_options(timeout=SEEN_MS)
    yield page
    context.close()
    assert not outside


@pytest.fixture
def picture(page: Page, tmp_path: Path):
    """A function that takes a screenshot, for ZSBIR_SCREENSHOTS where that names a folder."""
    folder = Path(os.environ.get("ZSBIR_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.screenshot(path=folder / f"{name}.png", animations="disabled")


def test_the_experiment_s_page_lists_the_trainings(page: Page, server: str, store: Store, picture) -> None:
    page.goto(f"{server}/#/experiments/{store.experiment}/runs")
    for run in store.runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_visible()
    picture("mlflow-experiment")


def test_two_trainings_side_by_side_show_what_differs(page: Page, server: str, store: Store, picture) -> None:
    runs, experiments = quote(json.dumps([run.info.run_id for run in store.runs])), quote(json.dumps([store.experiment]))
    page.goto(f"{server}/#/compare-runs?runs={runs}&experiments={experiments}")
    for run in store.runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Visualizations").click()
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    expect(page.get_by_role("row").filter(has_text="margin_same")).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="margin_cross")
    expect(row).to_contain_text("0.2")
    expect(row).to_contain_text("0.35")
    picture("mlflow-compare")


def test_the_registered_model_s_page_names_champion_and_challenger(page: Page, server: str, picture) -> None:
    page.goto(f"{server}/#/models/{MODEL}")
    for alias, version in (("champion", "Version 1"), ("challenger", "Version 2")):
        row = page.get_by_role("row").filter(has_text=alias)
        expect(row).to_be_visible()
        expect(row).to_contain_text(version)
    picture("mlflow-model")
