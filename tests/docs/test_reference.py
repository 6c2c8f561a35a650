"""The reference pages are what the code has now, and nothing that a person can set or ask for is missing from them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from documentation import commands, configuration, files
from documentation.examples import INDEX
from documentation.meanings import COLUMNS, COUNTS, FACTS, MANIFEST
from documentation.pages import REFERENCE, reference_pages

from zsbir.base.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"
ENVIRONMENT = PAGES / "environment.md"
WHEN_OLD = "run: make reference"

NOT_SETTINGS = {
    "zsbir.base.config:Config": "the class of all others",
    "zsbir.base.manifest:FileEntry": "of manifests: files.md",
    "zsbir.base.manifest:Manifest": "files.md",
    "zsbir.data.doctor:Finding": "what ingest says",
    "zsbir.data.ink:Ink": "a fact: data.md",
    "zsbir.evaluation.protocol:Protocol": "named values: evaluation.md",
    "zsbir.model.encoder:EncoderFacts": "in a file of weights",
    "zsbir.retrieval.calibration:Calibration": "a fact: search.md",
    "zsbir.retrieval.calibration:HitProbability": "a fact",
    "zsbir.retrieval.calibration:NoMatch": "a fact",
    "zsbir.retrieval.calibration:Rate": "a fact",
    "zsbir.retrieval.graph_facts:GraphFacts": "a fact",
    "zsbir.training_run.plan:Job": "what a training passes to its workers",
    "services.jobs.http.requests:Filter": "http-jobs.md",
    "services.jobs.http.requests:LoginCode": "http-jobs.md",
    "services.jobs.http.requests:NewToken": "http-jobs.md",
    "services.jobs.http.requests:Selection": "http-jobs.md",
    "services.jobs.http.requests:Submission": "http-jobs.md",
    "services.jobs.http.state:ApiSettings": "made of the settings of `serve`",
    "services.jobs.queue.dependencies:After": "http-jobs.md",
    "services.jobs.queue.records:JobRequest": "http-jobs.md",
    "services.jobs.queue.resources:ResourceLimits": "a part of Limits",
    "services.jobs.queue.resources:ResourceRequest": "http-jobs.md",
    "services.jobs.queue.targets:Targets": "http-jobs.md",
    "services.search.http.state:ApiSettings": "made of the settings of the search service",
    "zsbir.losses.baseline_config:MultiSimilarityFields": "shown by the name of the loss",
    "zsbir.losses.baseline_config:ProxyAnchorFields": "shown by the name of the loss",
    "zsbir.losses.baseline_config:SakeFields": "shown by the name of the loss",
    "zsbir.losses.baseline_config:SupConFields": "shown by the name of the loss",
    "zsbir.losses.baseline_config:TripletFields": "shown by the name of the loss",
}
"""Configurations that the page leaves out, each with the reason."""


OUTSIDE = ("infra", "docker")
"""What is not a package and sets or reads variables."""

DEPLOYED = {".yaml", ".service", "Dockerfile"}
PROGRAMS_OF_OTHERS = re.compile("GF_|PIP_")
"""Settings of Grafana and of pip."""

VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b")

NOT_OURS = {
    "COMPOSE_FILE": "Docker Compose's",
    "CREDENTIALS_DIRECTORY": "systemd sets it",
    "JOBS_DB_PASSWORD": "infra/compose/init.sh writes it",
    "MLFLOW_DB_PASSWORD": "infra/compose/init.sh writes it",
    "NET_BIND_SERVICE": "a capability",
    "POSTGRES_INITDB_ARGS": "PostgreSQL's image",
    "POSTGRES_PASSWORD": "infra/compose/init.sh writes it",
    "PYTHON_DIGEST": "an argument of docker/Dockerfile",
    "PYTHON_IMAGE": "an argument of docker/Dockerfile",
    "RAY_TOKEN": "infra/compose/init.sh writes it",
    "S3_ACCESS_KEY": "infra/compose/init.sh writes it",
    "S3_SECRET_KEY": "infra/compose/init.sh writes it",
}
"""Names in deployments that the page leaves out, each with the reason."""


@pytest.fixture(scope="module")
def made(workplace):
    """Return the text of each page as the code makes it now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        return reference_pages(Path("artifacts"), INDEX)


