"""MLflow's first page, opened on the runs: what a browser gets from `/` of our own MLflow.

MLflow's page opens on an introduction to language models, with an assistant over it, and its registry behind an announcement,
until somebody has clicked all of them away; it keeps such choices in the browser. So its own page is served with a script before
it, which makes those choices for a browser that has not made them, and leads from the bare address to the runs of the experiment
that was used last. Links into the pages work as ever.
"""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from zsbir.base import events
from zsbir.edge.mlflow_pages import experiments_page, view_state
from zsbir.edge.mlflow_store import error_line
from zsbir.edge.tracking import keep_view

CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',  # its pages for those who train models: runs, models
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",  # its assistant stays closed until somebody opens it
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",  # no window over the registry that praises its aliases
}
"""What MLflow 3.17 keeps in a browser's local storage, by key, and what it keeps there after a first visit."""

TABLE = 'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState'
"""The key under which it keeps how an experiment's table of runs looks. Such a table is the browser's own, not a shared view."""

SCRIPT = """<script>
(() => {
  try {
    for (const [key, value] of Object.entries(%(choices)s))
      if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
  } catch {}
  if (!location.hash) history.replaceState(null, "", %(opening)s);
})();
</script>"""


class OpensOnRuns:
    """ASGI middleware: answers `/` with MLflow's own page and the script before it; everything else is MLflow's."""

    def __init__(self, app: ASGIApp, index: Path, store: str):
        self._app, self._index, self._store = app, index, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            answer = await run_in_threadpool(self._page)
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _page(self) -> Response:
        experiment, choices, opening = last_experiment(self._store), dict(CHOICES), ""
        if experiment:
            choices[TABLE.format(experiment=experiment)] = view_state()
            opening = f"/#/experiments/{experiment}/runs"
        script = SCRIPT % {"choices": _in_script(choices), "opening": _in_script(opening or experiments_page(""))}
        page = self._index.read_text("utf-8").replace("<head>", f"<head>{script}", 1)
        return HTMLResponse(page, headers={"Cache-Control": "no-store", "X-Frame-Options": "SAMEORIGIN"})


def last_experiment(store: str) -> str:
    """Return the id of the experiment of the newest run, which gets the view that links name; "" where there is no run yet."""
    try:
        return _last_experiment(MlflowClient(store, store))
    except Exception as error:  # noqa: BLE001 - MLflow has many; its own page works without this one
        events.warn(f"MLflow opens on its list of experiments: {error_line(error)}")
        return ""


def _last_experiment(client: MlflowClient) -> str:
    experiments = [each.experiment_id for each in client.search_experiments(ViewType.ACTIVE_ONLY)]
    newest = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1) if experiments else []
    if not newest:
        return ""
    found = str(newest[0].info.experiment_id)
    keep_view(client, found)
    return found


def _in_script(value: object) -> str:
    """Return a value as JavaScript within a page, which no text in it can end."""
    return json.dumps(value).replace("<", "\\u003c")
