"""The command line of the platform: one command for every stage, and for what looks after the stages.

zsbir VERB ...                   the installed command
python -m zsbir VERB ...         the same, from a checkout
python -m zsbir.VERB ...         the same, one stage's module
"""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from zsbir.base import cli
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError

STAGES = (
    "download",
    "ingest",
    "pretrain",
    "teacher",
    "train",
    "evaluate",
    "compare",
    "index",
    "search",
    "promote",
    "export",
    "artifacts",
)
MODULES = {**{stage: f"zsbir.{stage}" for stage in STAGES}, "tuning": "tuning", "jobs": "services.jobs"}
"""The module that each verb runs. Modules above this package are known by name alone, so that it imports none of them."""


def main() -> None:
    """Run the verb that the command line names, as `python -m MODULE` would, or list the verbs."""
    words = sys.argv[1:]
    module = MODULES.get(words[0]) if words else None
    if module is None:
        cli.main(_list_verbs, words)
    sys.argv = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _list_verbs(words: Sequence[str]) -> str:
    """Return the list of verbs. Raises InputError for a word that is not one of them."""
    if words and words[0] not in ("-h", "--help"):
        raise InputError(unknown_name("verb", words[0], MODULES) + "; see zsbir --help")
    lines = [f"    {verb:<10}{_first_line(module)}" for verb, module in MODULES.items()]
    return "\n".join([(__doc__ or "").strip(), "", "verbs (each with --help):", *lines])


def _first_line(module: str) -> str:
    """Return the first line of a command's description, read from its source without running it."""
    spec = find_spec(module)
    if spec is not None and spec.submodule_search_locations:
        spec = find_spec(f"{module}.__main__")
    if spec is None or spec.origin is None:
        return "(not installed)"
    description = ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or ""
    return description.split("\n")[0]


if __name__ == "__main__":
    main()
