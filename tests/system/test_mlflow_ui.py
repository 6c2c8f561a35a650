"""What a person sees of trainings and of the registry in MLflow's own pages, in a real browser."""

from __future__ import annotations

import json
import os
import re
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
from servers.mlflow_server import own_mlflow

from services.jobs.local.addresses import runs_of
from services.jobs.local.tracking_server import USER
from zsbir import evaluate, train
from zsbir.edge.mlflow_pages import runs_page
from zsbir.edge.tracking import RUN_TAG

pytestmark = pytest.mark.slow

EXPERIMENT, MODEL = "zsbir", "zsbir"
SEEN_MS = 30_000
LARGE = {"width": 1440, "height": 900}


@dataclass(frozen=True)
class Store:
    """An MLflow store with two trainings that differ in a margin, the first of them with a report."""

    root: str
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
        paths = [Path(train._parse(["toy", *inputs, *options, "--margin-cross", margin])) for margin in ("0.2", "0.35")]
        evaluate._parse([str(paths[0]), "--root", str(module_path)])
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    found = {run.data.tags[RUN_TAG]: run for run in client.search_runs([experiment])}
    runs = [found[path.name] for path in paths]
    client.create_registered_model(MODEL)
    models = {model.source_run_id: model for model in mlflow_models(uri, experiment)}
    for run, alias in zip(runs, ("champion", "challenger"), strict=True):
        model = models[run.info.run_id]
        version = client.create_model_version(MODEL, model.model_uri, run.info.run_id, model_id=model.model_id)
        client.set_registered_model_alias(MODEL, alias, version.version)
    return Store(str(module_path), uri, experiment, runs)


def mlflow_models(uri: str, experiment: str) -> list:
    mlflow.set_tracking_uri(uri)
    return mlflow.search_logged_models([experiment], output_format="list")


@pytest.fixture(scope="module")
def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the password of what `make ui` starts over the store."""
    with own_mlflow(store.root, tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture(params=[WINDOW])
def page(request: pytest.FixtureRequest, browser: Browser, server: tuple[str, str]) -> Iterator[Page]:
    """A new user's page, which can reach nothing but the server, and must not try to. It has the server's address as its base."""
    outside: list[str] = []
    address, password = server

    def stay(route: Route) -> None:
        if route.request.url.startswith(f"{address}/"):
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    context = browser.new_context(
        viewport=request.param,
        reduced_motion="reduce",
        base_url=address,
        http_credentials={"username": USER, "password": password},
    )
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


def test_a_service_with_an_mlflow_of_others_finds_the_same_page(server: tuple[str, str], store: Store, monkeypatch) -> None:
    address, password = server
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    assert runs_of(address) == runs_page(address, store.experiment)


@pytest.mark.parametrize("page", [WINDOW, LARGE], indirect=True, ids=["1280", "1440"])
def test_mlflow_opens_on_the_runs_with_their_scores(page: Page, store: Store, picture) -> None:
    """The bare address, as `make ui` and `up` print it, in a browser that was never there."""
    page.goto("/")
    for run in store.runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_in_viewport()
    assert page.url.partition("#")[2].startswith(f"/experiments/{store.experiment}/runs?")
    for metric in ("dev/map_all", "unseen/map_all"):
        shown = f"{store.runs[0].data.metrics[metric]:.12f}"[:6]  # MLflow cuts what has no room
        expect(page.get_by_text(shown).first).to_be_in_viewport()
    expect(page.get_by_role("dialog")).to_have_count(0)
    picture(f"mlflow-opens-{page.viewport_size['width']}")


def test_the_registry_is_one_click_away(page: Page, picture) -> None:
    """Without the announcement that MLflow lays over it in a browser that was never there."""
    page.goto("/")
    page.get_by_role("link", name="Model registry").click()
    page.locator(f"a[href$='#/models/{MODEL}']").first.click()  # the experiment has the same name
    expect(page.get_by_role("row").filter(has_text="champion")).to_be_visible()
    picture("mlflow-registry")


def test_the_charts_show_scores_and_losses(page: Page, store: Store, picture) -> None:
    """By a link as commands print it, with the page's own choice of charts in the place of the table."""
    page.goto(f"{runs_page('', store.experiment)}&compareRunsMode=CHART")
    for section, chart in (("Scores", "dev/map_all"), ("Losses", "train/loss")):
        heading = page.get_by_text(re.compile(rf"^{section}\b")).first
        expect(heading).to_be_visible()
        heading.evaluate("heading => heading.scrollIntoView()")  # charts are drawn when they come into view
        expect(page.get_by_text(chart, exact=True).first).to_be_visible()
    picture("mlflow-charts")


def test_two_trainings_side_by_side_show_what_differs(page: Page, store: Store, picture) -> None:
    runs, experiments = quote(json.dumps([run.info.run_id for run in store.runs])), quote(json.dumps([store.experiment]))
    page.goto(f"/#/compare-runs?runs={runs}&experiments={experiments}")
    for run in store.runs:
        expect(page.get_by_text(run.info.run_name, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Visualizations").click()
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    expect(page.get_by_role("row").filter(has_text="margin_same")).to_have_count(0)
    row = page.get_by_role("row").filter(has=page.get_by_text("margin_cross", exact=True))
    expect(row).to_contain_text("0.2")
    expect(row).to_contain_text("0.35")
    picture("mlflow-compare")


def test_the_registered_model_s_page_names_champion_and_challenger(page: Page, picture) -> None:
    page.goto(f"/#/models/{MODEL}")
    for alias, version in (("champion", "Version 1"), ("challenger", "Version 2")):
        row = page.get_by_role("row").filter(has_text=alias)
        expect(row).to_be_visible()
        expect(row).to_contain_text(version)
    picture("mlflow-model")
