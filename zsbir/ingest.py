"""Turn a folder of images into a data set: images in, Dataset out.

    python -m zsbir.ingest folder PATH --unseen-classes split.json
    python -m zsbir.ingest folder s3://bucket/photos --unseen-classes split.json --num-workers 8
    python -m zsbir.ingest toy

In: a folder of photos and sketches in a known layout (folder, sketchy, tuberlin, quickdraw, lists), on disk or in object storage,
or nothing: the layout `toy` draws its own. Out: datasets/<name>/<fingerprint>/ with shards, sample table, classes, quarantine and
manifest. Unseen classes are opened by evaluation alone; dev classes are taken out of the seen ones, to choose settings on. Every
image is opened and checked: a bad one is quarantined with its reason and counted, and too many of them fail the command.

The images are cut into blocks of about 64 MB. Each block becomes a shard as soon as it is packed, in this process or by Ray
workers; the files are the same for any number of workers. After an interruption the same command goes on where it was, and it
returns at once if nothing has changed. Two CPU cores take about 3,000 photos of 10 kB a second from disk, and 300 a second from
object storage, where each photo is a request (more workers share them); memory is 200 MB and 0.7 kB an image. Prints the URI of the
dataset; on standard error, the classes of each split with their photos and sketches, and what was passed over.
"""

from __future__ import annotations

from collections.abc import Sequence

from zsbir.base import cli, events
from zsbir.base.artifact import Artifact
from zsbir.base.config import unknown_name
from zsbir.base.errors import InputError
from zsbir.data import layouts
from zsbir.data.class_table import class_table, classes_of
from zsbir.data.passed_over import passed_over_text
from zsbir.data.trees import open_tree
from zsbir.ingestion.plan import IngestConfig, Settings, plan_dataset

__all__ = ["IngestConfig", "Settings", "ingest"]


def ingest(config: IngestConfig, images: str, settings: Settings) -> Artifact:
    """Return the Dataset artifact of the images in a folder ("" for toy); an existing one is found if nothing has changed.

    Raises InputError for a bad layout, split or folder, and DataError for too many bad images.
    """
    from zsbir.ingestion.dataset import make_dataset  # pyarrow takes long to load

    dataset = make_dataset(plan_dataset(config, open_tree(images)), settings)
    events.say_lines(class_table(classes_of(dataset)))
    if dataset.manifest.facts.get("passed_over"):
        events.say(f"passed over: {passed_over_text(dataset.manifest.facts['passed_over'])}")
    return dataset


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.ingest", __doc__ or "")
    parser.add_argument(
        "layout", help="how the images lie in their folder: folder, sketchy, tuberlin, quickdraw, lists; or toy, which draws them"
    )
    parser.add_argument("path", nargs="?", default="", help="the folder of the images (not for toy)")
    parser.add_config_file()
    parser.add_fields(IngestConfig, title="data set", skip=frozenset({"layout"}))
    parser.add_fields(Settings, title="where it runs")
    parsed, values = parser.values(argv)
    if parsed.layout not in (*layouts.LAYOUTS, "toy"):
        raise InputError(unknown_name("layout", parsed.layout, (*layouts.LAYOUTS, "toy")))
    if bool(parsed.path) == (parsed.layout == "toy"):
        raise InputError("toy draws its own images: leave out the path" if parsed.path else f"layout {parsed.layout} needs a path")
    config, settings = cli.split_fields({**values, "layout": parsed.layout}, IngestConfig, Settings)
    return ingest(IngestConfig.of(config), parsed.path, Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
