import os
import re
import signal
import subprocess
import sys

import pytest
from pydantic import Field

from zsbir.base import cli
from zsbir.base.config import Config
from zsbir.base.errors import InputError, Interrupted, RunError


class Boat(Config):
    """What decides the boat."""

    length_m: float = Field(4.0, gt=0, description="length, about 90% of it afloat")
    sails: int = Field(1, ge=0, description="sails")
    painted: bool = Field(False, description="painted")
    crew: tuple[str, ...] = Field((), description="names")
    harbour: str | None = Field(None, description="where it lies")


class Settings(Config):
    """Where it is built."""

    root: str = Field("yard", description="storage root")


def parse(argv):
    parser = cli.Parser("zsbir.boat", "Wood in, a boat out.")
    parser.add_argument("wood", help="what it is made of")
    parser.add_config_file()
    parser.add_fields(Boat, title="boat")
    parser.add_fields(Settings, title="where")
    parsed, values = parser.values(argv)
    boat, settings = cli.split_fields(values, Boat, Settings)
    return parsed.wood, Boat.of(boat), Settings.of(settings)


def fails(error):
    def run(argv):
        raise error

    return run


def ended(run, capsys, argv=()):
    """(exit code, standard output, standard error) of a verb."""
    with pytest.raises(SystemExit) as caught:
        cli.main(run, list(argv))
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def test_flags_are_the_fields_and_defaults_fill_the_rest():
    wood, boat, settings = parse(["oak", "--length-m", "5.5", "--painted", "--crew", "ann, bob", "--root", "dock"])
    assert (wood, settings.root) == ("oak", "dock")
    assert boat == Boat(length_m=5.5, painted=True, crew=("ann", "bob"))
    assert parse(["oak", "--no-painted"])[1] == Boat()
    assert parse(["oak", "--harbour", "north"])[1].harbour == "north"


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path):
    file = tmp_path / "boat.yaml"
    file.write_text("length_m: 7\nsails: 3\npainted: true\ncrew: [ann]\nroot: dock\n")
    _, boat, settings = parse(["oak", "--config", str(file), "--sails", "2", "--no-painted"])
    assert boat == Boat(length_m=7, sails=2, painted=False, crew=("ann",))
    assert settings.root == "dock"


def test_an_unknown_key_in_the_yaml_is_an_error_with_a_suggestion(tmp_path):
    file = tmp_path / "boat.yaml"
    file.write_text("lenght_m: 7\n")
    with pytest.raises(InputError, match="unknown field 'lenght_m'; did you mean 'length_m'"):
        parse(["oak", "--config", str(file)])


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["oak", "--lenght-m", "5"], "unknown option '--lenght-m'; did you mean '--length-m'?"),
        (["oak", "--lenght-m=5"], "unknown option '--lenght-m'; did you mean '--length-m'?"),
        (["oak", "--length", "5"], "unknown option '--length'; did you mean '--length-m'?"),
        (["oak", "elm"], "unexpected argument 'elm'; see --help"),
        ([], "the following arguments are required: wood; see python -m zsbir.boat --help"),
        (["oak", "--sails"], "argument --sails: expected one argument; see python -m zsbir.boat --help"),
        (["oak", "--sails", "two"], "configuration: field 'sails': "),
        (["oak", "--length-m", "-1"], "field 'length_m': input should be greater than 0, got '-1'"),
        (["oak", "--length-m", "nan"], "finite number"),
        (["oak", "--config", "none.yaml"], "cannot read the configuration 'none.yaml': "),
    ],
)
def test_bad_arguments_are_one_line_with_the_way_out_and_exit_code_2(argv, line, capsys):
    code, out, err = ended(parse, capsys, argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert line in err


def test_help_shows_the_card_and_each_field_with_its_default(capsys):
    code, out, _ = ended(parse, capsys, ["--help"])
    assert code == 0
    assert "Wood in, a boat out." in out
    text = " ".join(out.split())
    assert "--length-m X length, about 90% of it afloat [4.0]" in text
    assert re.search(r"--painted, --no-painted painted \[False\]", text)
    assert "--crew A,B,... names [none]" in text


def test_standard_output_holds_the_result_alone(capsys):
    assert ended(lambda argv: "a/place", capsys) == (0, "a/place\n", "")
    assert ended(lambda argv: None, capsys) == (0, "", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such class"), 2, "error: no such class\n"),
        (RunError("the disk is full"), 1, "error: the disk is full\n"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), 1, "error: No such file or directory: a/b\n"),
        (OSError("something with the disk"), 1, "error: something with the disk\n"),
        (Interrupted("checkpoint of step 3 saved"), 130, "interrupted: checkpoint of step 3 saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_way_to_end_has_its_exit_code_and_one_line(error, code, line, capsys):
    assert ended(fails(error), capsys) == (code, "", line)


def test_a_fault_in_the_code_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError):
        cli.main(fails(ZeroDivisionError()), [])


def test_the_traceback_of_an_expected_error_is_shown_on_request(monkeypatch):
    monkeypatch.setenv("ZSBIR_TRACEBACK", "1")
    with pytest.raises(InputError, match="no such class"):
        cli.main(fails(InputError("no such class")), [])


WAITS = """
import sys, time
from zsbir.base import cli
def run(argv):
    print("working", file=sys.stderr, flush=True)
    time.sleep(60)
cli.main(run)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_to_stop_ends_a_real_process_with_130_and_one_line(number):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stderr.readline() == "working\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_under_nohup_a_lost_terminal_changes_nothing():
    words = ["nohup", sys.executable, "-c", WAITS.replace("60", "1")]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "working\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_fields_are_dealt_to_their_configurations_and_strangers_go_to_the_first():
    assert cli.split_fields({"sails": 2, "root": "dock", "x": 1}, Boat, Settings) == [{"sails": 2, "x": 1}, {"root": "dock"}]


def test_a_reader_that_stops_early_is_not_a_failure():
    command = f"{sys.executable} -c 'import sys; from zsbir.base import cli; cli.main(lambda _: \"x\" * 10_000_000)' | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "x", "")


PRINTS = """
from zsbir.base import cli
cli.main(lambda argv: "s3://bucket/\\x1b[2Jphotos\\u202e")
"""


def test_a_terminal_shows_control_characters_of_a_result_as_escapes_and_a_pipe_gets_them():
    leader, follower = os.openpty()
    words = [sys.executable, "-c", PRINTS]
    subprocess.run(words, stdout=follower, check=True, timeout=60)
    os.close(follower)
    assert os.read(leader, 1000).decode() == "s3://bucket/\\x1b[2Jphotos\\u202e\r\n"
    os.close(leader)
    assert subprocess.run(words, capture_output=True, check=True, timeout=60).stdout.decode() == "s3://bucket/\x1b[2Jphotos\u202e\n"


@pytest.mark.parametrize("error", [InputError("no sails"), RunError("it sank"), OSError(28, "No space left on device", "boat")])
def test_an_error_line_starts_with_the_error_also_where_lines_have_times(error, capsys, monkeypatch):
    """A queue reads the reason of a failure from it."""
    monkeypatch.setenv("ZSBIR_LOG_TIMES", "1")
    _, _, err = ended(fails(error), capsys)
    assert err.startswith("error: ")
