import pyarrow as pa
import pytest

from zsbir.data import doctor
from zsbir.data.doctor import Inverted, examine, imagenet_label
from zsbir.data.schema import QUARANTINE_SCHEMA, SAMPLES_SCHEMA

NOTHING = pa.Table.from_pylist([], QUARANTINE_SCHEMA)


def samples(*classes, side=256):
    """Rows of (class name, split, photos, sketches), every image with bytes of its own."""
    rows = []
    for number, (name, split, photos, sketches) in enumerate(classes):
        for domain, count in (("photo", photos), ("sketch", sketches)):
            for index in range(count):
                path = f"{domain}/{name}/{index}.png"
                row = {"domain": domain, "class_id": number, "class_name": name, "split": split, "sha256": path, "path": path}
                rows.append({**row, "sample_id": len(rows), "width": side, "height": side, "shard": 0, "row": len(rows)})
    return rows


def findings(rows, quarantine=NOTHING):
    return {finding.check: finding for finding in examine(pa.Table.from_pylist(rows, SAMPLES_SCHEMA), quarantine)}


GOOD = [("zorb", "train", 20, 20), ("blick", "train", 20, 20), ("wug", "unseen", 20, 20)]


def test_a_sound_data_set_has_no_findings():
    assert findings(samples(*GOOD)) == {}


def test_equal_bytes_within_a_class_are_counted():
    rows = samples(*GOOD)
    for row in rows[1:4]:
        row["sha256"] = rows[0]["sha256"]
    assert findings(rows)["repeated images"].message.startswith("3 images")


def test_an_image_in_a_seen_and_an_unseen_class_is_a_leak():
    rows = samples(*GOOD)
    twin = next(row for row in rows if row["class_name"] == "wug")
    twin["sha256"] = rows[0]["sha256"]
    finding = findings(rows)["one image, two classes"]
    assert finding.severity == "warning"
    assert "1 of them in a seen and an unseen one" in finding.message
    assert "photo/wug/0.png" in finding.message


def test_the_same_original_photo_in_two_folders_is_the_sketchy_trap():
    rows = samples(*GOOD)
    for row in rows:
        folder, name = row["path"].rsplit("/", 1)
        if folder == "photo/wug" and int(name[:-4]) >= 10:
            row["path"] = f"EXTEND/wug/{int(name[:-4]) - 10}.png"
    finding = findings(rows)["one photo, two folders"]
    assert "20 unseen gallery photos are 10 distinct" in finding.message
    assert "--dedup" in finding.message


@pytest.mark.parametrize(
    ("name", "label"), [("tench", "tench"), ("Fan", "electric fan"), ("acoustic-guitar", "acoustic guitar"), ("kangaroo", None)]
)
def test_imagenet_knows_a_class_by_its_label_or_the_end_of_one(name, label):
    assert imagenet_label(name) == label


def test_the_labels_are_those_of_torchvision_s_weights():
    from torchvision.models import ResNet50_Weights

    assert doctor._imagenet_labels() == ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def test_unseen_classes_that_the_backbone_has_seen_are_named():
    finding = findings(samples(*GOOD[:2], ("tench", "unseen", 20, 20), ("wug", "unseen", 20, 20)))["known to ImageNet"]
    assert finding.message.startswith("1 of 2 unseen classes")
    assert finding.severity == "note"


def test_classes_with_few_images_are_named_per_domain():
    found = findings(samples(*GOOD, ("dax", "train", 3, 20)))
    assert found["few photo images"].message.endswith("fewer than 10: dax")
    assert "few sketch images" not in found


def test_uneven_classes_and_small_images_are_notes():
    assert findings(samples(*GOOD, ("dax", "train", 300, 20)))["uneven photo classes"].message.startswith("dax has 300")
    assert findings(samples(*GOOD, side=64))["small sketch images"].message.startswith("60 of 60")


def test_refused_images_come_first_with_the_first_reason():
    refused = [{"path": "photo/dax/1.jpg", "domain": "photo", "class_name": "dax", "reason": "the file has zero bytes"}]
    first = examine(
        pa.Table.from_pylist(samples(*GOOD, side=64), SAMPLES_SCHEMA), pa.Table.from_pylist(refused, QUARANTINE_SCHEMA)
    )[0]
    assert (first.check, first.message) == (
        "quarantine",
        "1 of 121 images were refused, the first photo/dax/1.jpg: the file has zero bytes",
    )


def test_two_spellings_of_one_class_are_named_with_their_splits():
    finding = findings(samples(*GOOD, ("Zorb ", "dev", 20, 20)))["one class, two spellings"]
    assert finding.severity == "warning"
    assert "'Zorb ' (dev) and 'zorb' (train)" in finding.message


def test_sketches_that_are_light_on_dark_are_counted_with_the_way_out():
    table = pa.Table.from_pylist(samples(*GOOD), SAMPLES_SCHEMA)
    paths = ["sketch/wug/0.png", "sketch/wug/1.png", "sketch/zorb/0.png"]
    (finding,) = examine(table, NOTHING, inverted=Inverted(paths))
    assert (finding.severity, finding.check) == ("warning", "inverted sketches")
    assert finding.message.startswith("3 of 60 sketches, in 2 classes, such as sketch/wug/0.png, are light strokes")
    assert "--invert-sketches" in finding.message
    (mended,) = examine(table, NOTHING, inverted=Inverted(paths, mended=True))
    assert mended.severity == "note"
