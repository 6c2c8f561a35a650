"""Artifacts, their lineage, and the results of checks, as text for people and as JSON for programs.

What manifests say may come from strangers: each line of a text shows control characters as escapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

from zsbir.base import limits
from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.layout import below_root
from zsbir.base.manifest import Manifest, is_part
from zsbir.base.storage import join, split_file
from zsbir.base.text import clean
from zsbir.storage_admin.checking import Verdict
from zsbir.storage_admin.lineage import Origin, is_weight_file, weight_sha256
from zsbir.storage_admin.roots import Item, Survey, Unit
from zsbir.storage_admin.tables import bytes_text, count_text, table

_LONG = 100
_NUMBERS = frozenset({"size", "files"})
_STATES = {
    "gone": "GONE",
    "changed": "CHANGED: another one lies there by now",
    "silent": "NOT KNOWN",
    "outside": "not an artifact of a storage root",
}


def format_artifact(artifact: Artifact) -> str:
    """Return an artifact's manifest as text, a line for each fact."""
    manifest = artifact.manifest
    size = sum(entry.size for entry in manifest.files.values())
    rows = {
        "uri": artifact.uri,
        "digest": manifest.digest,
        "made": f"{manifest.created_utc} by {_code(manifest)}",
        "size": f"{bytes_text(size)} in {count_text(len(manifest.files), 'file')}",
        "counts": ", ".join(f"{name} {count:,}" for name, count in manifest.counts.items()),
    }
    lines = [f"{manifest.kind} {manifest.name}", *(f"  {name:8}{text}" for name, text in rows.items() if text)]
    for title, values in (("facts", manifest.facts), ("config", manifest.config)):
        if values:
            lines += [f"  {title}", *(line for name, value in values.items() for line in _value_lines(name, value))]
    return _text(lines)


def format_lineage(origin: Origin) -> str:
    """Return a lineage as a tree: each input below what was made from it."""
    seen: set[str] = set()
    return _text(_branch(origin, "", "", seen))


def artifact_json(artifact: Artifact, origin: Origin) -> dict[str, Any]:
    """Return an artifact's manifest and its lineage as JSON values. Raises InputError for too large a lineage."""
    return {"uri": artifact.uri, **artifact.manifest.model_dump(mode="json"), "lineage": _json_branch(origin, count())}


def _text(lines: Iterable[str]) -> str:
    return "\n".join(map(clean, lines))


def _branch(origin: Origin, first: str, rest: str, seen: set[str]) -> list[str]:
    """Return the lines of an origin and its inputs. first, rest: the prefix of its own line, and of all lines below."""
    again = origin.uri in seen and origin.artifact is not None
    seen.add(origin.uri)
    lines = [f"{first}{_line(origin)}{' (see above)' if again else ''}"]
    if again:
        return lines
    note = _note(origin)
    if note:
        lines.append(f"{rest}{'│  ' if _shown_inputs(origin) else '   '}{note}")
    shown = _shown_inputs(origin)
    for number, part in enumerate(shown, start=1):
        last = number == len(shown)
        lines += _branch(part, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), seen)
    return lines


def _shown_inputs(origin: Origin) -> tuple[Origin, ...]:
    """Return the inputs of an origin; of a part, without parts, which stand beside it: a list of n would be shown 2^n times."""
    return tuple(part for part in origin.inputs if not (is_part(origin.role) and is_part(part.role)))


def _line(origin: Origin) -> str:
    role = f"{origin.role}: " if origin.role else ""
    if origin.state == "outside":
        return f"{role}{origin.uri} ({_STATES['outside']})"
    if origin.state != "there":
        note = f" ({origin.note})" if origin.note else ""
        return f"{role}{origin.uri}  {_STATES[origin.state]}{note}"
    if origin.artifact is None:
        return f"{role}sha256 {origin.digest[:12]}  {below_root(origin.uri)}"
    kind = "" if origin.role == origin.artifact.manifest.kind else f"{origin.artifact.manifest.kind} "
    return f"{role}{kind}{origin.artifact.manifest.name} {origin.digest[:12]}  {below_root(origin.uri)}"


def _note(origin: Origin) -> str:
    """Return what a data set was made from: its inputs are images, which its manifest does not name one by one."""
    if origin.artifact is None or origin.artifact.manifest.kind != "dataset":
        return ""
    manifest = origin.artifact.manifest
    parts = [f"layout {manifest.config['layout']}"] if "layout" in manifest.config else []
    parts += [f"{manifest.counts[name]:,} {name}" for name in ("photos", "sketches", "classes") if name in manifest.counts]
    source = str(manifest.facts.get("source_fingerprint", ""))
    return ", ".join([*parts, *([f"source fingerprint {source[:12]}"] if source else [])])


