"""The largest things that an artifact may ask of its reader: the one table of limits, which docs/storage.md repeats.

Artifacts come from strangers too. Each limit lies far above what any stage writes, and below what would stop a reader's machine.
A reader compares with it before it takes the memory.
"""

from __future__ import annotations

MIB = 2**20
GIB = 2**30

MANIFEST_BYTES = 16 * MIB
"""Bytes of a manifest: about 100,000 files."""

JSON_BYTES = 64 * MIB
"""Bytes of any other JSON file of an artifact."""

JSON_DEPTH = 32
"""Levels of lists and mappings within each other."""

JSON_VALUES = 1_000_000
"""Values in one JSON file, those of lists and mappings counted too."""

FILES = 100_000
"""Files of one artifact."""

FILE_BYTES = 4 * 2**40
"""Bytes of one file of an artifact, by its manifest."""

FILE_NAME_BYTES = 512
"""Bytes of a file's name below its artifact, in UTF-8; object storage allows 1,024 for the whole key."""

URI_CHARACTERS = 4096
"""Characters of the address of an input."""

INPUTS = 10_000
"""Inputs that one manifest may name: a sweep names each of its runs."""

LINEAGE_STEPS = 32
"""Steps from an artifact back to the first of its inputs."""

LINEAGE_INPUTS = 100_000
"""Inputs in the lineage of an artifact, written out as a tree."""

TABLE_ROWS = 100_000_000
"""Rows of a Parquet file."""

TABLE_BYTES = 16 * GIB
"""Bytes that the columns read of one table take in memory."""

TABLE_FLOOR_BYTES = 256 * MIB
TABLE_RATIO = 100
"""A table may take TABLE_FLOOR_BYTES, and this many times the bytes of its file. Sample tables take four to twenty times those."""

ROW_GROUP_BYTES = 256 * MIB
"""Bytes of one column of a row group that is read by itself: images, or thumbnails."""

SHARD_BYTES = 4 * GIB
"""Bytes of the images of one shard; ingest cuts at a fraction of that."""

INDEX_PHOTOS = 100_000_000
"""Photos of an index."""

INDEX_SEGMENTS = 64
"""Segments of an index; those that index makes double in size, so that 100 million photos have at most 28."""

METADATA_BYTES = 4 * GIB
"""Bytes of a file of metadata that its owner gives to index."""

METADATA_COLUMNS = 64
"""Columns of metadata of an index."""

METADATA_TEXT_BYTES = 1024
"""Bytes of one text of metadata, in UTF-8."""

FILTER_VALUES = 1000
"""Values that one filter may name: classes, or values of a column."""

ORIGINAL_BYTES = 256 * MIB
"""Bytes of one photo that is read where its index says that it lies."""

EXAMPLES = 64
"""Sketches that an index may hold to try it with; those that index makes have at most 12."""

EMBEDDING_DIM = 4096
"""Dimensions of an embedding."""

IMAGE_PX = 2048
"""Side of the images that an encoder takes, in pixels."""

ENCODER_BYTES = 4 * GIB
"""Bytes of an encoder's file."""

THUMBNAIL_BYTES = MIB
"""Bytes of one thumbnail, a JPEG file; those that index makes take about 20 kB."""

THUMBNAIL_PIXELS = 2**20
"""Pixels of one thumbnail."""

PATH_BYTES = 16_384
"""Bytes of one path or name in a table, in UTF-8."""

CLASSES = 1_000_000
"""Classes of a data set; labels of a teacher."""

DRAWING_STROKES = 2_000
"""Strokes of one drawing; those of the Quick, Draw! game have a few dozen."""

DRAWING_POINTS = 20_000
"""Points of one drawing in a query, all strokes together: a hand takes minutes for them, drawing them takes .2 s of one core."""

DRAWING_COORDINATE = 1e6
"""How far from 0 a coordinate of a drawing may lie, in the units of its canvas."""

MEMORY_BATCHES = 1000
"""Past batches whose embeddings a loss remembers; they are in every checkpoint."""
