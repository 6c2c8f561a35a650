"""The ledger of `bench.experiments`, its table and its picture."""

from __future__ import annotations

import pytest
from bench.experiments.__main__ import main
from bench.experiments.ledger import FILE, Key, Ledger, read_rows
from bench.experiments.picture import main as draw
from bench.experiments.picture import read
from bench.experiments.table import table
from PIL import Image

CLASSES = 12


def row(value: float) -> dict[str, object]:
    """Return a result in which classes differ, and lie around a value."""
    means = [value + 0.01 * (number - (CLASSES - 1) / 2) for number in range(CLASSES)]
    metrics = ("map_all", "photo_to_photo", "expanded")
    return {
        "class_queries": [10] * CLASSES,
        "class_photos": [20] * CLASSES,
        "class_means": dict.fromkeys(metrics, means),
        "train_min": 2.0,
    }


def key(setting: str, seed: int = 0) -> Key:
    return Key("caltech_qd60", setting, seed, final=True)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path)


def test_a_row_that_is_done_or_worked_on_elsewhere_is_not_run_again_and_one_that_failed_is(ledger, tmp_path):
    ledger.write(key("today"), "failed", {"reason": "no memory"})
    ledger.write(key("supcon"), "done", row(0.3))
    planned = [key("today"), key("supcon"), key("triplet")]
    first = ledger.to_do(planned)
    assert next(first) == key("today")
    assert list(Ledger(tmp_path).to_do(planned)) == [key("triplet")]
    ledger.write(key("today"), "done", row(0.4))
    assert list(first) == [key("triplet")]
    assert list(ledger.to_do([key("today")])) == []


def test_a_table_tells_seeds_gains_failures_and_what_is_planned(ledger, tmp_path):
    for seed, value in enumerate((0.40, 0.41, 0.42)):
        ledger.write(key("today", seed), "done", row(value))
        ledger.write(key("supcon", seed), "done", row(value - 0.1))
    ledger.write(key("triplet"), "failed", {"reason": "no memory"})
    planned = [key(setting, seed) for seed in range(3) for setting in ("today", "supcon", "triplet", "sake")]
    lines = table(planned, read_rows(tmp_path / FILE), "today").splitlines()
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in line.split("|")] for line in lines[4:])}
    # t with 11 degrees of freedom, 2.201, times the root of .0361² / 12 over classes plus .01² / 3 over seeds
    assert rows["today"][2:4] == ["0,1,2", "0.410 ± 0.010 (0.384 to 0.436)"]
    assert rows["supcon"][6].startswith("-0.100 (-0.100 to -0.100)")
    assert rows["triplet"][2:4] == ["failed", "no memory"]
    assert rows["sake"][2] == "planned"


def test_a_picture_shows_what_the_tables_of_a_page_say(ledger, tmp_path):
    ledger.write(key("today"), "done", row(0.4))
    ledger.write(key("supcon"), "done", row(0.25))
    found = table([key("today"), key("supcon")], read_rows(tmp_path / FILE), "today")
    page = tmp_path / "page.md"
    page.write_text(f"# Losses\n\n{found.replace('caltech_qd60', 'caltech_qd60, 12 unseen classes')}\n\nText.\n")
    assert read(page.read_text()) == {"caltech_qd60, 12 unseen classes": [("today", 0.4, 0), ("supcon", 0.25, 0)]}
    draw(str(page), str(tmp_path / "picture.png"))
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 1000
    with pytest.raises(ValueError, match="no table"):
        read("# Losses")


def test_a_table_of_a_root_without_rows_lists_them_as_planned_and_one_of_no_place_says_what_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("sys.argv", ["bench.experiments", "table", "--root", str(tmp_path), "--settings", "today"])
    main()
    assert "| today | planned |" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["bench.experiments", "table"])
    with pytest.raises(SystemExit):
        main()
    assert "--root is missing" in capsys.readouterr().err
