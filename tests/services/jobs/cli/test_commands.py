from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers.faults import Fault, FaultProxy
from servers.job_service import MANY, Service
from servers.processes import HOST, free_ports
from servers.s3 import S3Server

from services.common.auth import Role
from services.common.tokens import Tokens
from services.jobs.cli import submit as submitting
from services.jobs.cli.client import Client
from services.jobs.cli.commands import COMMANDS
from services.jobs.cli.options import deadline, duration_s
from services.jobs.cli.style import TextStyle, format_duration
from services.jobs.local.paths import server_url, write_state
from services.jobs.queue.limits import Limits, ProjectLimits
from services.jobs.runs.attempt_dir import End
from zsbir.base import cli
from zsbir.base.errors import InputError, RunError

PROGRESS = {
    "step": "train", "steps": "5/7", "label": "training", "done": 124, "total": 200, "unit": "step", "per_s": 3.14159,
    "left_s": 190.0, "frac": 0.62, "metrics": {"step": 120, "train/loss": 1.23456}, "updated_s": 0.0,
}  # fmt: skip
ACTIVITY = "stage 5 of 7: train, training step 124/200, 3.14/s"


@pytest.fixture(scope="module")
def with_one_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing."""
    there = Service(tmp_path_factory.mktemp("jobs") / "root", auth="off")
    there.submit()
    yield there
    there.stop()


def until(what: Any, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


# --- submitting


def test_submit_prints_only_the_id_and_reports_the_jobs_place(service):
    first = service.command("submit", "ingest", "--layout", "toy")
    assert first[:2] == (0, "1\n")
    assert first[2] == "job 1 (toy) is queued: starts next; place 1 in line; python -m services.jobs show 1\n"


def test_flags_become_values_of_the_schemas_types(service, run_command):
    flags = "--layout=toy --toy-px 64 --dev-frac 0.25 --dev-classes chair,cup, --dedup --no-skip-incomplete"
    terms = "--project vision --priority -3 --cpus 2 --gpus 0.5 --time-limit 1h30m"
    run_command("submit", "ingest", *flags.split(), *terms.split())
    job = service.store.job(1)
    assert job.config == {
        "layout": "toy", "toy_px": 64, "dev_frac": 0.25, "dev_classes": ["chair", "cup"], "dedup": True, "skip_incomplete": False,
    }  # fmt: skip
    assert (job.project, job.priority, job.cpus, job.gpus, job.time_limit_s) == ("vision", -3, 2, 0.5, 5400)


def test_a_pipelines_fields_are_named_with_their_step_and_win_over_the_file(service, run_command, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("recipe: toy\ningest: {toy_px: 64, seed: 3}\ntrain: {steps: 5}\n")
    run_command(
        "submit", "pipeline", "--config", str(file), "--train.steps", "20", "--train.lr-preserver=none", "--no-ingest.dedup"
    )
    config = service.store.job(1).config
    assert config["ingest"] == {"layout": "toy", "toy_px": 64, "seed": 3, "dedup": False}
    assert config["train"] == {"recipe": "toy", "steps": 20, "lr_preserver": None}


def test_a_recipe_can_be_named_for_trainings_and_sweeps(service, run_command, monkeypatch):
    for kind in ("train", "sweep"):
        with pytest.raises(InputError, match=r"dataset.*is outside of what this service reads"):
            run_command("submit", kind, "--recipe", "toy", "--dataset", "/elsewhere")


def test_paths_of_files_that_exist_here_become_absolute_and_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "losses", "cat", "classes.txt", "w.pt", "data"):
        Path(name).touch()
    given = {
        "weights": "imagenet", "space": "losses", "unseen_classes": ["cat"], "dev_classes": ["classes.txt"], "path": "data",
        "dataset": "s3://bucket/d", "run": "gone", "name": "data", "train": {"weights": "w.pt", "gallery": "./data"},
    }  # fmt: skip
    here = str(tmp_path)
    assert submitting._absolute(given) == {
        **given, "path": f"{here}/data", "dev_classes": [f"{here}/classes.txt"],
        "train": {"weights": f"{here}/w.pt", "gallery": f"{here}/data"},
    }  # fmt: skip


def test_the_same_key_is_the_same_job_and_without_one_each_is_a_new_one(service, run_command, capsys):
    toy = ("submit", "ingest", "--layout", "toy")
    assert [run_command(*toy, "--key", "k"), run_command(*toy, "--key", "k"), run_command(*toy)] == ["1", "1", "2"]
    assert capsys.readouterr().err.count("was submitted with the key 'k' before") == 1
    with pytest.raises(InputError, match="stands for job 1, which is another one"):
        run_command(*toy, "--seed", "2", "--key", "k")


def test_a_lost_answer_is_asked_for_again_without_a_second_job(service):
    with FaultProxy(S3Server(service.url, "", "")) as proxy, Client(proxy.endpoint) as client:
        for number, fault in enumerate((Fault.DROP_AFTER, Fault.DROP_BEFORE, Fault.TRUNCATE_RESPONSE), 1):
            proxy.reset()
            proxy.arm(0, fault)
            job, _ = client.submit({"kind": "ingest", "config": {"layout": "toy"}}, key=f"key {number}")
            assert job["id"] == number
            assert len(proxy.log) == 2
    assert service.store.counts() == {"queued": 3}


def test_a_request_that_may_not_be_repeated_is_sent_once(service):
    service.submit()
    service.end(service.run()[0], "user_error")
    with FaultProxy(S3Server(service.url, "", "")) as proxy, Client(proxy.endpoint) as client:
        proxy.arm(0, Fault.DROP_AFTER)
        with pytest.raises(RunError, match="no job service answers at"):
            client.retry(1)
        assert len(proxy.log) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "code", "out", "err"),
    [
        ("succeeded", 0, "/data/made\n", ""),
        ("user_error", 1, "", r"error: job 1 \(toy\) has failed: the words; in \d+ s; python -m services\.jobs logs 1\n"),
        ("timed_out", 1, "", r"error: job 1 \(toy\) has timed out: the words"),
        ("cancelled", 130, "", r"interrupted: job 1 \(toy\) was cancelled: the words"),
    ],
)
def test_waiting_ends_as_the_job_does(service, cause, code, out, err):
    process = service.begin("submit", "ingest", "--layout", "toy", "--wait")
    until(service.store.counts)
    attempt = service.store.claim(service.lease, MANY)
    service.store.report(service.lease, attempt, PROGRESS)
    service.store.started(service.lease, attempt)
    line = "first"
    while f"job 1 (toy) is running: {ACTIVITY}; 62 % · 3 min left" not in line:
        assert line, "it has ended without saying so"
        line = process.stderr.readline()
    service.end(attempt, cause, message="" if cause == "succeeded" else "the words", result="/data/made")
    said, told = process.communicate(timeout=30)
    assert (process.returncode, said) == (code, out), told
    assert re.search(err, told)


def test_ctrl_c_ends_the_waiting_and_not_the_job(service):
    process = service.begin("submit", "ingest", "--layout", "toy", "--follow")
    until(service.store.counts)
    _, attempt_dir = service.run()
    attempt_dir.write_log(0, b"hello\n")
    while "hello" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted: stopped watching; job 1 itself continues: python -m services.jobs logs -f 1\n"
    assert service.store.job(1).state == "running"


@pytest.mark.slow
def test_on_a_terminal_waiting_is_one_line_that_changes(service):
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (24, 60))
    words = [sys.executable, "-m", "services.jobs", "submit", "ingest", "--layout=toy", "--wait"]
    env = {**os.environ, "ZSBIR_JOBS_URL": service.url}
    process = subprocess.Popen(words, env=env, stdin=there, stdout=subprocess.PIPE, stderr=there, text=True)
    os.close(there)
    until(service.store.counts)
    attempt, _ = service.run()
    service.store.report(service.lease, attempt, PROGRESS)
    seen = ""
    while "\rjob 1 (toy) is running: stage 5 of 7: train, training step" not in seen:
        assert select.select([here], [], [], 30)[0], seen
        seen += os.read(here, 4096).decode()
    assert max(map(len, re.split(r"[\r\n]", seen.partition("show 1")[2]))) < 60
    service.end(attempt, result="/data/made")
    assert process.communicate(timeout=30)[0] == "/data/made\n"
    os.close(here)


# --- looking


def test_list_shows_state_progress_owner_and_reason(service, run_command):
    service.submit(owner="alice", project="vision")
    service.submit(owner="bob", priority=5)
    attempt, _ = service.run()
    service.store.report(service.lease, attempt, PROGRESS)
    service.submit(owner="carl")
    service.end(service.run()[0], "data_error", message="no photos\x1b[31m\nat all")
    lines = re.sub(r"\b\d s\b", "0 s", run_command("list")).splitlines()
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["ID", "KIND", "STATE", "PROGRESS", "OWNER", "PROJECT", "AGE", "WHY"],
        ["3", "ingest", "queued", "place 1", "carl", "default", "0 s", "starts next"],
        ["2", "ingest", "running", "62 % · 3 min left", "bob", "default", "0 s", ACTIVITY],
        ["1", "ingest", "failed", "in 0 s", "alice", "vision", "0 s", r"no photos\x1b[31m\nat all"],
    ]


def test_list_is_limited_and_says_how_many_more_jobs_there_are(service, run_command, capsys):
    for _ in range(5):
        service.submit(project="vision")
    assert len(run_command("list", "--limit", "2").splitlines()) == 3
    assert "3 more; list them with --limit N or --all" in capsys.readouterr().err
    assert len(run_command("list", "--limit", "2", "--all").splitlines()) == 6
    run_command("list", "--project", "vision", "--limit", "2")
    assert "there are more; list them" in capsys.readouterr().err
    assert [job["id"] for job in json.loads(run_command("list", "--state", "queued", "--json"))] == [5, 4, 3, 2, 1]
    assert run_command("list", "--state", "failed") is None
    assert "no such jobs" in capsys.readouterr().err


def test_show_prints_everything_about_a_job(service, run_command, capsys):
    job = service.submit(kind="pipeline", config={"ingest": {"layout": "toy"}, "train": {"steps": 2}}, owner="alice", gpus=1)
    first, _ = service.run()
    service.store.report(service.lease, first, {}, resumed_from="/old/checkpoint")
    service.end(first, "preempted", message="the node was taken")
    assert re.search(r"why +starts next; the last attempt: the node was taken\n  place +1 in line", run_command("show", str(job)))
    second, _ = service.run()
    service.store.report(service.lease, second, PROGRESS)
    told = run_command("show", str(job))
    for expected in (
        "job 1  pipeline  running", "████░░░░░░░░░░░ 62 % · 3 min left", "train/loss  1.2346", "1 CPU, 1 GPU",
        "1  preempted", "the node was taken; resumed from /old/checkpoint", "ingest  done", "train   running",
        "submitted      kind pipeline, priority 0", "train.steps    2", "python -m services.jobs logs -f 1",
    ):  # fmt: skip
        assert expected in told
    assert "dispatcher: not seen yet" in capsys.readouterr().err
    service.end(second, result="/data/made")
    assert "result     /data/made" in run_command("show", str(job))
    assert json.loads(run_command("show", str(job), "--json"))["attempts"] == 2


def test_queue_shows_what_runs_what_waits_and_why_and_the_dispatcher(service, run_command):
    service.store.set_limits(Limits(running=1, cpus=8, projects={"vision": ProjectLimits(gpu_hours=100)}), "operator")
    for owner in ("alice", "bob", "carl"):
        service.submit(owner=owner)
    service.run()
    run_command("queue")
    service.store.heartbeat(service.lease)
    lines = [re.split(r"\s{2,}", re.sub(r"\b\d s ago", "0 s ago", line.strip())) for line in run_command("queue").splitlines()]
    assert lines == [
        ["running", "1 of 1 job, 1 of 8 CPUs, 0 GPUs"],
        ["project vision", "at most 100 GPU-hours"],
        ["dispatcher", "alive (dispatcher, epoch 1, seen 0 s ago)"],
        [""],
        ["running"],
        ["1", "ingest", "running", "alice", "default"],
        [""],
        ["in line"],
        ["1", "2", "ingest", "bob", "default", "priority 0", "1 of 1 jobs are running: job 1"],
        ["2", "3", "ingest", "carl", "default", "priority 0", "job 2 is first in line, and waits for room"],
    ]
    assert json.loads(run_command("queue", "--json"))["limits"]["running"] == 1
    service.store.release(service.lease)
    assert "none: no job starts without one; start it with: python -m services.jobs up" in run_command("queue")


def test_a_table_fits_its_terminal_and_has_colours_only_there():
    rows = [("1", "failed", "x" * 100), ("22", "queued", "short")]
    assert TextStyle().table(rows) == ["1   failed  " + "x" * 100, "22  queued  short"]
    assert TextStyle(width=30).table(rows)[0] == "1   failed  " + "x" * 17 + "…"
    assert TextStyle(width=30, colours=True).table(rows)[1] == "22  \x1b[33mqueued\x1b[0m  short"


def test_durations_are_written_as_people_write_them():
    spoken = {0: "0 s", 59.4: "59 s", 60: "1 min", 3599: "59 min", 3600: "1 h", 7500: "2 h 5 min", 90000: "1 d 1 h", -5: "0 s"}
    assert {seconds: format_duration(seconds) for seconds in spoken} == spoken
    assert [duration_s(text) for text in ("90", "90s", "1h30m", "0.5d")] == [90, 90, 5400, 43200]
    assert deadline("2030-01-31T12:00+00:00") == {"start_by_s": 1896091200}
    assert deadline("1h") == {"start_within_s": 3600}


# --- logs


def test_a_log_is_printed_as_it_is(service, run_command, capfd):
    def printed(*words: str) -> str:
        run_command("logs", "1", *words)
        return capfd.readouterr().out

    service.submit()
    assert run_command("logs", "1") is None
    assert "the job has not begun yet: job 1 is queued" in capfd.readouterr().err
    text = "".join(f"line {number} ä\n" for number in range(60_000))  # more than two pieces
    attempt, attempt_dir = service.run()
    data = text.encode()
    for piece in range(-(-len(data) // 2**18)):
        attempt_dir.write_log(piece, data[piece * 2**18 : (piece + 1) * 2**18])
    assert service.command("logs", "1") == (0, text, "")
    assert printed("--tail", "2") == "line 59998 ä\nline 59999 ä\n"
    service.end(attempt, "preempted")
    service.run()[1].write_log(0, b"again\n")
    assert printed() == "again\n"
    assert printed("--attempt", "1", "--tail", "1") == "line 59999 ä\n"


def test_a_closed_pipe_is_no_failure(service):
    service.submit()
    service.run()[1].write_log(0, b"line\n" * 50_000)
    process = service.begin("logs", "1")
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_following_goes_over_attempts_and_a_restart_of_the_service_without_losing_or_doubling_a_byte(service):
    service.submit()
    process = service.begin("logs", "-f", "1")
    first, attempt_dir = service.run()
    attempt_dir.write_log(0, b"one\ntw\xc3")
    assert process.stdout.readline() == "one\n"
    service.stop()
    attempt_dir.write_log(0, b"one\ntw\xc3\xb6\n")
    assert "trying again, the job continues meanwhile" in process.stderr.readline()
    service.start()
    assert process.stdout.readline() == "twö\n"
    service.end(first, "preempted")
    second, attempt_dir = service.run()
    attempt_dir.write_log(0, b"three\n")
    service.end(second, result="/data/made")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "three\n")
    assert re.fullmatch(r"job 1 has succeeded: made a data set, in attempt 2; /data/made; in \d+ s\n", err)


# --- changing


def test_cancel_takes_numbers_or_a_confirmed_selection(service, run_command):
    for project in ("vision", "vision", "audio", "audio", "vision"):
        service.submit(project=project)
    assert run_command("cancel", "1") == "job 1 was cancelled: cancelled by local"
    with pytest.raises(InputError, match="this cancels 2 jobs; confirm with --yes"):
        run_command("cancel", "--project", "vision")
    assert (
        run_command("cancel", "--project", "vision", "--state", "queued", "--yes") == "cancelled, or saving their work first: 5, 2"
    )
    assert run_command("cancel", "--project", "vision", "--yes") == "nothing was cancelled"
    with pytest.raises(RunError, match="1 of 2 jobs were not cancelled"):
        run_command("cancel", "3", "99")
    service.run()
    assert run_command("cancel", "4") == "job 4 is running: cancelling: saving its work first"
    assert service.store.counts() == {"cancelled": 4, "running": 1}


def test_cancelling_a_selection_asks_for_confirmation_on_a_terminal(service):
    for _ in range(3):
        service.submit(project="vision")
    for answer, said in (("\n", "nothing was cancelled\n"), ("y\n", "cancelled, or saving their work first: 3, 2, 1\n")):
        here, there = pty.openpty()
        words = [sys.executable, "-m", "services.jobs", "cancel", "--project", "vision", "--server", service.url]
        process = subprocess.Popen(words, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(here, answer.encode())
        out, err = process.communicate(timeout=30)
        assert (out, err) == (said, "cancel 3 jobs? [y/N] ")
        os.close(here)
        os.close(there)


def test_retry_is_a_new_job_that_continues_the_work(service, run_command, capsys):
    service.submit()
    service.end(service.run()[0], "user_error")
    assert run_command("retry", "1") == "2"
    assert service.store.job(2).retry_of == 1
    assert "continues the work of job 1; python -m services.jobs show 2" in capsys.readouterr().err
    with pytest.raises(InputError, match="job 2 is queued: only one that has failed"):
        run_command("retry", "2")


# --- bad input, tokens, start


BAD = [
    (["submit"], "name the kind of job first: ingest, pretrain"),
    (["submit", "trian"], "unknown kind 'trian'; did you mean 'train'?"),
    (["submit", "ingest", "--layuot", "toy"], "unknown option '--layuot'; did you mean '--layout'?"),
    (["submit", "pipeline", "--train.step=3"], "unknown option '--train.step'; did you mean '--train.steps'?"),
    (["submit", "ingest", "--layout", "tox"], "unknown value 'tox'; did you mean 'toy'?"),
    (["submit", "ingest", "--seed", "x"], "argument --seed: must be a whole number, got 'x'"),
    (["submit", "train", "--lr", "fast"], "argument --lr: must be a number, got 'fast'"),
    (["submit", "train", "--lr", "nan"], "a request must be JSON"),
    (["submit", "train", "--lr", "-1", "--dataset=x"], "train: --lr: input should be greater than 0, got -1"),
    (["submit", "pipeline", "--train.lr=-1", "--recipe=toy"], "train: --train.lr: input should be greater than 0, got -1"),
    (["submit", "pipeline"], "ingest: --ingest.layout is required"),
    (["submit", "pipeline", "--ingest.layout=folder"], "ingest: --ingest.path is required, the folder that holds the data set"),
    (
        ["submit", "pipeline", "--recipe=toy", "--train.classes-per-batch=99"],
        "train: --train.classes-per-batch: classes_per_batch is 99",
    ),
    (["submit", "ingest", "--layout=toy", "--notify=team"], "notify: unknown target 'team': no target is set"),
    (["submit", "ingest", "--layout=toy", "--", "echo"], "words after -- are those of a job of kind command"),
    (["submit", "ingest"], "ingest: --layout is required"),
    (["submit", "ingest", "--layout=toy", "--project", "A B"], "project: string should match pattern"),
    (["submit", "ingest", "--layout=toy", "--time-limit", "soon"], "must be a time like 90s, 30m, 1h30m or 2d, got 'soon'"),
    (["submit", "ingest", "--layout=toy", "--start-by", "soon"], "must be a time from now like 30m, or a date like 2030"),
    (["submit", "ingest", "--layout=toy", "--key", "ä"], "must be 1 to 200 plain characters"),
    (["submit", "ingest", "--config", "NONE"], "cannot read the configuration"),
    (["submit", "ingest", "--config", "LIST"], "must be a YAML mapping"),
    (["submit", "ingest", "--config", "DATE"], "a request must be JSON"),
    (["submit", "ingest", "--config", "TYPO"], "ingest: unknown field 'layuot'; did you mean 'layout'?"),
    (["submit", "ingest", "--layout=toy", "more"], "unexpected argument 'more'"),
    (["list", "--state", "lost"], "argument --state: invalid choice: 'lost'"),
    (["list", "--limit", "0"], "must be a whole number from 1, got '0'"),
    (["show", "99"], "there is no job 99"),
    (["show", "x"], "must be a job's number (see python -m services.jobs list), got 'x'"),
    (["logs", "99"], "there is no job 99"),
    (["logs", "99", "-f"], "there is no job 99"),
    (["logs", "1", "--attempt", "3"], "job 1 has no attempt 3; it has 0"),
    (["cancel"], "say which jobs to cancel"),
    (["cancel", "1", "--project", "p"], "say which jobs to cancel"),
    (["cancel", "99"], "there is no job 99"),
    (["retry", "99"], "there is no job 99"),
    (["queue", "--server", "nowhere"], "address must read http://host:port, got 'nowhere'"),
    (["queue", "--server", "http://a:b@host"], "address must read http://host:port"),
    (["queue", "--token-file", "/no/token"], "cannot read the token file '/no/token'"),
]


@pytest.mark.parametrize(("words", "line"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_line_with_the_way_out(with_one_job, monkeypatch, tmp_path, words, line):
    monkeypatch.setenv("ZSBIR_JOBS_URL", with_one_job.url)
    for name, text in (("LIST", "- a"), ("DATE", "layout: 2020-01-01"), ("TYPO", "layuot: toy")):
        (tmp_path / name).write_text(text)
    words = [str(tmp_path / word) if word.isupper() and len(word) == 4 else word for word in words]
    with pytest.raises(InputError) as error:
        COMMANDS[words[0]](words[1:])
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert with_one_job.store.counts() == {"queued": 1}


def test_without_a_service_the_line_says_how_to_start_one(service, tmp_path):
    service.stop()
    code, out, err = service.command("submit", "train")
    assert (code, out) == (1, "")
    assert re.fullmatch(
        rf"error: no job service answers at {service.url} \(.*\); start it there: python -m services.jobs up\n", err
    )
    code, _, err = service.command("list", "--root", str(tmp_path / "other"), ZSBIR_JOBS_URL="")
    assert code == 2
    assert "no job service is known: start one here (python -m services.jobs up), or name one (--server" in err
    service.start()


def test_another_server_is_not_mistaken_for_a_job_service(moto):
    with Client(moto.endpoint) as client, pytest.raises(RunError, match="is not a job service; name one with --server"):
        client.queue()


def test_json_of_another_service_is_not_mistaken_either():
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{stranger.server_port}") as client:
            looks = (client.me, client.kinds, client.jobs, client.queue, lambda: client.job(1))
            acts = (
                lambda: client.cancel(1),
                lambda: client.retry(1),
                lambda: client.submit({}, "key"),
                lambda: client.cancel_many(ids=[1]),
            )
            for ask in (*looks, *acts):
                with pytest.raises(RunError, match="is not a job service; name one with --server"):
                    ask()
        stranger.shutdown()


def test_a_named_root_wins_over_the_address_in_the_environment(with_one_job, tmp_path, monkeypatch):
    monkeypatch.setenv("ZSBIR_JOBS_URL", "http://jobs.example.org")
    mine = str(tmp_path / "mine")
    write_state(mine, {"url": with_one_job.url})
    assert server_url(mine) == with_one_job.url
    assert server_url() == "http://jobs.example.org"
    with pytest.raises(InputError, match="no job service is known"):
        server_url(str(tmp_path / "nothing is up here"))


def test_list_works_where_the_encoding_lacks_bars_and_dots(with_one_job):
    code, out, err = with_one_job.command("list", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (code, err) == (0, "")
    assert "ingest" in out


@pytest.mark.parametrize(
    ("words", "env", "line"),
    [
        (("list", "--server=http://jobs.example.org"), {"ALL_PROXY": "socks5://127.0.0.1:9"}, "a proxy of the environment"),
        (("tokens", "revoke", "9" * 5000), {}, "revoke needs a token's number"),
        (("tokens", "revoke", "²"), {}, "revoke needs a token's number"),
        (("tokens", "make", "\udcff"), {}, "a token needs a name of 1 to 100 characters"),
        (("tokens", "--store=sqlite:///{here}/no database"), {}, "the job store at sqlite:///"),
        (("submit", "train", "--config={here}/loop.yaml"), {}, "cannot read the configuration"),
    ],
)
def test_common_mistakes_are_one_line(with_one_job, tmp_path, words, env, line):
    (tmp_path / "no database").write_text("something else " * 100)
    (tmp_path / "loop.yaml").write_text("train: &one\n  steps: *one\n")
    code, out, err = with_one_job.command(
        *[word.replace("{here}", str(tmp_path)) for word in words], ZSBIR_ROOT=str(tmp_path), **env
    )
    assert (code in (1, 2), out) == (True, "")
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1


def test_tokens_come_from_the_environment_or_a_file(tmp_path):
    service = Service(tmp_path / "root", auth="tokens")
    try:
        roles: tuple[Role, ...] = ("viewer", "submitter")
        viewer, submitter = (Tokens(service.store).make(role, role, "test") for role in roles)
        for token in ("", "zsbir_wrong"):
            code, _, err = service.command("list", ZSBIR_JOBS_TOKEN=token)
            assert code == 2
            assert "(given as ZSBIR_JOBS_TOKEN or --token-file FILE)" in err
            assert "zsbir_wrong" not in err
        file = tmp_path / "token"
        file.write_text(submitter + "\n")
        toy = ("submit", "ingest", "--layout=toy")
        assert service.command(*toy, "--token-file", str(file))[:2] == (0, "1\n")
        code, _, err = service.command(*toy, ZSBIR_JOBS_TOKEN=viewer)
        assert code == 2
        assert "'viewer' is a viewer, this needs a token of a submitter" in err
        # Without the role of operator, a selection means the caller's own jobs.
        service.submit(owner="somebody")
        assert service.command("cancel", "--state", "queued", "--yes", ZSBIR_JOBS_TOKEN=submitter)[1].endswith(": 1\n")
        code, _, err = service.command("list", ZSBIR_JOBS_TOKEN="two words")
        assert (code, "the token contains spaces or other characters" in err) == (2, True)
    finally:
        service.stop()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    with pytest.raises(cli.HelpAsked) as asked:
        COMMANDS[name](["--help"])
    assert f"usage: python -m services.jobs {name}" in str(asked.value)
    assert "--token-file FILE" in str(asked.value)
    assert (COMMANDS[name].__doc__ or "").strip()


def test_the_help_of_a_kind_shows_its_fields_as_the_service_describes_them(run_command):
    with pytest.raises(cli.HelpAsked) as asked:
        run_command("submit", "train", "--help")
    text = " ".join(str(asked.value).split())
    assert "Dataset and Knowledge in, Run out" in text
    assert "--mining {hard,semi_hard,all,soft}" in text
    assert "--train-on-dev, --no-train-on-dev" in text
    assert re.search(r"--dataset TEXT \S.*?\[required\]", text)
    assert re.search(r"--lr X \S.*?\[0.0001\]", text)
    assert "recipes: custom" in text
    with pytest.raises(cli.HelpAsked, match=r"--train\.steps N"):
        run_command("submit", "--help", "pipeline")


HELP = """
import sys
from services.jobs import __main__ as program
from zsbir.base.cli import HelpAsked
for name in sys.argv[1:]:
    try:
        program._parse([name, "--help"])
    except HelpAsked:
        print(name)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_the_help_of_the_services_own_commands_loads_nothing_heavy():
    names = ["--help", "up", "down", "serve", "limits", "tokens", "keep"]
    shown = subprocess.run([sys.executable, "-c", HELP, *names], capture_output=True, text=True, check=True).stdout.split("\n")
    assert shown[: len(names)] == names
    assert not {"torch", "ray", "mlflow", "numpy", "sqlalchemy", "alembic", "fastapi", "boto3"} & set(shown[len(names)].split())


