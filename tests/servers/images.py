"""Container images without a container engine: built by buildah, and run with a root file system that nothing can write to.

Needs root and buildah. What docker gives a container and what matters to a program is given here as well: the image's files,
mounted read-only, its user, its environment, a process namespace, and `/data` and `/tmp` as the only places to write. The network
is this machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from servers.debian import Packages, Unavailable

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:3.11-slim-bookworm"
USER = "1000:1000"
KUBECTL = "registry.k8s.io/kubectl:v1.34.2"
DEBIAN_KUBECTL = Packages("kubectl", "kubectl", ["kubernetes-client"], [], lambda _: {})
BUILD_S = 1800

ENTER = """
set -eu
root=$1 data=$2 tmp=$3 user=$4; shift 4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount --bind "$data" "$root/data"
mount --bind "$tmp" "$root/tmp"
mount --bind /etc/hosts "$root/etc/hosts"
exec chroot --userspec="$user" --groups="${user#*:}" "$root" sh -c 'cd /data && exec "$@"' sh "$@"
"""


def build_images(*targets: str, checkout: Path = CHECKOUT, env: Mapping[str, str] | None = None) -> None:
    """Build images with docker/build.sh and buildah; layers that are there are used again. Unavailable where it cannot be.

    env: variables of who builds, besides this process's own.
    """
    if os.geteuid() != 0:
        raise Unavailable("container images: only root may mount their files here")
    if not shutil.which("buildah") or not shutil.which("unshare"):
        raise Unavailable("container images: no buildah on this machine")
    _have_base()
    engine = {"ENGINE": "buildah", "BUILD_FLAGS": "--isolation chroot --network host --layers"}
    done = subprocess.run(
        [checkout / "docker" / "build.sh", *targets],
        env={**os.environ, **engine, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def have_kubectl() -> None:
    """See that the image is there from which the dispatcher's takes kubectl.

    Where there is no registry, Debian's kubectl, of an earlier version, takes its place under the same name. Raises Unavailable
    where there is neither.
    """
    if _there(KUBECTL):
        return
    program = DEBIAN_KUBECTL.unpacked() / "usr" / "bin" / "kubectl"
    container = _buildah("from", "scratch")
    try:
        _buildah("copy", container, str(program), "/bin/kubectl")
        _buildah("commit", "--format", "docker", container, KUBECTL)
    finally:
        _buildah("rm", container)


def _there(name: str) -> bool:
    """Whether an image is on this machine, or could be had from its registry."""
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False).returncode == 0:
        return True
    return subprocess.run(["buildah", "pull", "--quiet", name], capture_output=True, check=False, timeout=600).returncode == 0


def _have_base() -> None:
    """See that the base image is there: from its registry, or made by the script that ZSBIR_SHARED has for machines without one."""
    if _there(BASE):
        return
    script = Path(os.environ.get("ZSBIR_SHARED", CHECKOUT / "shared"), "tools", "base_image.sh")
    if not script.is_file():
        raise Unavailable(f"container images: {BASE} can be had from no registry here, and there is no {script}")
    subprocess.run(["bash", script, BASE], check=True, capture_output=True, timeout=BUILD_S)


class Image:
    """An image whose files are mounted. inspected: all that buildah knows of it; its configuration, as Docker's format has it."""

    def __init__(self, root: Path, inspected: Mapping[str, Any]):
        self.root, self.inspected, self.config = root, inspected, inspected["Docker"]["config"]

    def begin(self, data: Path, tmp: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in it, with these folders as /data and /tmp. env: besides the image's own variables."""
        os.chown(data, *map(int, USER.split(":")))
        tmp.chmod(0o1777)
        own = dict(variable.split("=", 1) for variable in self.config["Env"])
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]
        return subprocess.Popen(
            [*enter, str(self.root), str(data), str(tmp), USER, *words],
            env={**own, "HOME": "/data", **(env or {})},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @staticmethod
    def end(process: subprocess.Popen[str]) -> None:
        """Kill a command that was begun, with all that it has started: the first of its namespace takes the others along."""
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.communicate()

    def run(self, data: Path, tmp: Path, *words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        process = self.begin(data, tmp, *words, env=env)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@contextmanager
def image(name: str) -> Iterator[Image]:
    """An image that `build_images` has built, its files mounted until the end."""
    container = _buildah("from", f"localhost/{name}")
    try:
        inspected = json.loads(_buildah("inspect", "--type", "image", f"localhost/{name}"))
        yield Image(Path(_buildah("mount", container)), inspected)
    finally:
        _buildah("rm", container)


def _buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], capture_output=True, text=True, check=True).stdout.strip()
