"""The Parquet schema of a Dataset artifact: a table of samples, and shards that hold their images.

    manifest.json  classes.json  samples.parquet  shards/part-00000.parquet ...  quarantine.parquet  passed_over.parquet

Image rows follow the Hugging Face image convention, `image: struct<bytes: binary, path: string>`.
"""

from __future__ import annotations

import pyarrow as pa

ROW_GROUP_ROWS = 100
"""Images a row group: about 2 MB, the unit of a ranged read."""

SAMPLE_FIELDS = [
    pa.field("sample_id", pa.int64()),
    pa.field("domain", pa.string()),
    pa.field("class_id", pa.int32()),
    pa.field("class_name", pa.string()),
    pa.field("split", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("sha256", pa.string()),
    pa.field("path", pa.string()),
]

IMAGE_FIELD = pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))

SHARD_SCHEMA = pa.schema([*SAMPLE_FIELDS, IMAGE_FIELD])
"""One row an image. Rows are ordered by sample_id over all shards together.

sample_id: the image's position in the plan that ingest made before it opened any. Unique and ascending; numbers are missing where
an image was refused or repeated another one. A shard without any image left is missing too.
"""

SAMPLES_SCHEMA = pa.schema([*SAMPLE_FIELDS, pa.field("shard", pa.int32()), pa.field("row", pa.int32())])
"""The sample table: all of a shard's columns but the image, and where the image is (shard number, row in that shard)."""

QUARANTINE_SCHEMA = pa.schema(
    [("path", pa.string()), ("domain", pa.string()), ("class_name", pa.string()), ("reason", pa.string())]
)
"""Images that were refused, by path, with the reason."""

PASSED_OVER_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string())])
"""What a folder holds and the data set (or the index) does not. Folders end in "/"; odd characters of names are escapes."""


def shard_name(number: int) -> str:
    """Return the file of shard `number`, relative to the artifact."""
    return f"shards/part-{number:05d}.parquet"
