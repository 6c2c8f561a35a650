"""What Ray's message about a failed job means, where no field of Ray's says it: the one place where such text is read.

Ray 2.60 has a status, an error type and an exit code, but whether the job's supervisor died with its node, for want of memory or by
preemption is in its message alone. KubeRay passes this message on, so both executors read it here.
"""

from __future__ import annotations

from services.jobs.queue.states import Cause

GUESSES = "Some common causes"
"""How the list begins that Ray adds to an actor's death, of what may have been the reason: it names memory every time."""

QUOTED_LOG = ", last available logs"
"""How the quotation of the driver's log begins, which may hold any word."""

CAUSES: tuple[tuple[str, Cause], ...] = (
    ("memory", "out_of_memory"),  # "Task was killed due to the node running low on memory"
    ("preempted", "preempted"),  # "The node was preempted", of a node that an autoscaler drains
    ("node", "node_lost"),  # "The actor died because its node has died", "the node is not schedulable"
)
"""Words of a supervisor's death and what they mean; the first that occurs counts."""


def split_log(message: str) -> tuple[str, str]:
    """Return Ray's own words, without its guesses, and the log that they quote."""
    own, _, log = message.partition(QUOTED_LOG)
    return own.partition(GUESSES)[0].strip(), log.partition("\n")[2].strip()


def cause_of(words: str) -> Cause:
    """Return why a job's supervisor died, by Ray's own words without guesses and logs; "lost" where they do not say."""
    return next((cause for word, cause in CAUSES if word in words.lower()), "lost")
