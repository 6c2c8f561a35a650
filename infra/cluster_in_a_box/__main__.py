"""Rehearse the loss of a node: `python -m infra.cluster_in_a_box up`, in the checkout, as root or with user namespaces.

up                      a head, nodes with Ray on them, an S3 server; prints what to type next
status                  which machines run, and what Ray thinks of them
on NODE COMMAND...      run a command on a machine: on head python -m zsbir.train ...
kill NODE, start NODE   a power cut; a fresh machine in its place, with an empty disk
cut NODE, mend NODE     no network, and network again
s3 down, s3 up          the store refuses connections, and is there again with what it held
open NODE PORT          an address of this machine that leads to a server there, for a browser
logs [NODE]             what Ray has said on a machine; without NODE, where the logs are
down                    end everything
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from infra.cluster_in_a_box import clock
from infra.cluster_in_a_box.box import DASHBOARD, Box, address_of, name_of
from infra.cluster_in_a_box.namespaces import reason_why_not
from infra.cluster_in_a_box.notes import NODES, BoxError, default_folder
from zsbir.base.text import clean

NEXT = """\
A rehearsal (docs/rehearsal.md says what you should see). In this terminal:

    alias box="python -m infra.cluster_in_a_box"
    DATASET=$(box on head python -m zsbir.ingest toy --toy-px 48 --num-workers 2)
    WEIGHTS=$(box on head python -m zsbir.pretrain --image-px 32 --photos-per-class 8 --epochs 1)
    box on head python -m zsbir.train toy --dataset "$DATASET" --weights "$WEIGHTS" --weight-preservation 0 --image-px 32 \\
      --classes-per-batch 4 --per-class 2 --steps 2000 --checkpoint-every-steps 20 --num-workers 2 --no-tracking

In another one, once it trains and `checkpoint` lines or 20 steps have gone by:

    python -m infra.cluster_in_a_box kill node1
    python -m infra.cluster_in_a_box status
    python -m infra.cluster_in_a_box down
"""


def number_of(text: str) -> int:
    """Return the number of a machine by its name. ValueError for what is none."""
    if text in ("head", "0"):
        return 0
    number = int(text.removeprefix("node"))
    if number < 1:
        raise ValueError(text)
    return number


number_of.__name__ = "NODE (head, node1, node2, ...)"  # how argparse names what it did not get


def _whole_number(least: int, most: int, text: str) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
    return int(text)


def up(box: Path, asked: argparse.Namespace) -> None:
    """Start a box and all of its machines."""
    if reason := reason_why_not():
        raise BoxError(reason)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) == signal.SIG_DFL:
            signal.signal(ending, lambda *_: sys.exit(1))  # so that nothing stays behind a terminal that is closed
    began = time.monotonic()
    made = Box.make(box, asked.nodes, asked.cpus, _store(asked))
    try:
        for number in range(asked.nodes + 1):
            made.start(number)
            print(f"{name_of(number):8}{address_of(number):12} joined after {time.monotonic() - began:.0f} s", file=sys.stderr)
    except BaseException:
        made.end()
        raise
    print(f"logs in {box}; object storage {made.environment()['ZSBIR_ROOT']}\n", file=sys.stderr)
    print(NEXT, end="", file=sys.stderr)


def _store(asked: argparse.Namespace) -> dict[str, str] | None:
    if not asked.s3_endpoint:
        return None
    if not asked.s3_endpoint.startswith("http://"):
        raise BoxError("--s3-endpoint must begin with http://: the machines reach it under another name, which no certificate has")
    keys = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    if missing := [name for name in keys.values() if name not in os.environ]:
        raise BoxError(f"with --s3-endpoint, set {' and '.join(missing)}")
    own = {name: os.environ[variable] for name, variable in keys.items()}
    return {"endpoint": asked.s3_endpoint, "bucket": asked.bucket, **own}


def status(box: Path, _asked: argparse.Namespace) -> None:
    """Print which machines run and what Ray thinks of them."""
    made = Box.open(box)
    known = made.nodes_of_ray()
    for number in range(made.facts.nodes + 1):
        alive = made.alive(number)
        machine = "running" if alive else "off"
        machine += ", no network" if alive and made.holder.is_cut(number) else ""
        ray = {True: "alive", False: "dead", None: "unknown"}[known.get(address_of(number))]
        print(f"{name_of(number):8}{address_of(number):12} {machine:20} Ray: {ray if known else 'its head does not answer'}")
    print(f"{'store':8}{'10.77.0.100':12} {'running' if made.s3_is_up() else 'down'}")


def on(box: Path, asked: argparse.Namespace) -> None:
    """Run a command on a machine, in place of this process."""
    if not asked.command:
        raise BoxError("name a command, such as: on head ray status")
    if asked.command[0].startswith("-"):
        raise BoxError(f"{asked.command[0]} is no command; options of `on` come before the machine: on --ahead-s 600 node2 date")
    environment = {}
    if asked.ahead_s:
        file = clock.library()
        if file is None:
            raise BoxError(f"--ahead-s needs libfaketime: apt-get install libfaketime, or let {clock.VARIABLE} name its file")
        environment = clock.wrong_clock(asked.ahead_s, file)
    words = Box.open(box).command(asked.node, asked.command, environment)
    os.execvp(words[0], words)  # noqa: S606


def kill(box: Path, asked: argparse.Namespace) -> None:
    """End a machine as a power cut does."""
    Box.open(box).unplug(asked.node)


def start(box: Path, asked: argparse.Namespace) -> None:
    """Start a fresh machine in the place of one that was killed."""
    Box.open(box).start(asked.node)


def cut(box: Path, asked: argparse.Namespace) -> None:
    """Take a machine's network away."""
    Box.open(box).cut(asked.node)


