"""The documentation agrees with the code: its commands, links, Python blocks, tables of fields, file tree and import layers.

`python tests/docs/test_docs.py` rewrites the tables of fields in docs/method.md and the layers in docs/architecture.md.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import tomllib
import types
import typing
from itertools import pairwise
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest

from services.jobs import __main__ as jobs_main
from services.jobs.runs import validation as schemas
from zsbir.base import cli
from zsbir.base.config import Config
from zsbir.data.augmentation import Augmentation
from zsbir.edge import model_address
from zsbir.losses.objective_config import ObjectiveConfig
from zsbir.losses.registry import loss_kind, offered
from zsbir.promotion.address import is_model_address, parse_address
from zsbir.training.config import OptimiserConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
ALL_TEXTS = sorted([*ROOT.glob("*.md"), *(text for name in ("docs", "infra", "docker") for text in (ROOT / name).rglob("*.md"))])
DATED = ("docs/log.md", "docs/benchmarks/")
"""Texts about one date: their commands and code need not match the present code."""
TEXTS = [path for path in ALL_TEXTS if not path.relative_to(ROOT).as_posix().startswith(DATED)]
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
METHOD = ROOT / "docs" / "method.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FIELDS = re.compile(r"<!-- fields -->\n.*?<!-- /fields -->", re.DOTALL)
LAYERS = re.compile(r"<!-- layers: ([^\n]*) -->\n```text\n(.*?)```\n<!-- /layers -->", re.DOTALL)

COMPILED_ONLY = "<!-- compiled, not run:"
"""This mark, with the reason, precedes a Python block that the tests do not run."""

# The addresses that the documentation uses as examples. The fixture puts real artifacts there.
DATASET = "artifacts/datasets/toy/0123456789abcdef"
KNOWLEDGE = "artifacts/knowledge/0123456789abcdef/0123456789abcdef"
RUN = "artifacts/runs/toy-0123456789ab"
SWEEP = "artifacts/sweeps/toy-0123456789ab"
REPORT = "artifacts/reports/0123456789abcdef"
INDEX = "artifacts/indexes/toy/0123456789abcdef"


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
    return [(name_of(path), verb, words) for path in [*TEXTS, *scripts] for verb, words in commands(path.read_text("utf-8"))]


def python_blocks(path):
    """Yield (line number, whether it is run, code) of each block marked ```python."""
    lines = path.read_text("utf-8").splitlines()
    for start, line in enumerate(lines):
        if line == "```python":
            end = lines.index("```", start)
            before = next((text for text in reversed(lines[:start]) if text.strip()), "")
            yield start + 2, not before.startswith(COMPILED_ONLY), "\n".join(lines[start + 1 : end])


def field_table():
    """Return the fields of TrainConfig with default and meaning, grouped by the class that declares them."""
    groups = [
        ("Losses", ObjectiveConfig, "zsbir/losses/objective_config.py"),
        ("Optimiser", OptimiserConfig, "zsbir/training/config.py"),
        ("Augmentation", Augmentation, "zsbir/data/augmentation.py"),
        ("Everything else", TrainConfig, "zsbir/training/config.py"),
    ]
    lines, written = ["<!-- fields -->"], set()
    for title, config, file in groups:
        lines += [f"**{title}** (`{config.__name__}` in `{file}`)", "", "| field | default | meaning |", "|---|---|---|"]
        for name, field in config.model_fields.items():
            if name not in written:
                lines.append(f"| `{name}` | {shown(TrainConfig.model_fields[name])} | {field.description}{choices(field)} |")
                written.add(name)
        lines.append("")
    assert written == set(TrainConfig.model_fields)
    for loss in sorted(name for name, package in offered().items() if package == "zsbir"):
        lines += [f"**The loss `{loss}`**, where `losses` names it", "", "| field | default | meaning |", "|---|---|---|"]
        fields = loss_kind(loss).fields.model_fields.items()
        lines += [f"| `{name}` | {shown(field)} | {field.description}{choices(field)} |" for name, field in fields]
        lines.append("")
    return "\n".join([*lines, "<!-- /fields -->"])


