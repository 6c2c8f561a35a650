"""The page over an index whose scores are calibrated, beside one whose scores are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from servers.pages import served
from servers.search_pages import HOUSE, Hand, Search, application, strokes_of, toy_index

from services.search.serving.catalogue import Catalogue, Served
from zsbir.retrieval.calibration import Calibration, HitProbability, NoMatch, Rate, calibration_facts
from zsbir.retrieval.options import PLAIN
from zsbir.search_run.engine import Engine

pytestmark = pytest.mark.slow

NO_MATCH = NoMatch(
    base=2, per_photos=0, per_kin=0, false_alarm=Rate(mean=0.14, low=0.08, high=0.2), miss=Rate(mean=0.67, low=0.59, high=0.75)
)
MADE = Calibration(options=PLAIN, no_match=NO_MATCH, hit=HitProbability(intercept=0, slope=4, error=0.02), classes=11, photos=1000)


@pytest.fixture(scope="module")
def calibrated(module_path: Path) -> Iterator[Search]:
    """A service whose champion's index states that no score is high enough; its challenger's states nothing."""
    root = str(module_path / "calibrated")
    dataset, champion = toy_index(root, 1, **calibration_facts([MADE]))
    _, challenger = toy_index(root, 2, dataset=dataset)
    both = (("champion", champion), ("challenger", challenger))
    catalogue = Catalogue([Served(alias, f"models:/toy/{alias}", Engine(uri, threads=1)) for alias, uri in both])
    app = application(catalogue, root)
    with served(app) as address:
        yield Search(app, catalogue, address)


def test_the_page_shows_probabilities_and_says_when_nothing_like_the_drawing_is_there(calibrated: Search, visit) -> None:
    there = visit(calibrated)
    page = there.open()
    page.get_by_label("Model").select_option("champion beside challenger")
    Hand(page).draw(HOUSE)
    side = page.get_by_role("region", name="Photos found by champion")
    expect(side.get_by_text("Nothing like that seems to be here.")).to_be_visible()
    expect(side.get_by_text("It says so wrongly for 14")).to_contain_text("measured on 11 classes the model was not trained on")
    expect(side.get_by_text("It says so wrongly for 14")).to_contain_text("with other photos it may be otherwise")
    expect(page.locator(".found")).to_have_attribute("aria-busy", "false")
    body = {"strokes": strokes_of(page), "canvas": {"width": 1000, "height": 1000}, "model": "champion"}
    first = httpx.post(f"{calibrated.address}/api/search", json=body).json()["hits"][0]
    assert 0 < first["probability"] < 1
    assert float(side.locator("meter").first.get_attribute("value") or "") == pytest.approx(first["probability"], abs=0.001)
    assert "probability" in (side.locator("meter").first.get_attribute("aria-label") or "")
    other = page.get_by_role("region", name="Photos found by challenger")
    expect(other.get_by_text("scores are not calibrated")).to_be_visible()
    expect(other.get_by_text("Nothing like that")).to_have_count(0)
    expect(side.get_by_text("scores are not calibrated")).to_have_count(0)
    assert Axe().run(page).response["violations"] == []
    there.check()


@pytest.mark.parametrize(("probability", "calibrated_by_default", "said"), [("null", "true", True), ("0.5", "false", False)])
def test_what_is_said_of_scores_is_about_those_that_are_shown(
    calibrated: Search, visit, probability: str, calibrated_by_default: str, said: bool
) -> None:
    """Plain searches are calibrated by themselves: an answer by them may have probabilities where that by default has none."""
    page = visit(calibrated).open()
    answer = f'{{index: "01234567", ranking: "exact", options: "off", took_ms: 1, hits: [{{probability: {probability}}}]}}'
    line = page.evaluate(
        f"import('/static/results.js').then(({{origin}}) => origin({answer}, {{photos: 3, calibrated: {calibrated_by_default}}}))"
    )
    assert ("scores are not calibrated" in line) == said
