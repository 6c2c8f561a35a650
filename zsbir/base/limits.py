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
