"""One command line for every verb: flags, YAML and defaults come from the fields of its configurations.

Standard output carries the URI made; everything else goes to standard error. Exit codes: 0 done, 1 failed, 2 bad arguments or
input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import atexit
import io
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, Literal, NoReturn

from zsbir.base import streams, watch
from zsbir.base.config import Config, read_yaml, unknown_name
from zsbir.base.errors import InputError, Interrupted, RunError
from zsbir.base.events import say
from zsbir.base.outages import reported_name
from zsbir.base.signals import interrupt_on_signals
from zsbir.base.text import clean_lines

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(run: Callable[[Sequence[str]], str | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a verb and leave the process: its result on standard output, each expected error as one line on standard error.

    `ZSBIR_TRACEBACK=1` shows the whole traceback of an error instead. SIGTERM and a lost terminal (SIGHUP) end a verb as Ctrl-C
    does, unless it answers them itself. A standard error that is full, closed or without a reader changes nothing.
    """
    streams.open_missing()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=streams.AS_BYTES)  # an address must come out as it is, whatever the terminal can show
    interrupt_on_signals()
    with redirect_stderr(streams.BestEffort(sys.stderr)):
        code = _exit_code(run, sys.argv[1:] if argv is None else argv)
    if code == INTERRUPTED and argv is None:
        _end_at_once(code)
    sys.exit(code)


def _end_at_once(code: int) -> NoReturn:
    """End an interrupted process after its exit handlers, without the interpreter's shutdown.

    That stops threads wherever they are, and one inside a library in C++ (a checkpoint being written, images being read ahead)
    aborts the process: exit code -6 in place of 130.
    """
    with suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _exit_code(run: Callable[[Sequence[str]], str | None], argv: Sequence[str]) -> int:
    """Run a verb and print its result or its error. Return the exit code."""
    try:
        watch.start()
        if text := _result_of(run, argv):
            print_result(clean_lines(text) if sys.stdout.isatty() else text)  # programs get every character
    except (InputError, RunError, OSError, Interrupted, KeyboardInterrupt) as error:
        if os.environ.get("ZSBIR_TRACEBACK"):
            raise
        code, line = _exit_code_and_line(error)
        watch.report_error(reported_name(error))
        say(line, timed=False)
        return code
    except Exception as error:
        watch.report_error(reported_name(error))
        raise
    return DONE


def _result_of(run: Callable[[Sequence[str]], str | None], argv: Sequence[str]) -> str:
    """Run a verb and return what belongs on standard output: its result as a line, or its help; empty where it has no result."""
    try:
        # Libraries print, and Ray prints what its workers print. None of it may mix with the URI on standard output.
        with redirect_stdout(sys.stderr):
            result = run(argv)
    except HelpAsked as asked:
        return str(asked)
    return "" if result is None else f"{result}\n"


def print_result(text: str) -> None:
    """Print on standard output. RunError with the text itself where that cannot be written, so that it is not lost."""
    try:
        with broken_pipe_allowed():
            print(text, end="", flush=True)
    except OSError as error:
        _discard_output()
        raise RunError(f"standard output cannot be written ({error.strerror}); the result is: {text.strip()}") from None


@contextmanager
def broken_pipe_allowed() -> Iterator[None]:
    """End printing without a failure when the reader has gone, as behind `| head`."""
    try:
        yield
    except BrokenPipeError:
        _discard_output()


def _discard_output() -> None:
    """Send what is left of standard output to the null device: Python writes it at its exit, and would fail once more."""
    assert sys.__stdout__
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _exit_code_and_line(error: BaseException) -> tuple[int, str]:
    match error:
        case InputError():
            return BAD_INPUT, f"error: {error}"
        case OSError(filename=str(name)):
            return FAILED, f"error: {error.strerror}: {name}"
        case Interrupted():
            return INTERRUPTED, f"interrupted: {error}"
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case _:
            return FAILED, f"error: {error}"


class HelpAsked(Exception):  # noqa: N818 - asking for help is not an error
    """The user asked for help: its text is the result."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose flags are the fields of one or more Config classes, and whose errors suggest the way out."""

    def __init__(self, prog: str, card: str):
        super().__init__(
            prog=f"python -m {prog}", description=card, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self._fields: set[str] = set()
        self.needed_for: Callable[[str], str] = lambda _field: ""
        """What must be given for a field to have a flag, as "--losses supcon"; "" for a field that never has one."""

    def add_fields(self, config: type[Config], *, title: str, skip: frozenset[str] = frozenset()) -> None:
        """Add a flag for every field of `config`, with its description and default as help."""
        group = self.add_argument_group(title)
        for name, field in config.model_fields.items():
            if name in skip:
                continue
            self._fields.add(name)
            help_text = f"{field.description or ''} [{_shown(field.get_default(call_default_factory=True))}]".replace("%", "%%")
            flag = "--" + name.replace("_", "-")
            kind = _plain_type(field.annotation)
            if kind is bool:
                group.add_argument(
                    flag, dest=name, default=argparse.SUPPRESS, help=help_text, action=argparse.BooleanOptionalAction
                )
            else:
                group.add_argument(
                    flag, dest=name, default=argparse.SUPPRESS, help=help_text, metavar=_metavar(kind), type=_reader(kind)
                )

    def add_config_file(self) -> None:
        """Add `--config FILE`: fields from a YAML file, over which flags win."""
        self.add_argument("--config", metavar="FILE", help="YAML file of fields; flags win over it")

    def values(self, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """Return everything parsed, and the configuration fields that were given: those of the YAML file, then flags over them."""
        parsed, unknown = self.parse_known_args(list(argv))
        if unknown:
            flags = [option for action in self._actions for option in action.option_strings]
            first = unknown[0].split("=")[0]
            if needed := self.needed_for(first.removeprefix("--").replace("-", "_")):
                raise InputError(f"the option {first!r} is there with {needed}: give that as well, or leave the option out")
            raise InputError(
                unknown_name("option", first, flags) if first.startswith("-") else f"unexpected argument {unknown[0]!r}; see --help"
            )
        given = {name: value for name, value in vars(parsed).items() if name in self._fields}
        config_file = getattr(parsed, "config", None)
        return parsed, ({**read_yaml(config_file), **given} if config_file else given)

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002 - argparse's signature
        """Raise HelpAsked: `main` prints help where it prints results."""
        raise HelpAsked(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise InputError, one line, for bad arguments."""
        raise InputError(f"{message}; see {self.prog} --help")


def _plain_type(annotation: Any) -> Any:
    """Return `X` for `X | None`, and the type itself otherwise."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return next(part for part in typing.get_args(annotation) if part is not type(None))
    return annotation


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(str(choice) for choice in typing.get_args(kind)) + "}"
    if typing.get_origin(kind) is tuple:
        return "A,B,..."
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _reader(kind: Any) -> Callable[[str], Any]:
    """Return the function that reads a flag's text. Only tuples are split here; pydantic validates everything else."""
    if typing.get_origin(kind) is tuple:
        return lambda text: tuple(part.strip() for part in text.split(",") if part.strip())
    return str


def _shown(default: Any) -> str:
    if default in (None, "", ()):
        return "none"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def split_fields(values: dict[str, Any], *configs: type[Config]) -> list[dict[str, Any]]:
    """Split `values` among the configurations that have the fields; unknown ones go to the first, whose validation reports them."""
    parts: list[dict[str, Any]] = [{} for _ in configs]
    for name, value in values.items():
        owner = next((i for i, config in enumerate(configs) if name in config.model_fields), 0)
        parts[owner][name] = value
    return parts