def test_commands_load_nothing_heavy():
    code = "import services.jobs.cli.commands, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "mlflow", "numpy", "sqlalchemy", "fastapi", "boto3"} & set(loaded)


@pytest.mark.parametrize("words", [("list",), ("show", "1"), ("queue",), ("logs", "1"), ("show", "1", "--json")])
def test_a_terminal_gets_our_own_colours_and_no_commands_of_a_job(service, words):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egpj"
    attempt, attempt_dir = (service.submit(), service.run())[1]
    attempt_dir.write_log(0, f"first\tline\n{evil}\n".encode())
    attempt_dir.write_end(End("user_error", evil))
    service.end(attempt, "user_error", message=evil)
    service.submit(owner=evil)
    leader, follower = os.openpty()
    environment = {**os.environ, "ZSBIR_JOBS_URL": service.url, "COLUMNS": "300", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-m", "services.jobs", *words], env=environment, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := os.read(leader, 65536):
            seen += data
    os.close(leader)
    assert process.wait(60) == 0
    text = seen.decode()
    assert not re.search(r"\x1b(?!\[\d*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f\u202e]", text), "an order to the terminal"
    assert r"\x1b]0;owned" in text or "\\u001b]0;owned" in text
    assert ("\x1b[31mfailed" in text) == (words in (("list",), ("show", "1")))


# --- without a service, commands, notifications


def test_the_fields_of_a_kind_are_listed_without_a_service_and_the_line_says_whose_they_are(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ZSBIR_ROOT", str(tmp_path))
    for url, why in (("", "no job service"), (f"http://{HOST}:{free_ports(1)[0]}", "no job service answers")):
        monkeypatch.setenv("ZSBIR_JOBS_URL", url) if url else monkeypatch.delenv("ZSBIR_JOBS_URL", raising=False)
        monkeypatch.setattr("services.jobs.cli.client.RETRY_PAUSES_S", ())
        with pytest.raises(cli.HelpAsked, match=r"--classes-per-batch") as asked:
            COMMANDS["submit"](["train", "--help"])
        assert "--notify" in str(asked.value)
        said = capsys.readouterr().err
        assert said.startswith("the fields are those of the version that is installed here: ")
        assert why in said


def test_the_words_of_a_command_are_kept_as_they_are_with_the_folder_it_was_submitted_in(service, monkeypatch, tmp_path):
    """As an operator with a token: to a service without tokens nobody submits one."""
    service.settings = service.settings.replace(auth="tokens", allow_commands=True, places=(str(tmp_path),))
    service.stop()
    service.start()
    token = Tokens(service.store).make("ann", "operator", "test")
    monkeypatch.chdir(tmp_path)
    env = {"ZSBIR_JOBS_URL": service.url, "ZSBIR_JOBS_TOKEN": token}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    number = COMMANDS["submit"](["command", "--cpus", "2", "--", "python", "my.py", "--x", "1", "--help", "a,b"])
    job = service.store.job(int(number))
    assert job.config == {"words": ["python", "my.py", "--x", "1", "--help", "a,b"], "cwd": str(tmp_path)}
    assert job.cpus == 2
    with pytest.raises(InputError, match=r"command: --words is required"):
        COMMANDS["submit"](["command"])


def test_targets_are_set_listed_and_tried(service, run_command, tmp_path, capsys):
    file = tmp_path / "targets.yaml"
    file.write_text("team: {webhook: 'http://127.0.0.1:9/secret'}\n")
    assert run_command("notify") == "no targets yet; python -m services.jobs notify --set FILE"
    assert run_command("notify", "--set", str(file)) == run_command("notify", "--list") == "team  http://127.0.0.1:9/***"
    for place in ([], ["--store", service.store.url]):
        with pytest.raises(RunError, match=r"^the target 'team' was not told: its server does not answer \(ConnectError\)$"):
            run_command("notify", "--test", "team", *place)
        with pytest.raises(InputError, match=r"there is no target 'x'; there are team"):
            run_command("notify", "--test", "x", *place)
        file.write_text("boss: {webhook: 'http://chat.example.org:99999/secret'}\n")
        with pytest.raises(InputError, match="must have a port from 1 to 65535"):
            run_command("notify", "--set", str(file), *place)
        assert run_command("notify", *place) == "team  http://127.0.0.1:9/***"
    number = run_command("submit", "ingest", "--layout=toy", "--notify", "team", "--notify-on", "failure")
    assert service.store.job(int(number)).notify == [{"to": "team", "on": "failure"}]
