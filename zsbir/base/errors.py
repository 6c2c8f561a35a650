"""The ways in which a command can fail. Each error carries one line: what was wrong, with which value, and the way out."""


class InputError(Exception):
    """Something the user gave cannot be used: a path, a field, a file. Exit code 2."""


class DataError(InputError):
    """The data is damaged: too many bad images, or a file that differs from its manifest."""


class RunError(Exception):
    """The work itself failed: a full disk, a lost worker. Exit code 1."""


class Busy(RunError):  # noqa: N818 - it describes the other process
    """Another process is working on the same thing; callers that can wait do."""


class PermanentError(RunError):
    """The work failed and would fail again, as with too little memory or a loss that is not finite: nothing tries it again."""


class ClusterError(RunError):
    """The cluster failed, not the work: a node or a controller was lost, or no cluster answers. Trying again may succeed."""


class Interrupted(Exception):  # noqa: N818 - an interruption is not an error
    """The user asked to stop; everything needed to go on later is saved. Exit code 130."""
