"""Links into MLflow's pages, and the view of an experiment's runs that they open. Nothing here imports MLflow.

MLflow 3.17 keeps a named view of the table of runs in a tag of the experiment, `mlflow.sharedViewState.<key>`: the columns, the
order and the charts, as its page would store them. A link with `viewStateShareKey=<key>` opens the page with that view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from zsbir.base.strict_json import parse_json

VIEW_KEY = "zsbir"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
"""The tag of an experiment that holds the view. Its name never changes: old links name the key."""

VIEW_NAME = "Trainings"
VIEW_MADE_MS = 1_795_910_400_000
"""When this form of the view was made, in milliseconds since 1970. A later form has a later time, by which it replaces this one."""

LONGEST_VIEW = 20_000
"""Characters that MLflow lets a tag of an experiment have."""

WORKFLOW = {"workflowType": "machine_learning"}
"""Has MLflow show the pages for those who train models, with runs and models; without it, those for language models come first."""

COLUMNS: Mapping[str, int] = {
    "attributes.`Run Name`": 300,
    "runDateAndNestInfo": 145,
    "metrics.`dev/map_all`": 110,
    "metrics.`unseen/map_all`": 130,
    "attributes.`Dataset`": 230,
    "params.`seed`": 65,
    "params.`weight_quadruplet`": 150,
    "params.`weight_classification`": 160,
    "params.`weight_preservation`": 160,
    "params.`margin_cross`": 115,
    "params.`margin_same`": 115,
    "params.`margin_ambiguity`": 145,
    "duration": 90,
}
"""The columns in their order, by MLflow's names, with their widths in pixels. The first two stay where the rest scrolls."""

ALWAYS_SHOWN = ("attributes.`Run Name`", "runDateAndNestInfo", "duration")
"""The name, when the run was begun, how long it took: columns that MLflow lets nobody hide."""

CHARTS: Mapping[str, Sequence[str]] = {
    "Scores": ("dev/map_all", "unseen/map_all"),
    "Losses": ("train/loss", "train/loss_quadruplet", "train/loss_classification", "train/loss_preservation"),
}
"""The charts in front, by section. Those of all other metrics follow, which MLflow adds by itself."""

ONE_STEP = ("unseen/map_all",)
"""Metrics of which a run has one value, that of its report."""

SHOWN_RUNS = 20
"""Runs whose curves the charts show at first."""


def view() -> str:
    """Return the value of `VIEW_TAG`: columns of scores, data set, seed, weights and margins; charts of scores and losses."""
    return _json({"name": VIEW_NAME, "createdAt": VIEW_MADE_MS, "updatedAt": VIEW_MADE_MS, "state": view_state()})


def view_state() -> str:
    """Return the state of the page that the view is, in the form in which a browser keeps it for itself, too."""
    return _json({**_table(), **_charts()})


def is_outdated(tag: str | None) -> bool:
    """Return whether a value of `VIEW_TAG` is to be replaced: it is missing, no view at all, or an older form.

    A view of this form that somebody has changed in MLflow keeps its time of creation, and stays.
    """
    try:
        made = parse_json((tag or "")[: LONGEST_VIEW + 1].encode())
    except (ValueError, UnicodeEncodeError):
        return True
    created_ms = made.get("createdAt") if isinstance(made, dict) else None
    return not isinstance(created_ms, int) or created_ms < VIEW_MADE_MS


def pages_of(uri: str) -> str:
    """Return the address of a tracking server's pages, without a user, a password or a query; "" for a store without pages."""
    try:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            return ""
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    except ValueError:  # no address that anybody could use
        return ""


def runs_page(pages: str, experiment_id: str) -> str:
    """Return the link to an experiment's table of runs, with the view. pages: as `pages_of` returns it; "" for a link within it."""
    return f"{pages}/#/experiments/{quote(experiment_id)}/runs?{urlencode({**WORKFLOW, 'viewStateShareKey': VIEW_KEY})}"


def experiments_page(pages: str) -> str:
    """Return the link to the list of experiments."""
    return f"{pages}/#/experiments?{urlencode(WORKFLOW)}"


def run_page(pages: str, experiment_id: str, run_id: str) -> str:
    """Return the link to the page of one run."""
    return f"{pages}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"


def model_page(pages: str, model: str) -> str:
    """Return the link to the page of a registered model, with its versions and aliases."""
    return f"{pages}/#/models/{quote(model, safe='')}?{urlencode(WORKFLOW)}"


def _table() -> dict[str, Any]:
    """Return the columns and the order: the newest run first."""
    return {
        "selectedColumns": [column for column in COLUMNS if column not in ALWAYS_SHOWN],
        "columnOrder": list(COLUMNS),
        "columnWidths": dict(COLUMNS),
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "searchFilter": "",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
    }


def _charts() -> dict[str, Any]:
    """Return the charts over steps, and their sections."""
    sections = [
        {"uuid": f"zsbir-{name.lower()}", "name": name, "display": True, "isReordered": True, "isGenerated": False}
        for name in CHARTS
    ]
    charts = [_chart(f"zsbir-{section.lower()}", name) for section, names in CHARTS.items() for name in names]
    return {
        "compareRunSections": sections,
        "compareRunCharts": charts,
        "isAccordionReordered": True,
        "runsHiddenMode": f"FIRST_{SHOWN_RUNS}_RUNS",
    }


def _chart(section: str, metric: str) -> dict[str, Any]:
    """Return one chart in MLflow's own form: a line for each run over the optimiser's steps, or a bar where there is one step."""
    chart = {
        "type": "BAR",
        "uuid": f"zsbir-{metric.replace('/', '-')}",
        "metricSectionId": section,
        "metricKey": metric,
        "displayName": metric,
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": SHOWN_RUNS,
    }
    if metric in ONE_STEP:
        return chart
    return chart | {
        "type": "LINE",
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
