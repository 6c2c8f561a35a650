import pyarrow as pa
import pytest

from zsbir.base.config import digest_of
from zsbir.base.errors import InputError
from zsbir.data.schema import QUARANTINE_SCHEMA, SAMPLES_SCHEMA
from zsbir.data.summary import class_rows, content_digest, counts_of

CLASSES = {"ant": (0, "train"), "bee": (1, "dev"), "cat": (2, "unseen")}
SPLITS = {name: split for name, (_, split) in CLASSES.items()}


def samples(counts):
    """Rows by (class, domain): how many; in two chunks."""
    rows = [
        {
            "sample_id": number,
            "domain": domain,
            "class_id": CLASSES[name][0],
            "class_name": name,
            "split": CLASSES[name][1],
            "width": 8,
            "height": 8,
            "sha256": f"{number}",
            "path": f"{domain}/{name}/ü{number}.png",
            "shard": 0,
            "row": 0,
        }
        for (name, domain), count in counts.items()
        for number in range(count)
    ]
    table = pa.Table.from_pylist(rows, SAMPLES_SCHEMA)
    return pa.concat_tables([table.slice(0, 2), table.slice(2)])


ROWS = samples(
    {
        ("ant", "photo"): 3,
        ("ant", "sketch"): 2,
        ("bee", "photo"): 1,
        ("bee", "sketch"): 4,
        ("cat", "photo"): 5,
        ("cat", "sketch"): 6,
    }
)


def test_counts_are_those_of_a_manifest():
    counts = counts_of(ROWS, SPLITS)
    assert (counts["samples"], counts["photos"], counts["sketches"], counts["classes"]) == (21, 9, 12, 3)
    assert (counts["train_classes"], counts["dev_photos"], counts["unseen_sketches"]) == (1, 1, 6)
    assert counts_of(samples({}), SPLITS)["train_photos"] == 0


def test_classes_come_in_the_order_of_their_ids():
    assert class_rows(ROWS, CLASSES)[1] == {"class_id": 1, "name": "bee", "split": "dev", "photos": 1, "sketches": 4}
    assert [row["name"] for row in class_rows(ROWS, CLASSES)] == ["ant", "bee", "cat"]


def test_a_class_with_nothing_left_is_an_error():
    with pytest.raises(InputError, match="class 'ant' has no usable sketches"):
        class_rows(samples({("ant", "photo"): 3}), {"ant": (0, "train")})


def test_the_content_digest_is_that_of_the_rows_as_lists():
    quarantine = pa.Table.from_pylist([{"path": "bad", "domain": "photo", "class_name": "ant", "reason": "r"}], QUARANTINE_SCHEMA)
    rows = [[row[name] for name in ("path", "domain", "class_name", "split", "sha256")] for row in ROWS.to_pylist()]
    assert content_digest(ROWS, quarantine, 1, 256) == digest_of([1, 256, rows, ["bad"]])
