"""Runs as a machine's first process: `machine.py FACTS`, within its new namespaces. FACTS: the arguments of `prepare` as JSON.

It needs Linux 5.12, whose mount_setattr makes all mounts read-only at once, whatever else they allow or forbid.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PRIVATE = ("/tmp", "/var/tmp", "/dev/shm", "/run")
"""What each machine has for itself, empty at first. Everything else is the host's, and read-only."""
HOME = "/tmp/home"

_MOUNT_SETATTR = 442  # on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_RDONLY = 1
_BIND, _RECURSIVE, _DETACH = 0x1000, 0x4000, 2
_STAY = "echo ready; exec >&- 2>&- </dev/null; while :; do sleep 999 & wait; done"

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def set_attributes(path: str, flags: int, *, on: int = 0, off: int = 0) -> None:
    """Change the attributes of a mount. OSError where the kernel refuses."""
    wanted = _Attributes(on, off, 0, 0)
    call = (ctypes.c_long(_MOUNT_SETATTR), ctypes.c_long(_AT_FDCWD), os.fsencode(path), ctypes.c_long(flags))
    if _libc.syscall(*call, ctypes.byref(wanted), ctypes.c_size_t(ctypes.sizeof(wanted))):
        number = ctypes.get_errno()
        raise OSError(number, f"mount_setattr, which Linux has from 5.12 on: {os.strerror(number)}", path)


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Mount a file system or, with _BIND, a folder. OSError where the kernel refuses."""
    names = [os.fsencode(source), os.fsencode(target), kind.encode() or None]
    if _libc.mount(*names, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", target)


def prepare(name: str, address: str, hosts: str, stage: str, kept: Sequence[str]) -> None:
    """Make the machine's files its own, name it, and give it its network. OSError where one of them fails.

    hosts: the lines of /etc/hosts. stage: an empty folder. kept: folders below `PRIVATE` that programs need; they are seen
    read-only, in their places.
    """
    socket.sethostname(name)
    set_attributes("/", _AT_RECURSIVE, on=_RDONLY)
    set_attributes("/proc", 0, off=_RDONLY)  # shows this machine alone
    mount("tmpfs", stage, "tmpfs")
    os.chdir(stage)  # the way to it may be hidden below
    private = sorted({os.path.realpath(path) for path in PRIVATE if Path(path).is_dir()})
    for path in private:
        Path(f".{path}").mkdir(parents=True, exist_ok=True)
        Path(f".{path}").chmod(0o1777)
    for path in sorted(kept):
        Path(f".{path}").mkdir(parents=True, exist_ok=True)
        mount(path, f".{path}", flags=_BIND | _RECURSIVE)  # as read-only as what it shows
    Path(f".{HOME}").mkdir(exist_ok=True)
    Path("hosts").write_text(f"{hosts}\n", "utf-8")
    mount("hosts", "/etc/hosts", flags=_BIND)
    for path in private:
        mount(f".{path}", path, flags=_BIND | _RECURSIVE)
    if _libc.umount2(b".", _DETACH):
        raise OSError(ctypes.get_errno(), "umount", stage)
    os.chdir("/")
    while "eth0" not in {port for _, port in socket.if_nameindex()}:
        time.sleep(0.02)
    for words in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
        subprocess.run(["ip", *words.split()], check=True)


if __name__ == "__main__":
    try:
        prepare(**json.loads(sys.argv[1]))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    os.execvp("sh", ["sh", "-c", _STAY])  # noqa: S606
