"""Put a job in line, and wait for it. Its flags are made from the JSON schema that the service gives: what it knows, they know."""

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

from services.jobs.cli import format as telling
from services.jobs.cli.client import Client
from services.jobs.cli.format import US
from services.jobs.cli.options import client_of, key, moment_s, service_parser, span_s, standing_aside
from services.jobs.queue.states import KINDS, TERMINAL
from zsbir.base.cli import Parser
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.events import say

Json = dict[str, Any]
Schema = Mapping[str, Any]

LINE_S = 30.0
"""Seconds between two lines about the same state, where standard error is no terminal."""

MARK = "field "
"""How the names begin under which argparse keeps fields: no option of the command itself is called so."""

ADDRESSES = frozenset({"path", "dataset", "knowledge", "run", "gallery"})
NAMES_OR_FILES = frozenset({"weights", "unseen_classes", "seen_classes", "dev_classes", "space"})
"""Fields whose values may be files of this machine; the second ones are, when they look like files."""


def submit(argv: Sequence[str]) -> str:
    """Put a job in line: submit KIND [--field value ...]; prints its id, or what it made with --wait."""
    asks_help = not {"-h", "--help"}.isdisjoint(argv)
    card = f"Put a job in line. KIND: {', '.join(KINDS)}; its fields: submit KIND --help."
    first = service_parser("submit", card, usage=f"{US} submit KIND [--field value ...]")
    service, rest = first.parse_known_args([word for word in argv if word not in ("-h", "--help")])
    if not rest or rest[0].startswith("-"):
        if asks_help:
            first.print_help()
        raise InputError(f"say first what to submit: {', '.join(KINDS)}; see {US} submit --help")
    kind, *words = rest
    with client_of(service) as client:
        parser = _submit_parser(kind, client.kinds())
        if asks_help:
            parser.print_help()
        parsed, below = parser.values(words)
        config = _absolute(_merged(below, _given(parsed)))
        job, new = client.submit({"kind": kind, "config": config, **_terms(parsed)}, parsed.key or uuid.uuid4().hex)
        say(telling.submitted(job, "" if new or not parsed.key else f"was submitted with the key {parsed.key!r} before"))
        if parsed.wait or parsed.follow:
            return _waited(client, job["id"], follow=parsed.follow)
        return str(job["id"])


def _submit_parser(kind: str, described: Json) -> Parser:
    if kind not in described["kinds"]:
        raise InputError(unknown_name("kind", kind, described["kinds"]))
    schema = described["kinds"][kind]
    parser = service_parser(f"submit {kind}", schema.get("description", ""), usage=f"{US} submit {kind} [--field value ...]")
    parser.add_config_file()
    group = parser.add_argument_group("job")
    group.add_argument("--project", help="whose limits and budget it counts for [default]")
    group.add_argument("--priority", type=int, metavar="N", help="higher ones first, -100 to 100 [0]")
    group.add_argument("--cpus", type=float, metavar="X", help="CPUs that it holds [what its configuration takes]")
    group.add_argument("--gpus", type=float, metavar="X", help="GPUs that it holds [what its configuration takes]")
    group.add_argument("--time-limit", type=span_s, metavar="TIME", help="that an attempt may run: 90s, 30m, 2h, 1d [none]")
    group.add_argument(
        "--start-by", type=moment_s, metavar="WHEN", help="30m from now, or 2030-01-31T12:00; given up later [never]"
    )
    group.add_argument("--key", type=key, help="the same key is the same job, however often it is submitted [a new one]")
    group.add_argument("--wait", action="store_true", help="until it has ended; prints what it made")
    group.add_argument("--follow", action="store_true", help="the same, with its log on standard error")
    _add_flags(parser, schema)
    if "recipe" in schema.get("properties", {}):
        about = (f"  {name:<18}{text}" for name, text in described.get("about_recipes", {}).items())
        parser.epilog = "\n".join(["recipes:", *about]).replace("%", "%%")
    return parser


