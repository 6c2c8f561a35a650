"""A sweep as one self-contained HTML page: the pictures to hover over and filter, and the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_html

from tuning.outcome import Outcome, shown
from tuning.space import Choice, Dimension, Space
from tuning.table import Trial

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }}
th, td {{ text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }}
td.error {{ text-align: left; white-space: normal; color: #a33; }} tr.best {{ background: #fdecea; }}
.scroll {{ overflow-x: auto; }} .figure {{ min-width: 720px; }}
</style></head><body>
<h1>{title}</h1><p>{summary}</p>
{figures}
<h2>Trials</h2><div class="scroll"><table>{rows}</table></div>
</body></html>
"""


def page(outcome: Outcome, best: Trial) -> str:
    """Return the whole page as text, about 5 MB: it contains the plotting library, so that it opens without network."""
    base, space, trials = outcome.base, outcome.space, outcome.trials
    figures = [_parallel(space, trials), _curves(trials, best)]
    step, importance = outcome.importance
    if importance:
        figures.append(_importance(importance, step))
    drawn = [to_html(figure, full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(figures)]
    return PAGE.format(
        title=escape(f"{base.recipe}: a sweep of {len(trials)} trials"),
        summary=escape(outcome.verdict()),
        figures="\n".join(f'<div class="scroll"><div class="figure">{figure}</div></div>' for figure in drawn),
        rows=_rows(space, trials, best),
    )


def _parallel(space: Space, trials: Sequence[Trial]) -> go.Figure:
    scored = [trial for trial in trials if trial.score is not None]
    dimensions = [_axis(field, dimension, scored) for field, dimension in space.items()]
    scores = [trial.score for trial in scored]
    line = {"color": scores, "colorscale": "Viridis", "showscale": True, "colorbar": {"title": "dev mAP@all"}}
    figure = go.Figure(go.Parcoords(line=line, dimensions=[*dimensions, {"label": "dev mAP@all", "values": scores}]))
    figure.update_layout(title="What went with what (drag along an axis to filter)", height=430, margin={"l": 90, "r": 40})
    return figure


def _axis(field: str, dimension: Dimension, trials: Sequence[Trial]) -> dict[str, Any]:
    values = [trial.point[field] for trial in trials]
    if isinstance(dimension, Choice):
        ticks_by_value = {str(value): tick for tick, value in enumerate(dimension.values)}
        return {
            "label": field,
            "values": [ticks_by_value.get(str(value), 0) for value in values],
            "tickvals": [*ticks_by_value.values()],
            "ticktext": [*ticks_by_value],
        }
    if not dimension.log:
        return {"label": field, "values": values, "range": [dimension.low, dimension.high]}
    ticks = [dimension.at(share) for share in (0, 0.25, 0.5, 0.75, 1)]
    return {
        "label": field,
        "values": [math.log10(value) if value > 0 else math.log10(dimension.low) for value in values],
        "range": [math.log10(dimension.low), math.log10(dimension.high)],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:.3g}" for tick in ticks],
    }


def _curves(trials: Sequence[Trial], best: Trial) -> go.Figure:
    figure = go.Figure()
    for trial in trials:
        if trial.scores:
            steps, scores = zip(*trial.scores, strict=True)
            name = (
                f"trial {trial.number}"
                + (", best" if trial.number == best.number else "")
                + (", stopped" if trial.state == "stopped" else "")
            )
            width = 4 if trial.number == best.number else 1.5
            hover = "<br>".join(f"{field}: {shown(value)}" for field, value in trial.point.items())
            figure.add_scatter(x=steps, y=scores, name=name, mode="lines+markers", line={"width": width}, hovertext=hover)
    figure.update_layout(title="Learning curves", xaxis_title="optimiser step", yaxis_title="dev mAP@all", height=430)
    return figure


def _importance(importance: Mapping[str, float], step: int) -> go.Figure:
    fields = list(importance)[::-1]
    figure = go.Figure(go.Bar(x=[importance[field] for field in fields], y=fields, orientation="h"))
    figure.update_layout(
        title=f"Which field matters (functional ANOVA over the scores at step {step})", height=80 + 40 * len(fields)
    )
    return figure


def _rows(space: Space, trials: Sequence[Trial], best: Trial) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("trial", "origin", "state", "step", "dev mAP@all", *space, "run"))
    ranked = sorted(trials, key=lambda trial: (trial.state != "finished", -(trial.score or -1.0)))
    return f"<tr>{head}</tr>" + "".join(_row(space, trial, best) for trial in ranked)


def _row(space: Space, trial: Trial, best: Trial) -> str:
    step = str(trial.scores[-1][0]) if trial.scores else ""
    score = "" if trial.score is None else f"{trial.score:.3f}"
    values = [str(trial.number), trial.origin, trial.state, step, score, *(shown(trial.point.get(field)) for field in space)]
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    last = f'<td class="error">{escape(trial.error)}</td>' if trial.error else f"<td>{escape(trial.run.rpartition('/')[2])}</td>"
    return f"<tr{' class=best' if trial.number == best.number else ''}>{cells}{last}</tr>"