def layers():
    """Return each contract of layers in pyproject.toml as docs/architecture.md shows it, by the contract's name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return {contract["name"]: shown_layers(contract["layers"]) for contract in contracts if contract["type"] == "layers"}


def shown_layers(lines):
    """Return the layers, a line each, without the package that all of their modules share (`zsbir.`, `services.`)."""
    return "".join(re.sub(r"\b(?:zsbir|services)\.", "", line) + "\n" for line in lines)


def layer_block(name):
    return f"<!-- layers: {name} -->\n```text\n{layers()[name]}```\n<!-- /layers -->"


def shown(field):
    default = field.get_default(call_default_factory=True)
    return "none" if default in (None, "", ()) else f"`{default}`"


def choices(field):
    kind = field.annotation
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is not Literal:
        return ""
    return " (" + ", ".join(f"`{choice}`" for choice in typing.get_args(kind)) + ")"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with one small artifact of each kind at the addresses that the documentation names."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.chdir(folder)
        (folder / "docs" / "pictures").mkdir(parents=True)
        shutil.copy(ROOT / "docs" / "pictures" / "sketch.png", folder / "docs" / "pictures")
        (folder / "my.yaml").write_text("margin_cross: 0.3\n", "utf-8")
        (folder / SWEEP).mkdir(parents=True)
        (folder / SWEEP / "best.yaml").write_text("recipe: toy\nmargin_cross: 0.3\n", "utf-8")
        _make_artifacts()
    return folder


def _make_artifacts():
    """Run a whole pipeline on 116 small drawings, and move what each stage makes to the documented address."""
    from zsbir.evaluate import EvaluateConfig, evaluate
    from zsbir.evaluate import Settings as EvaluateSettings
    from zsbir.index import IndexConfig, build_index
    from zsbir.index import Settings as IndexSettings
    from zsbir.ingest import IngestConfig, ingest
    from zsbir.ingest import Settings as IngestSettings
    from zsbir.model.backbones import network_of
    from zsbir.model.weights import save_weights
    from zsbir.teacher import Settings as TeacherSettings
    from zsbir.teacher import TeacherConfig, teach
    from zsbir.train import InputUris, train
    from zsbir.train import Settings as TrainSettings

    toys = IngestConfig(layout="toy", toy_photos_per_class=2, toy_sketches_per_class=2, toy_px=32)
    moved(ingest(toys, "", IngestSettings()), DATASET)
    labels = ("circle", "square", "triangle")
    trunk = network_of("resnet18").build(len(labels)).state_dict()
    weights, _ = save_weights(trunk, backbone="resnet18", labels=labels, root=Path("artifacts"))
    teacher = TeacherConfig(backbone="resnet18", weights=str(weights), image_px=32)
    moved(teach(DATASET, teacher, TeacherSettings()), KNOWLEDGE)
    tiny = TrainConfig(recipe="toy", backbone="resnet18", embedding_dim=8, image_px=32, steps=2, classes_per_batch=2, per_class=1)
    moved(train(tiny, InputUris(dataset=DATASET, knowledge=KNOWLEDGE), TrainSettings(tracking=False)), RUN)
    moved(evaluate(RUN, EvaluateConfig(grid_rows=2), EvaluateSettings(tracking=False)), REPORT)
    moved(build_index(RUN, IndexConfig(), IndexSettings()), INDEX)


def moved(artifact, address):
    """Move an artifact to a documented address; its digest lies inside, so it stays the same artifact."""
    Path(address).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(artifact.path, address)


@pytest.mark.parametrize(("text", "words"), queue_commands())
def test_documented_commands_of_the_queue_exist_with_their_options(text, words):
    known = queue_help([])
    command, *rest = words
    assert f"\n    {command} " in known
    fields = schemas.describe_kinds()["kinds"]
    options = queue_help([command, "--help"]) if command != "submit" else submit_options()
    if command == "submit" and rest and not rest[0].startswith("-"):
        assert rest[0] in fields
        known = fields[rest[0]]["properties"]
        steps = {f"{step}.{name}" for step, its in known.items() if rest[0] == "pipeline" for name in its.get("properties", ())}
        options += " ".join("--" + name.replace("_", "-") for name in {*known, *steps})
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"{text}: {' '.join(words)}"


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
    monkeypatch.setattr(module, VERBS[verb], stop)
    entry = module._parse
    with pytest.raises(Reached):
        entry(words)


def test_documented_protocols_and_recipes_exist():
    from zsbir.evaluation.protocol import PROTOCOLS
    from zsbir.recipes import RECIPES

    words = [word for _, _, line in documented() for word in pairwise(line)]
    assert {value for option, value in words if option == "--protocol"} <= set(PROTOCOLS)
    texts = "\n".join(path.read_text("utf-8") for path in TEXTS)
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


def test_the_table_of_fields_is_current():
    found = FIELDS.search(METHOD.read_text("utf-8"))
    assert found
    assert found.group() == field_table(), "run: python tests/docs/test_docs.py"


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
    METHOD.write_text(FIELDS.sub(lambda _: field_table(), METHOD.read_text("utf-8")), "utf-8")
    ARCHITECTURE.write_text(LAYERS.sub(lambda found: layer_block(found[1]), ARCHITECTURE.read_text("utf-8")), "utf-8")
