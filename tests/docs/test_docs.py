"""The documentation agrees with the code: its commands, links, Python blocks, file tree and import layers.

`python tests/docs/test_docs.py` rewrites the layers in docs/architecture.md. `make reference` makes the pages of docs/reference.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from documentation.pages import REFERENCE

from services.jobs import __main__ as jobs_main
from services.jobs.runs import fields as job_fields
from zsbir.base import cli
from zsbir.base.config import Config
from zsbir.data.augmentation import Augmentation
from zsbir.edge import model_address
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.promotion.address import is_model_address, parse_address
from zsbir.training.config import OptimiserConfig

ROOT = Path(__file__).resolve().parents[2]
ALL_TEXTS = sorted([*ROOT.glob("*.md"), *(text for name in ("docs", "infra", "docker") for text in (ROOT / name).rglob("*.md"))])
DATED = ("docs/log.md", "docs/benchmarks/")
"""Texts about one date: their commands and code need not match the present code."""
GENERATED = tuple(f"docs/reference/{name}" for name in REFERENCE)
"""Texts that are made from the code itself: their commands are patterns, not examples."""
TEXTS = [path for path in ALL_TEXTS if not path.relative_to(ROOT).as_posix().startswith((*DATED, *GENERATED))]
VERBS = {
    # verb: the function that its command line calls in the end, which the tests replace
    "download": "download",
    "ingest": "ingest",
    "pretrain": "pretrain",
    "teacher": "teach",
    "train": "fitted",
    "evaluate": "evaluate",
    "compare": "compare",
    "index": "perform",
    "search": "read_drawing",
    "artifacts": "perform",
    "tuning": "sweep",
    "promote": "perform",
    "export": "export",
}
ARCHITECTURE = ROOT / "docs" / "architecture.md"
LAYERS = re.compile(r"<!-- layers: ([^\n]*) -->\n```text\n(.*?)```\n<!-- /layers -->", re.DOTALL)

COMPILED_ONLY = "<!-- compiled, not run:"
"""This mark, with the reason, precedes a Python block that the tests do not run."""


class Reached(Exception):
    """A verb has read and validated its arguments and would now begin to work."""


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(verb):
    return importlib.import_module("tuning.__main__" if verb == "tuning" else f"zsbir.{verb}")


def plain(text):
    """Return Markdown without its code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def commands(text):
    """Yield every `python -m zsbir.<verb> ...` and `python -m tuning ...` of a text as (verb, arguments)."""
    text = text.replace("\\\n", " ").replace('"$WORKERS"', "2")  # the only variable that stands for a number
    text = text.replace(" $DOWNLOAD", "")  # further flags, or none
    for verb, rest in re.findall(r'python -m (?:zsbir\.)?(\w+)((?:"[^"\n]*"|[^\n`|<>;)"])*)', text):
        if verb not in VERBS and f"zsbir.{verb}" not in text:
            continue  # a module of another project
        yield verb, shlex.split(rest, comments=True)


def queue_commands():
    """Return (file, arguments) of every documented `python -m services.jobs ...`."""
    found = []
    for path in TEXTS:
        for rest in re.findall(r"python -m services\.jobs ([^\n`|<>;)]*)", path.read_text("utf-8").replace("\\\n", " ")):
            found.append((name_of(path), shlex.split(rest, comments=True)))
    return found


def documented():
    scripts = sorted((ROOT / "infra").glob("demo*.sh"))
    return [(name_of(path), verb, words) for path in [*TEXTS, *scripts] for verb, words in commands(without_messages(path))]


def without_messages(path):
    """Return a text without quoted messages, whose commands have gaps."""
    text = path.read_text("utf-8")
    return re.sub(r"```output\n.*?```", "", text, flags=re.DOTALL)


def python_blocks(path):
    """Yield (line number, whether it is run, code) of each block marked ```python."""
    lines = path.read_text("utf-8").splitlines()
    for start, line in enumerate(lines):
        if line == "```python":
            end = lines.index("```", start)
            before = next((text for text in reversed(lines[:start]) if text.strip()), "")
            yield start + 2, not before.startswith(COMPILED_ONLY), "\n".join(lines[start + 1 : end])


