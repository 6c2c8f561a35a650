"""The page on which jobs are submitted, in a real browser, over the real service."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import drawing, encoded, picture
from playwright.sync_api import Locator, Page, expect
from servers.job_pages import PIPELINE, Queue, opened

from services.common.tokens import Tokens
from services.jobs.cli.client import Client
from services.jobs.queue.records import Job
from services.jobs.queue.targets import Targets, set_targets

pytestmark = pytest.mark.slow


def submit(page: Page, job_id: int) -> None:
    """Press the button, and wait for the page of the job with that number."""
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(f"**/jobs/{job_id}")


def step_of(page: Page, name: str) -> Locator:
    """The row of a pipeline's step."""
    return page.get_by_role("listitem").filter(has=page.locator(f"#run-{name}"))


def command_of(page: Page) -> str:
    return page.get_by_role("complementary").get_by_text("python -m services.jobs submit").inner_text()


def run_command(queue: Queue, command: str, folder: Path) -> Job:
    """Run a command line that a page shows as a user would, in a shell; the job that it submits, or the first one of an array."""
    env = {**os.environ, "ZSBIR_JOBS_URL": queue.address, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=env, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return queue.store.job(int(done.stdout.partition("-")[0]))


@pytest.fixture
def pictures(queue: Queue) -> Path:
    """A folder of pictures that jobs may read."""
    folder = Path(queue.root) / "pictures"
    for domain, image in (("photo", encoded(picture())), ("sketch", encoded(drawing()))):
        for number in range(40):
            (folder / domain / f"class{number}").mkdir(parents=True)
            (folder / domain / f"class{number}" / "1.png").write_bytes(image)
    return folder


@pytest.mark.everyday
def test_three_clicks_submit_the_toy_pipeline(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open()
    page.get_by_role("link", name="Submit a job").click()
    page.get_by_role("link", name="toy").click()
    expect(page.get_by_role("heading", name="A pipeline of the recipe toy")).to_be_visible()
    assert command_of(page).split() == ["python", "-m", "services.jobs", "submit", "pipeline", "\\", "--recipe=toy"]
    submit(page, 1)
    config = queue.store.job(1).config
    assert config["ingest"] == {"layout": "toy"}
    assert config["train"] == {"recipe": "toy"}
    there.check()


def test_one_s_own_pictures_need_their_folder_and_nothing_else(queue: Queue, visit, pictures: Path) -> None:
    there = visit(queue)
    page = there.open("/submit")
    page.get_by_role("link", name="My own pictures").click()
    path = page.locator("#ingest-path")
    expect(path).to_be_focused()
    expect(page.get_by_text("Still needed: path")).to_be_visible()
    page.locator("#recipe").focus()
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=path).get_by_role("alert")).to_have_text("path is required")
    expect(path).to_be_focused()
    assert not queue.store.jobs()
    path.fill(str(pictures))
    expect(page.locator(".field", has=path).get_by_role("alert")).to_be_hidden()
    expect(page.get_by_text("Still needed")).to_be_hidden()
    submit(page, 1)
    assert queue.store.job(1).config["ingest"] == {"layout": "folder", "path": str(pictures), "unseen_frac": 0.2}
    there.check()


