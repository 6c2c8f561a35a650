"""Errors of the service with fields named as their user has typed them: by the flags of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager

from zsbir.base.errors import InputError

JOB_OPTIONS = ("project", "priority", "cpus", "gpus")
"""Options of the job itself whose names are those of the fields in the service's errors."""

_FIELD = re.compile(r"\bfield '([\w.]+)'")
_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")


@contextmanager
def flags_named(kind: str, parser: argparse.ArgumentParser) -> Iterator[None]:
    """Have the service's errors inside name fields by the flags of this command line."""
    flags = {flag for action in parser._actions for flag in action.option_strings}
    try:
        yield
    except InputError as error:
        raise InputError(_with_flags(str(error), flags, in_steps=kind == "pipeline")) from None


def _with_flags(line: str, flags: Container[str], *, in_steps: bool) -> str:
    """Return the service's error with fields named as flags: `train: field 'lr': ...` as `train: --lr: ...`.

    in_steps: a flag's name begins with that of its step, as in `--train.lr`. What is no flag of this command stays as it is.
    """
    step = line.partition(": ")[0]

    def flag(found: re.Match[str]) -> str:
        named = f"--{f'{step}.' if in_steps else ''}{found[1].replace('_', '-')}"
        return named if named in flags else found[0]

    line = _FLAG.sub(flag, _FIELD.sub(flag, line))
    return f"--{line}" if f"--{step.replace('_', '-')}" in flags and step in JOB_OPTIONS else line
