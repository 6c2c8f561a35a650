"""Commands whose standard streams are full, closed, without a reader, or unable to show a character."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zsbir.base.events import Progress, say
from zsbir.base.streams import AS_BYTES, BestEffort

WORK = """
import os, sys, time, warnings
from pathlib import Path
from zsbir.base import cli, events
events.LOG_INTERVAL_S = 0

def run(argv):
    opened = os.open(argv[0], os.O_WRONLY | os.O_CREAT)
    if len(argv) > 1:
        while not os.path.exists(argv[1]):
            time.sleep(0.01)
    for _ in range(3):
        events.say("a message")
        print("a library prints")
        sys.stderr.write("x" * 100_000)
        warnings.warn("a library warns")
        list(events.track(range(1000), "work"))
    os.write(opened, b"all done")
    return "a/place"

cli.main(run)
"""


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(head -c 10 >&3)", "2>&- 0<&-", "2>/dev/full 0<&-"])
def test_a_command_does_its_work_whatever_has_become_of_standard_error(redirection, tmp_path):
    script = f"exec 3>/dev/null; exec \"$0\" -c '{WORK}' {tmp_path / 'file'} {redirection}"
    done = subprocess.run(["bash", "-c", script, sys.executable], stdout=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"a/place\n")
    assert (tmp_path / "file").read_bytes() == b"all done", "what is printed must not end up in a file that the work opened"


def test_a_command_goes_on_without_its_terminal(tmp_path):
    leader, follower = pty.openpty()
    go = tmp_path / "go"
    # Not nohup: it sends the standard error of a terminal to standard output.
    script = 'trap "" HUP; exec "$0" "$@"'
    words = ["sh", "-c", script, sys.executable, "-c", WORK, str(tmp_path / "file"), str(go)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower, start_new_session=True)
    until = time.monotonic() + 60
    while not (tmp_path / "file").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.close(follower)
    os.close(leader)
    go.touch()
    assert process.communicate(timeout=60)[0] == b"a/place\n"
    assert process.returncode == 0


def test_a_result_that_standard_output_cannot_take_is_not_lost():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c 'from zsbir.base import cli; cli.main(lambda _: \"a/place\")' >/dev/full"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: standard output cannot be written (No space left on device); the result is: a/place\n"


ENVIRONMENTS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C.UTF-8"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
@pytest.mark.parametrize("name", ["\u00e9t\u00e9 \u732b".encode(), b"not\xffutf8", b"plain"])
def test_an_address_is_printed_as_the_bytes_of_its_path(environment, name, tmp_path):
    (tmp_path / os.fsdecode(name)).mkdir()
    code = "import os, sys; from zsbir.base import cli; cli.main(lambda argv: os.path.join(argv[0], os.listdir(argv[0])[0]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, **environment}, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == os.fsencode(tmp_path) + b"/" + name + b"\n"


def test_text_that_is_not_a_path_is_printed_as_utf8_where_the_locale_lacks_it():
    code = 'from zsbir.base import cli; cli.main(lambda _: "\u732b")'
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert (
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=True).stdout
        == "\u732b\n".encode()
    )


@pytest.mark.parametrize("stream", [None, Path(os.devnull).open()], ids=["none", "read only"])  # noqa: SIM115
def test_messages_and_progress_need_no_stream(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    say("a message")
    with Progress("work", total=1) as progress:
        progress.advance()


def test_a_closed_stream_takes_everything_and_is_no_terminal(tmp_path):
    closed = (tmp_path / "file").open("w")
    closed.close()
    stream = BestEffort(closed)
    assert stream.write("text") == 4
    stream.flush()
    assert not stream.isatty()


def test_what_was_written_as_bytes_is_read_again_from_the_same_stream(tmp_path):
    with (tmp_path / "file").open("w+", encoding="utf-8", errors=AS_BYTES) as stream:
        stream.write("caf\udce9 \u00e9\n")
        stream.seek(0)
        assert stream.read() == "caf\udce9 \u00e9\n"
    assert (tmp_path / "file").read_bytes() == b"caf\xe9 \xc3\xa9\n"