def test_a_job_has_exactly_the_changed_fields_which_the_form_names_while_they_are_folded(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    train = step_of(page, "train")
    train.locator("summary").click()
    expect(page.locator("#train-steps")).to_have_attribute("placeholder", "200")
    train.get_by_role("searchbox").fill("learning rate")
    expect(page.locator("#train-steps")).to_be_hidden()
    page.locator("#train-lr").fill("0.004")
    expect(page.locator(".field", has=page.locator("#train-lr"))).to_contain_text("recipe: 0.002")
    train.get_by_role("searchbox").fill("")
    page.locator("#train-train_on_dev").select_option("yes")
    page.locator("#train-mining").select_option("all")
    page.locator("#train-warmup_frac").fill(page.locator("#train-warmup_frac").get_attribute("placeholder") or "")
    train.locator("summary").click()
    expect(train.locator("summary")).to_contain_text("lr 0.004")
    expect(train.locator("summary")).to_contain_text("train_on_dev yes")
    expect(train.locator("summary")).not_to_contain_text("warmup_frac")
    page.get_by_label("project", exact=True).fill("vision")
    page.get_by_text("resources, time limits").click()
    page.get_by_label("time limit").fill("30")
    page.get_by_label("cpus", exact=True).fill("1.5")
    page.get_by_role("button", name="Submit the job").dblclick()
    page.wait_for_url("**/jobs/1")
    expect(page.get_by_text("1st in line")).to_be_visible()
    (job,) = queue.store.jobs()
    assert (job.kind, job.project, job.priority, job.time_limit_s, job.owner) == ("pipeline", "vision", 0, 1800, "local")
    assert (job.cpus, job.gpus) == (1.5, 0)
    warmup = job.config["train"].pop("warmup_frac")
    assert str(warmup)
    assert job.config["train"] == {"recipe": "toy", "lr": 0.004, "train_on_dev": True, "mining": "all"}
    assert job.config["ingest"] == {"layout": "toy"}
    there.check()


def test_lists_and_whole_numbers_arrive_as_what_they_are(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?kind=ingest")
    page.get_by_label("layout").select_option("toy")
    expect(page.locator("#ingest-path")).to_be_hidden()
    page.locator("summary", has_text="All others").click()
    page.locator("#unseen_classes").fill("castle, cup ,")
    page.locator("#seed").fill("7")
    submit(page, 1)
    assert queue.store.job(1).config == {"layout": "toy", "unseen_classes": ["castle", "cup"], "seed": 7}
    there.check()


TEMPLATES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("pipeline", {"recipe": "toy"}, {}),
    ("pipeline", {"recipe": "toy", "train": {"lr": 0.003, "steps": 0, "epochs": 2}, "teacher": {"image_px": 96}}, {"gpus": 0.5}),
    ("pipeline", {"recipe": "toy", "ingest": {"seed": 0, "dev_classes": ["cup"]}, "sweep": {"trials": 3}}, {"time_limit_s": 90}),
    ("pipeline", {"recipe": "caltech_qd60_r18", "ingest": {"layout": "toy"}, "sweep": {}}, {"cpus": 3, "priority": -4}),
    ("pipeline", {"ingest": {"layout": "toy"}, "train": {"train_on_dev": False, "experiment": "it's $A"}}, {"project": "vision"}),
    ("ingest", {"layout": "toy", "seed": 7, "unseen_classes": ["castle", "cup"]}, {"priority": 3}),
    ("pretrain", {}, {}),
]


@pytest.mark.parametrize(("kind", "config", "terms"), TEMPLATES)
def test_a_template_shows_and_submits_what_its_job_did_and_so_does_its_command_line(
    queue: Queue, visit, tmp_path: Path, kind: str, config: dict[str, Any], terms: dict[str, Any]
) -> None:
    with Client(queue.address) as client:
        job = queue.store.job(client.submit({"kind": kind, "config": config, **terms}, "first")[0]["id"])
    there = visit(queue)
    page = there.open(f"/jobs/{job.id}")
    page.get_by_role("link", name="Use as template").click()
    expect(page.get_by_role("heading", name=f"A {kind} like job {job.id}")).to_be_visible()
    by_command = run_command(queue, command_of(page), tmp_path)
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith("/api/jobs")) as posted:
        submit(page, 3)
    assert posted.value.post_data_json["kind"] == kind
    for again in (by_command, queue.store.job(3)):
        for name in ("kind", "config", "project", "priority", "cpus", "gpus", "time_limit_s"):
            assert getattr(again, name) == getattr(job, name), name
    there.check()


def test_a_template_shows_its_recipe_and_as_values_only_what_differs(queue: Queue, visit) -> None:
    with Client(queue.address) as client:
        client.submit({"kind": "pipeline", "config": {"recipe": "toy", "train": {"lr": 0.003}}}, "first")
    page = visit(queue).open("/submit?like=1")
    expect(page.locator("#recipe")).to_have_value("toy")
    expect(page.locator("#train-lr")).to_have_value("0.003")
    expect(page.locator("#train-backbone")).to_have_value("")
    expect(page.locator("#train-backbone")).to_have_attribute("placeholder", "resnet18")
    names = page.locator("#train-backbone-examples option").evaluate_all("options => options.map((each) => each.value)")
    assert {"resnet18", "resnet50", "timm:convnext_tiny.fb_in1k"} <= set(names)
    expect(page.locator("#teacher-image_px")).to_have_attribute("placeholder", "64")
    expect(page.locator("#run-pretrain")).to_be_checked()
    expect(page.locator("#run-pretrain")).to_be_disabled()
    expect(page.locator("#evaluate-run")).to_have_attribute("placeholder", "what train makes")


