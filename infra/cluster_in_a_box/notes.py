"""What is noted of a box, in a folder that nobody else can have made or changed.

Commands kill processes and enter namespaces by what they read there, perhaps as root; so a folder or a file of somebody else is
refused.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from zsbir.base.text import clean

FILE = "box.json"
FILE_BYTES = 1 << 16
NODES = 50
"""The most nodes of a box: their addresses stay below that of the store."""
STORE = {"bucket", "endpoint", "key", "secret"}
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

Process = tuple[Annotated[int, Field(ge=0, lt=1 << 31)], Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""A process: its number, and the time at which it began, in seconds since 1970; (0, 0.0) before there is one."""
Machine = Annotated[str, Field(pattern=r"^\d{1,2}$")]
Door = Annotated[str, Field(pattern=r"^[a-z]{0,4}-?\d{1,5}$")]
Line = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _whole(store: dict[str, str]) -> dict[str, str]:
    if store and (set(store) != STORE or not store["endpoint"].startswith("http://")):
        raise ValueError(f"has other values than {', '.join(sorted(STORE))}")
    return store


class BoxError(Exception):
    """What was asked for cannot be done, in one line."""


@with_config(ConfigDict(extra="forbid"))
@dataclass
class Facts:
    """What is noted of a box.

    cpus: those that each node offers to Ray. token: Ray's. store: the values named by `STORE`, or none while the box is being made.
    holder: the process that holds the box. machines: the first process of each. doors: the processes that pass connections through
    its walls, by port.
    """

    nodes: Annotated[int, Field(ge=1, le=NODES)]
    cpus: Annotated[int, Field(ge=1)]
    token: Line
    store: Annotated[dict[Line, Line], AfterValidator(_whole)]
    holder: Process = (0, 0.0)
    machines: dict[Machine, Process] = field(default_factory=dict)
    doors: dict[Door, Process] = field(default_factory=dict)


_FACTS: TypeAdapter[Facts] = TypeAdapter(Facts)


def default_folder() -> Path:
    """Return where a box is noted unless --folder says otherwise.

    That is ZSBIR_BOX; else a folder in $XDG_RUNTIME_DIR, or for root in /run; else, where there is none, one in /tmp.
    """
    if named := os.environ.get("ZSBIR_BOX"):
        return Path(named)
    runs = Path("/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", ""))
    if runs.is_absolute() and runs.exists() and not _fault(runs.lstat(), stat.S_ISDIR) and os.access(runs, os.W_OK):
        return runs / "zsbir-box"
    return Path(tempfile.gettempdir()) / f"zsbir-box-{os.geteuid()}"


def make_folder(folder: Path) -> None:
    """Make a folder for notes where it is missing. BoxError for one that others could have made or can change."""
    folder.mkdir(mode=0o700, exist_ok=True)
    os.close(_opened(folder))


def read(folder: Path) -> Facts | None:
    """Return what is noted in a folder; None where nothing is.

    Raises BoxError for a folder or file that others could have made or can change, and for what is no such note.
    """
    try:
        within = _opened(folder)
    except FileNotFoundError:
        return None
    try:
        # Without O_NONBLOCK, a named pipe would be waited for.
        file = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BoxError(f"{folder / FILE} cannot be read: {error.strerror}") from None
    finally:
        os.close(within)
    with os.fdopen(file, "rb") as opened:
        if fault := _fault(os.fstat(file), stat.S_ISREG):
            raise BoxError(f"{folder / FILE} {fault}; name another folder with --folder")
        data = opened.read(FILE_BYTES + 1)
    return _parsed(data, folder / FILE)


def save(folder: Path, facts: Facts) -> None:
    """Note the facts of a box, readable by nobody else: they hold Ray's token."""
    new = folder / f"{FILE}.new"
    new.touch(mode=0o600)
    new.write_text(json.dumps(asdict(facts)), "utf-8")
    new.replace(folder / FILE)


def forget(folder: Path) -> None:
    """Remove the file that says which box lies in this folder."""
    (folder / FILE).unlink(missing_ok=True)


def _parsed(data: bytes, file: Path) -> Facts:
    fault = f"it has more than {FILE_BYTES} bytes"
    if len(data) <= FILE_BYTES:
        try:
            return _FACTS.validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            fault = f"{'.'.join(str(part)[:40] for part in first['loc'])} {first['msg']}".strip()
    raise BoxError(f"{clean(str(file))} is no note of a box ({clean(fault)}); remove it, once nothing of that box runs any more")


def _opened(folder: Path) -> int:
    """Open a folder, so that what is checked is what is read. FileNotFoundError where it is missing."""
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise BoxError(f"{folder} is not a folder itself; name another one with --folder")
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if fault := _fault(os.fstat(opened), stat.S_ISDIR):
        os.close(opened)
        raise BoxError(f"{folder} {fault}; name another folder with --folder")
    return opened


def _fault(found: os.stat_result, right_kind: Callable[[int], bool]) -> str:
    """Return why what was found cannot be trusted; empty where it can."""
    if not right_kind(found.st_mode):
        return "is not what it should be (a link, or something special)"
    if found.st_uid != os.geteuid():
        return "belongs to somebody else"
    return "can be changed by others (chmod go-w)" if found.st_mode & _OTHERS_WRITE else ""
