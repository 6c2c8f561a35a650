"""The ways in which a command can fail. Each error carries one line: what was wrong, with which value, and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something the user gave cannot be used: a path, a field, a file. Exit code 2."""


class FieldError(InputError):
    """A value of one field does not fit the others, or the input that is given. field: its name."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field

    def __reduce__(self) -> tuple[type[FieldError], tuple[str, str]]:
        """Return how it is made again in another process."""
        return type(self), (self.field, str(self))


class DataError(InputError):
    """The data is damaged: too many bad images, or a file that differs from its manifest."""


class RunError(Exception):
    """The work itself failed: a full disk, a lost worker. Exit code 1."""


class Unreachable(RunError):  # noqa: N818 - it says what the server is
    """A server, a store or a name service does not answer, or says that it cannot now. The same command may succeed later."""


class DiskFull(RunError):  # noqa: N818 - it says what the disk is
    """There is no room on a disk or in a store. Once there is, the same command may succeed."""


class Busy(RunError):  # noqa: N818 - it describes the other process
    """Another process is working on the same thing; callers that can wait do."""


class PermanentError(RunError):
    """The work failed and would fail again, as with too little memory or a loss that is not finite: nothing tries it again."""


class ClusterError(RunError):
    """The cluster failed, not the work: a node or a controller was lost, or no cluster answers. Trying again may succeed."""


class Declined(RunError):  # noqa: N818 - it says what became of the request
    """The work was done, and its answer is no, as a gate's that refuses a model: asked again, it answers the same."""


class Interrupted(Exception):  # noqa: N818 - an interruption is not an error
    """The user asked to stop; everything needed to go on later is saved. Exit code 130."""


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Put the name of a part of the work before the line of an error that is raised inside: "seed 1: the loss is nan"."""
    try:
        yield
    except (InputError, RunError, Interrupted) as error:
        error.args = (f"{part}: {error}",)
        raise
