"""The plan of a data set: which images are read, in which order, what split each class is in, and where blocks are cut.

No image is opened for it. Importing this module loads neither pyarrow nor torch.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from zsbir.base import events
from zsbir.base.config import Added, Config, streamed_digest
from zsbir.base.errors import InputError
from zsbir.base.storage import default_root, folder_name
from zsbir.data import blocks, layouts, splits
from zsbir.data.domains import DOMAINS, SPLITS
from zsbir.data.passed_over import PassedOver
from zsbir.data.preparing import Source
from zsbir.data.trees import Tree
from zsbir.toys import draw as toys

FORM = 1
"""Version of how images are stored; raised whenever the same images would be stored with other bytes."""

PLAN_FORM = 2
"""Version of the plan; raised whenever the same images would be planned, cut or recorded in another way."""

Layout = Literal["folder", "sketchy", "tuberlin", "quickdraw", "lists", "toy"]


class IngestConfig(Config):
    """What decides the contents of the data set."""

    outside_identity = frozenset({"max_bad_frac"})  # it decides whether the command fails, not what it makes

    layout: Layout = Field(description="how the images lie in their folder; toy: drawn by program")
    name: str = Field(
        "", pattern=r"^([a-z0-9][a-z0-9_.-]*)?$", description="name of the data set; none: made from the folder's name"
    )
    unseen_classes: tuple[str, ...] = Field(
        (), description="unseen classes, or one file: a class a line, or JSON with the keys unseen, seen, dev"
    )
    unseen_frac: float = Field(0.0, ge=0, lt=1, description="share of the classes to draw as unseen, instead of naming them")
    seen_classes: tuple[str, ...] = Field(
        (), description="seen classes; if given, classes that are neither seen nor unseen are left out"
    )
    dev_classes: tuple[str, ...] = Field((), description="seen classes held out to choose settings on; none: drawn at random")
    dev_frac: float = Field(0.15, ge=0, lt=1, description="share of the seen classes to draw as dev classes; 0: no dev classes")
    seed: int = Field(0, ge=0, description="seed of everything drawn at random")
    short_side_px: int = Field(
        256, ge=0, description="larger images are reduced to this length of the short side, pixels; 0: kept as they are"
    )
    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of bad images above which the command fails")
    dedup: bool = Field(False, description="leave out photos that repeat in their class, by file name or bytes")
    skip_incomplete: bool = Field(False, description="leave out classes that lack photos or sketches instead of failing")
    lists_dir: str = Field("", description="layout lists: folder of the lists, below PATH; none: the only folder named zeroshot*")
    held_out_seen: bool = Field(False, description="layout lists: train on the sketches of *_test.txt too")
    drawings_per_class: int = Field(3000, ge=1, description="layout quickdraw: drawings to take from each .ndjson file")
    invert_sketches: Annotated[bool, Added(neutral=False)] = Field(
        False, description="store sketches of light strokes on a dark ground as dark on light"
    )
    toy_photos_per_class: int = Field(40, ge=2, description="layout toy: photos of each class")
    toy_sketches_per_class: int = Field(40, ge=2, description="layout toy: sketches of each class")
    toy_px: int = Field(96, ge=32, le=512, description="layout toy: side of the drawings, pixels")


class Settings(Config):
    """Where the data set is stored, and who packs it."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")
    num_workers: int = Field(0, ge=0, description="Ray workers; 0: in this process")
    threads: int = Field(0, ge=0, description="threads that read and check images in each worker; 0: by its cores")


@dataclass(frozen=True)
class Plan:
    """The images to read in the order of the sample table, the split of each class, and the cuts between blocks.

    fingerprint: equal for equal configurations and files, judged by the size and time of each file without opening it.
    passed: what lies in the folder and is not read.
    """

    config: IngestConfig
    source_uri: str
    sources: Sequence[Source]
    split_of: Mapping[str, str]
    cuts: blocks.Cuts
    fingerprint: str
    passed: PassedOver

    def classes(self) -> dict[str, tuple[int, str]]:
        """Return the id and split of each class. Ids follow the order of names, over all splits."""
        return {name: (number, self.split_of[name]) for number, name in enumerate(sorted(self.split_of))}


def plan_dataset(config: IngestConfig, tree: Tree) -> Plan:
    """Return the plan of a data set. Raises InputError for a bad layout, split or folder."""
    config = _completed(config, tree.folder.uri)
    passed = PassedOver()
    sources = _sources(config, tree, passed)
    split_of = _split(config, sources)
    for line in splits.lonely(split_of):
        events.warn(line)
    for source in sources:
        if source.class_name not in split_of:
            passed.add(source.path, "of a class that is neither seen nor unseen")
    sources = [source for source in sources if source.class_name in split_of]
    # Images that are read together are stored together: by split, domain and class. The sort is stable within a class.
    sources.sort(key=lambda s: (SPLITS.index(split_of[s.class_name]), DOMAINS.index(s.domain), s.class_name))
    fingerprint, sizes = _fingerprint(config, sources, tree)
    return Plan(config, tree.folder.uri, sources, split_of, _cut(config, sources, sizes), fingerprint, passed)


