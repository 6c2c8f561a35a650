"""A stand-in for `docker` on PATH: runs what backup.sh and restore.sh ask of containers against servers of this machine.

    exec -T postgres PROGRAM ...       the program, against the PostgreSQL of PGHOST and PGPORT; STAND_IN_DATABASES says which
                                       database of it is `jobs` and which is `mlflow`
    run ... --volume A:B ... python    this Python, with paths of the container put back to those of this machine
    up ...                             nothing: the servers run already

STAND_IN_FAILS is a part of one command: a program of PostgreSQL then ends after half of its output, a container does not start.
STAND_IN_LOG names a file that gets a line for each command.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    """Run one command, and return its exit code."""
    compose, verb, *rest = words
    assert compose == "compose", words
    with Path(os.environ["STAND_IN_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{shlex.join(words)}\n")
    if verb == "up":
        return 0
    command = {"exec": in_postgres, "run": in_a_new_container}[verb](rest)
    fails = os.environ.get("STAND_IN_FAILS")
    if not fails or fails not in shlex.join(words):
        return subprocess.run(command, check=False).returncode
    if verb == "run":
        return 1
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    sys.stdout.buffer.write(done.stdout[: len(done.stdout) // 2])
    return 1


def in_postgres(words: list[str]) -> list[str]:
    """A command of the container of PostgreSQL, as one of this machine."""
    terminal, service, *command = words
    assert (terminal, service) == ("-T", "postgres"), words
    names = json.loads(os.environ["STAND_IN_DATABASES"])
    here = {**names, **{f"--dbname={name}": f"--dbname={there}" for name, there in names.items()}}
    return [here.get(word, word) for word in command]


def in_a_new_container(words: list[str]) -> list[str]:
    """A command of a container of `setup`, as one of this machine."""
    at = words.index("setup")
    volumes = [words[position + 1].split(":") for position in range(at) if words[position] == "--volume"]
    command = words[at + 1 :]
    assert command[0] == "python", words
    for here, there, *_ in volumes:
        command = [word.replace(there, here, 1) if word.startswith(there) else word for word in command]
    return [sys.executable, *command[1:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
