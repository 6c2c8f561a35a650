"""The bill of materials is the lock file; known weaknesses of packages fail, unless accepted, and nobody to ask is said."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from manifests.objects import ROOT
from packaging.requirements import Requirement
from servers.processes import free_ports

AUDIT = ROOT / "infra" / "audit.py"
LOCK = """\
numpy==2.4.6 \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000
pillow==13.0.0 \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000
"""
WEAKNESS = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-12345"],
    "summary": "reads past the end",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "13.0.1"}]}],
        }
    ],
}


def locked(lock="requirements"):
    """(name, version) of every package in a lock file."""
    lines = (ROOT / f"{lock}.lock").read_text("utf-8").splitlines()
    found = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]
    return {(each.name, str(each.specifier).removeprefix("==")) for each in found}


@pytest.mark.parametrize("lock", ["requirements", "docker/train", "docker/services"])
def test_the_bill_of_materials_lists_exactly_the_locked_packages_with_versions_and_checksums(lock, tmp_path):
    """By the command of `make sbom`, without the validation against CycloneDX's schema, which takes five seconds more."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    ((locks, recipe),) = re.findall(r"for lock in ([\w/ ]+); do \\\n.*?\$\(BIN\)/(cyclonedx-py .*?) \|\|", makefile)
    assert lock in locks.split()
    written = tmp_path / "sbom.json"
    words = shlex.split(recipe.replace("build/sbom-$$(basename $$lock).cdx.json", str(written)).replace("$$lock", lock))
    program = str(Path(sys.executable).parent / words[0])
    subprocess.run([program, *words[1:], "--no-validate"], cwd=ROOT, check=True, capture_output=True)
    sbom = json.loads(written.read_text("utf-8"))
    assert {(each["name"], each["version"]) for each in sbom["components"]} == locked(lock)
    assert len(locked(lock)) > 50
    assert sbom["metadata"]["component"]["name"] == "zsbir"
    for each in sbom["components"]:
        (distribution,) = each["externalReferences"]
        assert distribution["hashes"], each["name"]


class Advisories(BaseHTTPRequestHandler):
    """Answers as OSV's API does: a weakness of pillow, none of other packages."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"vulns": [WEAKNESS]} if asked["package"]["name"] == "pillow" else {}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def advisories():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield ["--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/v1/query"]
    server.shutdown()
    server.server_close()


def audit(tmp_path, *words, accepted="accepted: []", lock=LOCK):
    """Run the audit on a lock of two packages with the real pip-audit; return its exit code and what it printed."""
    if lock:
        (tmp_path / "lock").write_text(lock)
    (tmp_path / "accepted.yaml").write_text(accepted)
    command = [sys.executable, str(AUDIT), f"--lock={tmp_path}/lock", f"--accepted={tmp_path}/accepted.yaml", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_weakness_is_a_failure_that_names_it_and_the_version_without_it(tmp_path, advisories):
    code, said = audit(tmp_path, *advisories)
    assert (code, "pillow 13.0.0: " in said) == (1, True), said
    assert "GHSA-aaaa-bbbb-cccc" in said
    assert "without it: 13.0.1" in said
    assert "2 packages looked at, 1 known weaknesses, 0 of them accepted" in said


def test_an_accepted_weakness_is_no_failure_until_its_day(tmp_path, advisories):
    entry = "accepted: [{{id: CVE-2026-12345, package: pillow, reason: no such files are read, until: {}}}]"
    code, said = audit(tmp_path, *advisories, accepted=entry.format("2099-01-31"))
    assert (code, "1 of them accepted" in said) == (0, True), said
    code, said = audit(tmp_path, *advisories, accepted=entry.format("2020-01-31"))
    assert (code, "has run out" in said) == (1, True), said


def test_without_an_advisory_service_it_says_that_it_looked_at_nothing_and_fails_nobody(tmp_path):
    (port,) = free_ports(1)
    code, said = audit(tmp_path, "--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query")
    assert (code, "SKIPPED, no advisory service was reachable" in said) == (0, True), said


@pytest.mark.parametrize(
    ("lock", "words", "reason"),
    [
        ("", [], "invalid requirements input"),
        ("pillow", [], "hashed requirements"),
        (LOCK, ["--servise=osv"], "unrecognized arguments: --servise=osv"),
    ],
    ids=["no lock", "a lock without checksums", "a mistyped flag"],
)
def test_an_audit_that_could_not_begin_is_a_failure_and_none_that_was_skipped(tmp_path, lock, words, reason):
    code, said = audit(tmp_path, *words, lock=lock)
    assert (code, reason in said, "SKIPPED" in said) == (2, True, False), said


@pytest.fixture(scope="module")
def module():
    spec = spec_from_file_location("zsbir_audit", AUDIT)
    found = module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


def test_a_mirror_that_knows_no_advisories_is_an_unreachable_service(module, monkeypatch, capsys):
    """pip-audit itself calls this "No known vulnerabilities found"."""
    reason = "Dependency not found on PyPI and could not be audited: numpy (2.4.6)"
    answer = {"dependencies": [{"name": "numpy", "skip_reason": reason}], "fixes": []}
    monkeypatch.setattr(module, "ask", lambda *_: answer)
    assert module.main([]) == 0
    assert "SKIPPED" in capsys.readouterr().err
    answer["dependencies"].append({"name": "pillow", "version": "13.0.0", "vulns": []})
    assert module.main([]) == 0
    assert "nothing is known about 1 packages: numpy" in capsys.readouterr().err


@pytest.mark.parametrize(
    "entry",
    [
        "{id: X, package: pillow, until: 2027-01-31}",
        "{id: X, package: pillow, reason: '', until: 2027-01-31}",
        "{id: X, package: pillow, reason: y, until: soon}",
    ],
)
def test_nothing_is_accepted_without_a_reason_and_a_day(module, tmp_path, entry):
    (tmp_path / "accepted.yaml").write_text(f"accepted: [{entry}]")
    with pytest.raises(ValueError, match="needs id, package, reason and until"):
        module.read_accepted(tmp_path / "accepted.yaml")


def test_what_is_accepted_here_is_of_the_lock_and_not_for_ever(module):
    for each in module.read_accepted(ROOT / "infra" / "advisories.yaml"):
        assert each.package in {name for name, _ in locked()}
        assert each.until <= date(date.today().year + 1, 12, 31)
