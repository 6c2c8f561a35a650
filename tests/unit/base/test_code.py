"""Which code runs, and how it differs from another process's."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path

import pytest

import zsbir
from zsbir.base import code
from zsbir.base.draft import code_version
from zsbir.base.errors import InputError


def test_every_file_of_the_package_counts_and_nothing_that_python_makes_of_it():
    files = code.package_files()
    file = Path(zsbir.__file__).parent / "losses" / "quadruplet.py"
    assert files["zsbir/losses/quadruplet.py"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not [name for name in files if "__pycache__" in name]


def test_the_checksum_is_part_of_every_manifest_with_or_without_a_checkout():
    assert code_version()["package_sha256"] == code.package_sha256()
    assert len(code.package_sha256()) == 64


def test_the_same_code_passes():
    code.check_same(code.running_code())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"zsbir/losses/quadruplet.py": "0" * 64}, "zsbir/losses/quadruplet.py; install"),
        ({"zsbir/losses/new.py": "0" * 64}, "zsbir/losses/new.py; install"),
        ({"torch": "1.0"}, f"torch {code.running_code()['torch']} instead of 1.0; install"),
        ({f"zsbir/{number}.py": "0" for number in range(9)}, "zsbir/0.py, zsbir/1.py, zsbir/2.py and 6 more; install"),
    ],
)
def test_other_code_is_refused_with_the_node_and_what_differs(changed, words):
    with pytest.raises(InputError) as refused:
        code.check_same(code.running_code() | changed)
    assert str(refused.value).startswith(f"node {socket.gethostname()} runs other code than the command: ")
    assert words in str(refused.value)


def test_a_file_that_is_missing_elsewhere_is_a_difference():
    there = dict(code.running_code())
    del there["zsbir/losses/quadruplet.py"]
    assert "zsbir/losses/quadruplet.py" in code.difference(there)


def test_what_an_editor_leaves_in_the_package_is_no_part_of_its_code(tmp_path, monkeypatch):
    copy = shutil.copytree(Path(zsbir.__file__).parent, tmp_path / "zsbir")
    monkeypatch.setattr(zsbir, "__file__", str(copy / "__init__.py"))
    code.package_files.cache_clear()
    before = code.package_files()
    for name in ("training/.loop.py.swp", ".DS_Store", ".ipynb_checkpoints/loop.py", "training/loop.py~"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("left")
    code.package_files.cache_clear()
    assert code.package_files() == before
    code.package_files.cache_clear()
