import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from zsbir.base.errors import InputError
from zsbir.evaluation.figures import per_class_bars, precision_recall_figure, retrieval_grid, training_curves
from zsbir.evaluation.grid import FOUND_COLUMNS, FOUND_LAYOUT, MOST_FOUND, RIGHT, WRONG, Found, _Layout, found_grid

RECALL = np.linspace(0, 1, 101)


def pixel_in_frame(sheet, row, column):
    """A pixel of the frame around a result (column counted from 1)."""
    layout = _Layout()
    return sheet.getpixel((layout.left(column) + 1, layout.top(row) + layout.tile // 2))


def grid(rows=3, columns=4, verdict=lambda row, column: row == column, **changes):
    photo, sketch = Image.new("RGB", (60, 40), "#336699"), Image.new("L", (50, 50), 255)
    arguments = {
        "queries": [sketch] * rows,
        "results": [[photo] * columns] * rows,
        "correct": [[verdict(row, column) for column in range(columns)] for row in range(rows)],
        "captions": ["windmill\nAP 0.61"] * rows,
    }
    return retrieval_grid(**(arguments | changes), title="zero_shot v1")


def drawn(figure, tmp_path):
    """The figure as pixels, and every text on it."""
    figure.savefig(tmp_path / "figure.png")
    texts = [text.get_text() for ax in figure.axes for text in (*ax.texts, *ax.get_yticklabels())]
    return np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")), texts


def test_frames_say_which_results_are_of_the_right_class():
    sheet = grid()
    for row in range(3):
        for column in range(4):
            expected = ImageColor.getrgb(RIGHT if row == column else WRONG)
            assert pixel_in_frame(sheet, row, column + 1) == expected


def test_marks_say_it_again_without_colour():
    layout = _Layout()
    right, wrong = (
        np.asarray(grid(1, 1, lambda *_, verdict=verdict: verdict).convert("L").point(lambda level: 255 * (level > 230)))[
            layout.top(0) + layout.tile - 34 : layout.top(0) + layout.tile,
            layout.left(1) + layout.tile - 34 : layout.left(1) + layout.tile,
        ]
        for verdict in (True, False)
    )
    assert (right != wrong).sum() > 40


def test_the_grid_grows_with_rows_and_columns_and_has_a_white_border():
    small, large = grid(2, 3), grid(5, 10)
    assert large.width > small.width
    assert large.height > small.height
    border = np.asarray(large)
    assert (border[:20] == 255).all()
    assert (border[:, -20:] == 255).all()
    assert large.width > 2000


def test_rows_may_have_different_numbers_of_results():
    photo = Image.new("RGB", (8, 8))
    sheet = grid(results=[[photo] * 4, [], [photo]], correct=[[True] * 4, [], [False]])
    assert pixel_in_frame(sheet, 1, 1) == (255, 255, 255)
    assert pixel_in_frame(sheet, 2, 1) == ImageColor.getrgb(WRONG)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_any_mode_and_extreme_shapes_are_drawn(mode):
    for size in ((1, 900), (900, 1), (1, 1)):
        grid(1, 1, queries=[Image.new(mode, size)])


def test_what_is_transparent_in_a_sketch_becomes_paper_white():
    layout = _Layout()
    sheet = grid(1, 1, queries=[Image.new("RGBA", (40, 40), (0, 0, 0, 0))])
    assert sheet.getpixel((layout.left(0) + 88, layout.top(0) + 88)) == (255, 255, 255)


def test_a_long_title_or_class_name_ends_in_an_ellipsis_and_stays_off_the_sketch():
    layout = _Layout()
    sheet = grid(captions=["a class name that goes on and on and on\nAP 0.10"] * 3)
    column = np.asarray(sheet)[:, layout.left(0) - 16 : layout.left(0) - 2]
    below_header = column[layout.top(0) : layout.top(2)]
    assert (below_header == 255).all()


def test_a_grid_of_lists_that_do_not_match_is_refused():
    with pytest.raises(InputError, match="3 queries, 3 results, 3 verdicts, 1 captions"):
        grid(captions=["one"])
    with pytest.raises(InputError, match="one verdict for each result"):
        grid(correct=[[True]] * 3)
    with pytest.raises(InputError, match="at least one query"):
        grid(rows=0)


def test_every_curve_is_labelled_with_its_name_and_chance_with_its_value(tmp_path):
    curves = {"trained": (RECALL, 1 - RECALL / 2), "frozen": (RECALL, 0.8 - RECALL / 2), "again": (RECALL, 1 - RECALL / 2)}
    figure = precision_recall_figure(curves, title="Precision", chance=0.0412)
    pixels, texts = drawn(figure, tmp_path)
    assert {"trained", "frozen", "again", "chance 0.041"} <= set(texts)
    assert pixels.std() > 5
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[:number])


def test_a_single_curve_needs_no_chance_level(tmp_path):
    _, texts = drawn(precision_recall_figure({"trained": (RECALL, 1 - RECALL)}, title="Precision"), tmp_path)
    assert "trained" in texts


def test_training_curves_show_each_loss_term_and_mark_the_best_dev_score(tmp_path):
    history = [{"step": step, "loss": 3 / step, "loss_quadruplet": 1 / step, "lr": 0.1} for step in range(1, 50)]
    history += [{"step": 10, "dev/map_all": 0.3}, {"step": 20, "dev/map_all": 0.5}, {"step": 30, "dev/map_all": 0.4}]
    _, texts = drawn(training_curves(history), tmp_path)
    assert {"total", "quadruplet", "best 0.500, step 20"} <= set(texts)
    assert "lr" not in texts


def test_a_training_without_dev_classes_shows_its_loss_alone(tmp_path):
    figure = training_curves([{"step": 1, "loss": 2.0}])
    drawn(figure, tmp_path)
    assert len(figure.axes) == 1


def test_classes_are_sorted_by_their_value_after_training(tmp_path):
    frozen = [{"class_id": label, "map_all": 0.3} for label in (0, 1, 2)]
    trained = [{"class_id": label, "map_all": value} for label, value in ((0, 0.5), (1, 0.2), (2, 0.9))]
    figure = per_class_bars(frozen, trained, class_names=["cat", "dog", "owl"])
    _, texts = drawn(figure, tmp_path)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dog", "cat", "owl"]
    assert {"frozen", "trained", "2 of 3 classes gained, class mean 0.300 → 0.533"} <= set(texts)


def test_charts_without_anything_to_draw_are_refused():
    with pytest.raises(InputError, match="at least one curve"):
        precision_recall_figure({}, title="")
    with pytest.raises(InputError, match="no loss to draw"):
        training_curves([{"step": 1, "lr": 0.1}])
    with pytest.raises(InputError, match="must be the same"):
        per_class_bars([{"class_id": 1, "map_all": 0.1}], [{"class_id": 2, "map_all": 0.1}])


def test_drawing_does_not_load_pyplot():
    code = (
        "import sys; from zsbir.evaluation.figures import training_curves; "
        "training_curves([{'step': 1, 'loss': 1.0}]); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def found(count, name="cup", note="0.812"):
    """Return the picture of a search that found `count` photos, each of a colour of its own."""
    photos = [
        Found(Image.new("RGB", (60, 40), (number % 256, 80, 160)), (f"{number + 1}  {name}", note, note)) for number in range(count)
    ]
    return found_grid(Found(Image.new("L", (50, 50), 255), ("the drawing",)), photos, title="drawing.png in toy")


def test_a_photo_that_was_found_is_as_large_and_lies_where_it_lies_whatever_the_number_of_photos():
    few, many = np.asarray(found(2)), np.asarray(found(30))
    assert few.shape[1] == many.shape[1]
    layout = FOUND_LAYOUT
    below_second = layout.top(0) + layout.tile + 60
    right_of_second = layout.left(3) - layout.gap
    assert (few[:below_second, :right_of_second] == many[:below_second, :right_of_second]).all()


def test_found_photos_go_on_in_the_next_row_and_leave_no_place_empty():
    one, two, full = found(FOUND_COLUMNS - 1), found(FOUND_COLUMNS), found(2 * FOUND_COLUMNS - 1)
    assert one.height < two.height == full.height
    assert one.width == two.width < 1400
    assert found(30).height < 1900
    assert found(MOST_FOUND).height < 16_383, "WebP allows no more"
    layout = FOUND_LAYOUT
    for number in range(1, 2 * FOUND_COLUMNS):
        corner = layout.left(number % FOUND_COLUMNS), layout.top(number // FOUND_COLUMNS)
        colour = full.getpixel((corner[0] + layout.tile // 2, corner[1] + layout.tile // 2))
        assert colour == (number - 1, 80, 160), "best first"


def test_below_each_found_photo_stand_its_name_and_score():
    layout = FOUND_LAYOUT
    named, unnamed = np.asarray(found(3)), np.asarray(found(3, name="", note=""))
    for number in range(3):
        left, top = layout.left(1 + number), layout.top(0) + layout.tile + 34
        place = np.s_[top : top + 24, left : left + layout.tile]
        assert (named[place] < 200).any()
        assert not (unnamed[place] < 200).any()


def test_a_long_name_stays_below_its_own_photo():
    layout = FOUND_LAYOUT
    long = np.asarray(found(2, name="a name without end" * 1000, note="and_a_file_name_of_its_own_kind.jpg" * 1000))
    gap = long[layout.top(0) : layout.top(0) + layout.tile + 60, layout.left(2) - layout.gap : layout.left(2)]
    assert (gap == 255).all()


def test_a_picture_of_nothing_found_is_refused():
    with pytest.raises(InputError, match="at least one photo"):
        found(0)