def layers():
    """Return each contract of layers in pyproject.toml as docs/architecture.md shows it, by the contract's name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return {contract["name"]: shown_layers(contract["layers"]) for contract in contracts if contract["type"] == "layers"}


def shown_layers(lines):
    """Return the layers, a line each, without the package that all of their modules share (`zsbir.`, `services.`)."""
    return "".join(re.sub(r"\b(?:zsbir|services)\.", "", line) + "\n" for line in lines)


def layer_block(name):
    return f"<!-- layers: {name} -->\n```text\n{layers()[name]}```\n<!-- /layers -->"


@pytest.mark.parametrize(("text", "words"), queue_commands())
def test_documented_commands_of_the_queue_exist_with_their_options(text, words):
    known = queue_help([])
    command, *rest = words
    assert f"\n    {command} " in known
    fields = job_fields.describe_kinds()["kinds"]
    options = queue_help([command, "--help"]) if command != "submit" else submit_options()
    if command == "submit" and rest and not rest[0].startswith("-"):
        assert rest[0] in fields
        known = fields[rest[0]]["properties"]
        steps = {f"{step}.{name}" for step, its in known.items() if rest[0] == "pipeline" for name in its.get("properties", ())}
        options += " ".join("--" + name.replace("_", "-") for name in {*known, *steps})
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"{text}: {' '.join(words)}"


@pytest.mark.parametrize("module", ["services.search", "services.jobs.local.tracking_server"])
def test_documented_flags_of_a_server_exist(module):
    help_text = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    flags = {*re.findall(r"--[a-z][a-z-]*", help_text), "--help"}
    used = [
        (name_of(path), flag)
        for path in TEXTS
        for rest in re.findall(rf"python -m {re.escape(module)}((?:\\\n|[^\n`|<>;)])*)", path.read_text("utf-8"))
        for flag in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest.split(" #")[0])
    ]
    assert used
    assert [each for each in used if each[1] not in flags] == []


def test_tests_that_are_named_exist():
    """`::test_this...` names the beginning of one."""
    written = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    files = {path.name for path in (ROOT / "tests").rglob("*.py")}
    missing = []
    for path in TEXTS:
        text = path.read_text("utf-8")
        for name, dots in re.findall(r"::(test_\w+)(\.\.\.)?", text):
            found = re.search(rf"def {name}" if dots else rf"def {name}\b", written)
            missing += [] if found else [(name_of(path), name)]
        missing += [(name_of(path), name) for name in re.findall(r"\b(test_\w+\.py)", text) if name not in files]
    assert missing == []


def queue_help(words):
    with pytest.raises(cli.HelpAsked) as asked:
        jobs_main._parse(words)
    return str(asked.value)


def submit_options():
    return (ROOT / "services" / "jobs" / "cli" / "submit.py").read_text("utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    module = module_of(verb)
    with pytest.raises(SystemExit) as left:
        cli.main(module._parse, ["--help"])
    assert left.value.code == 0
    assert f"python -m {module.__name__.removesuffix('.__main__')}" in capsys.readouterr().out


def test_every_verb_is_documented():
    found = {path.stem for path in (ROOT / "zsbir").glob("*.py")} - {"__init__", "__main__", "recipes"} | {"tuning"}
    assert found == set(VERBS), "a verb came or went: change README.md, docs/architecture.md and VERBS"
    assert {verb for _, verb, _ in documented()} == found


@pytest.mark.parametrize(("where", "verb", "words"), [pytest.param(*entry, id=f"{entry[0]}:{entry[1]}") for entry in documented()])
def test_a_documented_command_is_understood(where, verb, words, workplace, monkeypatch):
    """Its options exist, its values are valid, its recipes and files are there. Nothing is run."""
    module = module_of(verb)
    if not words:
        return

    def stop(*_args):
        raise Reached

    def address(text, _kind, _root):
        if is_model_address(text):
            parse_address(text)  # what it stands for is not asked
        return text

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(model_address, "artifact_address", address)
    if hasattr(module, "fitted"):  # chooses by what the data set holds, and there is none
        monkeypatch.setattr(module, "fitted", lambda config, *_, **__: config)
    monkeypatch.setattr(module, VERBS[verb], stop)
    entry = module._parse
    with pytest.raises(Reached):
        entry(words)


def test_documented_protocols_and_recipes_exist():
    from zsbir.evaluation.protocol import PROTOCOLS
    from zsbir.recipes import RECIPES

    words = [word for _, _, line in documented() for word in pairwise(line)]
    assert {value for option, value in words if option == "--protocol"} <= set(PROTOCOLS)
    texts = "\n".join(path.read_text("utf-8") for path in ALL_TEXTS)
    assert not [name for name in (*PROTOCOLS, *RECIPES) if f"`{name}`" not in texts]


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {word for path in TEXTS for word in re.findall(r"(?:`|^|\$ )make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("path", ALL_TEXTS, ids=name_of)
def test_links_and_pictures_lead_somewhere(path):
    text = plain(path.read_text("utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    local = [unquote(target.split("#")[0]) for target in targets if "://" not in target and not target.startswith("#")]
    assert not [target for target in local if not (path.parent / target).exists()]


@pytest.mark.parametrize("path", ALL_TEXTS, ids=name_of)
def test_links_to_a_heading_find_it(path):
    for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", plain(path.read_text("utf-8"))):
        file, _, anchor = target.partition("#")
        if "://" not in file:
            headings = re.findall(r"^#+ (.+)$", ((path.parent / file) if file else path).read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("path", [path for path in TEXTS if any(python_blocks(path))], ids=name_of)
def test_python_blocks_run(path, workplace, monkeypatch):
    """The blocks of one file in order, as one would type them; those that say why they are not run are compiled."""
    monkeypatch.chdir(workplace)
    space = {"__name__": "docs"}
    for line, is_run, code in python_blocks(path):
        block = compile("\n" * (line - 1) + code, name_of(path), "exec")
        if is_run:
            exec(block, space)


def test_the_page_on_extending_shows_the_files_of_the_package_that_the_tests_install():
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    for name in ("zsbir_example/centre.py", "zsbir_example/tiny.py", "pyproject.toml"):
        file = (ROOT / "tests" / "plugin" / name).read_text("utf-8")
        assert f"\n{file}```" in text, f"{name} is another one in docs/extending.md"


def test_the_tree_names_every_file_in_its_folder():
    tree = ARCHITECTURE.read_text("utf-8").split("<!-- tree -->")[1].split("<!-- /tree -->")[0]
    code = [path for package in ("zsbir", "tuning", "services") for path in (ROOT / package).rglob("*.py")]
    existing = {
        name_of(path) for path in code if path.name not in ("__init__.py", "__main__.py") and "migrations" not in path.parts
    }
    drawn = files_of_tree(tree)
    assert sorted(existing - drawn) == [], "files that the tree lacks"
    assert sorted(drawn - existing) == [], "files that the tree names and that do not exist"


def files_of_tree(tree):
    """Return the paths of the Python files in a drawn tree: a file lies in the nearest folder above that is indented less."""
    folders, files = [], set()
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [entry for entry in folders if entry[0] < indent]
        opened = re.match(r"\s*(\w+/)", line)
        if opened:
            folders.append((indent, opened.group(1)))
        folder = "".join(name for _, name in folders)
        files |= {folder + name for name in re.findall(r"\b\w+\.py\b", line)}
    return files


def test_the_layers_are_those_that_the_linter_enforces():
    shown = dict(LAYERS.findall(ARCHITECTURE.read_text("utf-8")))
    assert shown == layers(), "run: python tests/docs/test_docs.py"


def test_nothing_of_one_machine_is_in_the_texts():
    for path in ALL_TEXTS:
        text = path.read_text("utf-8")
        assert not re.search(r"(?<![\w.])/(?:home|work|root|Users)/", text), name_of(path)
        assert not re.search(r"(?:index-url|find-links|/simple/)", text), name_of(path)


def test_configurations_have_no_field_twice():
    """The configuration is flat by inheritance, so two components that declare one name would silently share it."""
    parents: list[type[Config]] = [Augmentation, OptimiserConfig, ObjectiveConfig]
    names = [name for parent in parents for name in parent.model_fields]
    assert len(names) == len(set(names))


if __name__ == "__main__":
    ARCHITECTURE.write_text(LAYERS.sub(lambda found: layer_block(found[1]), ARCHITECTURE.read_text("utf-8")), "utf-8")
