"""The reference of commands: each with its description and all of its flags, read from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from services.jobs.runs.fields import describe_kinds
from zsbir import artifacts, index, promote
from zsbir.__main__ import STAGES
from zsbir.base import cli

DEFAULT = re.compile(r" \[([^\[\]]*)\]$")
JOB_OPTIONS = ("job",)
"""The group of flags of `submit` that are the same for every kind."""

PROGRAMS = {"sweep": "tuning", **{stage: stage for stage in STAGES}}
"""Kind of job: the command whose fields it has."""

FURTHER = {
    "index": tuple(index.GROWTH),
    "promote": tuple(promote.OTHERS),
    "artifacts": tuple(artifacts.COMMANDS),
}
"""Commands with commands of their own."""


class _Caught(Exception):
    """A parser that was asked for its help."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


@contextmanager
def _caught_help() -> Iterator[None]:
    def caught(parser: argparse.ArgumentParser, _file: object = None) -> None:
        raise _Caught(parser)

    with mock.patch.object(cli.Parser, "print_help", caught):
        yield


def parser_of(parse: Callable[[Sequence[str]], object], words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser that a command builds for these words."""
    with _caught_help():
        try:
            parse([*words, "--help"])
        except _Caught as caught:
            return caught.parser
    raise AssertionError(f"{words} has no help")


def stage_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each stage, sweep and search service with its parser, and their own commands: `promote list`."""
    for verb in (*STAGES, "tuning"):
        parse = importlib.import_module("tuning.__main__" if verb == "tuning" else f"zsbir.{verb}")._parse
        if verb != "artifacts":  # it has commands alone
            yield verb, parser_of(parse)
        for command in FURTHER.get(verb, ()):
            yield f"{verb} {command}", parser_of(parse, [command])


def service_parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command of the job queue with its parser, with those of `submit` and `tokens`; and the search service."""
    from services.jobs import __main__ as jobs
    from services.search.__main__ import _parse as search

    for name in (*jobs._commands(),):
        if name == "keep":
            continue  # what `up` starts in the background
        if name == "submit":
            yield "services.jobs submit", parser_of(jobs._parse, ["submit", "train"])
            continue
        yield f"services.jobs {name}", parser_of(jobs._parse, [name])
    yield "services.search", parser_of(search)


def option_rows(parser: argparse.ArgumentParser, *, only: Sequence[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yield (group's title, rows of a table) for each group of a parser's arguments. only: the groups that are wanted."""
    for group in parser._action_groups:
        rows = [_row(action) for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if rows and (not only or group.title in only):
            yield group.title or "", rows


def _row(action: argparse.Action) -> str:
    about = (action.help or "").replace("%%", "%")
    default = DEFAULT.search(about)
    meaning = about[: default.start()] if default else about
    shown = f"`{default.group(1)}`" if default and default.group(1) != "none" else ""
    choices = f" ({', '.join(f'`{choice}`' for choice in _choices(action))})" if _choices(action) else ""
    required = "; required" if action.required and action.option_strings else ""
    return f"| {_names(action)} | {cell(meaning)}{choices}{required} | {cell(shown)} |"


def _choices(action: argparse.Action) -> list[str]:
    """Return the values that an option may have, where they are named."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    metavar = str(action.metavar or "")
    return metavar.strip("{}").split(",") if metavar.startswith("{") else []


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        name = str(action.metavar or action.dest)
        return f"`{name} ...`" if action.nargs in ("+", "*") else f"`{name}`"
    names = [f"`{option}{_value(action)}`" for option in action.option_strings]
    return ", ".join(names)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ""
    if _choices(action):
        return " NAME"
    return " " + cell(str(action.metavar or action.dest.upper()))


def cell(text: str) -> str:
    """Return text for a cell of a table: one line, where `<` begins no tag."""
    return without_tags(" ".join(text.split()).replace("|", "\\|"))


def without_tags(text: str) -> str:
    """Return Markdown in which `<` outside of code begins no tag."""
    parts = text.split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def section(title: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return the section of one command."""
    lines = [f"## {title}", "", *card(parser.description or ""), "", "```text", *usage(parser), "```", ""]
    for group, rows in option_rows(parser):
        named = {"positional arguments": "arguments", "options": "general"}.get(group, group)
        lines += [f"| {cell(named)} | meaning | default |", "|---|---|---|", *rows, ""]
    return lines


def usage(parser: argparse.ArgumentParser) -> list[str]:
    """Return how the command is called, without naming every flag."""
    positional = [action for action in parser._actions if not action.option_strings]
    required = [action for action in parser._actions if action.option_strings and action.required]
    words = [
        _names(action).strip("`") if action.nargs not in ("?", "*") else f"[{_names(action).strip('`')}]" for action in positional
    ]
    words += [_names(action).split(", ")[0].strip("`") for action in required]
    return [" ".join([parser.prog, *words, "[--flag value ...]"])]


def card(description: str) -> list[str]:
    """Return the description of a command as Markdown: sentences as text, aligned lines as they are."""
    blocks = [block.strip("\n") for block in description.strip("\n").split("\n\n")]
    lines: list[str] = []
    for block in blocks:
        prose = not re.search(r"\S {2,}\S|^ {2}|^python -m", block, re.MULTILINE)
        lines += ["", *([without_tags(block)] if prose else ["```text", *textwrap.dedent(block).splitlines(), "```"])]
    return lines[1:]


def commands_page() -> str:
    """Return the page of the stages' commands."""
    lines = [
        "# Commands",
        "",
        "<!-- generated by tests/documentation: make reference -->",
        "`python -m zsbir VERB` and the installed `zsbir VERB` are the same as `python -m zsbir.VERB`. A flag is a field of a",
        "[configuration](configuration.md) with dashes in place of underscores; `--config FILE` reads fields from YAML, and flags",
        "win over it.",
        "The address of a result goes to standard output, everything else to standard error.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | failed, for example by a full disk, a lost worker, or a loss that is NaN |",
        "| 2 | bad arguments or input; one line on standard error says which, and how to fix it |",
        "| 130 | interrupted; a training saves a checkpoint first |",
        "",
    ]
    for name, parser in stage_parsers():
        lines += section(name, parser)
    return "\n".join(lines).rstrip() + "\n"


def service_commands_page() -> str:
    """Return the page of the services' commands."""
    lines = [
        "# Commands of the services",
        "",
        "<!-- generated by tests/documentation: make reference -->",
        "[The job queue](../jobs.md) and [the search service](../search.md#the-search-service) explain them.",
        "",
    ]
    for name, parser in service_parsers():
        if name.endswith(" submit"):
            lines += _submit(parser)
        else:
            lines += section(name, parser)
    return "\n".join(lines).rstrip() + "\n"


def _submit(parser: argparse.ArgumentParser) -> list[str]:
    """Return the section of `submit`: the options of every job, and for each kind the fields that its command has not as flags."""
    lines = ["## services.jobs submit", "", "Submit a job; prints its number, or with `--wait` its result.", ""]
    lines += ["```text", "python -m services.jobs submit KIND [--field value ...]", "```", ""]
    for group, rows in option_rows(parser, only=("service", "job", "options")):
        lines += [f"| {'general' if group == 'options' else group} | meaning | default |", "|---|---|---|", *rows, ""]
    lines += ["A job has the fields of its command, as flags of the same names; in a pipeline with the step before them:", ""]
    lines += ["`--train.steps 500`. Further fields of a kind:", "", "| field | meaning | of a job | default |", "|---|---|---|---|"]
    stages = dict(stage_parsers())
    for kind, schema in describe_kinds()["kinds"].items():
        if kind == "pipeline":
            continue
        known = {action.dest for action in stages[PROGRAMS[kind]]._actions} if kind in PROGRAMS else set()
        for name, field in schema.get("properties", {}).items():
            if name not in known:
                default = field.get("default")
                shown = f"`{default}`" if default not in (None, "", [], ()) else ""
                lines.append(f"| `{name}` | {cell(field.get('description', ''))} | `{kind}` | {shown} |")
    return [*lines, ""]
