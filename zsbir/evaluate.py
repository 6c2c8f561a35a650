"""Measure retrieval on unseen classes: Run in, Report out, beside the frozen backbone that the run started from.

    python -m zsbir.evaluate artifacts/runs/toy-0123456789ab --protocol zero_shot
    python -m zsbir.evaluate RUN RUN_OF_SEED_1 RUN_OF_SEED_2
    python -m zsbir.evaluate RUN --dataset artifacts/datasets/toy/0123456789abcdef --unseen-to RUN2

This is the only stage that measures anything on the unseen classes (a promotion makes the same reports where the champion is of
other data). The report has all metrics in all conventions, exact (see docs/evaluation.md), a table by class, a retrieval grid and a
precision-recall curve. Costs two forward passes an image. Prints the URI of the report; a table of the metrics goes to standard
error, and the whole report to the run's MLflow run. Of several runs it prints one URI a line, in order, and a table of their
settings: trainings that differ in their seed alone are one row (see zsbir.compare).

On another data set than the run's own (--dataset), the classes in train or dev of the run's data set and the images in them are
left out; with --unseen-to also those of other runs, so that all of them can be compared on the same queries and gallery.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zsbir.base import cli, events, watch
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError, naming
from zsbir.evaluation.metrics import METRICS
from zsbir.evaluation_run.config import EvaluateConfig, Settings
from zsbir.recipes import title

if TYPE_CHECKING:
    from zsbir.evaluation_run.trial import Trial

__all__ = ["EvaluateConfig", "On", "Settings", "evaluate", "evaluate_all"]


@dataclass(frozen=True)
class On:
    """What a run is measured on.

    dataset: URI of a data set, None: the run's own. unseen_to: URIs of runs of which what they have seen is left out, too.
    """

    dataset: str | None = None
    unseen_to: tuple[str, ...] = ()


OWN = On()
"""A run's own data set, as its splits have it."""


def evaluate(run_uri: str, config: EvaluateConfig, settings: Settings, on: On = OWN) -> Artifact:
    """Return the Report artifact of a run under a protocol; an existing one is found, not made again.

    Raises InputError where no class is left on which the run can be measured.
    """
    from zsbir.evaluation.report_table import table
    from zsbir.evaluation_run.report import make_report  # torch and matplotlib take seconds to load
    from zsbir.evaluation_run.trial import open_trial

    dataset = Artifact(on.dataset, "dataset") if on.dataset is not None else None
    others = [Artifact(uri, "run") for uri in on.unseen_to]
    trial = open_trial(Artifact(run_uri, "run"), config, dataset=dataset, unseen_to=others)
    if trial.is_made(config, settings.root):
        watch.record_found(trial.uri(config, settings.root))
    report = make_report(trial, config, settings.root)
    score = report.manifest.facts.get("trained")
    if isinstance(score, int | float):
        watch.record_score(float(score), "map_all", "dev" if trial.protocol.split == "dev" else "unseen")
    events.say_lines(table(report))
    if settings.tracking:
        _track(report, trial, settings)
    return report


SUMMARY = ("map_all", "map_at_200_min_voc", "p_at_100")
"""Metrics in the table of several runs."""


def evaluate_all(run_uris: Sequence[str], config: EvaluateConfig, settings: Settings, on: On = OWN) -> list[Artifact]:
    """Return the Report of each run, in order; where there are several, show their settings as a table.

    Raises as `evaluate` does; of several runs the error says which one it is of. Reports made before it are found the next time.
    """
    if len(run_uris) == 1:
        return [evaluate(run_uris[0], config, settings, on)]
    reports = []
    for uri in run_uris:
        with naming(uri):
            reports.append(evaluate(uri, config, settings, on))
    _show_settings(reports)
    return reports


def _show_settings(reports: Sequence[Artifact]) -> None:
    """Show a row for each setting of the reports, with its spread over seeds; say why where they cannot stand in one table."""
    from zsbir.comparison.config import CompareConfig
    from zsbir.comparison.making import settings_table

    try:
        table, remarks = settings_table(reports, CompareConfig(metric=SUMMARY))
    except InputError as error:
        events.say(f"no table of all reports: {error}")
        return
    events.say_lines("\n".join([*remarks, table]))


def _track(report: Artifact, trial: Trial, settings: Settings) -> None:
    """Log the report to the MLflow run of the training."""
    from zsbir.edge.tracking import log_report, tracking_uri  # MLflow takes seconds to load
    from zsbir.evaluation.reports import TRAINED, report_interval

    summary = report.read_json("report.json")
    prefix = trial.protocol.split if trial.protocol.name in ("zero_shot", "dev") else trial.protocol.name
    place = "report"
    if trial.restricted:  # beside the run's own numbers, not over them
        prefix += f"_on_{re.sub(r'[^a-z0-9_.-]', '-', trial.dataset.manifest.name.lower())[:60]}_{report.digest[:8]}"
        place += f"_{report.digest[:8]}"
    metrics = {f"{prefix}/{metric}": summary["models"]["trained"][metric] for metric in METRICS}
    metrics |= {f"{prefix}_frozen/{metric}": summary["models"]["frozen"][metric] for metric in METRICS}
    interval = report_interval(report, TRAINED, "map_all")
    if interval:
        metrics |= {f"{prefix}/map_all_low95": interval.low, f"{prefix}/map_all_high95": interval.high}
    files = {name: report.file(name) for name in report.manifest.files}
    log_report(
        tracking_uri(settings.root),
        settings.experiment,
        trial.run.folder_name,
        name=title(trial.run.manifest.config, trial.run.folder_name),
        metrics=metrics,
        files=files,
        step=trial.run.manifest.counts["best_step"],
        folder=place,
    )


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.evaluate", __doc__ or "")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="URIs of Run artifacts, as zsbir.train prints them, or models:/NAME@champion"
    )
    parser.add_argument("--dataset", metavar="URI", help="a Dataset artifact to measure on; default: the run's own")
    parser.add_argument(
        "--unseen-to",
        action="append",
        default=[],
        metavar="URI",
        help="leave out what this Run has seen, too, as for a comparison with it; may be given again",
    )
    parser.add_config_file()
    parser.add_fields(EvaluateConfig, title="evaluation")
    parser.add_fields(Settings, title="where it is stored and logged")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, EvaluateConfig, Settings)
    from zsbir.edge.model_address import artifact_address

    where = Settings.of(settings)
    runs, others = ([artifact_address(uri, "run", where.root) for uri in uris] for uris in (parsed.runs, parsed.unseen_to))
    reports = evaluate_all(runs, EvaluateConfig.of(config), where, On(parsed.dataset, tuple(others)))
    return "\n".join(report.uri for report in reports)


if __name__ == "__main__":
    cli.main(_parse)
