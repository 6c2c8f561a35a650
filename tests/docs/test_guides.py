"""What the guides promise: messages that they quote are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRONG = ROOT / "docs" / "guides" / "when-something-is-wrong.md"
SHORTEST = 4
"""Characters of a part of a message that says something."""


@cache
def texts() -> str:
    """Return all texts of the programs, one a line, values in them as a zero byte; and the lines of the Makefile."""
    files = chain.from_iterable((ROOT / package).rglob("*.py") for package in ("zsbir", "tuning", "services"))
    found = [
        _text(node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    return "\n".join([*found, (ROOT / "Makefile").read_text("utf-8"), "No space left on device"])


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts).replace("\n", " ")


def quoted() -> list[str]:
    """Return the messages that the page quotes, a line each."""
    blocks = re.findall(r"```output\n(.*?)```", WRONG.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("message", quoted())
def test_a_message_that_the_page_of_symptoms_quotes_is_one_of_the_code(message):
    parts = [part.strip(" :;,.()") for part in re.split(r"\.\.\.", message.removeprefix("error: "))]
    said = [part for part in parts if len(part) >= SHORTEST]
    pattern = ".*?".join(re.escape(part) for part in message.removeprefix("error: ").split("..."))
    assert said or re.search(pattern.replace(".*?", "\0"), texts())
    assert not [part for part in said if part not in texts()]


IN_ORDER = (
    "first-ten-minutes",
    "own-pictures",
    "better-models",
    "team",
    "production",
    "public-data-sets",
    "when-something-is-wrong",
)
"""The guides as a person reads them, one after the other."""


def test_the_commands_of_a_guide_use_what_it_or_an_earlier_one_has_set():
    is_set = {"PWD", "PATH", "HOME", "USER"}
    missing = []
    for name in IN_ORDER:
        page = (ROOT / "docs" / "guides" / f"{name}.md").read_text("utf-8")
        for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
            for line in block.splitlines():
                code = line.split(" #")[0]
                missing += [(name, each) for each in re.findall(r"\$\{?([A-Z_]+)", code) if each not in is_set]
                is_set |= set(re.findall(r"\b([A-Z_]+)=", code))
    assert missing == []
    assert {path.stem for path in (ROOT / "docs" / "guides").glob("*.md")} == {*IN_ORDER, "README"}
