"""How sketches are drawn: measured from pictures, stated by artifacts, handed on from a data set to its runs and indexes."""

import io
import json
import shutil

import numpy as np
import pytest
from building import put
from pictures import encoded
from PIL import Image

from zsbir.base.artifact import Artifact
from zsbir.base.errors import InputError
from zsbir.base.manifest import MANIFEST
from zsbir.data.ink import QUICKDRAW, Ink, ink_facts, ink_of
from zsbir.data.measured_ink import LEAST, SAMPLE, SHARDS, chosen, dataset_ink, measure, run_ink
from zsbir.data.strokes import parse, render
from zsbir.ingest import IngestConfig, Settings, ingest

INKS = {
    "QuickDraw's": QUICKDRAW,
    "thick, in a wide margin": Ink(line_width=8 / 256, margin=0.2),
    "at the top left": Ink(line_width=4 / 256, margin=0.05, across=0, down=0),
    "at the bottom right": Ink(line_width=3 / 256, margin=0.1, across=1, down=1),
    "grey on grey": Ink(line_width=4 / 256, paper=230, level=60),
    "light on dark": Ink(line_width=4 / 256, paper=10, level=240),
    "stretched": Ink(line_width=3 / 256, margin=0.05, keeps_proportions=False),
}


def doodle(rng):
    """Three arcs beside or across each other, in a box of any proportions."""
    box = np.array([1, rng.uniform(0.3, 1)])[:: rng.choice([-1, 1])] * 200
    turns = [np.linspace(0, rng.uniform(0.5, 1), 40) * 2 * np.pi + rng.uniform(0, 6) for _ in range(3)]
    arcs = [rng.uniform(size=2) + rng.uniform(0.2, 0.5) * np.stack([np.cos(turn), np.sin(turn)], 1) for turn in turns]
    low, high = np.concatenate(arcs).min(0), np.concatenate(arcs).max(0)
    return [(arc - low) / (high - low) * box for arc in arcs]


def doodles(ink, *, count=16, size_px=256, seed=0):
    rng = np.random.default_rng(seed)
    return [render(doodle(rng), size_px, ink) for _ in range(count)]


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS)
def test_the_ink_of_drawings_is_found_in_their_pixels(ink):
    found = measure(doodles(ink))
    assert found.line_width == pytest.approx(ink.line_width, rel=0.08)
    assert found.margin == pytest.approx(ink.margin, abs=1 / 256)
    assert (found.across, found.down) == pytest.approx((ink.across, ink.down), abs=0.051)
    assert found.keeps_proportions == ink.keeps_proportions
    assert (found.paper, found.level) == pytest.approx((ink.paper, ink.level), abs=6)


@pytest.mark.parametrize(("size_px", "line_px"), [(96, 2), (224, 5), (700, 9)])
def test_lines_are_measured_in_pictures_of_any_size(size_px, line_px):
    found = measure(doodles(Ink(line_width=line_px / size_px, margin=0.06), count=12, size_px=size_px))
    assert found.line_width * size_px == pytest.approx(line_px, rel=0.1)


def test_thin_lines_come_out_at_most_four_tenths_of_a_pixel_too_wide():
    found = measure(doodles(Ink(line_width=1 / 224, margin=0.06), size_px=224))
    assert 1 <= found.line_width * 224 <= 1.4


def test_jpeg_noise_colour_and_some_sketches_of_another_kind_change_little():
    clean = measure(doodles(QUICKDRAW))
    files = [encoded(image.convert("RGB"), "JPEG", quality=60) for image in doodles(QUICKDRAW)]
    found = measure([*map(Image.open, map(io.BytesIO, files)), *doodles(Ink(line_width=0.06, margin=0.3), count=6)])
    assert found.line_width == pytest.approx(clean.line_width, rel=0.1)
    assert found.margin == pytest.approx(clean.margin, abs=0.01)


def test_the_real_sketches_were_drawn_at_224_px_with_a_margin_of_12_px_and_lines_of_3_px(shared):
    files = sorted((shared / "data/caltech_qd60/sketch").glob("*/qd_*.png"))[::40]
    found = measure(map(Image.open, files))
    assert found.line_width * 224 == pytest.approx(3, abs=0.15)
    assert found.margin * 224 == pytest.approx(12, abs=0.5)
    assert (found.across, found.down, found.keeps_proportions, found.paper, found.level) == (0.5, 0.5, True, 255, 0)


def test_too_few_sketches_and_empty_ones_say_nothing():
    blank = Image.new("L", (64, 64), 255)
    assert measure([]) is None
    assert measure([blank] * 50) is None
    assert measure([*doodles(QUICKDRAW, count=LEAST - 1), *[blank] * 50]) is None
    assert measure(doodles(QUICKDRAW, count=LEAST)) is not None


def test_sketches_that_share_no_ink_say_nothing():
    dark, light = Ink(), Ink(paper=0, level=255)
    assert measure(doodles(dark, count=8) + doodles(light, count=8)) is None


@pytest.mark.parametrize("seed", range(20))
def test_pictures_that_are_no_drawings_are_measured_or_not_but_stop_nothing(seed):
    rng = np.random.default_rng(seed)
    levels = np.sort(rng.integers(0, 256, 2))
    noise = rng.integers(levels[0], levels[1] + 2, (12, 30, 30)).astype(np.uint8)
    assert isinstance(measure(map(Image.fromarray, noise)), Ink | None)


