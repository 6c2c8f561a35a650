"""Which code a process runs, so that the processes of one piece of work can tell whether they run the same."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import zsbir
from zsbir.base.errors import InputError

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "pyarrow")
"""Libraries that compute: another version of one may give other numbers."""

SHOWN = 3
"""Differences that an error names."""

WAY_OUT = "install the same version on every node, or send the code with the job (ray job submit --working-dir .)"


@cache
def package_files() -> dict[str, str]:
    """Return the sha256 of each module of this package, by its path: what runs, whether or not it was installed or committed."""
    package = Path(zsbir.__file__).parent
    names = sorted(file.relative_to(package).as_posix() for file in package.rglob("*.py"))
    # Editors and notebooks leave hidden files and folders of their own; they are no part of what runs.
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    return {f"zsbir/{name}": hashlib.sha256((package / name).read_bytes()).hexdigest() for name in names}


def package_sha256() -> str:
    """Return one checksum of the whole package."""
    return hashlib.sha256(json.dumps(package_files(), sort_keys=True).encode()).hexdigest()


def running_code() -> dict[str, str]:
    """Return the files of this package and the versions of the libraries that compute, as another process can compare them."""
    return package_files() | {name: _version(name) for name in LIBRARIES}


def difference(expected: Mapping[str, str]) -> str:
    """Return how the code of this process differs from another one's, naming this machine; empty where it is the same.

    expected: what `running_code` returned in the other process.
    """
    here = running_code()
    names = sorted(name for name in {*expected, *here} if expected.get(name) != here.get(name))
    if not names:
        return ""
    shown = [f"{name} {here[name]} instead of {expected[name]}" if name in LIBRARIES else name for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"node {socket.gethostname()} runs other code than the command: {', '.join(shown)}{more}"


def check_same(expected: Mapping[str, str]) -> None:
    """Raise InputError, naming this machine and what differs, unless this process runs the code of another one."""
    if found := difference(expected):
        raise InputError(f"{found}; {WAY_OUT}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