def _json_branch(origin: Origin, numbers: Iterator[int]) -> dict[str, Any]:
    if next(numbers) > limits.LINEAGE_INPUTS:
        raise InputError(f"its lineage has more than {limits.LINEAGE_INPUTS} inputs; show it without --json")
    about: dict[str, Any] = {"role": origin.role, "uri": origin.uri, "digest": origin.digest, "state": origin.state}
    if origin.note:
        about["note"] = origin.note
    if origin.artifact:
        about |= {"kind": origin.artifact.manifest.kind, "name": origin.artifact.manifest.name}
    elif is_weight_file(origin.uri):
        about["kind"] = "weights"
    return {**about, "inputs": [_json_branch(part, numbers) for part in _shown_inputs(origin)]}


def _code(manifest: Manifest) -> str:
    code = manifest.code
    commit = f", commit {code['commit'][:12]}" if "commit" in code else ""
    dirty = " with changes that were not committed" if code.get("dirty") == "yes" else ""
    return f"zsbir {code.get('zsbir', '?')}{commit}{dirty}"


def _value_lines(name: str, value: Any) -> list[str]:
    """Return a value on one line; what was passed over and what the data doctor found, with a line for each of them."""
    for form in ("{count} {reason}: {examples}", "{severity}: {check}: {message}"):
        try:
            parts = [form.format(**{**item, "examples": ", ".join(map(str, item.get("examples", [])))}) for item in value]
        except (TypeError, AttributeError, LookupError):
            continue  # another value
        if parts:
            return [f"    {name}:", *(f"      {part}" for part in parts)]
    return [f"    {name}: {_short(value)}"]


def _short(value: Any) -> str:
    if value in ("", None, [], {}):
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}... ({len(text):,} characters, see --json)"


def inventory_rows(found: Survey) -> list[dict[str, Any]]:
    """Return a row for each artifact and each weight file of a root, the newest last."""
    rows = [_row(unit, unit.artifact) for unit in found.units.values() if unit.artifact]
    rows += [_weights_row(join(found.root, *path.split("/")), item) for path, item in found.weights.items()]
    return sorted(rows, key=lambda row: (row["created"], row["uri"]))


def format_inventory(rows: list[dict[str, Any]]) -> str:
    """Return the rows of an inventory as a table."""
    cells = [
        [
            row["kind"],
            row["name"],
            row["digest"][:12],
            bytes_text(row["size"]),
            str(row["files"]),
            row["created"][:19].replace("T", " "),
            row["uri"],
        ]
        for row in rows
    ]
    return table(["kind", "name", "digest", "size", "files", "created (UTC)", "uri"], cells, right=_NUMBERS)


def _row(unit: Unit, artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    size = sum(entry.size for entry in manifest.files.values())
    what = {"kind": unit.kind, "name": manifest.name, "digest": manifest.digest}
    return {**what, "size": size, "files": len(manifest.files), "created": manifest.created_utc, "uri": unit.uri}


def _weights_row(uri: str, item: Item) -> dict[str, Any]:
    created = datetime.fromtimestamp(item.modified_s, UTC).isoformat(timespec="seconds")
    what = {"kind": "weights", "name": "-", "digest": weight_sha256(uri)}
    return {**what, "size": item.size, "files": 1, "created": created, "uri": uri}


def weight_facts(uri: str) -> dict[str, Any]:
    """Return what is known about a weight file. Raises InputError when there is none."""
    folder, name = split_file(uri)
    size = folder.size(name)
    if size is None:
        raise InputError(f"no weight file at {uri}")
    return {"uri": join(folder.uri, name), "kind": "weights", "digest": weight_sha256(uri), "size": size}


def format_verdicts(verdicts: list[Verdict]) -> str:
    """Return a line for each problem, and a last line that counts what is whole."""
    lines = [f"{verdict.uri}: {problem.file}: {problem.what}" for verdict in verdicts for problem in verdict.problems]
    lines += [f"{verdict.uri}: {name}: not named by its manifest" for verdict in verdicts for name in verdict.unnamed]
    whole = [verdict for verdict in verdicts if not verdict.problems]
    return _text([*lines, f"{len(whole)} of {len(verdicts)} whole, {bytes_text(sum(v.size for v in whole))} read in them"])


def format_waste(rows: list[dict[str, Any]]) -> str:
    """Return what may be removed, or was removed, as a table."""
    cells = [[row["kind"], bytes_text(row["size"]), str(row["files"]), row["why"], row["uri"]] for row in rows]
    return table(["kind", "size", "files", "why", "uri"], cells, right=_NUMBERS)
