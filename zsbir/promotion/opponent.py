"""What a challenger is compared with, by the tags of the champion's version: its reports, and how far its seeds spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from zsbir.base import events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError
from zsbir.base.layout import below_root
from zsbir.base.storage import join
from zsbir.promotion.seeds import ESTIMATED, SeedSpread


def champion_reports(champion: str, tags: Mapping[str, str], named: Sequence[str], *, root: str) -> list[Artifact]:
    """Return the Reports that the user names, else those that the champion was promoted by, its own first.

    champion: the URI of its version. Raises InputError if its own report is gone, or the first one named is of another run.
    """
    further = [tags.get(f"report_{number}", "") for number in range(2, int(tags.get("seeds") or 1) + 1)]
    uris = [_place(uri, root) for uri in (tags.get("report", ""), *further)]
    if named:
        uris = [uri if exists(uri) else "" for uri in named]
    if not uris[0]:
        known = named[0] if named else tags.get("report") or "any known place"
        raise InputError(
            f"the report of {champion} is not at {known}: make one with"
            f" python -m zsbir.evaluate {tags.get('run_uri', 'RUN')}, and pass what it prints as --champion-report"
        )
    gone = uris.count("")
    if gone:
        events.warn(f"{gone} of the {len(uris)} reports of the champion's seeds are gone; comparing with those that are there")
    reports = [Artifact(uri, "report") for uri in uris if uri]
    run, digest = reports[0].manifest.inputs["run"], tags.get("run_digest", "")
    if digest and run["digest"] != digest:
        raise InputError(f"{reports[0].uri} is a report of {run['uri']}, not of the champion {champion}")
    return reports


def _place(tagged: str, root: str) -> str:
    """Return where the report of a tag lies, in this root or where it was; "" if it is gone."""
    uris = [join(root, *below_root(tagged).split("/")), tagged] if tagged else []
    return next((uri for uri in uris if exists(uri)), "")


def earlier_spread(tags: Mapping[str, str], metric: str, report: Artifact, *, source: str) -> SeedSpread | None:
    """Return the spread that an earlier comparison estimated from several seeds, by the tags of its version.

    None where it had one seed a side, or was by another metric or of other data than this report.
    """
    recorded = json.loads(tags.get("gate_numbers") or "{}")
    for numbers in (recorded, recorded.get("on_champion_data") or {}):
        spread = numbers.get("spread") or {}
        same = numbers.get("metric") == metric and numbers.get("dataset_digest") == report.manifest.inputs["dataset"]["digest"]
        if same and spread.get("source") == ESTIMATED:
            return SeedSpread(spread["sd"], spread["seeds"], source)
    return None
