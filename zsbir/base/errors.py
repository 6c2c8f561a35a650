"""The ways a command ends badly. Each carries one line for the user: what was wrong, with which value, the way out."""


class InputError(Exception):
    """What the user gave cannot be used: a path, a field, a file. Exit code 2."""


class DataError(InputError):
    """The data is damaged: too many bad images, a file that is no longer what was signed."""


class RunError(Exception):
    """The work itself failed: a full disk, a lost worker. Exit code 1."""


class Busy(RunError):  # noqa: N818 - it says what the other one is
    """Another process is at the same piece of work. Who can wait, waits."""


class Interrupted(Exception):  # noqa: N818 - an interruption is no error
    """The user asked to stop; everything needed to go on later is saved. Exit code 130."""
