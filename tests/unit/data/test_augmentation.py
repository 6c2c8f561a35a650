import numpy as np
import pytest
from pictures import drawing, encoded, picture
from PIL import Image

from zsbir.data.augmentation import Augmentation, augment_image
from zsbir.data.images import eval_image

UNCHANGED = Augmentation(
    crop_scale_min=1, rotation_deg=0, flip_prob=0, colour_jitter=0, grayscale_prob=0, stroke_width_prob=0, stroke_erase_prob=0
)


@pytest.mark.parametrize("domain", ["photo", "sketch"])
def test_no_augmentation_at_all_is_the_evaluation_transform(domain):
    data = encoded(drawing() if domain == "sketch" else picture(96, 64))
    augmented = augment_image(data, 48, domain, np.random.default_rng(0), UNCHANGED).astype(int)
    assert np.abs(augmented - eval_image(data, 48)).max() <= 1


@pytest.mark.parametrize("domain", ["photo", "sketch"])
def test_augmentation_depends_on_the_generator_alone(domain):
    data = encoded(drawing() if domain == "sketch" else picture(96, 64))
    first, again = (augment_image(data, 40, domain, np.random.default_rng(5), Augmentation()) for _ in range(2))
    rng = np.random.default_rng(5)
    rows = [augment_image(data, 40, domain, rng, Augmentation()) for _ in range(3)]
    assert np.array_equal(first, again)
    assert np.array_equal(first, rows[0])
    assert not np.array_equal(rows[1], rows[2])
    assert all(row.shape == (3, 40, 40) and row.dtype == np.uint8 for row in rows)


def test_augmented_sketches_keep_white_paper_and_some_ink():
    rng = np.random.default_rng(0)
    for _ in range(40):
        pixels = augment_image(encoded(drawing()), 64, "sketch", rng, Augmentation(rotation_deg=40, stroke_width_prob=1))
        assert (pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]] > 250).all(), "corners are paper"
        assert pixels.min() < 200, "the stroke is still there"


def test_augmented_photos_have_no_blank_corners_even_when_turned():
    rng = np.random.default_rng(0)
    bright = Image.new("RGB", (64, 64), (200, 210, 220))
    for _ in range(40):
        pixels = augment_image(encoded(bright), 32, "photo", rng, UNCHANGED.replace(rotation_deg=45, crop_scale_min=0.5))
        assert pixels.min() >= 199


def test_grayscale_takes_all_colour_from_a_photo():
    pixels = augment_image(encoded(picture()), 32, "photo", np.random.default_rng(0), UNCHANGED.replace(grayscale_prob=1)).astype(
        int
    )
    assert (np.ptp(pixels, axis=0) <= 1).all()


def test_erasing_only_removes_ink():
    rng = np.random.default_rng(0)
    before = eval_image(encoded(drawing()), 64).astype(int)
    after = augment_image(encoded(drawing()), 64, "sketch", rng, UNCHANGED.replace(stroke_erase_prob=1)).astype(int)
    assert (after >= before - 1).all()
    assert after.sum() > before.sum()


def test_a_field_that_came_later_changes_nothing_while_it_is_off():
    """The random numbers of a training that was begun before are drawn in the same order."""
    later = {"stroke_bend_prob": 0.0, "ink_crop_prob": 0.0, "edges_prob": 0.0}
    for domain, data in (("photo", encoded(picture(96, 64))), ("sketch", encoded(drawing()))):
        one, other = (np.random.default_rng(3) for _ in range(2))
        augment_image(data, 40, domain, one, Augmentation())
        augment_image(data, 40, domain, other, Augmentation(**later))
        assert one.bit_generator.state == other.bit_generator.state


def test_bent_strokes_are_moved_a_little_and_their_ink_stays():
    before = eval_image(encoded(drawing()), 64).astype(int)
    rng = np.random.default_rng(0)
    bent = [
        augment_image(encoded(drawing()), 64, "sketch", rng, UNCHANGED.replace(stroke_bend_prob=1)).astype(int) for _ in range(8)
    ]
    for pixels in bent:
        assert np.abs(pixels - before).max() > 50
        assert (255 - pixels).sum() == pytest.approx((255 - before).sum(), rel=0.25)
    assert not np.array_equal(bent[0], bent[1])


def test_cutting_to_the_ink_makes_a_small_drawing_large_and_keeps_its_proportions():
    paper = Image.new("L", (200, 200), 255)
    paper.paste(0, (40, 60, 60, 100))  # 20 wide, 40 high
    pixels = augment_image(encoded(paper), 100, "sketch", np.random.default_rng(0), UNCHANGED.replace(ink_crop_prob=1))
    rows, columns = np.nonzero(pixels[0] < 128)
    assert np.ptp(rows) == pytest.approx(100 / 1.1, abs=4)
    assert np.ptp(columns) == pytest.approx(50 / 1.1, abs=4)


def test_an_empty_sketch_has_no_ink_to_cut_to():
    blank = encoded(Image.new("L", (40, 40), 255))
    pixels = augment_image(blank, 32, "sketch", np.random.default_rng(0), UNCHANGED.replace(ink_crop_prob=1, stroke_bend_prob=1))
    assert (pixels > 250).all()


def test_edges_of_a_photo_are_dark_lines_on_white_where_it_changes():
    photo = Image.new("RGB", (100, 100), (220, 30, 30))
    photo.paste((20, 200, 60), (50, 0, 100, 100))
    pixels = augment_image(encoded(photo), 50, "photo", np.random.default_rng(0), UNCHANGED.replace(edges_prob=1)).astype(int)
    assert (np.ptp(pixels, axis=0) == 0).all(), "no colour"
    assert pixels[0, :, 24:26].max() < 100
    assert pixels[0, :, :20].min() > 240
    assert pixels[0, :, 30:].min() > 240
