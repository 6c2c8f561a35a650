"""Why a command failed: by the class of its error, which it reports, then by its exit code; words are read for memory alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from services.jobs.queue.states import Cause

DECLINED = "Declined"
"""The error of a command whose answer is no: the work was done, and trying again would answer the same."""

CAUSES_BY_ERROR: Mapping[str, Cause] = {
    "Busy": "busy",
    "ClusterError": "node_lost",
    "DataError": "data_error",
    "DiskFull": "disk_full",
    "FieldError": "user_error",
    "InputError": "user_error",
    "MemoryError": "out_of_memory",
    "OutOfMemoryError": "out_of_memory",
    "PermanentError": "user_error",
    "Unreachable": "unreachable",
}
"""What the class of a command's error means, which the command itself reports (zsbir.base.cli)."""

CAUSES_BY_CODE: Mapping[int, Cause] = {
    2: "user_error",
    130: "preempted",
    -signal.SIGINT: "preempted",
    -signal.SIGTERM: "preempted",
    -signal.SIGHUP: "preempted",
    -signal.SIGKILL: "lost",
}
"""What a command's exit code means, where the command reported no error."""

OUT_OF_MEMORY_WORDS = ("OutOfMemoryError", "CUDA out of memory", "MemoryError", "Cannot allocate memory")
"""Words at the end of a log that mean too little memory. Only text tells of a worker of Ray Train, or a library, that runs
out of memory: the command's own error is then of another class."""


def cause_of(code: int, error: str, log_tail: str) -> Cause:
    """Return why a command failed. code: its exit code. error: the class of its error, as it reported; empty where it did not."""
    if any(word in log_tail for word in OUT_OF_MEMORY_WORDS):
        return "out_of_memory"
    return CAUSES_BY_ERROR.get(error) or CAUSES_BY_CODE.get(code, "unknown")


def cause_of_program(code: int, error: str) -> Cause:
    """Do the same for a program of an operator's own, of which nothing is known but that it failed.

    It is not tried again, since nobody knows whether it may be done twice; except where it was killed, where it is a command of
    this project that reports an outage, or ends with the exit code by which programs ask for it (EX_TEMPFAIL of sysexits.h, 75).
    """
    if code == os.EX_TEMPFAIL:
        return "unreachable"
    return CAUSES_BY_ERROR.get(error) or ("user_error" if code > 0 else CAUSES_BY_CODE.get(code, "user_error"))
