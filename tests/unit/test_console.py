"""`zsbir VERB ...`: the list of verbs, and what becomes of a verb."""

import importlib.util
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from zsbir import __main__ as console

REPOSITORY = Path(__file__).resolve().parents[2]


def zsbir(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m zsbir WORDS`, from the checkout."""
    return run("zsbir", *words)


def run(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_without_a_verb_it_lists_each_verb_with_one_line(words):
    done = zsbir(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for verb in console.MODULES:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"    {verb} ")]
        assert len(line.removeprefix(f"    {verb}").strip()) > 20, line
        assert len(line) <= 132


def test_an_unknown_verb_is_one_line_with_a_suggestion():
    done = zsbir("trian", "toy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown verb 'trian'; did you mean 'train'?; see zsbir --help\n"


def test_every_verb_is_a_module_that_is_there():
    for module in console.MODULES.values():
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("zsbir.train", ("train", "--help")),
        ("zsbir.train", ("train", "toy", "--no-tracking")),
        ("zsbir.search", ("search", "nowhere", "nothing.png")),
        ("zsbir.artifacts", ("artifacts", "list", "--root", "nowhere")),
        ("tuning", ("tuning", "toy", "--seach", "grid")),
        ("services.jobs", ("jobs", "lst")),
    ],
)
def test_a_verb_does_what_its_module_does(module, words):
    as_verb, as_module = zsbir(*words), run(module, *words[1:])
    assert (as_verb.returncode, as_verb.stdout, as_verb.stderr) == (as_module.returncode, as_module.stdout, as_module.stderr)


def test_the_installed_command_is_this_one():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert EntryPoint("zsbir", scripts["zsbir"], "console_scripts").load() is console.main
