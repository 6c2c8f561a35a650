"""Images in, Dataset out: every image opened and checked, splits decided once, shards written.

    python -m zsbir.ingest folder PATH --unseen-classes split.json
    python -m zsbir.ingest folder s3://bucket/photos --unseen-classes split.json --num-workers 8
    python -m zsbir.ingest toy

In: a folder of photos and sketches in a known layout (folder, sketchy, tuberlin, quickdraw, lists), on disk or in object storage,
or nothing: `toy` draws its own. Out: datasets/<name>/<fingerprint>/ with shards, sample table, classes, quarantine and manifest.
Unseen classes are opened by evaluation alone; dev classes are taken out of the seen ones, to choose settings on. A bad image is
quarantined with its reason and counted; too many fail the command.

The images are cut into blocks of about 64 MB, and each block becomes a shard as soon as it is packed, in this process or by Ray
workers; the files are the same for any number of them. The same command goes on where a killed one was, and returns at once where
nothing has changed since. Costs: two CPU cores take about 3,000 photos of 10 kB a second from disk, and 300 from object storage,
where each is a request (more workers share them); 200 MB of memory and 1 kB an image. Prints the URI of the dataset.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from zsbir.base import cli
from zsbir.base.artifact import Artifact, Draft, draft, exists
from zsbir.base.config import Config, streamed_digest, unknown_name
from zsbir.base.errors import DataError, InputError, RunError
from zsbir.base.events import Progress, say, warn
from zsbir.base.layout import datasets_folder
from zsbir.base.storage import Folder, default_root, folder_name, join, open_folder
from zsbir.data import blocks, doctor, layouts, splits, summary
from zsbir.data.packing import PARTS, OtherForm, Packer, Packing, Record, found_records
from zsbir.data.preparing import Source
from zsbir.data.schema import DOMAINS, QUARANTINE_SCHEMA, SAMPLES_SCHEMA, SPLITS, shard_name
from zsbir.data.trees import Tree, open_tree
from zsbir.toys import draw as toys

FORM = 1
"""Counted up whenever the same images would be stored with other bytes."""

PLAN_FORM = 2
"""Counted up whenever the same images would be planned, cut or recorded in another way."""

QUARANTINE_LIST = "quarantine.tsv"

Layout = Literal["folder", "sketchy", "tuberlin", "quickdraw", "lists", "toy"]


class IngestConfig(Config):
    """What decides the dataset."""

    layout: Layout = Field(description="how the images lie in their folder; toy: drawn by program")
    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9_.-]*)?$", description="name of the dataset; none: from the folder's")
    unseen_classes: tuple[str, ...] = Field(
        (), description="unseen classes, or one file: a name a line, or JSON with unseen, seen, dev"
    )
    unseen_frac: float = Field(0.0, ge=0, lt=1, description="instead: share of the classes drawn as unseen")
    seen_classes: tuple[str, ...] = Field((), description="where given, all other classes that are not unseen are left out")
    dev_classes: tuple[str, ...] = Field((), description="seen classes held out to choose settings on; none: drawn")
    dev_frac: float = Field(0.15, ge=0, lt=1, description="share of the seen classes drawn as dev; 0: none")
    seed: int = Field(0, ge=0, description="seed of all that is drawn")
    short_side_px: int = Field(256, ge=0, description="larger images are reduced to this short side, pixels; 0: kept as they are")
    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of bad images above which the command fails")
    dedup: bool = Field(False, description="a photo that repeats in its class (file name or bytes) is left out")
    skip_incomplete: bool = Field(False, description="leave out classes that lack photos or sketches instead of failing")
    lists_dir: str = Field("", description="layout lists: folder of the lists, below PATH; none: the only zeroshot* folder")
    held_out_seen: bool = Field(False, description="layout lists: train on the *_test.txt sketches too")
    drawings_per_class: int = Field(3000, ge=1, description="layout quickdraw: drawings taken of each .ndjson file")
    toy_photos_per_class: int = Field(40, ge=2, description="layout toy: photos of each class")
    toy_sketches_per_class: int = Field(40, ge=2, description="layout toy: sketches of each class")
    toy_px: int = Field(96, ge=32, le=512, description="layout toy: side of the drawings, pixels")


class Settings(Config):
    """Where it runs."""

    root: str = Field(default_factory=default_root, description="storage root, also ZSBIR_ROOT")
    num_workers: int = Field(0, ge=0, description="Ray workers; 0: in this process")
    threads: int = Field(0, ge=0, description="threads that read and check images, of each worker; 0: by cores")


def ingest(config: IngestConfig, images: str, settings: Settings) -> Artifact:
    """The Dataset artifact of the images in a folder ("" for toy); the one already made where nothing has changed.

    Raises InputError for a bad layout, split or folder, and for too many bad images.
    """
    plan = _planned(config, open_tree(images))
    datasets = open_folder(datasets_folder(settings.root, plan.config.name))
    folder = datasets.sub(plan.fingerprint[:16])
    dataset = _already_made(datasets, folder, plan)
    if dataset is None:
        with draft(folder.uri, "dataset", plan.config.name) as work:
            samples, quarantine = _collect(work, datasets, plan, _records(folder, plan, settings))
            dataset = _finish(work, datasets, plan, samples, quarantine)
    folder.delete([f"{PARTS}/{entry.key}" for entry in folder.sub(PARTS).walk()])
    return dataset


@dataclass(frozen=True)
class Plan:
    """What will be read, in the order of the sample table, the split of each class that takes part, and the cuts between blocks.

    fingerprint: equal where nothing was changed, by size and time of each file: no image is opened for it.
    """

    config: IngestConfig
    source_uri: str
    sources: Sequence[Source]
    split_of: Mapping[str, str]
    cuts: blocks.Cuts
    fingerprint: str

    def classes(self) -> dict[str, tuple[int, str]]:
        """Id and split of each class. Ids are in the order of names, over all splits."""
        return {name: (number, self.split_of[name]) for number, name in enumerate(sorted(self.split_of))}


def _planned(config: IngestConfig, tree: Tree) -> Plan:
    config = _settled(config, tree.folder.uri)
    sources = _sources(config, tree)
    split_of = _split(config, sources)
    sources = [source for source in sources if source.class_name in split_of]
    # What is read together lies together: split by split, domain by domain. The sort is stable within.
    sources.sort(key=lambda s: (SPLITS.index(split_of[s.class_name]), DOMAINS.index(s.domain), s.class_name))
    fingerprint, sizes = _stamped(config, sources, tree)
    return Plan(config, tree.folder.uri, sources, split_of, _cut(config, sources, sizes), fingerprint)


def _stamped(config: IngestConfig, sources: Sequence[Source], tree: Tree) -> tuple[str, np.ndarray]:
    """The fingerprint, and the bytes of each source where they are known without opening it (else 0)."""
    sizes = array("q")

    def stamps() -> Iterator[list[Any]]:
        for source in sources:
            stamp = source.stamp(tree)
            sizes.append(_bytes_of(source, stamp))
            yield [source.path, source.domain, source.class_name, *stamp]

    # How many may be bad decides whether the command fails, not what it makes.
    decides = config.model_dump(mode="json", exclude={"max_bad_frac"})
    fingerprint = streamed_digest([FORM, PLAN_FORM, blocks.BLOCK_BYTES, blocks.BLOCK_IMAGES, decides, stamps()])
    return fingerprint, np.frombuffer(sizes, np.int64)


def _bytes_of(source: Source, stamp: Sequence[int]) -> int:
    if not isinstance(source, layouts.Source):
        return 0
    return stamp[0] if source.line_start is None else source.line_bytes


def _cut(config: IngestConfig, sources: Sequence[Source], sizes: np.ndarray) -> blocks.Cuts:
    """With `dedup` the photos of a class lie in one block: there it is seen which of them repeat."""
    joined = np.zeros(len(sources), bool)
    if config.dedup:
        joined[1:] = [b.domain == a.domain == "photo" and a.class_name == b.class_name for a, b in pairwise(sources)]
    stored = blocks.stored_bytes(sizes, config.short_side_px)
    return blocks.cut(stored, joined, max_bytes=blocks.BLOCK_BYTES, max_images=blocks.BLOCK_IMAGES)


def _settled(config: IngestConfig, uri: str) -> IngestConfig:
    """The name filled in, and a split file replaced by the names in it: a configuration holds no path of this machine."""
    changes: dict[str, Any] = {}
    if not config.name:
        changes["name"] = re.sub(r"[^a-z0-9_.-]+", "-", folder_name(uri).lower()).strip("-_.") or "dataset"
        if config.layout == "toy":
            changes["name"] = "toy"
    if len(config.unseen_classes) == 1 and config.unseen_classes[0].endswith((".json", ".txt")):
        lists = splits.read_lists(config.unseen_classes[0])
        changes["unseen_classes"] = lists.unseen
        changes["seen_classes"] = config.seen_classes or lists.seen
        changes["dev_classes"] = config.dev_classes or lists.dev
    return config.replace(**changes)


def _sources(config: IngestConfig, tree: Tree) -> Sequence[Source]:
    if config.layout == "toy":
        return toys.toy_sources(config.toy_photos_per_class, config.toy_sketches_per_class, config.toy_px, config.seed)
    return layouts.scan(
        config.layout,
        tree,
        dedup=config.dedup,
        lists_dir=config.lists_dir,
        held_out_seen=config.held_out_seen,
        drawings_per_class=config.drawings_per_class,
        skip_incomplete=config.skip_incomplete,
    )


def _split(config: IngestConfig, sources: Sequence[Source]) -> dict[str, str]:
    """Class to split, of the classes that take part."""
    present = sorted({source.class_name for source in sources})
    lists = splits.hinted((source.class_name, source.split_hint) for source in sources)
    if lists and (config.unseen_classes or config.unseen_frac):
        raise InputError("the lists already say which classes are unseen: leave --unseen-classes and --unseen-frac away")
    if config.unseen_classes and config.unseen_frac:
        raise InputError("--unseen-classes and --unseen-frac exclude each other")
    if lists is None and config.unseen_frac:
        lists = splits.draw_unseen(present, config.unseen_frac, config.seed)
    if lists is None:
        lists = splits.ClassLists(config.unseen_classes or (toys.TOY_UNSEEN if config.layout == "toy" else ()))
    lists = splits.ClassLists(lists.unseen, config.seen_classes, config.dev_classes)
    split_of = splits.assign(present, lists, dev_frac=config.dev_frac, seed=config.seed)
    if len(split_of) < len(present):
        say(f"{len(present) - len(split_of)} classes that are neither seen nor unseen are left out")
    return split_of


def _already_made(datasets: Folder, folder: Folder, plan: Plan) -> Artifact | None:
    if not exists(folder.uri):
        return None
    made = Artifact(folder.uri, "dataset")
    if _too_many(plan, made.manifest.counts["quarantined"]):
        _fail(datasets, plan, pq.read_table(made.file("quarantine.parquet")), len(plan.sources))
    say(f"nothing has changed since {made.uri} was made")
    return made


def _records(folder: Folder, plan: Plan, settings: Settings) -> Generator[Record]:
    """The record of each block, in order: those that an unfinished run left, and new ones."""
    found = found_records(folder)
    missing = [number for number in range(len(plan.cuts)) if number not in found]
    done = len(plan.sources) - sum(map(plan.cuts.images, missing))
    if done:
        say(f"{done} of {len(plan.sources)} images are packed already; going on with the rest")
    with Progress("ingest", total=len(plan.sources), unit="image", start=done) as progress:
        packed = _packed(folder, plan, missing, settings, progress)
        for number in range(len(plan.cuts)):
            yield found.pop(number) if number in found else _read(next(packed))


def _read(record: bytes) -> Record:
    try:
        return Record.of(record)
    except OtherForm as error:
        raise RunError(
            f"the workers have other versions than this process ({error}): start them all from one environment"
        ) from None


def _packed(folder: Folder, plan: Plan, numbers: list[int], settings: Settings, progress: Progress) -> Iterator[bytes]:
    """The records of these blocks as they are put, packed in this process or by Ray workers."""
    packing = Packing(plan.config.short_side_px, plan.classes(), plan.config.dedup)
    arguments = (plan.source_uri, folder.uri, packing, settings.threads)
    wanted = plan.cuts.blocks(plan.sources, numbers)
    if not settings.num_workers:
        yield from Packer(*arguments).pack(wanted, progress.advance)
        return
    from zsbir.edge.ray_map import ray_map  # Ray is loaded only where it is asked for

    workers = min(settings.num_workers, len(numbers))
    # Two blocks a worker at a time: one is packed while the shard of the other goes up.
    results = ray_map(Packer, (*arguments, 1), "pack", wanted, workers=workers, chunks_a_task=1, tasks_at_once=2)
    for number, record in zip(numbers, results, strict=True):
        progress.advance(plan.cuts.images(number))
        yield record


def _collect(work: Draft, datasets: Folder, plan: Plan, records: Generator[Record]) -> tuple[pa.Table, pa.Table]:
    """The sample table and the quarantine. InputError as soon as too much is bad for sure."""
    samples, refused = [SAMPLES_SCHEMA.empty_table()], [QUARANTINE_SCHEMA.empty_table()]
    bad = 0
    with closing(records):
        for number, record in enumerate(records):
            if record.shard:
                work.adopt(shard_name(number), record.shard.key, record.shard.entry)
            samples.append(record.samples)
            refused.append(record.refused)
            bad += record.refused.num_rows
            if _too_many(plan, bad):
                _fail(datasets, plan, pa.concat_tables(refused), plan.cuts.stops[number])
    return pa.concat_tables(samples), pa.concat_tables(refused)


def _too_many(plan: Plan, bad: int) -> bool:
    return bad > plan.config.max_bad_frac * len(plan.sources)


def _fail(datasets: Folder, plan: Plan, refused: pa.Table, seen: int) -> NoReturn:
    """InputError: more than the tolerated share is bad. The list of it then lies beside the data sets, as text."""
    rows, total = refused.to_pylist(), len(plan.sources)
    datasets.replace(QUARANTINE_LIST, "".join(f"{row['path']}\t{row['reason']}\n" for row in rows).encode())
    of = f"{total}" if seen == total else f"the first {seen} of {total}"
    first = "; ".join(f"{row['path']}: {row['reason']}" for row in rows[:3])
    raise DataError(
        f"{len(rows)} of {of} images are bad, more than --max-bad-frac {plan.config.max_bad_frac} allows: {first};"
        f" the {'whole list' if seen == total else 'list so far'} is in {join(datasets.uri, QUARANTINE_LIST)}"
    )


def _finish(work: Draft, datasets: Folder, plan: Plan, samples: pa.Table, quarantine: pa.Table) -> Artifact:
    """Sample table, classes, quarantine and findings beside the shards; then the manifest signs it all."""
    classes = json.dumps(summary.class_rows(samples, plan.classes()), indent=1, ensure_ascii=False)
    digest = summary.content_digest(samples, quarantine, FORM, plan.config.short_side_px)
    same = _same_content(datasets, work.folder, digest)
    if same:
        work.folder.delete(work.key(shard_name(number)) for number in samples["shard"].unique().to_pylist())
        say(f"files were touched, but what is in them was ingested before, as {same.uri}")
        return same
    work.file("classes.json").write_text(classes + "\n", "utf-8")
    pq.write_table(samples, work.file("samples.parquet"), compression="zstd")
    pq.write_table(quarantine, work.file("quarantine.parquet"))
    real = plan.config.layout != "toy"  # toys are what they are drawn to be
    findings = doctor.examine(samples, quarantine, imagenet=real)
    _tell(findings, notes=real)
    return work.commit(
        digest=digest,
        config=plan.config,
        counts={**summary.counts_of(samples, plan.split_of), "quarantined": quarantine.num_rows},
        facts={"source_fingerprint": plan.fingerprint, "findings": [finding.model_dump() for finding in findings]},
    )


def _same_content(datasets: Folder, folder: Folder, digest: str) -> Artifact | None:
    """The data set of this digest that lies in another folder of the same name, if one does."""
    for name in datasets.names():
        with suppress(InputError):  # no data set, or one of a newer version
            made = Artifact(join(datasets.uri, name), "dataset")
            if made.digest == digest and made.uri != folder.uri:
                return made
    return None


def _tell(findings: Sequence[doctor.Finding], *, notes: bool) -> None:
    for finding in findings:
        if finding.severity == "warning":
            warn(f"{finding.check}: {finding.message}")
        elif notes:
            say(f"{finding.check}: {finding.message}")


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.ingest", __doc__ or "")
    parser.add_argument("layout", help="folder, sketchy, tuberlin, quickdraw, lists, or toy")
    parser.add_argument("path", nargs="?", default="", help="the folder that holds the data set (not for toy)")
    parser.add_config_file()
    parser.add_fields(IngestConfig, title="dataset", skip=frozenset({"layout"}))
    parser.add_fields(Settings, title="where it runs")
    parsed, values = parser.values(argv)
    if parsed.layout not in (*layouts.LAYOUTS, "toy"):
        raise InputError(unknown_name("layout", parsed.layout, (*layouts.LAYOUTS, "toy")))
    if bool(parsed.path) == (parsed.layout == "toy"):
        raise InputError("toy draws its own images: leave the path away" if parsed.path else f"layout {parsed.layout} needs a path")
    config, settings = cli.split_fields({**values, "layout": parsed.layout}, IngestConfig, Settings)
    return ingest(IngestConfig.of(config), parsed.path, Settings.of(settings)).uri


if __name__ == "__main__":
    cli.main(_parse)
