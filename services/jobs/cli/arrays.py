"""Arrays on the command line: the values of `--seeds` and `--each`, what is said of an array, and waiting for all of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.jobs.cli.client import Client
from services.jobs.cli.format import PROGRAM, format_array, format_summary
from services.jobs.cli.options import interruptible_watch
from services.jobs.cli.style import format_ids
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, RunError
from zsbir.base.events import say
from zsbir.base.text import clean

Json = dict[str, Any]
Schema = Mapping[str, Any]
TRAINING = "train"
"""The step of a pipeline whose fields need not be named with the step."""


def each_of(schema: Schema, seeds: str | None, each: Sequence[str], read: Callable[[Schema, str], Any]) -> dict[str, list[Any]]:
    """Return the values of each field of an array by the field's path; none where there is no array.

    seeds: the text of `--seeds`. each: those of `--each`, FIELD=V,V. read: returns a text as a field's value. InputError for a
    field that the kind does not have, a value that it cannot have, or a field that is named twice.
    """
    asked = [("seeds", "seed", seeds)] if seeds is not None else []
    for text in each:
        name, equals, values = text.partition("=")
        if not equals:
            raise InputError(f"--each must read FIELD=VALUE,VALUE, got {text!r}")
        asked.append(("each", name.strip().replace("-", "_"), values))
    found: dict[str, list[Any]] = {}
    for flag, name, values in asked:
        path, field = _field(schema, flag, name)
        if path in found:
            raise InputError(f"--{flag}: {path} is named twice")
        words = [word.strip() for word in values.split(",") if word.strip()]
        try:
            found[path] = [read(field, word) for word in words]
        except InputError as error:
            raise InputError(f"--{flag} {name}: {error}") from None
        if not words:
            raise InputError(f"--{flag} {name}: no values; name some, as in 0,1,2")
    return found


def _field(schema: Schema, flag: str, name: str) -> tuple[str, Schema]:
    """Return a field's path and its schema; in a pipeline, also of a field of the training without the step's name."""
    sections = {step: part["properties"] for step, part in schema["properties"].items() if "properties" in part}
    fields: dict[str, Schema] = {path: field for path, field in schema["properties"].items() if path not in sections}
    fields |= {f"{step}.{path}": field for step, part in sections.items() for path, field in part.items()}
    path = next((each for each in (name, f"{TRAINING}.{name}") if each in fields), None)
    if path is None:
        raise InputError(f"--{flag}: {unknown_name('field', name, fields)}")
    if fields[path].get("type") == "array":
        raise InputError(f"--{flag}: {path} is a list, and commas stand between its own parts; submit these jobs one by one")
    return path, fields[path]


def format_submitted_array(array: Json, remark: str = "") -> str:
    """Return the line about an array that has just been submitted."""
    title = f"array {format_ids(array['ids'])} ({array['name']}): {format_array(array)}"
    return clean("; ".join(filter(None, [title, remark, f"{PROGRAM} list --array {array['id']}"])))


def wait_for_all(client: Client, ids: Sequence[int], watch: Callable[[Client, int], Json]) -> str:
    """Wait until all jobs have ended, and return their results, a line each. RunError where some did not succeed."""
    jobs = []
    for job_id in ids:
        with interruptible_watch(job_id):
            jobs.append(watch(client, job_id))
        say(format_summary(jobs[-1]))
    failed = [job["id"] for job in jobs if job["state"] != "succeeded"]
    if failed:
        raise RunError(f"{len(failed)} of {len(ids)} jobs did not succeed: {format_ids(failed)}")
    return "\n".join(str(job["result"]) for job in jobs)
