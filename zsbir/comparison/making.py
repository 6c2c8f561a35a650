"""The table of reports: settings found, checked, computed and written."""

from __future__ import annotations

from collections.abc import Sequence

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.text import clean
from zsbir.comparison.config import CompareConfig
from zsbir.comparison.formats import as_text, remarks
from zsbir.comparison.numbers import compared
from zsbir.comparison.settings import check_one_task, settings_of
from zsbir.promotion.gate import label_of


def settings_table(reports: Sequence[Artifact], config: CompareConfig, against: Sequence[Artifact] = ()) -> tuple[str, list[str]]:
    """Return the table of the reports' settings, and what a reader of it must know, a line each.

    Raises InputError where reports are not of one task, where `against` is not one setting, and where nothing is left to compare.
    """
    opponents = settings_of(against)
    if len(opponents) > 1:
        raise InputError(
            f"--against names reports of {len(opponents)} settings, {opponents[0].title} and {opponents[1].title} among them: pass"
            " those of one"
        )
    together = [*against, *reports]
    check_one_task(together)
    settings = settings_of(together)
    if opponents and len(settings) < 2:
        raise InputError(
            f"all reports are of {settings[0].title}, the setting that --against names: pass others to compare with it"
        )
    found = compared(settings, config.metric, config.level, against=opponents[0].key if opponents else "")
    counts = together[0].manifest.counts
    data = clean(together[0].manifest.named("dataset").digest[:8])
    facts = [
        f"{label_of(together[0])} on data {data}",
        f"{counts.get('queries', 0):,} sketches against {counts.get('gallery', 0):,} photos",
    ]
    return as_text(found, config.format), remarks(found, facts)