def test_a_step_that_is_not_asked_for_sends_nothing(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    step_of(page, "sweep").locator("summary").click()
    page.locator("#sweep-trials").fill("3")
    expect(page.locator("#run-sweep")).to_be_checked()
    expect(page.locator("#train-lr")).to_have_attribute("placeholder", "what the sweep finds best")
    assert "--sweep.trials=3" in command_of(page)
    page.get_by_label("Run sweep").uncheck()
    assert "sweep" not in command_of(page)
    submit(page, 1)
    assert "sweep" not in queue.store.job(1).config
    there.check()


def test_what_a_recipe_chooses_by_the_data_says_so(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=folder")
    expect(page.locator("#train-steps")).to_have_attribute("placeholder", "chosen for the data set")
    expect(page.locator("#train-lr")).not_to_have_attribute("placeholder", "chosen for the data set")
    there.check()


def test_a_refusal_is_shown_beside_its_field_which_is_opened_and_nothing_is_lost(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    step_of(page, "teacher").locator("summary").click()
    page.locator("#teacher-weights").fill("/etc/passwd")
    step_of(page, "teacher").locator("summary").click()
    page.get_by_label("priority").fill("3")
    page.get_by_role("button", name="Submit the job").click()
    weights = page.locator("#teacher-weights")
    expect(page.locator(".field", has=weights).get_by_role("alert")).to_contain_text("is outside of what this service reads")
    expect(weights).to_have_attribute("aria-invalid", "true")
    expect(weights).to_be_focused()
    page.get_by_label("project", exact=True).fill("vision")  # what is said about a field stays until that field is changed
    expect(page.locator(".field", has=weights).get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("priority")).to_have_value("3")
    assert not queue.store.jobs()
    weights.fill("")
    expect(page.locator(".field", has=weights).get_by_role("alert")).to_be_hidden()
    submit(page, 1)
    assert (queue.store.job(1).priority, queue.store.job(1).config["teacher"].get("weights")) == (3, None)
    there.check(refusals=True)


def test_what_is_no_number_is_marked_in_its_field_before_anything_is_sent(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    step_of(page, "train").locator("summary").click()
    page.locator("#train-steps").press_sequentially("1e")
    step_of(page, "train").locator("summary").click()
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("#train-steps")).to_be_focused()
    expect(page.locator(".field", has=page.locator("#train-steps")).get_by_role("alert")).to_contain_text("number")
    assert "POST" not in asked
    there.check()


def test_a_service_that_is_away_for_a_moment_loses_nothing(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    page.get_by_label("priority").fill("7")
    there.context.route("**/api/jobs", lambda route: route.abort())
    page.get_by_role("button", name="Submit the job").click()
    expect(page.get_by_text("nothing is lost, submit again")).to_be_visible()
    there.context.unroute("**/api/jobs")
    submit(page, 1)
    assert queue.store.job(1).priority == 7
    there.check(refusals=True)


def test_seeds_and_values_make_an_array_that_starts_after_another_job(queue: Queue, visit, tmp_path: Path) -> None:
    queue.submit("ingest", {"layout": "toy"})
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    page.locator("#job-name").fill("the night's")
    page.get_by_label("seeds", exact=True).fill("0, 1")
    page.locator("#job-after").fill("one")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.locator("#job-after")).get_by_role("alert")).to_contain_text("whole numbers")
    page.locator("#job-after").fill("1")
    page.get_by_text("Several values").first.click()
    page.get_by_label("several values").fill("lr=0.001,0.002")
    by_command = command_of(page)
    page.get_by_role("button", name="Submit the job").click()
    page.wait_for_url("**/?array=2")
    expect(page.get_by_role("table", name="Jobs of array 2").locator("tbody tr")).to_have_count(4)
    trained = [queue.store.job(number).config["train"] for number in range(2, 6)]
    assert trained == [{"recipe": "toy", "seed": seed, "lr": lr} for seed in (0, 1) for lr in (0.001, 0.002)]
    assert queue.store.job(5).name.startswith("the night's")
    assert queue.store.job(5).after == [{"job": 1, "on": "success"}]
    run_command(queue, by_command, tmp_path)
    for number in range(2, 6):
        one, other = queue.store.job(number), queue.store.job(number + 4)
        assert (one.config, one.name, one.after) == (other.config, other.name, other.after)
    there.check()


def test_seeds_that_are_named_twice_are_marked_before_anything_is_sent(queue: Queue, visit) -> None:
    there = visit(queue)
    page = there.open("/submit?recipe=toy")
    page.get_by_label("seeds", exact=True).fill("0, 1")
    page.get_by_text("Several values").first.click()
    page.get_by_label("several values").fill("seed=5,6")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.locator("#job-seeds")).get_by_role("alert")).to_contain_text("name the seed, too")
    assert queue.store.jobs(limit=10) == []
    there.check()


