"""What Ray's workers print, as it appears on the terminal of the command that they work for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from zsbir.base import events

_RAYS_OWN = "ray_print_logs"
_WARNING = "warning: "


@contextmanager
def warnings_of_workers_alone(parts: Sequence[str] = ()) -> Iterator[None]:
    """Print, of all that workers write, the warnings of this project alone, without the worker's process number before them.

    parts: names of parts of the work whose own lines are printed as well (`events.say_as_part`). Everything else (lines of
    libraries, of Ray itself, of a process that crashes at its end) stays in Ray's own log files. Must be entered while connected to
    a cluster, and left before that connection ends or after it. Ray has no public way to choose lines.
    """
    replaced = [pair for pair in dispatcher.handlers if pair[0] == _RAYS_OWN]
    dispatcher.remove_handler(_RAYS_OWN)
    dispatcher.add_handler(_RAYS_OWN, partial(_say_some, (_WARNING, *(f"{name}: " for name in parts))))
    try:
        yield
    finally:
        dispatcher.remove_handler(_RAYS_OWN)
        for name, handler in replaced:
            dispatcher.add_handler(name, handler)


def _say_some(beginnings: tuple[str, ...], batch: dict[str, Any]) -> None:
    """Print the lines with one of these beginnings in a batch of lines of one worker, as Ray's log monitor sends them."""
    for line in batch.get("lines", ()):
        if str(line).startswith(beginnings):
            events.say(str(line).rstrip("\r\n"))
