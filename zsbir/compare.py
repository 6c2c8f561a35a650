"""Compare trainings by their reports: one row a setting, with mean and spread over seeds, as Markdown, CSV or LaTeX.

    python -m zsbir.compare REPORT REPORT_OF_SEED_1 REPORT_OF_ANOTHER_SETTING --metric map_all,p_at_100
    python -m zsbir.compare REPORT REPORT --against REPORT REPORT --format latex

Reports of trainings that differ in their seed alone are one setting. Its row has the mean of each metric, the standard deviation
over seeds, and an interval over classes and seeds. With --against, each row also has its gain over the setting of those reports,
class by class and seed by seed, the interval of the gain, and a p-value that is corrected for the number of rows (Holm). All
reports must be of one protocol and one data set. Prints the table; what it is of goes to standard error. See docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact
from zsbir.comparison.config import CompareConfig

__all__ = ["CompareConfig", "compare"]


def compare(reports: Sequence[str], config: CompareConfig, against: Sequence[str] = ()) -> str:
    """Return the table of the settings of reports, by their URIs, as text; what it is of goes to standard error.

    against: reports of one setting, which comes first and which the others are compared with; none: no gains.
    Raises InputError where reports are not of one task, or two are of one setting and seed.
    """
    from zsbir.comparison.making import settings_table  # pyarrow takes a while to load

    opened, others = ([Artifact(uri, "report") for uri in uris] for uris in (reports, against))
    text, remarks = settings_table(opened, config, others)
    for line in remarks:
        events.say(line)
    return text


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.compare", __doc__ or "")
    parser.add_argument("reports", nargs="+", metavar="REPORT", help="URIs of Report artifacts, as zsbir.evaluate prints them")
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="REPORT", help="reports of the setting that the others are compared with"
    )
    parser.add_config_file()
    parser.add_fields(CompareConfig, title="table")
    parsed, values = parser.values(argv)
    return compare(parsed.reports, CompareConfig.of(values), parsed.against)


if __name__ == "__main__":
    cli.main(_parse)
