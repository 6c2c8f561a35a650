"""Programs of Debian's packages, not installed: fetched by `apt-get download` once and unpacked into the cache of the project."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

Environment = Callable[[Path], dict[str, str]]
"""Of the folder in which everything was unpacked: the environment in which its programs find what they need."""


class Unavailable(Exception):
    """This machine cannot run the program, for the reason given."""


class Packages:
    """Packages whose programs are run where they were unpacked.

    title: how a reason names them. packages: those of the programs; their libraries and fonts, as far as this machine lacks them,
    are found out from apt. programs: paths that are tried once with `--version`.
    """

    def __init__(self, title: str, name: str, packages: Sequence[str], programs: Sequence[str], environment: Environment):
        self._title, self._name, self._packages, self._programs, self._environment = title, name, packages, programs, environment

    def unpacked(self) -> Path:
        """The folder with the programs, fetched at the first use; test processes that start together fetch once."""
        if sys.platform != "linux" or platform.machine() != "x86_64":
            here = f"{sys.platform} {platform.machine()}"
            raise Unavailable(f"{self._title}: Debian's packages for Linux on x86_64 do not run on {here}")
        cache = Path(os.environ.get("ZSBIR_TEST_CACHE", Path.home() / ".cache" / "zsbir")) / self._name
        cache.mkdir(parents=True, exist_ok=True)
        root = cache / "root"
        with FileLock(cache / "lock"):
            if not root.exists():
                with tempfile.TemporaryDirectory(dir=cache) as fresh:
                    self._unpack(Path(fresh))
                    (Path(fresh) / "root").rename(root)
        return root

    def _unpack(self, folder: Path) -> None:
        """Fetch into `folder`, unpack into `folder`/root, and see whether it runs."""
        for tool in ("apt-get", "dpkg"):
            if not shutil.which(tool):
                raise Unavailable(f"{self._title}: no {tool} on this machine to fetch Debian's packages with")
        try:
            self._download(folder, [])
        except Unavailable:
            # Its lists may name versions that the archive has replaced since; new ones, but not over those of the machine.
            lists = folder / "lists" / "partial"
            lists.mkdir(parents=True)
            own = ["-o", f"Dir::State::Lists={lists.parent}", "-o", f"Dir::Cache={folder}"]
            self._apt(folder, *own, "update")
            self._download(folder, own)
        root = folder / "root"
        for package in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
        for program in self._programs:
            words = [str(root / program), "--version"]
            done = subprocess.run(words, env=self._environment(root), capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"{self._title}: {Path(program).name} does not run here: {done.stderr.strip()}")

    def _download(self, folder: Path, options: list[str]) -> None:
        plan = self._apt(folder, *options, "install", "--simulate", "--no-install-recommends", *self._packages)
        missing = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
        needed = [name for name in missing if name.startswith(("lib", "fonts-"))]
        self._apt(folder, *options, "download", *self._packages, *needed)

    def _apt(self, folder: Path, *words: str) -> str:
        """What apt-get says, run in `folder`; it gives up soon where there is no network."""
        quick = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]
        verb = next(word for word in words if word in ("update", "install", "download"))
        try:
            done = subprocess.run(
                ["apt-get", "-q", *quick, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{self._title}: apt-get {verb} took more than {error.timeout:.0f} s") from error
        if done.returncode:
            complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no reason given"]
            raise Unavailable(f"{self._title}: apt-get {verb}: {complaints[-1]}")
        return done.stdout
