"""The queue's page in a real browser, over the real service with its real store and attempts' folders."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Route, expect
from servers.job_pages import PIPELINE, Queue
from servers.pages import DESKTOP, PHONE, TOO_FAINT, UNUSABLE

from services.common.tokens import Tokens
from services.jobs.cli.client import Client
from services.jobs.runs.attempt_dir import attempt_dir_of
from zsbir.base.draft import draft
from zsbir.base.storage import join, open_folder

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror='window.cracked=1'><script>window.cracked=1</script>\"'><svg onload=window.cracked=1>"


def rows_of(count: int) -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = [
        {"step": 10 * n, "train/loss": 2 / n, "train/loss_quadruplet": 1 / n, "train/lr": 0.1} for n in range(1, count + 1)
    ]
    rows[-1]["train/loss_quadruplet"] = None
    rows.append({"step": 10 * count, "dev/map_all": 0.3})
    return rows


def test_an_empty_queue_explains_how_to_submit_the_first_job(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open()
    expect(page.get_by_text("python -m services.jobs submit pipeline")).to_be_visible()
    page.get_by_role("link", name="fill in the form").click()
    expect(page.get_by_role("heading", name="Submit a job")).to_be_visible()
    there.check()


@pytest.mark.everyday
def test_the_queue_shows_running_and_waiting_jobs_and_why_they_wait(queue: Queue, visit) -> None:
    jobs = [queue.submit(owner="ann", project="vision") for _ in range(4)]
    attempts = [queue.start(), queue.start()]
    queue.report(attempts[0], 0.4)
    there = visit(queue)
    page = there.open()
    expect(page).to_have_title("2 running, 2 waiting — queue")
    first = page.get_by_role("region", name="Running").get_by_role("listitem").filter(has_text=f"{jobs[0].id} train")
    expect(first).to_contain_text("40 %")
    expect(first).to_contain_text("80 of 200 steps · 4.12 steps/s · 30 s left")
    expect(first).to_contain_text("train/loss 2.11")
    expect(first.get_by_role("progressbar")).to_have_attribute("value", "0.4000")
    line = page.get_by_role("region", name="Waiting").get_by_role("row")
    expect(line.nth(1)).to_contain_text("2 of 2 jobs are running: jobs 1, 2")
    expect(line.nth(2)).to_contain_text(f"job {jobs[2].id} is first in line, and waits for room")
    expect(page.get_by_text("Running 2 of 2")).to_be_visible()
    expect(page.get_by_text("jobs wait")).to_be_visible()  # no heartbeat yet
    queue.store.heartbeat(queue.lease)
    expect(page.get_by_text("dispatcher alive")).to_be_visible()

    queue.report(attempts[0], 0.65)
    expect(first).to_contain_text("65 %")
    queue.end(attempts[0], "succeeded", result=join(queue.root, "runs/x"))
    expect(page).to_have_title("1 running, 2 waiting — queue")
    expect(page.get_by_role("region", name="Ended").get_by_role("row").nth(1)).to_contain_text("succeeded")
    there.check()


def test_ended_jobs_are_filtered_and_paged(queue: Queue, visit) -> None:
    for number in range(30):
        queue.submit(owner="ann" if number % 2 else "bob")
        queue.end(queue.start(), "user_error", "error: no such dataset")
    queue.submit("evaluate", {"run": "x"}, owner="ann")
    queue.end(queue.start(), "succeeded")
    there = visit(queue)
    page = there.open()
    rows = page.get_by_role("region", name="Ended").locator("tbody tr")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("31 evaluate")
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(31)
    page.get_by_role("navigation", name="Jobs by state").get_by_role("link", name="failed").click()
    expect(page.get_by_role("region", name="Waiting")).to_have_count(0)
    page.get_by_label("owner").fill("bob")
    page.get_by_label("owner").press("Enter")
    expect(rows).to_have_count(15)
    page.reload()
    expect(rows).to_have_count(15)
    expect(rows.first).to_contain_text("error: no such dataset")
    page.get_by_label("kind").select_option("evaluate")
    expect(page.get_by_text("No job that has ended matches.")).to_be_visible()
    there.check()


def score(value: float, on: str = "dev", step: int | None = 150) -> dict[str, Any]:
    return {"value": value, "metric": "map_all", "on": on, "step": step}


def test_the_list_tells_jobs_apart_by_name_recipe_seed_and_score(queue: Queue, visit) -> None:
    queue.submit(name="night one", config={"recipe": "toy", "seed": 3})
    attempt = queue.start()
    queue.report(attempt, 1.0, score=score(0.849))
    queue.end(attempt, "succeeded")
    queue.submit(name="toy lr=0.1", config={"recipe": "toy", "lr": 0.1})
    there = visit(queue)
    page = there.open()
    row = page.get_by_role("region", name="Ended").get_by_role("row").nth(1)
    expect(row.get_by_role("link", name="night one")).to_have_attribute("href", "/jobs/1")
    expect(row).to_contain_text("1 train · toy · seed 3")
    expect(row).to_contain_text("0.849 dev")
    expect(row.get_by_title("map_all 0.849 on the dev classes, kept from step 150")).to_be_visible()
    expect(page.get_by_role("region", name="Waiting").get_by_role("link", name="toy lr=0.1")).to_be_visible()
    there.check()


def test_an_array_is_one_entry_that_opens_in_place_also_by_keyboard(queue: Queue, visit) -> None:
    jobs = queue.submit_array(range(5))
    first, second = queue.start(), queue.start()
    queue.report(first, 1.0, score=score(0.7))
    queue.end(first, "succeeded")
    queue.report(second, 0.5, score=score(0.6))
    queue.store.cancel(jobs[4].id, "ann")
    there = visit(queue)
    page = there.open()
    cards = page.get_by_role("region", name="Running").locator("li.panel")
    expect(cards).to_have_count(1)
    expect(page.get_by_text("No job is waiting.")).to_be_visible()
    expect(page.get_by_text("No job that has ended matches.")).to_be_visible()
    for words in ("toy", "pipeline · 5 jobs", "1 running", "2 waiting", "1 cancelled", "1 succeeded", "best 0.7 dev", "50 %"):
        expect(cards).to_contain_text(words)
    expect(cards.get_by_role("link", name="seed 0")).to_have_attribute("href", "/jobs/1")
    opener = page.get_by_role("button", name="Array 1: toy, 5 jobs")
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.focus()
    page.keyboard.press("Enter")
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(opener).to_be_focused()
    rows = page.get_by_role("table", name="Jobs of array 1").get_by_role("row")
    expect(rows).to_have_count(6)
    expect(rows.nth(1)).to_contain_text("toy seed=0")
    expect(rows.nth(2)).to_contain_text("100 of 200 steps")
    expect(rows.nth(5)).to_contain_text("cancelled")
    page.wait_for_timeout(2500)  # a poll later it is still open
    expect(rows).to_have_count(6)
    page.keyboard.press("Space")
    expect(rows).to_have_count(0)

    queue.end(second, "user_error", "error: no")
    for _ in range(2):
        queue.end(queue.start(), "succeeded")
    row = page.get_by_role("region", name="Ended").locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("3 succeeded")
    page.get_by_role("button", name="Retry array 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    expect(page).to_have_title("0 running, 2 waiting — queue")
    page.get_by_role("button", name="Cancel array 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel its jobs").click()
    expect(page).to_have_title("0 running, 0 waiting — queue")
    there.check()


def test_what_ends_while_the_page_asks_is_shown_once(queue: Queue, visit) -> None:
    """The lists of running and of ended jobs are two answers: what ends between them is in both."""
    queue.submit(name="alone")
    queue.submit_array([0, 1])
    attempts = [queue.start() for _ in range(3)]
    there = visit(queue)
    page = there.context.new_page()

    def running_no_more(route: Route) -> None:
        answer = route.fetch()
        while attempts:
            queue.end(attempts.pop(), "succeeded")
        route.fulfill(response=answer)

    page.route(re.compile(r"/api/jobs\?.*state=running"), running_no_more)
    page.goto(queue.address)
    rows = page.get_by_role("region", name="Ended").locator("tbody tr")
    expect(rows).to_have_count(2)
    assert attempts == []
    assert page.get_by_role("link", name="alone").count() == 1
    assert page.get_by_role("button", name="Array 2").count() == 1
    there.check()


def test_a_job_of_an_array_leads_to_the_others(queue: Queue, visit) -> None:
    queue.submit()
    jobs = queue.submit_array([0, 1])
    there = visit(queue)
    page = there.open(f"/jobs/{jobs[1].id}")
    page.get_by_role("link", name=f"all jobs of array {jobs[0].id}").click()
    expect(page.get_by_role("table", name=f"Jobs of array {jobs[0].id}").locator("tbody tr")).to_have_count(2)
    expect(page.get_by_role("region", name="Waiting").get_by_role("row", name="train", exact=True)).to_have_count(0)
    page.get_by_role("link", name="Show all jobs").click()
    expect(page.get_by_role("region", name="Waiting").locator("table").first.locator("> tbody > tr")).to_have_count(2)
    there.check()


REDS = """() => {
    const red = document.createElement("i");
    red.style.color = "var(--bad)";
    document.body.append(red);
    const wanted = getComputedStyle(red).color;
    red.remove();
    return [...document.querySelectorAll("main *")].filter((node) => node.checkVisibility() && node.childElementCount === 0
        && [getComputedStyle(node).color, getComputedStyle(node).stroke].includes(wanted)).map((node) => node.textContent);
}"""
"""What a page shows in the colour of failures."""


@pytest.mark.parametrize(
    ("cause", "word", "is_red"),
    [("cancelled", "cancelled", False), ("timed_out", "timed out", False), ("user_error", "failed", True)],
)
def test_only_a_failed_job_is_red_and_each_end_has_its_word(queue: Queue, visit, cause: str, word: str, is_red: bool) -> None:
    job = queue.submit("pipeline", PIPELINE)
    attempt = queue.start(*PIPELINE)
    queue.report(attempt, 0.5, steps="3/5")
    queue.end(attempt, cause, "the words of its end")
    there = visit(queue)
    for path in ("/", f"/jobs/{job.id}"):
        page = there.open(path)
        expect(page.locator("main").get_by_text(word, exact=True).last).to_be_visible()
        reds = page.evaluate(REDS)
        assert bool(reds) is is_red, reds
    expect(page.locator(".flow li").nth(2)).to_contain_text(word)
    there.check()


def test_stages_say_which_were_found_and_how_long_the_others_took(queue: Queue, visit) -> None:
    job = queue.submit("pipeline", PIPELINE)
    attempt = queue.start(*PIPELINE)
    states = {"ingest": ("found", 0.4), "teacher": ("done", 75.0), "train": ("running", 30.0), "evaluate": ("waiting", None)}
    stages = [{"name": name, "state": state, "took_s": took_s} for name, (state, took_s) in states.items()]
    queue.report(attempt, 0.5, steps="3/5", stages=stages, left_s=95)
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    steps = page.locator(".flow li")
    expect(steps.nth(0)).to_contain_text("found, not made again")
    expect(steps.nth(1)).to_contain_text("1 min 15 s")
    expect(steps.nth(2)).to_contain_text("running")
    expect(page.locator(".head")).to_contain_text("stage 3 of 5: train")
    expect(page.locator(".head")).to_contain_text("1 min 35 s left")
    there.check()


def test_the_kept_dev_score_is_marked_on_its_chart_also_when_later_ones_are_lower(queue: Queue, visit) -> None:
    job = queue.submit()
    attempt = queue.start()
    queue.report(attempt, 1.0, score=score(0.849, step=100))
    queue.curve(attempt, [{"step": 50 * n, "dev/map_all": value} for n, value in enumerate((0.5, 0.849, 0.834), start=1)])
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    chart = page.locator("figure", has_text="Score on the dev classes")
    expect(chart.locator(".ring")).to_have_text("kept: 0.849 at step 100")
    expect(page.locator(".head")).to_contain_text("0.849 map_all on the dev classes kept from step 100")
    queue.report(attempt, 1.0, score=score(0.612, on="unseen", step=None))
    expect(page.locator(".head")).to_contain_text("0.612 map_all on the unseen classes")
    expect(chart.locator(".ring")).to_have_text("kept: 0.849 at step 100")
    there.check()


def test_a_job_says_which_jobs_it_waits_for(queue: Queue, visit) -> None:
    queue.submit()
    job = queue.submit(after=[{"job": 1, "on": "success"}])
    there = visit(queue)
    page = there.open()
    expect(page.get_by_role("region", name="Waiting").get_by_role("row").nth(2)).to_contain_text("after job 1")
    page.goto(f"{queue.address}/jobs/{job.id}")
    expect(page.locator("aside").get_by_role("link", name="job 1")).to_have_attribute("href", "/jobs/1")
    there.check()


def test_a_job_s_page_shows_its_curve_as_it_grows(queue: Queue, visit) -> None:
    job = queue.submit()
    attempt = queue.start()
    queue.report(attempt, 0.1)
    queue.curve(attempt, [{"step": 10, "train/loss": 2.0}])
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    expect(page).to_have_title(f"running 10 % — train (job {job.id})")
    loss = page.locator("figure", has_text="Loss").first
    expect(loss.locator("[data-name='train/loss']")).to_have_attribute("data-points", "1")
    expect(page.locator("figure", has_text="Score on the dev classes")).to_be_hidden()
    queue.curve(attempt, rows_of(12))
    expect(loss.locator("[data-name='train/loss']")).to_have_attribute("data-points", "12")
    expect(loss.locator("[data-name='train/loss_quadruplet']")).to_have_attribute("data-points", "11")
    expect(page.locator("[data-name='train/lr']")).to_have_count(0)
    expect(page.locator("[data-name='dev/map_all']")).to_have_attribute("data-points", "1")
    expect(loss).to_contain_text("last values")
    loss.focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    expect(loss).to_contain_text("step 110")
    expect(loss.locator(".legend")).to_contain_text("train/loss 0.182")
    there.check()


def test_a_sweep_s_page_shows_its_trials(queue: Queue, visit) -> None:
    job = queue.submit("sweep", {"recipe": "toy", "dataset": "datasets/toy/1"})
    attempt = queue.start()
    rows = [{"step": number, "dev/map_all": 0.2 + number / 50, "dev/map_all_best": 0.3} for number in range(3)]
    queue.curve(attempt, rows, step="sweep")
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    scores = page.locator("figure", has_text="Best dev score of each trial")
    expect(scores.locator("[data-name='dev/map_all']")).to_have_attribute("data-points", "3")
    scores.focus()
    page.keyboard.press("ArrowLeft")
    expect(scores).to_contain_text("trial 2")
    expect(page.locator("figure", has_text="Loss")).to_be_hidden()
    there.check()


def test_the_log_follows_only_while_its_reader_is_at_the_end(queue: Queue, visit) -> None:
    job = queue.submit()
    attempt = queue.start()
    text = "".join(f"line {number:06d} of the log\n" for number in range(9000))
    queue.say(attempt, text)
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("line 008999")
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 24
    assert log.evaluate("log => log.textContent.split('\\n').length") <= 2001
    queue.say(attempt, text + "and then\n")
    expect(log).to_contain_text("and then")
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 24

    log.evaluate("log => log.scrollTop = 100")
    queue.say(attempt, text + "and then\nmuch later\n")
    expect(log).to_contain_text("much later")
    assert log.evaluate("log => log.scrollTop") < 200
    first = log.evaluate("log => log.textContent.split('\\n')[1]")
    page.get_by_role("button", name="Load earlier lines").click()
    expect(log).not_to_contain_text("much later")
    lines = log.evaluate("log => log.textContent.split('\\n')")
    assert len(lines) == 2000
    assert first in lines
    numbers = [int(line[5:11]) for line in lines[:-1] if line]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    page.get_by_role("button", name="Follow the end").click()
    expect(log).to_contain_text("much later")
    there.check()


def test_a_log_that_arrives_slowly_shows_each_line_once(queue: Queue, visit) -> None:
    """Another attempt is chosen, and the page's next look at the log is on its way before the first one has answered."""
    job = queue.submit()
    first = queue.start()
    queue.say(first, "one\ntwo\n")
    queue.end(first, "preempted", "the node went away")
    second = queue.start()
    queue.say(second, "three\nfour\n")
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    log = page.get_by_role("log")
    expect(log).to_contain_text("four")

    slow = "(ms) => { const ask = window.fetch; window.fetch = async (path, ...rest) => {"
    slow += " if (String(path).includes('/log')) await new Promise((done) => setTimeout(done, ms)); return ask(path, ...rest); }; }"
    page.evaluate(slow, 5000)
    page.get_by_label("Attempt", exact=True).select_option("1")
    page.wait_for_timeout(9000)
    expect(log).to_have_text("one\ntwo\n")
    page.get_by_label("Attempt", exact=True).select_option("2")
    page.wait_for_timeout(9000)
    expect(log).to_have_text("three\nfour\n")
    there.check()