def test_fields_that_take_an_address_offer_what_jobs_have_made(queue: Queue, visit) -> None:
    queue.submit("ingest", {"layout": "toy"}, name="drawn")
    queue.end(queue.start(), "succeeded", result="/data/drawn")
    queue.submit("pipeline", PIPELINE)
    queue.end(queue.start(*PIPELINE), "succeeded", made={"ingest": "/data/other", "teacher": "/knowledge/other"})
    there = visit(queue)
    page = there.open("/submit?kind=train")
    expect(page.locator("#made-dataset option")).to_have_count(2)
    expect(page.locator("#made-dataset option").first).to_have_attribute("value", "/data/drawn")
    expect(page.locator("#made-knowledge option")).to_have_attribute("value", "/knowledge/other")
    expect(page.get_by_label("dataset")).to_have_attribute("list", "made-dataset")
    expect(page.locator("#weights")).not_to_have_attribute("list", "made-weights")
    there.check()


@pytest.fixture
def commanded(tmp_path: Path) -> Iterator[Queue]:
    """A queue that runs any command of operators."""
    yield from opened(tmp_path, allow_commands=True)


def test_a_command_s_words_stay_words_in_the_form_its_command_line_and_its_template(
    commanded: Queue, visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["python", "-c", "print('a, b')", "", "$HOME", "two\nlines"]
    token = commanded.token("ann", "operator")
    monkeypatch.setenv("ZSBIR_JOBS_TOKEN", token)
    there = visit(commanded)
    page = there.open("/submit")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="command").click()
    expect(page.locator("#words")).to_be_focused()
    page.locator("#words").fill("python 'it is")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.locator("#words")).get_by_role("alert")).to_have_text("a quote is not closed")
    page.locator("#words").fill(shlex.join(words))
    run_command(commanded, command_of(page), tmp_path)
    submit(page, 2)
    page.get_by_role("link", name="Use as template").click()
    expect(page.get_by_role("heading", name="A command like job 2")).to_be_visible()
    submit(page, 3)
    assert [commanded.store.job(number).config["words"] for number in (1, 2, 3)] == [words] * 3
    there.check(refusals=True)


def test_commands_are_offered_to_operators_with_a_token_alone(queue: Queue, visit) -> None:
    page = visit(queue).open("/submit")
    expect(page.get_by_role("link", name="index")).to_be_visible()
    expect(page.get_by_role("link", name="command")).to_have_count(0)


def test_a_job_names_whom_it_tells_of_which_ends(queue: Queue, visit) -> None:
    set_targets(queue.store, Targets.of({"targets": {"team": {"webhook": "https://chat.example.org/1"}}}), "test")
    there = visit(queue)
    page = there.open("/submit?kind=pretrain")
    page.locator("#job-notify").fill("tem")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator(".field", has=page.locator("#job-notify")).get_by_role("alert")).to_contain_text("tem")
    page.locator("#job-notify").fill("team")
    page.get_by_text("Several values").first.click()
    page.get_by_label("notify on").select_option("failure")
    assert "--notify=team" in command_of(page)
    submit(page, 1)
    assert queue.store.job(1).notify == [{"to": "team", "on": "failure"}]
    there.check(refusals=True)


def test_who_is_no_longer_signed_in_loses_nothing_that_was_filled_in(closed_queue: Queue, visit) -> None:
    there = visit(closed_queue)
    page = there.open("/submit?recipe=toy")
    page.get_by_label("Token").fill(closed_queue.token("ann", "submitter"))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("priority").fill("7")
    Tokens(closed_queue.store).revoke(1, "test")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.get_by_text("You are no longer signed in.")).to_be_visible()
    expect(page.get_by_label("priority")).to_have_value("7")
    there.check(refusals=True)


@pytest.mark.parametrize("number", ["99", "x", "../queue"])
def test_a_template_that_is_not_there_leaves_the_choice(queue: Queue, visit, number: str) -> None:
    there = visit(queue)
    page = there.open(f"/submit?like={number}")
    expect(page.get_by_text("The job to be taken as a template is not there.")).to_be_visible()
    expect(page.get_by_role("link", name="toy")).to_be_visible()
    there.check(refusals=True)
