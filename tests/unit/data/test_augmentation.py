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