def planned_splits(config: IngestConfig, tree: Tree) -> dict[str, str] | None:
    """Return the split of each class as far as the names of folders tell it, without listing images; None where they do not.

    With `skip_incomplete` some of these classes may be left out. Raises InputError for a bad layout, split or folder.
    """
    config = _completed(config, tree.folder.uri)
    if config.layout == "toy":
        return _split(config, _sources(config.replace(toy_photos_per_class=2, toy_sketches_per_class=2), tree, PassedOver()))
    names = layouts.class_names(config.layout, tree)
    return None if names is None else _split(config, [layouts.Source("", DOMAINS[0], name) for name in names])


def _fingerprint(config: IngestConfig, sources: Sequence[Source], tree: Tree) -> tuple[str, np.ndarray]:
    """Return the fingerprint, and the size of each source in bytes, 0 where it is not known without opening the source."""
    sizes = array("q")

    def stamps() -> Iterator[list[Any]]:
        for source in sources:
            stamp = source.stamp(tree)
            sizes.append(_bytes_of(source, stamp))
            yield [source.path, source.domain, source.class_name, *stamp]

    fingerprint = streamed_digest([FORM, PLAN_FORM, blocks.BLOCK_BYTES, blocks.BLOCK_IMAGES, config.identity(), stamps()])
    return fingerprint, np.frombuffer(sizes, np.int64)


def _bytes_of(source: Source, stamp: Sequence[int]) -> int:
    if not isinstance(source, layouts.Source):
        return 0
    return stamp[0] if source.line_start is None else source.line_bytes


def _cut(config: IngestConfig, sources: Sequence[Source], sizes: np.ndarray) -> blocks.Cuts:
    """Cut the sources into blocks. With `dedup` the photos of a class share a block, because repeats are found block by block."""
    joined = np.zeros(len(sources), bool)
    if config.dedup:
        joined[1:] = [b.domain == a.domain == "photo" and a.class_name == b.class_name for a, b in pairwise(sources)]
    stored = blocks.stored_bytes(sizes, config.short_side_px)
    return blocks.cut(stored, joined, max_bytes=blocks.BLOCK_BYTES, max_images=blocks.BLOCK_IMAGES)


def _completed(config: IngestConfig, uri: str) -> IngestConfig:
    """Fill in the name, and replace a split file by the classes in it: a stored configuration has no path of one machine."""
    changes: dict[str, Any] = {}
    if not config.name:
        changes["name"] = re.sub(r"[^a-z0-9_.-]+", "-", folder_name(uri).lower()).strip("-_.") or "dataset"
        if config.layout == "toy":
            changes["name"] = "toy"
    if len(config.unseen_classes) == 1 and config.unseen_classes[0].lower().endswith((".json", ".txt")):
        lists = splits.read_lists(config.unseen_classes[0])
        changes["unseen_classes"] = lists.unseen
        changes["seen_classes"] = config.seen_classes or lists.seen
        changes["dev_classes"] = config.dev_classes or lists.dev
    return config.replace(**changes)


def _sources(config: IngestConfig, tree: Tree, passed: PassedOver) -> Sequence[Source]:
    if config.layout == "toy":
        named = (*config.unseen_classes, *config.seen_classes, *config.dev_classes)
        return toys.toy_sources(config.toy_photos_per_class, config.toy_sketches_per_class, config.toy_px, config.seed, named)
    return layouts.scan(
        config.layout,
        tree,
        passed,
        dedup=config.dedup,
        lists_dir=config.lists_dir,
        held_out_seen=config.held_out_seen,
        drawings_per_class=config.drawings_per_class,
        skip_incomplete=config.skip_incomplete,
    )


def _split(config: IngestConfig, sources: Sequence[Source]) -> dict[str, str]:
    """Return the split of each class that takes part."""
    present = sorted({source.class_name for source in sources})
    lists = splits.hinted((source.class_name, source.split_hint) for source in sources)
    if lists and (config.unseen_classes or config.unseen_frac):
        raise InputError("the lists already say which classes are unseen: leave out --unseen-classes and --unseen-frac")
    if config.unseen_classes and config.unseen_frac:
        raise InputError("--unseen-classes and --unseen-frac exclude each other: give one of them")
    if lists is None and config.unseen_frac:
        lists = splits.draw_unseen(present, config.unseen_frac, config.seed)
    if lists is None:
        lists = splits.ClassLists(config.unseen_classes or (toys.TOY_UNSEEN if config.layout == "toy" else ()))
    lists = splits.ClassLists(lists.unseen, config.seen_classes, config.dev_classes)
    return splits.assign(present, lists, dev_frac=config.dev_frac, seed=config.seed)
