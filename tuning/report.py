"""The report of a sweep: the best configuration as YAML, pictures as PNG, and one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from tuning.figures import importance_bars, learning_curves, parallel_coordinates
from tuning.outcome import Outcome
from tuning.page import page
from tuning.space import as_yaml
from tuning.table import Trial


def write_report(file: Callable[[str], Path], outcome: Outcome, best: Trial) -> None:
    """Write best.yaml, space.yaml, curves.png, parallel.png, importance.png and sweep.html, each to the path `file(name)`."""
    winner = outcome.base.replace(**best.point)
    file("best.yaml").write_text(yaml.safe_dump(winner.model_dump(mode="json"), sort_keys=False), "utf-8")
    file("space.yaml").write_text(as_yaml(outcome.space), "utf-8")
    learning_curves(outcome, best).savefig(file("curves.png"), dpi=150)
    parallel_coordinates(outcome, best).savefig(file("parallel.png"), dpi=150)
    step, importance = outcome.importance
    if importance:
        importance_bars(importance, step).savefig(file("importance.png"), dpi=150)
    file("sweep.html").write_text(page(outcome, best), "utf-8")