def _terms(parsed: argparse.Namespace) -> Json:
    """What is not its configuration; only what was said."""
    said = {name: getattr(parsed, name) for name in ("project", "priority", "cpus", "gpus")}
    said |= {"time_limit_s": parsed.time_limit, "start_by_s": parsed.start_by}
    return {name: value for name, value in said.items() if value is not None}


# --- flags


def _add_flags(parser: argparse.ArgumentParser, schema: Schema, path: tuple[str, ...] = ()) -> None:
    """A flag for every field: `--steps`; `--train.steps` for one of a pipeline's step."""
    group = parser.add_argument_group(" ".join(path) or "fields", schema.get("description", "") if path else None)
    for name, field in schema.get("properties", {}).items():
        if "properties" in field:
            _add_flags(parser, field, (*path, name))
        else:
            # In a pipeline, an earlier step gives what a step cannot do without.
            _add_flag(group, (*path, name), _plain(field), required=not path and name in schema.get("required", ()))


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """The fields that were given, nested as the schema is."""
    config: dict[str, Any] = {}
    for name, value in vars(parsed).items():
        if name.startswith(MARK):
            *path, last = name.removeprefix(MARK).split(".")
            section = config
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
    return config


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both; where both say something, what is above."""
    values = dict(below)
    for name, value in above.items():
        inner = values.get(name)
        values[name] = _merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return values


def _absolute(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with files and folders that are here named from the root on: the service may stand in another folder."""
    return {name: _absolute(value) if isinstance(value, Mapping) else _located(name, value) for name, value in config.items()}


def _located(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_located(name, part) for part in value]
    is_file = name in ADDRESSES or (name in NAMES_OR_FILES and any(mark in str(value) for mark in "./"))
    with suppress(OSError, ValueError):
        if is_file and isinstance(value, str) and value and Path(value).exists():
            return str(Path(value).absolute())
    return value


def _add_flag(group: argparse._ArgumentGroup, path: Sequence[str], field: Schema, *, required: bool) -> None:
    shown = "required" if required else _shown(field.get("default"))
    flag, dest = "--" + ".".join(path).replace("_", "-"), MARK + ".".join(path)
    text = f"{field.get('description', '')} [{shown}]".replace("%", "%%")
    if field.get("type") == "boolean":
        group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=text, action=argparse.BooleanOptionalAction)
    else:
        group.add_argument(flag, dest=dest, default=argparse.SUPPRESS, help=text, metavar=_metavar(field), type=_reader(field))


def _plain(field: Schema) -> Schema:
    """`X` for `X or null`, with a mark that null may be said."""
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
    """How a flag's text becomes a value: an argparse type."""

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


def _waited(client: Client, job_id: int, *, follow: bool) -> str:
    """What the job made. RunError where it failed or timed out, Interrupted where it was cancelled."""
    with standing_aside(job_id):
        if follow:
            for text in client.follow(job_id):
                sys.stderr.write(text)
                sys.stderr.flush()
        job = _watched(client, job_id)
    if job["state"] == "cancelled":
        raise Interrupted(telling.in_a_word(job))
    if job["state"] != "succeeded":
        raise RunError(f"{telling.in_a_word(job)}; {US} logs {job_id}")
    return str(job["result"])


def _watched(client: Client, job_id: int) -> Json:
    """The job as it ended, with a line that says how far it is until then."""
    job: Json = {}
    told, next_s = "", 0.0
    with tqdm(bar_format="{desc}", leave=False, file=sys.stderr, disable=not sys.stderr.isatty()) as line:
        for job in client.watch(job_id):
            text = telling.in_a_word(job)
            if not line.disable:
                line.set_description_str(text[: (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1])
            elif job["state"] not in TERMINAL and (job["state"] != told or time.monotonic() >= next_s):
                say(text)
                told, next_s = job["state"], time.monotonic() + LINE_S
    return job
