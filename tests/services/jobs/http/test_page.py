"""The queue's page in a real browser, over the real service with its real store and attempts' folders."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from services.jobs.cli.client import Client
from services.jobs.http.api import create_app
from services.jobs.http.state import ApiSettings
from services.jobs.queue.limits import Limits
from services.jobs.queue.records import Attempt, Job, JobRequest, Lease
from services.jobs.queue.store import Store, open_store
from services.jobs.queue.tokens import Tokens
from services.jobs.runs.attempt_dir import End, attempt_dir_of
from zsbir.base.artifact import draft
from zsbir.base.storage import join, open_folder

pytestmark = pytest.mark.slow

SEEN_MS = 15_000
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
EVIL = "<img src=x onerror='window.cracked=1'><script>window.cracked=1</script>\"'><svg onload=window.cracked=1>"
WATCHED = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""

TOO_FAINT = """() => {
    const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
    const seen = (colour) => { const found = parts(colour); return found.length === 3 || found[3] > 0; };
    const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (node) => { while (node && !seen(getComputedStyle(node).backgroundColor)) node = node.parentElement;
        return node ? getComputedStyle(node).backgroundColor : "rgb(255, 255, 255)"; };
    const texts = [...document.querySelectorAll("body *")].filter((node) =>
        node.checkVisibility() && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
    return texts.map((node) => {
        const style = getComputedStyle(node);
        const [one, other] = [light(node instanceof SVGElement ? style.fill : style.color), light(ground(node))].sort();
        return [node.textContent, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
    }).filter(([, contrast]) => contrast < 4.5);
}"""
"""Texts whose contrast to their background is below WCAG's AA."""


@dataclass
class Queue:
    """A service over a store of its own, with a dispatcher's lease."""

    store: Store
    root: str
    address: str = ""
    lease: Lease = field(init=False)

    def __post_init__(self) -> None:
        lease = self.store.take_lease("dispatcher on this machine", None)
        assert lease
        self.lease = lease

    def submit(self, kind: str = "train", config: dict[str, Any] | None = None, **more: Any) -> Job:
        given = config if config is not None else {"recipe": "toy", "steps": 200, "lr": 0.003}
        return self.store.submit(JobRequest.of({"kind": kind, "config": given, **more}))

    def start(self, *steps: str) -> Attempt:
        """Start an attempt of the next job."""
        attempt = self.store.claim(self.lease, Limits(running=99))
        assert attempt
        job = self.store.job(attempt.job_id)
        names = steps or (job.kind,)
        attempt_dir_of(self.root, attempt.submission_id).write_spec(
            {"steps": [{"name": name, "values": {}, "fed": {}} for name in names]}
        )
        self.store.started(self.lease, attempt)
        return attempt

    def report(self, attempt: Attempt, frac: float, *, resumed_from: str = "", **more: Any) -> None:
        done = round(200 * frac)
        metrics = {"step": done, "train/loss": 2.51 - frac, "dev/map_all": 0.312345 + frac / 5}
        progress = {"step": "train", "steps": "", "label": "train", "done": done, "total": 200, "unit": "steps", "per_s": 4.1234}
        now = {"left_s": (200 - done) / 4, "frac": frac, "metrics": metrics, "updated_s": time.time()}
        self.store.report(self.lease, attempt, {**progress, **now, **more}, resumed_from=resumed_from)

    def say(self, attempt: Attempt, text: str) -> None:
        attempt_dir_of(self.root, attempt.submission_id).write_log(0, text.encode())

    def curve(self, attempt: Attempt, rows: list[dict[str, float | None]], step: str = "train") -> None:
        there = open_folder(join(attempt_dir_of(self.root, attempt.submission_id).uri, step))
        there.replace("curve.json", json.dumps({"rows": rows}).encode())

    def end(self, attempt: Attempt, cause: Any, message: str = "", result: str = "", made: dict[str, str] | None = None) -> None:
        attempt_dir_of(self.root, attempt.submission_id).write_end(End(cause, message, result, made))
        self.store.end(self.lease, attempt, cause, message=message, result=result)

    def token(self, name: str, role: Any) -> str:
        return Tokens(self.store).make(name, role, "test")


@contextmanager
def served(settings: ApiSettings) -> Iterator[str]:
    """Serve from a thread; the address."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def opened(folder: Path, **more: Any) -> Iterator[Queue]:
    url, root = f"sqlite:///{folder / 'jobs.db'}", str(folder / "root")
    Path(root).mkdir()
    with closing(open_store(url).engine.raw_connection()):
        queue = Queue(open_store(url), root)
    with served(ApiSettings.of({"store": url, "root": root, "mlflow_url": "http://mlflow.test", **more})) as address:
        queue.address = address
        yield queue


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue where everybody is operator."""
    yield from opened(tmp_path, auth="off")


@pytest.fixture
def closed_queue(tmp_path: Path) -> Iterator[Queue]:
    """A queue that needs tokens."""
    yield from opened(tmp_path)


@dataclass
class Visit:
    """A new user's pages, and a record of what must not happen on them."""

    context: BrowserContext
    address: str
    outside: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.add_init_script(WATCHED)
        self.context.route("**/*", self._stay)

    def _stay(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.address}/", "data:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.set_default_timeout(SEEN_MS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.address + path)
        return page

    def check(self, *, refusals: bool = False) -> None:
        """Check that none of it happened. refusals: the browser's own lines about refused requests are expected."""
        for page in self.context.pages:
            assert page.evaluate("window.cracked") is None
            assert page.evaluate("window.violations") == []
        lines = [line for line in self.complaints if not (refusals and line.startswith("Failed to load resource"))]
        assert not lines
        assert not self.outside


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Make visits to an address, and close them."""
    expect.set_options(timeout=SEEN_MS)
    made: list[BrowserContext] = []

    def to(queue: Queue, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", "locale": "en-GB", **options})
        made.append(context)
        return Visit(context, queue.address)

    yield to
    for context in made:
        context.close()


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


def test_a_job_s_page_shows_its_curve_as_it_grows(queue: Queue, visit) -> None:
    job = queue.submit()
    attempt = queue.start()
    queue.report(attempt, 0.1)
    queue.curve(attempt, [{"step": 10, "train/loss": 2.0}])
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    expect(page).to_have_title(f"running 10 % — job {job.id}, train")
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

    page.get_by_role("button", name="Use as template").click()
    expect(page.locator("#lr")).to_have_value("0.003")
    expect(page.locator("#experiment")).to_have_value("it's")
    expect(page.locator("#train_on_dev")).to_have_value("no")
    expect(page.locator("#project")).to_have_value("vision")
    expect(page.locator("#cpus")).to_have_value("2")
    expect(page.locator("#gpus")).to_have_value("1")
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
    config = {"ingest": {"layout": "toy"}, "teacher": {}, "train": {"recipe": "toy"}, "evaluate": {}, "index": {}}
    job = queue.submit("pipeline", config)
    attempt = queue.start(*config)
    queue.report(attempt, 0.5, steps="3/5")
    queue.curve(attempt, rows_of(3))
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    steps = page.locator(".flow li")
    expect(steps).to_have_count(5)
    expect(steps.nth(1)).to_contain_text("done")
    expect(steps.nth(2)).to_contain_text("running")
    expect(steps.nth(3)).to_contain_text("waiting")
    expect(page.get_by_text("train, step 3 of 5")).to_be_visible()
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


def test_a_job_submitted_through_the_form_has_exactly_the_changed_fields(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit")
    expect(page.get_by_role("heading", name="Submit a job")).to_be_visible()
    page.get_by_label("Kind").select_option("pipeline")
    page.get_by_label("recipe").first.select_option("toy")
    train = page.locator("section.panel", has=page.get_by_role("heading", name="train", exact=True))
    train.get_by_text("Settings").click()
    expect(page.locator("#train-steps")).to_have_attribute("placeholder", "200")
    train.get_by_role("searchbox").fill("learning rate")
    expect(page.locator("#train-steps")).to_be_hidden()
    page.locator("#train-lr").fill("0.004")
    train.get_by_role("searchbox").fill("")
    page.locator("#train-train_on_dev").select_option("yes")
    page.locator("#train-mining").select_option("all")
    page.get_by_text("Project, priority, resources, time").click()
    page.get_by_label("project", exact=True).fill("vision")
    page.get_by_label("time_limit_min").fill("30")
    page.get_by_label("cpus", exact=True).fill("1.5")
    page.get_by_role("button", name="Submit the job").dblclick()
    page.wait_for_url("**/jobs/1")
    expect(page.get_by_text("1st in line")).to_be_visible()
    (job,) = queue.store.jobs()
    assert (job.kind, job.project, job.priority, job.time_limit_s, job.owner) == ("pipeline", "vision", 0, 1800, "local")
    assert (job.cpus, job.gpus) == (1.5, 0)
    assert job.config["train"] == {"recipe": "toy", "lr": 0.004, "train_on_dev": True, "mining": "all"}
    assert job.config["ingest"] == {"layout": "toy"}
    there.check()


def test_lists_and_whole_numbers_arrive_as_what_they_are(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit")
    page.get_by_label("Kind").select_option("ingest")
    page.get_by_label("layout").select_option("toy")
    page.get_by_text("All settings").click()
    page.locator("#unseen_classes").fill("cat, dog ,")
    page.locator("#seed").fill("7")
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/jobs/1")
    assert queue.store.job(1).config == {"layout": "toy", "unseen_classes": ["cat", "dog"], "seed": 7}
    there.check()


def test_a_refusal_is_shown_at_the_form_and_its_field(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit")
    page.get_by_label("Kind").select_option("train")
    page.get_by_label("dataset").fill("/etc")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.locator("#dataset")).get_by_role("alert")).to_contain_text(
        "is outside of what this service reads"
    )
    expect(page.locator("#dataset")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#dataset")).to_be_focused()
    assert not queue.store.jobs()
    there.check(refusals=True)


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
    expect(page.get_by_role("heading", name="Job 1")).to_be_visible()
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
    job = queue.submit(config={"recipe": "toy", EVIL: EVIL}, owner=EVIL[:100])
    attempt = queue.start()
    queue.report(attempt, 0.3, resumed_from=EVIL, label=EVIL, unit=EVIL, metrics={EVIL: 1.0})
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
    page.get_by_role("button", name="Use as template").click()
    expect(page.get_by_role("heading", name="Submit a job")).to_be_visible()
    page.wait_for_timeout(500)
    there.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_every_page_fits_its_window(queue: Queue, visit, tmp_path: Path, scheme: str, name: str, size: dict[str, int]) -> None:
    lived_in(queue)
    there = visit(queue, viewport=size, color_scheme=scheme)
    for number, (path, shown) in enumerate(
        [("/", "Waiting"), ("/jobs/6", "Attempts"), ("/jobs/7", "Steps"), ("/submit", "Submit a job")]
    ):
        page = there.open(path)
        expect(page.get_by_role("heading", name=shown)).to_be_visible()
        page.wait_for_timeout(400)
        if path == "/submit":
            page.get_by_text("Settings").nth(0).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(TOO_FAINT) == []
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