def mend(box: Path, asked: argparse.Namespace) -> None:
    """Give a machine its network back."""
    Box.open(box).mend(asked.node)


def s3(box: Path, asked: argparse.Namespace) -> None:
    """Let the store be away, or there again."""
    made = Box.open(box)
    if asked.state == "down":
        made.s3_down()
    else:
        made.s3_up()


def open_port(box: Path, asked: argparse.Namespace) -> None:
    """Print an address of the host that leads to a server of a machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    Box.open(box).let_out(asked.node, asked.port, port)
    print(f"http://127.0.0.1:{port}")


def logs(box: Path, asked: argparse.Namespace) -> None:
    """Print what Ray has said on a machine, or where the logs are."""
    made = Box.open(box)
    if asked.node is None:
        print(*sorted(box.glob("*.log")), sep="\n")
    else:
        sys.stdout.write(made.log(asked.node).read_text("utf-8", "replace"))


def down(box: Path, _asked: argparse.Namespace) -> None:
    """End every machine and the store, and remove the note of the box."""
    Box.open(box).end()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    lines = (__doc__ or "").splitlines()
    made = argparse.ArgumentParser("cluster_in_a_box", description=lines[0], epilog="\n".join(lines[1:]))
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument(
        "--folder", type=Path, default=default_folder(), help="where the box keeps its logs and notes, also ZSBIR_BOX [%(default)s]"
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, does: Callable[[Path, argparse.Namespace], None], *, node: bool = True) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=(does.__doc__ or "").partition(".")[0], description=does.__doc__)
        added.set_defaults(does=does)
        if node:
            added.add_argument("node", type=number_of, metavar="NODE", help="head, node1, node2, ...")
        return added

    started = verb("up", up, node=False)
    started.add_argument("--nodes", type=int, default=3, choices=range(1, NODES + 1), metavar="N", help="nodes beside the head [3]")
    started.add_argument(
        "--cpus", type=partial(_whole_number, 1, 1024), default=1, metavar="N", help="CPUs that each node offers to Ray [1]"
    )
    started.add_argument("--s3-endpoint", default="", help="an own S3 server, http://127.0.0.1:PORT [moto, in memory]")
    started.add_argument("--bucket", default="zsbir", help="its bucket, which must exist [%(default)s]")
    verb("status", status, node=False)
    verb("down", down, node=False)
    command = verb("on", on)
    command.add_argument("--ahead-s", type=float, default=0.0, metavar="S", help="its clock is so many seconds ahead (libfaketime)")
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="a program and its arguments")
    for name, does in (("kill", kill), ("start", start), ("cut", cut), ("mend", mend)):
        verb(name, does)
    verb("s3", s3, node=False).add_argument("state", choices=("down", "up"))
    verb("open", open_port).add_argument(
        "port", nargs="?", type=partial(_whole_number, 1, 65535), default=DASHBOARD, help="its port [%(default)s]"
    )
    verb("logs", logs, node=False).add_argument("node", nargs="?", type=number_of, metavar="NODE")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, 2 with one line for what cannot be done, 130 where somebody interrupts."""
    asked = parser().parse_args(argv)
    try:
        asked.does(asked.folder, asked)
    except (BoxError, OSError, subprocess.SubprocessError) as error:
        print(f"error: {clean(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