def test_few_sketches_of_few_shards_are_measured_and_always_the_same_ones():
    shard = np.repeat(np.arange(20), 500)
    picked = chosen(shard)
    assert len(picked) == len(set(picked.tolist())) == SAMPLE
    assert len(np.unique(shard[picked])) <= SHARDS
    assert picked.tolist() == chosen(shard).tolist()
    assert chosen(np.array([7, 7, 9])).tolist() == [0, 1, 2]
    assert not len(chosen(np.zeros(0, int)))


@pytest.mark.parametrize(
    ("ink", "reason"),
    [
        ("black", "states an ink that is no mapping"),
        ({"line_width": 7}, "line_width"),
        ({"line_width": float("inf")}, "line_width"),
        ({"margin": "x" * 9000}, "margin"),
        ({"margin": 0.5}, "margin"),
        ({"colour": "red"}, "unknown field 'colour'"),
        ({"paper": 7, "level": 9}, "cannot be seen"),
    ],
)
def test_an_ink_that_nobody_can_draw_with_is_refused_in_one_line(tmp_path, ink, reason):
    index = put(str(tmp_path), "index", facts={"ink": "stands for the ink"})
    manifest = json.loads((index.path / MANIFEST).read_text())
    manifest["facts"]["ink"] = ink if ink != {"line_width": float("inf")} else {"line_width": 1e999}
    text = json.dumps(manifest).replace("Infinity", "1e308")
    (index.path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=reason) as error:
        ink_of(Artifact(index.uri, "index"))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_an_artifact_that_states_no_ink_is_drawn_for_as_quickdraw_is(tmp_path):
    assert ink_of(put(str(tmp_path), "index")) == QUICKDRAW
    assert ink_of(put(str(tmp_path), "index", "other", facts=ink_facts(Ink(margin=0.2)))) == Ink(margin=0.2)
    assert ink_facts(None) == {}


def pictures(root, inks):
    """Four classes; inks: that of each class's sketches."""
    rng = np.random.default_rng(1)
    for number, (name, ink) in enumerate(inks.items()):
        for domain in ("photo", "sketch"):
            (root / domain / name).mkdir(parents=True)
        for index in range(6):
            photo = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            (root / "photo" / name / f"{index}.jpg").write_bytes(encoded(Image.fromarray(photo), "JPEG"))
            (root / "sketch" / name / f"{index}.png").write_bytes(encoded(doodles(ink, count=1, seed=10 * number + index)[0]))
    return root


THICK, THIN = Ink(line_width=0.03, margin=0.1), Ink(line_width=0.01, margin=0.02)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ink")
    images = pictures(folder / "pictures", {"ant": THICK, "bee": THICK, "cat": THIN, "dog": THIN, "elk": THIN, "fox": THIN})
    config = IngestConfig(layout="folder", unseen_classes=("cat", "dog"), dev_classes=("elk", "fox"))
    return ingest(config, str(images), Settings(root=str(folder / "root")))


def without_ink(artifact, folder) -> Artifact:
    """A copy of an artifact as it was made before there was ink."""
    shutil.copytree(artifact.path, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["facts"]["ink"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Artifact(str(folder), artifact.manifest.kind)


def test_ingest_states_the_ink_of_training_sketches_alone(drawings):
    assert ink_of(drawings).line_width == pytest.approx(THICK.line_width, rel=0.08)
    assert ink_of(drawings).margin == pytest.approx(THICK.margin, abs=0.01)


def test_a_data_set_of_an_earlier_version_has_the_same_digest_and_is_measured_when_asked(drawings, tmp_path):
    before = without_ink(drawings, tmp_path / "before")
    assert before.digest == drawings.digest
    assert ink_of(before) == QUICKDRAW
    assert dataset_ink(before) == ink_of(drawings)


def test_a_run_without_ink_takes_that_of_its_data_set_and_does_without_where_that_is_gone(drawings, tmp_path):
    run = put(str(tmp_path), "run", inputs={"dataset": drawings})
    assert run_ink(run) == ink_of(drawings)
    assert run_ink(put(str(tmp_path), "run", "stated", inputs={"dataset": drawings}, facts=ink_facts(THIN))) == THIN
    gone = {"uri": f"{tmp_path}/gone", "digest": "0" * 16}
    assert run_ink(put(str(tmp_path), "run", "orphan", inputs={"dataset": gone})) is None


def test_a_training_carries_the_ink_of_its_data_set(run, dataset):
    stated = ink_of(Artifact(dataset, "dataset"))
    assert stated != QUICKDRAW
    assert ink_of(Artifact(run, "run")) == stated


def test_strokes_drawn_with_the_measured_ink_look_like_the_sketches():
    """Measured, drawn and measured again: nothing drifts."""
    ink = Ink(line_width=6 / 256, margin=0.12, down=1)
    found = measure(doodles(ink))
    again = measure(doodles(found))
    assert again.line_width == pytest.approx(found.line_width, rel=0.08)
    assert again.margin == pytest.approx(found.margin, abs=1 / 256)
    a, b = (np.mean([np.asarray(image) for image in doodles(each)]) for each in (ink, found))
    assert 255 - b == pytest.approx(255 - a, rel=0.08)


def test_a_line_of_a_file_is_drawn_in_any_ink():
    line = json.dumps({"drawing": [[[0, 100], [0, 0]]]}).encode()
    flat = np.asarray(render(parse(line), 100, Ink(line_width=0.04, margin=0.1, down=0)))
    rows, columns = np.nonzero(flat < 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 11, 8, 91)
    with pytest.raises(InputError, match="cannot be seen"):
        Ink.of({"paper": 0})
