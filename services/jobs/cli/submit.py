"""Submit a job, and wait for it. The flags are made from the JSON schema that the service sends, so they always match it."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from services.jobs.cli.arrays import each_of, format_submitted_array, wait_for_all
from services.jobs.cli.client import Client
from services.jobs.cli.flags import JOB_OPTIONS, flags_named
from services.jobs.cli.format import PROGRAM, format_submitted, format_summary
from services.jobs.cli.options import client_of, deadline, duration_s, interruptible_watch, job_ids, key, service_parser
from services.jobs.cli.style import format_log
from services.jobs.queue.states import KINDS, TERMINAL
from zsbir.base.cli import Parser
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.events import say

Json = dict[str, Any]
Schema = Mapping[str, Any]

REPORT_S = 30.0
"""Seconds between two lines about the same state, where standard error is not a terminal."""

COMMAND = "command"
"""The kind of job whose configuration is the words of a program, given after `--`."""

FIELD_PREFIX = "field "
"""Prefix of the names under which argparse keeps the job's fields, which no option of the command itself has."""

PATH_FIELDS = frozenset(
    {
        "path",
        "dataset",
        "knowledge",
        "run",
        "gallery",
        "metadata",
        "report",
        "index",
        "other_reports",
        "champion_reports",
        "unseen_to",
        "cwd",
    }
)
PATH_OR_NAME_FIELDS = frozenset({"weights", "unseen_classes", "seen_classes", "dev_classes", "space"})
"""Fields whose values may be files of this machine; those of the second set only where they contain a dot or a slash."""


def submit(argv: Sequence[str]) -> str:
    """Submit a job: submit KIND [--field value ...]; prints its number, or with --wait its result."""
    argv, words = _split_words(argv)
    asks_help = not {"-h", "--help"}.isdisjoint(argv)
    description = f"Submit a job. KIND is one of {', '.join(KINDS)}; submit KIND --help lists its fields."
    first = service_parser("submit", description, usage=f"{PROGRAM} submit KIND [--field value ...]")
    service, rest = first.parse_known_args([word for word in argv if word not in ("-h", "--help")])
    if not rest or rest[0].startswith("-"):
        if asks_help:
            first.print_help()
        raise InputError(f"name the kind of job first: {', '.join(KINDS)}; see {PROGRAM} submit --help")
    kind, *arguments = rest
    if words is not None and kind != COMMAND:
        raise InputError(f"words after -- are those of a job of kind {COMMAND}: {PROGRAM} submit {COMMAND} -- PROGRAM ...")
    if asks_help:
        _submit_parser(kind, _known_kinds(service)).print_help()
    with client_of(service) as client:
        parser = _submit_parser(kind, client.kinds())
        parsed, from_file = parser.values(arguments)
        own = {"cwd": str(Path.cwd()), **({"words": words} if words else {})} if kind == COMMAND else {}
        config = _absolute(_merged({**own, **from_file}, _given(parsed)))
        each = each_of(client.kinds()["kinds"][kind], parsed.seeds, parsed.each, read_value)
        if each and parsed.follow:
            raise InputError("--follow shows the log of one job; with an array use --wait, and logs -f ID")
        request = {"kind": kind, "config": config, **({"each": _absolute(each)} if each else {}), **_job_options(parsed)}
        with flags_named(kind, parser):
            job, new = client.submit(request, parsed.key or uuid.uuid4().hex)
        remark = "" if new or not parsed.key else f"was submitted with the key {parsed.key!r} before"
        if array := job.get("array"):
            say(format_submitted_array(array, remark))
            if parsed.wait:
                return wait_for_all(client, array["ids"], _watch)
            return f"{array['ids'][0]}-{array['ids'][-1]}"
        say(format_submitted(job, remark))
        if parsed.wait or parsed.follow:
            return _wait(client, job["id"], follow=parsed.follow)
        return str(job["id"])