def test_attempts_events_and_the_command_line_for_the_same_job_are_shown(queue: Queue, visit) -> None:
    config = {"recipe": "toy", "lr": 0.003, "experiment": "it's", "train_on_dev": False}
    job = queue.submit(config=config, owner="ann", project="vision", priority=5, cpus=2, gpus=1)
    first = queue.start()
    queue.say(first, "the first attempt's words\n")
    queue.end(first, "preempted", "the node went away")
    second = queue.start()
    queue.report(second, 0.8, resumed_from="s3://runs/x/step-150")
    queue.say(second, "the second attempt's words\n")
    watched = open_folder(join(attempt_dir_of(queue.root, second.submission_id).uri, "train"))
    watched.replace("worker.json", json.dumps({"facts": {"mlflow_run": "abc", "mlflow_experiment": "1"}}).encode())
    queue.end(second, "user_error", "error: lr is too large")
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    rows = page.get_by_role("table", name="Attempts").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("preempted")
    expect(rows.nth(2)).to_contain_text("…/x/step-150")
    expect(page.locator(".head")).to_contain_text("error: lr is too large")
    command = page.get_by_text("python -m services.jobs submit").inner_text()
    flags = ["--recipe=toy", "--lr=0.003", "--experiment=it's", "--no-train-on-dev", "--project=vision", "--priority=5"]
    flags += ["--cpus=2", "--gpus=1"]
    assert shlex.split(command.replace("\\\n", "")) == ["python", "-m", "services.jobs", "submit", "train", *flags]
    expect(page.get_by_role("link", name="its run")).to_have_attribute("href", "http://mlflow.test/#/experiments/1/runs/abc")
    expect(page.get_by_role("link", name="all runs")).to_have_attribute(
        "href", re.compile(r"/experiments/1/runs\?.*ShareKey=zsbir$")
    )
    expect(page.get_by_text("attempt ended", exact=False).first).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("the second attempt's words")
    page.get_by_label("Attempt", exact=True).select_option("1")
    expect(page.get_by_role("log")).to_contain_text("the first attempt's words")

    there.check()