@pytest.mark.parametrize("name", REFERENCE)
def test_a_page_of_the_reference_is_current(name, made):
    assert (PAGES / name).read_text("utf-8") == made[name], WHEN_OLD


def test_every_configuration_is_in_the_reference_or_left_out_for_a_reason():
    found, shown = configuration.every_configuration(), configuration.named_configurations()
    assert found - shown - set(NOT_SETTINGS) == set(), "name it in tests/documentation/configuration.py, or here with a reason"
    assert set(NOT_SETTINGS) <= found - shown


@pytest.mark.parametrize("page", ["commands.md", "service-commands.md"])
def test_every_flag_of_every_command_is_in_the_reference(page):
    parsers = commands.stage_parsers() if page == "commands.md" else commands.service_parsers()
    text = (PAGES / page).read_text("utf-8")
    for name, parser in parsers:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        own = [action for action in parser._actions if action.dest != "help" and not name.endswith(" submit")]
        assert not [option for action in own for option in action.option_strings if f"`{option}" not in section], name


def test_every_column_count_and_fact_has_a_meaning(workplace):
    for name, schema in files.written_schemas(workplace / "artifacts").items():
        assert set(files.families(schema)) <= set(COLUMNS[name]), name
    assert set(Manifest.model_fields) == set(MANIFEST)
    for kind, manifest in files.manifests(workplace / "artifacts").items():
        assert set(files.named(manifest["counts"])) <= set(COUNTS[kind])
        assert set(manifest["facts"]) <= set(FACTS[kind])


def test_every_environment_variable_is_documented_and_every_documented_one_of_ours_is_read():
    text = ENVIRONMENT.read_text("utf-8")
    ours, theirs = set(), set()
    for file in (file for package in ("zsbir", "tuning", "services", *OUTSIDE) for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                ours |= set(re.findall(r"\bZSBIR_[A-Z0-9_]*[A-Z0-9]\b", node.value))
            if isinstance(node, ast.Call) and re.search(r"environ\.get$|getenv$", ast.unparse(node.func)):
                theirs |= {str(ast.literal_eval(each)) for each in node.args[:1] if isinstance(each, ast.Constant)}
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.ctx, ast.Load):
                theirs |= {str(node.slice.value)} if ast.unparse(node.value).endswith("environ") else set()
    own_settings = set(VARIABLE.findall((ROOT / "infra" / "compose" / "README.md").read_text("utf-8")))
    for script in (file for folder in OUTSIDE for file in (ROOT / folder).rglob("*.sh")):
        ours |= set(re.findall(r"\bZSBIR_[A-Z0-9_]*[A-Z0-9]\b", script.read_text("utf-8"))) - own_settings
    theirs -= {"TOKENS"}  # of infra/compose/setup.py, from the compose file
    theirs -= {"PATH", "LANG"}  # passed on, not read
    documented = set(re.findall(r"`(ZSBIR_[A-Z0-9_]*)`", text))
    assert documented == ours
    assert {name for name in theirs if f"`{name}`" not in text} == set()


def test_every_variable_that_deployments_set_is_documented_or_left_out_for_a_reason():
    """Manifests, the compose file, units of systemd, and the Dockerfile. The compose file's own settings are in its README."""
    documented = ENVIRONMENT.read_text("utf-8")
    compose = (ROOT / "infra" / "compose" / "README.md").read_text("utf-8")
    files = [file for folder in OUTSIDE for file in (ROOT / folder).rglob("*") if file.suffix in DEPLOYED or file.name in DEPLOYED]
    assert {"compose.yaml", "mlflow.service", "ray-head.service", "raycluster.yaml", "Dockerfile"} <= {file.name for file in files}
    found = {name: file for file in files for name in VARIABLE.findall(file.read_text("utf-8"))}
    missing = {
        name: file.relative_to(ROOT).as_posix()
        for name, file in found.items()
        if not (f"`{name}`" in documented + compose or name in NOT_OURS or PROGRAMS_OF_OTHERS.match(name))
    }
    assert missing == {}
    assert set(NOT_OURS) <= set(found)