def _split_words(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return the arguments of this command, and the words after `--`, which are those of a job's own; None without `--`."""
    if "--" not in argv:
        return list(argv), None
    at = list(argv).index("--")
    return list(argv[:at]), list(argv[at + 1 :])


def _known_kinds(service: argparse.Namespace) -> Json:
    """Return what can be submitted: to the service, or where none answers, to one of the version that is installed here."""
    try:
        with client_of(service) as client:
            return client.kinds()
    except (InputError, RunError) as error:
        say(f"the fields are those of the version that is installed here: {error}")
    from services.jobs.runs.fields import describe_kinds  # it loads what the commands load

    return describe_kinds()


def _submit_parser(kind: str, described: Json) -> Parser:
    if kind not in described["kinds"]:
        raise InputError(unknown_name("kind", kind, described["kinds"]))
    schema = described["kinds"][kind]
    parser = service_parser(f"submit {kind}", schema.get("description", ""), usage=f"{PROGRAM} submit {kind} [--field value ...]")
    parser.add_config_file()
    group = parser.add_argument_group("job")
    # --name of ingest and index is the name of what they make, and by default the job's as well.
    own = [] if "name" in schema.get("properties", {}) else ["--name"]
    help_text = "what to call the job in lists [the recipe and what differs from it]"
    group.add_argument(*own, "--job-name", dest="job_name", metavar="TEXT", help=help_text)
    group.add_argument(
        "--seeds", metavar="N,N,...", help="submit an array of jobs, one for each of these seeds; in a pipeline, of the training"
    )
    group.add_argument(
        "--each",
        action="append",
        default=[],
        metavar="FIELD=V,V,...",
        help="submit an array of jobs, one for each of these values of a field (margin_cross=0.1,0.2; in a pipeline "
        "train.margin_cross=...); several --each: one for each combination",
    )
    group.add_argument(
        "--after", type=job_ids, default=[], metavar="JOB,...", help="start only after these jobs have succeeded: 12, or 12-14"
    )
    group.add_argument("--after-any", type=job_ids, default=[], metavar="JOB,...", help="start after these have ended in any way")
    group.add_argument("--project", help="project whose limits and GPU-hours the job counts towards [default]")
    group.add_argument("--priority", type=int, metavar="N", help="jobs of higher priority start first, -100 to 100 [0]")
    group.add_argument("--cpus", type=float, metavar="X", help="CPUs to reserve while it runs [what its configuration uses]")
    group.add_argument("--gpus", type=float, metavar="X", help="GPUs to reserve while it runs [what its configuration uses]")
    group.add_argument(
        "--time-limit", type=duration_s, metavar="TIME", help="longest time that an attempt may run: 90s, 30m, 2h, 1d [none]"
    )
    group.add_argument(
        "--start-by",
        type=deadline,
        metavar="WHEN",
        help="give the job up if it has not started by then: 30m (from now), or 2030-01-31T12:00 [never]",
    )
    group.add_argument(
        "--key", type=key, help="submitting again with the same key returns the first job instead of a second one [a new key]"
    )
    group.add_argument(
        "--notify",
        type=lambda text: [part.strip() for part in text.split(",") if part.strip()],
        default=[],
        metavar="A,B,...",
        help="targets of the operator's that are told when the job has ended [none]",
    )
    group.add_argument(
        "--notify-on", choices=["end", "failure"], default="end", help="which ends they are told of: all, or without success [end]"
    )
    group.add_argument("--wait", action="store_true", help="wait until the job has ended, and print its result")
    group.add_argument("--follow", action="store_true", help="like --wait, with the job's log on standard error")
    _add_flags(parser, schema)
    if "recipe" in schema.get("properties", {}):
        about = (f"  {name:<18}{text}" for name, text in described.get("about_recipes", {}).items())
        parser.epilog = "\n".join(["recipes:", *about]).replace("%", "%%")
    return parser


def _job_options(parsed: argparse.Namespace) -> Json:
    """Return the given options of the job itself, which are not part of its configuration."""
    options: Json = {name: getattr(parsed, name) for name in JOB_OPTIONS}
    after = [{"job": job, "on": on} for on, jobs in (("success", parsed.after), ("end", parsed.after_any)) for job in jobs]
    options |= {"name": parsed.job_name, "after": after or None}
    options |= {"time_limit_s": parsed.time_limit, **(parsed.start_by or {})}
    options["notify"] = [{"to": name, "on": parsed.notify_on} for name in parsed.notify] or None
    return {name: value for name, value in options.items() if value is not None}


# --- flags


def _add_flags(parser: argparse.ArgumentParser, schema: Schema, path: tuple[str, ...] = ()) -> None:
    """Add a flag for every field: `--steps`; in a pipeline, with the step's name: `--train.steps`."""
    group = parser.add_argument_group(" ".join(path) or "fields", schema.get("description", "") if path else None)
    for name, field in schema.get("properties", {}).items():
        if "properties" in field:
            _add_flags(parser, field, (*path, name))
        else:
            # In a pipeline, an earlier step may provide what a step requires.
            _add_flag(group, (*path, name), _without_null(field), required=not path and name in schema.get("required", ()))


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that were given, nested like the schema."""
    config: dict[str, Any] = {}
    for name, value in vars(parsed).items():
        if name.startswith(FIELD_PREFIX):
            *path, last = name.removeprefix(FIELD_PREFIX).split(".")
            section = config
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
    return config


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both mappings merged; where both have a value, that of `above` wins."""
    values = dict(below)
    for name, value in above.items():
        inner = values.get(name)
        values[name] = _merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return values


def _absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with absolute paths for files that exist here: the service may run in another folder."""
    return {
        name: _absolute(value) if isinstance(value, Mapping) else _absolute_value(name, value) for name, value in config.items()
    }


def _absolute_value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute_value(name, part) for part in value]
    field = name.rpartition(".")[2]  # in an array of pipelines, fields have paths: ingest.path
    is_file = field in PATH_FIELDS or (field in PATH_OR_NAME_FIELDS and any(character in str(value) for character in "./"))
    with suppress(OSError, ValueError):
        if is_file and isinstance(value, str) and value and Path(value).exists():
            return str(Path(value).absolute())
    return value


def _add_flag(group: argparse._ArgumentGroup, path: Sequence[str], field: Schema, *, required: bool) -> None:
    shown = "required" if required else _shown(field.get("default"))
    flag, dest = "--" + ".".join(path).replace("_", "-"), FIELD_PREFIX + ".".join(path)
    text = f"{field.get('description', '')} [{shown}]".replace("%", "%%")
    if field.get("type") == "boolean":
        group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=text, action=argparse.BooleanOptionalAction)
    else:
        group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=text, metavar=_metavar(field), type=_reader(field))


def read_value(field: Schema, text: str) -> Any:
    """Return the text of one value as the field's type has it. InputError where it cannot be one."""
    try:
        return _reader(_without_null(field))(text)
    except argparse.ArgumentTypeError as error:
        raise InputError(str(error)) from None


def _without_null(field: Schema) -> Schema:
    """Return the schema of `X` for `X or null`, marked as nullable."""
    inner = next((part for part in field.get("anyOf", ()) if part.get("type") != "null"), None)
    return {**field, **inner, "nullable": True} if inner else field


def _metavar(field: Schema) -> str:
    if "enum" in field:
        return "{" + ",".join(map(str, field["enum"])) + "}"
    return {"integer": "N", "number": "X", "array": "A,B,..."}.get(field.get("type", ""), "TEXT")


def _shown(default: Any) -> str:
    if default in (None, "", []):
        return "none"
    return ",".join(map(str, default)) if isinstance(default, list) else str(default)


def _reader(field: Schema) -> Callable[[str], Any]:
    """Return the argparse type that reads a flag's text as the field's value."""

    def read(text: str) -> Any:
        if field.get("nullable") and text == "none":
            return None
        kind = field.get("type")
        if kind == "array":
            item = _reader(field.get("items", {}))
            return [item(part.strip()) for part in text.split(",") if part.strip()]
        if "enum" in field and text not in map(str, field["enum"]):
            raise argparse.ArgumentTypeError(unknown_name("value", text, map(str, field["enum"])))
        try:
            return {"integer": int, "number": float}.get(str(kind), str)(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be {'a whole number' if kind == 'integer' else 'a number'}, got {text!r}"
            ) from None

    return read


# --- waiting


def _wait(client: Client, job_id: int, *, follow: bool) -> str:
    """Wait for the job and return its result. RunError where it failed or timed out, Interrupted where it was cancelled."""
    with interruptible_watch(job_id):
        if follow:
            for text in client.follow(job_id):
                sys.stderr.write(format_log(text) if sys.stderr.isatty() else text)
                sys.stderr.flush()
        job = _watch(client, job_id)
    if job["state"] == "cancelled":
        raise Interrupted(format_summary(job))
    if job["state"] != "succeeded":
        raise RunError(f"{format_summary(job)}; {PROGRAM} logs {job_id}")
    return str(job["result"])


def _watch(client: Client, job_id: int) -> Json:
    """Return the job once it has ended, and report its progress until then."""
    job: Json = {}
    reported, next_s = "", 0.0
    with tqdm(bar_format="{desc}", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as line:
        for job in client.watch(job_id):
            text = format_summary(job)
            if not line.disable:
                line.set_description_str(text[: (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1])
            elif job["state"] not in TERMINAL and (job["state"] != reported or time.monotonic() >= next_s):
                say(text)
                reported, next_s = job["state"], time.monotonic() + REPORT_S
    return job