@pytest.mark.parametrize(
    ("config", "terms"),
    [
        ({"recipe": "toy", "pretrain": {}, "train": {"lr": 0.003}}, {"gpus": 0.5}),
        ({"recipe": "toy", "ingest": {"layout": "toy"}, "pretrain": {}, "sweep": {"trials": 3}}, {"time_limit_s": 90.0}),
        ({"recipe": "toy", "train": {"experiment": "it's $HOME"}}, {"cpus": 3, "priority": -4, "project": "vision"}),
    ],
)
def test_the_command_line_that_is_shown_submits_the_same_job(queue: Queue, visit, tmp_path: Path, config, terms) -> None:
    with Client(queue.address) as client:
        job = queue.store.job(client.submit({"kind": "pipeline", "config": config, **terms}, "first")[0]["id"])
    page = visit(queue).open(f"/jobs/{job.id}")
    command = page.get_by_text("python -m services.jobs submit").inner_text()
    env = {**os.environ, "ZSBIR_JOBS_URL": queue.address, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    again = queue.store.job(int(done.stdout))
    for name in ("kind", "config", "project", "priority", "cpus", "gpus", "time_limit_s"):
        assert getattr(again, name) == getattr(job, name), name


def test_a_pipeline_s_steps_and_pictures(queue: Queue, visit) -> None:
    job = queue.submit("pipeline", PIPELINE)
    attempt = queue.start(*PIPELINE)
    queue.report(attempt, 0.5, steps="3/5")
    queue.curve(attempt, rows_of(3))
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    steps = page.locator(".flow li")
    expect(steps).to_have_count(5)
    expect(steps.nth(1)).to_contain_text("done")
    expect(steps.nth(2)).to_contain_text("running")
    expect(steps.nth(3)).to_contain_text("waiting")
    expect(page.get_by_text("stage 3 of 5: train")).to_be_visible()
    report = artifact_with_a_picture(queue.root)
    queue.end(attempt, "succeeded", result=report, made={"evaluate": report})
    picture = page.get_by_role("img", name="evaluate: grid")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 80
    there.check()


def artifact_with_a_picture(root: str) -> str:
    report = join(root, "reports", "r")
    with draft(report, "report", "r") as work:
        Image.new("RGB", (80, 60), "teal").save(work.file("grid.png"))
        work.commit(digest="0" * 64)
    return report


def test_jobs_are_cancelled_through_the_page_one_and_many(queue: Queue, visit) -> None:
    jobs = [queue.submit("ingest", {"layout": "toy"}) for _ in range(4)]
    queue.start()
    there = visit(queue)
    page = there.open()
    page.get_by_role("button", name="Cancel job 4").click()
    page.get_by_role("button", name="Go back").click()
    assert queue.store.job(4).state == "queued"
    for number in (1, 2, 3):
        page.get_by_label(f"Choose job {number}", exact=True).check()
    page.wait_for_timeout(2500)  # a poll later they are still chosen
    expect(page.get_by_text("3 jobs chosen")).to_be_visible()
    page.get_by_role("button", name="Cancel them").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the jobs").click()
    expect(page).to_have_title("1 running, 1 waiting — queue")
    expect(page.get_by_text("cancelling")).to_be_visible()
    assert [queue.store.job(job.id).state for job in jobs] == ["running", "cancelled", "cancelled", "queued"]

    page.goto(f"{queue.address}/jobs/2")
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry").click()
    page.wait_for_url("**/jobs/5")
    expect(page.get_by_role("link", name="job 2")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(".head .state")).to_contain_text("cancelled")
    there.check()


def test_a_login_link_lets_one_browser_in_once_and_leaves_the_address(closed_queue: Queue, visit) -> None:
    queue, tokens = closed_queue, Tokens(closed_queue.store)
    queue.submit(owner="ann")
    token = tokens.bearer(queue.token("ann", "submitter"))
    assert token
    code = tokens.make_login(token)
    there = visit(queue)
    page = there.open(f"/#login={code}")
    expect(page.get_by_role("button", name="Cancel job 1")).to_be_visible()
    expect(page.get_by_text("ann, submitter")).to_be_visible()
    assert code not in page.url
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(page.get_by_text("ann, submitter")).to_be_visible()

    other = visit(queue)
    second = other.open(f"/#login={code}")
    expect(second.get_by_text("used before, or is too old")).to_be_visible()
    second.evaluate(f"location.hash = 'login={tokens.make_login(token)}'")
    expect(second.get_by_text("ann, submitter")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()
    there.check(refusals=True)
    other.check(refusals=True)


def test_a_token_signs_in_and_its_role_decides_which_buttons_there_are(closed_queue: Queue, visit) -> None:
    queue = closed_queue
    queue.submit(owner="ann")
    queue.submit(owner="bob")
    there = visit(queue)
    page = there.open()
    page.get_by_label("Token").fill("zsbir_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("unknown here, or was revoked")).to_be_visible()
    page.get_by_label("Token").fill(queue.token("ann", "submitter"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Cancel job 1")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel job 2")).to_have_count(0)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Log out").click()

    viewer = queue.token("eve", "viewer")
    page.get_by_label("Token").fill(viewer)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("eve, viewer")).to_be_visible()
    expect(page.get_by_role("link", name="Submit a job")).to_be_hidden()
    expect(page.get_by_role("region", name="Waiting")).to_be_visible()
    assert page.locator("main button, main input[type=checkbox]").count() == 0
    page.goto(f"{queue.address}/jobs/1")
    expect(page.get_by_text("job 1 · train")).to_be_visible()
    assert page.locator("main [data-act]:not([data-act=copy])").count() == 0
    Tokens(queue.store).revoke(2, "test")
    expect(page.get_by_text("unknown here, or was revoked")).to_be_visible()
    there.check(refusals=True)


def test_the_page_waits_for_a_service_that_does_not_answer(queue: Queue, visit) -> None:
    queue.submit()
    there = visit(queue)
    page = there.open()
    expect(page).to_have_title("0 running, 1 waiting — queue")
    there.context.route("**/api/**", lambda route: route.abort())
    expect(page.get_by_text("The service cannot be reached. Trying again in")).to_be_visible()
    expect(page.get_by_role("region", name="Waiting")).to_be_visible()
    there.context.unroute("**/api/**")
    there.context.route("**/*", there._stay)
    queue.submit()
    expect(page).to_have_title("0 running, 2 waiting — queue")
    expect(page.get_by_text("cannot be reached")).to_be_hidden()
    there.check(refusals=True)


def test_an_answer_that_breaks_off_is_asked_for_again(queue: Queue, visit) -> None:
    """So is an answer of something else, such as a proxy's page with status 200."""
    queue.submit()
    there = visit(queue)
    page = there.open()
    expect(page).to_have_title("0 running, 1 waiting — queue")
    there.context.route("**/api/**", lambda route: route.fulfill(status=200, content_type="application/json", body='{"turns": [{'))
    expect(page.get_by_text("The service's answer cannot be read. Trying again in")).to_be_visible()
    there.context.unroute("**/api/**")
    there.context.route("**/*", there._stay)
    queue.submit()
    expect(page).to_have_title("0 running, 2 waiting — queue")
    there.check(refusals=True)


def test_a_hidden_page_asks_for_nothing(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open()
    expect(page).to_have_title("0 running, 0 waiting — queue")
    turn = "(hidden) => { Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});"
    turn += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(turn, True)
    page.wait_for_timeout(300)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    queue.submit()
    page.wait_for_timeout(3000)
    assert not asked
    page.evaluate(turn, False)
    expect(page).to_have_title("0 running, 1 waiting — queue")
    there.check()


def test_text_of_users_is_never_run_as_code(queue: Queue, visit) -> None:
    config = {"ingest": {"layout": "toy"}, "train": {"recipe": "toy", EVIL: EVIL}}
    job = queue.submit("pipeline", config, owner=EVIL[:100], name=EVIL[:100])
    attempt = queue.start("ingest", "train")
    stages = [{"name": EVIL, "state": EVIL, "took_s": EVIL}, EVIL, None]
    evil_score = {"value": 0.5, "metric": EVIL, "on": "dev", "step": 1}
    queue.report(attempt, 0.3, resumed_from=EVIL, label=EVIL, unit=EVIL, metrics={EVIL: 1.0}, stages=stages, score=evil_score)
    queue.curve(attempt, [{"step": 1, f"train/loss{EVIL}": 1.0, f"dev/{EVIL}": 1.0}])
    queue.say(attempt, EVIL)
    there = visit(queue)
    for path in ("/", f"/jobs/{job.id}"):
        page = there.open(path)
        expect(page.get_by_text("window.cracked=1").first).to_be_visible()
    queue.end(attempt, "user_error", EVIL, result=f"javascript:{EVIL}")
    for path in ("/", f"/jobs/{job.id}"):
        page = there.open(path)
        expect(page.get_by_text("<script>").first).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("<script>")
    page.get_by_role("link", name="Use as template").click()
    expect(page.get_by_role("heading", name="A pipeline like job 1")).to_be_visible()
    page.wait_for_timeout(500)
    there.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_every_page_fits_its_window(queue: Queue, visit, tmp_path: Path, scheme: str, name: str, size: dict[str, int]) -> None:
    lived_in(queue)
    there = visit(queue, viewport=size, color_scheme=scheme)
    for number, (path, shown) in enumerate(
        [
            ("/", "Waiting"),
            ("/jobs/6", "Attempts"),
            ("/jobs/7", "Steps"),
            ("/submit", "Submit a job"),
            ("/submit?pictures", "A pipeline for my own pictures"),
        ]
    ):
        page = there.open(path)
        expect(page.get_by_role("heading", name=shown)).to_be_visible()
        page.wait_for_timeout(400)
        if path == "/":
            page.get_by_role("button", name="Array 8:").click()
            expect(page.get_by_role("table", name="Jobs of array 8")).to_be_visible()
        if path == "/submit?pictures":
            page.locator("summary", has_text="teacher").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(TOO_FAINT) == []
        assert page.evaluate(UNUSABLE) == []
        page.screenshot(path=tmp_path / f"{number}-{name}-{scheme}.png", animations="disabled", full_page=True)
    there.check()


def lived_in(queue: Queue) -> None:
    """A queue as it looks after a day's work."""
    for cause, message in [
        ("succeeded", ""),
        (
            "user_error",
            "error: field 'lr': must be greater than 0, got -0.1; see /runs/default/2026-11-22-a-very-long-name-without-spaces.txt",
        ),
        ("data_error", "error: 12 of 400 images cannot be read, more than max_bad_frac 0.01 allows"),
        ("succeeded", ""),
    ]:
        queue.submit(owner="ann", project="vision")
        attempt = queue.start()
        queue.report(attempt, 1.0 if cause == "succeeded" else 0.2)
        queue.end(attempt, cause, message)
    queue.store.cancel(queue.submit(owner="carol").id, "carol")
    queue.submit(
        config={"recipe": "caltech_qd60_r18", "lr": 0.0003, "dataset": join(queue.root, "datasets/caltech_qd60-9f2c11e0")},
        owner="ann",
        project="vision",
    )
    first = queue.start()
    queue.end(first, "preempted", "the node went away")
    attempt = queue.start()
    queue.report(attempt, 0.42, resumed_from=join(queue.root, "runs/caltech_qd60_r18-4f1c/checkpoints/step-000150"))
    queue.curve(attempt, _lively(84))
    queue.say(attempt, "".join(f"12:04:{n % 60:02d} train step {n} loss {3 / (1 + n / 40):.3f} 4.1 steps/s\n" for n in range(84)))
    config = {
        "ingest": {"layout": "toy"},
        "pretrain": {},
        "teacher": {"backbone": "resnet18"},
        "train": {"recipe": "toy"},
        "evaluate": {},
        "index": {},
    }
    queue.submit("pipeline", config, owner="bob", project="demo")
    attempt = queue.start(*config)
    queue.report(attempt, 0.61, steps="4/6")
    queue.curve(attempt, _lively(20))
    queue.say(attempt, "ingest: 480 images\n")
    queue.submit_array(range(4), owner="ann", project="vision", priority=50)
    first = queue.start()
    queue.report(first, 1.0, score=score(0.71))
    queue.end(first, "succeeded")
    queue.report(queue.start(), 0.5, score=score(0.66))
    for number in range(5):
        queue.submit(owner=("ann", "bob")[number % 2], project="vision", priority=10 * (number == 0))


def _lively(steps: int) -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = []
    for n in range(1, steps + 1):
        wave = ((n * 7919) % 13 - 6) / 90
        quad, word, keep = 0.9 / (1 + n / 30) + wave, 1.6 / (1 + n / 25) - wave, 0.8 / (1 + n / 50) + wave / 2
        losses = {"train/loss": quad + word + 0.3 * keep, "train/loss_quadruplet": quad, "train/loss_classification": word}
        rows.append({"step": n, **losses, "train/loss_preservation": keep, "train/lr": 0.0003})
        if n % 10 == 0:
            rows.append({"step": n, "dev/map_all": 0.37 - 0.25 / (1 + n / 15)})
    return rows
