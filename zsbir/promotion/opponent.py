"""What a challenger is compared with, by the tags of the champion's version: its reports, and how far its seeds spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zsbir.base import events
from zsbir.base.artifact import Artifact, exists
from zsbir.base.errors import InputError, RunError
from zsbir.base.strict_json import parse_json
from zsbir.base.text import clean
from zsbir.promotion.address import artifact_of, places
from zsbir.promotion.seeds import ESTIMATED, SeedSpread

REPLACE = 'bring it back with python -m zsbir.artifacts copy, or replace this champion with --force --reason "..."'
"""The way out where nothing that measured a champion can be read."""

MOST_SEEDS = 1000
"""Reports of a champion's seeds that are looked for."""


def champion_reports(champion: str, tags: Mapping[str, str], named: Sequence[str], *, root: str) -> list[Artifact]:
    """Return the Reports that the user names, else those that the champion was promoted by, its own first.

    champion: the URI of its version. Raises InputError if its own report is gone, or the first one named is of another run.
    """
    uris = [uri if exists(uri) else "" for uri in named] if named else _tagged(champion, tags, root)
    if not uris[0]:
        known = named[0] if named else tags.get("report") or "any known place"
        raise InputError(clean(f"the report of {champion} is not at {known}: {_way_out(champion, tags, root)}"))
    gone = uris.count("")
    if gone:
        events.warn(f"{gone} of the {len(uris)} reports of the champion's seeds are gone; comparing with those that are there")
    reports = [Artifact(uri, "report") for uri in uris if uri]
    run, digest = reports[0].manifest.named("run"), tags.get("run_digest", "")
    if digest and run.digest != digest:
        raise InputError(f"{reports[0].uri} is a report of {run.uri}, not of the champion {champion}")
    return reports


def _seeds(tags: Mapping[str, str]) -> int:
    """Return by how many seeds a version was judged; 1 where its tag says nothing that can be true."""
    text = tags.get("seeds", "")
    return min(int(text), MOST_SEEDS) if text.isascii() and text.isdigit() and len(text) < len(str(MOST_SEEDS)) + 1 else 1


def named_for(opponents: Sequence[Mapping[str, str]], named: Sequence[str]) -> list[Sequence[str]]:
    """Return, for each opponent, which of the reports that the user names are of its run; an entry without an opponent has all.

    opponents: the tags of each one's version. Raises InputError for a report of none of several opponents.
    """
    if len(opponents) < 2 or not named:
        return [named] * max(len(opponents), 1)
    digests = [tags.get("run_digest", "") for tags in opponents]
    of_run = {uri: Artifact(uri, "report").manifest.named("run").digest for uri in named}
    if strange := next((uri for uri, digest in of_run.items() if digest not in digests), ""):
        raise InputError(f"{strange} is a report of none of the champions that are the opponents: leave it out")
    return [[uri for uri in named if of_run[uri] == digest] for digest in digests]


def _tagged(champion: str, tags: Mapping[str, str], root: str) -> list[str]:
    """Return where the reports of a version's tags lie, "" for each that is gone. InputError or RunError if that cannot be told."""
    further = [tags.get(f"report_{number}", "") for number in range(2, _seeds(tags) + 1)]
    try:
        return [_place(uri, root) for uri in (tags.get("report", ""), *further)]
    except (InputError, RunError) as error:
        told = clean(f"a report of {champion} cannot be read ({error}): {REPLACE}")
        raise (InputError(told) if isinstance(error, InputError) else RunError(told)) from None


def _place(tagged: str, root: str) -> str:
    """Return where the report of a tag lies, in this root or where it was; "" if it is gone."""
    silent: Exception | None = None
    for uri in places(tagged, "report", root):
        try:
            if exists(uri):
                return uri
        except (InputError, RunError) as error:
            silent = error
    if silent:
        raise silent
    return ""


def _way_out(champion: str, tags: Mapping[str, str], root: str) -> str:
    """Return what to do about a champion whose report is gone; what else of it is gone decides."""
    try:
        run = artifact_of(champion, tags, "run", root=root).uri if "run_uri" in tags else "RUN"
    except (InputError, RunError):
        return f"its run is gone, too, so nothing can be compared with it; {REPLACE}"
    return f"make one with python -m zsbir.evaluate {run}, and pass what it prints as --champion-report"


def earlier_spread(tags: Mapping[str, str], metric: str, report: Artifact, *, source: str) -> SeedSpread | None:
    """Return the spread that an earlier comparison estimated from several seeds, by the tags of its version.

    None where it had one seed a side, was by another metric or of other data than this report, or the tag holds something else.
    """
    try:
        recorded = parse_json((tags.get("gate_numbers") or "{}").encode())
        found = [_estimated(numbers, metric, report, source) for numbers in (recorded, recorded.get("on_champion_data") or {})]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return next((spread for spread in found if spread), None)


def _estimated(numbers: Mapping[str, Any], metric: str, report: Artifact, source: str) -> SeedSpread | None:
    """Return the spread in the numbers of one comparison: None if it was by another metric, on other data, or of single seeds."""
    spread = numbers.get("spread") or {}
    same = numbers.get("metric") == metric and numbers.get("dataset_digest") == report.manifest.inputs["dataset"]["digest"]
    if not same or spread.get("source") != ESTIMATED:
        return None
    found = SeedSpread(float(spread["sd"]), int(spread["seeds"]), source)
    return found if 0 <= found.sd < 1 and found.seeds > 1 else None
