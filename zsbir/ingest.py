"""Images in, Dataset out: every image opened and checked, splits decided once, shards written.

    python -m zsbir.ingest folder PATH --unseen-classes split.json
    python -m zsbir.ingest toy

In: a folder of photos and sketches in a known layout (folder, sketchy, tuberlin, quickdraw, lists), or nothing: `toy` draws
its own. Out: datasets/<name>/<digest>/ with shards, sample table, classes, quarantine and manifest. Unseen classes are opened
by evaluation alone; dev classes are taken out of the seen ones, to choose settings on. A bad image is quarantined with its
reason and counted; too many fail the command. A second run over unchanged files returns at once. Costs about 1,000 images/s on
two busy CPU cores (JPEGs of 200 to 300 px) and 1 GB of memory, most of it torchvision, whose class names the data doctor reads; the
toy's 2,320 drawings take about ten seconds. Prints the URI of the dataset.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from zsbir.base import cli
from zsbir.base.artifact import MANIFEST, Artifact, Draft, draft
from zsbir.base.config import Config, digest_of, unknown_name
from zsbir.base.errors import InputError
from zsbir.base.events import Progress, say, warn
from zsbir.base.storage import default_root, local_path, write_atomic
from zsbir.data import doctor, layouts, splits, toys
from zsbir.data.packing import Refused, Row, ShardWriter, Source, prepare_all
from zsbir.data.schema import DOMAINS, QUARANTINE_SCHEMA, SPLITS

FORM = 1
"""Counted up whenever the same images would be written differently."""

_PLURAL = {"photo": "photos", "sketch": "sketches"}

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
    num_workers: int = Field(0, ge=0, description="threads that read images; 0: one a core")


def ingest(config: IngestConfig, folder: str, settings: Settings) -> Artifact:
    """The Dataset artifact of the images in `folder` ("" for toy); the one already made where nothing has changed.

    Raises InputError for a bad layout, split or folder, and for too many bad images.
    """
    plan = _planned(config, local_path(folder))
    parent = local_path(settings.root) / "datasets" / plan.config.name
    fingerprint = plan.fingerprint()
    made = _already_made(parent, fingerprint)
    if made:
        say(f"nothing has changed since {made.uri} was made")
        return made
    with draft(parent, "dataset", plan.config.name) as work:
        table, quarantine = _pack(work, plan, settings.num_workers or os.cpu_count() or 1)
        return _publish(work, plan, table, quarantine, fingerprint)


@dataclass(frozen=True)
class Plan:
    """What will be read, in the order of the sample table, and the split of each class that takes part."""

    config: IngestConfig
    root: Path
    sources: Sequence[Source]
    split_of: Mapping[str, str]

    def fingerprint(self) -> str:
        """Equal when nothing was changed, by size and time of each file: no image is opened for it."""
        stamps = [[source.path, source.domain, source.class_name, *source.stamp(self.root)] for source in self.sources]
        return digest_of([FORM, self.config.model_dump(mode="json"), stamps])

    def class_ids(self) -> dict[str, int]:
        """Ids in the order of names, over the classes of all splits."""
        return {name: number for number, name in enumerate(sorted(self.split_of))}


def _planned(config: IngestConfig, root: Path) -> Plan:
    config = _settled(config, root)
    sources = _sources(config, root)
    split_of = _split(config, sources)
    taking_part = [source for source in sources if source.class_name in split_of]
    # What is read together lies together: split by split, domain by domain. The sort is stable within.
    taking_part.sort(key=lambda s: (SPLITS.index(split_of[s.class_name]), DOMAINS.index(s.domain), s.class_name))
    return Plan(config, root, taking_part, split_of)


def _settled(config: IngestConfig, root: Path) -> IngestConfig:
    """The name filled in, and a split file replaced by the names in it: a configuration holds no path of this machine."""
    changes: dict[str, Any] = {}
    if not config.name:
        changes["name"] = re.sub(r"[^a-z0-9_.-]+", "-", root.resolve().name.lower()).strip("-_.") or "dataset"
        if config.layout == "toy":
            changes["name"] = "toy"
    if len(config.unseen_classes) == 1 and config.unseen_classes[0].endswith((".json", ".txt")):
        lists = splits.read_lists(Path(config.unseen_classes[0]))
        changes["unseen_classes"] = lists.unseen
        changes["seen_classes"] = config.seen_classes or lists.seen
        changes["dev_classes"] = config.dev_classes or lists.dev
    return config.replace(**changes)


def _sources(config: IngestConfig, root: Path) -> Sequence[Source]:
    if config.layout == "toy":
        return toys.toy_sources(config.toy_photos_per_class, config.toy_sketches_per_class, config.toy_px, config.seed)
    return layouts.scan(
        config.layout,
        root,
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


def _already_made(parent: Path, fingerprint: str) -> Artifact | None:
    for manifest in sorted(parent.glob(f"[!.]*/{MANIFEST}")):
        artifact = Artifact(manifest.parent, "dataset")
        if artifact.manifest.facts.get("source_fingerprint") == fingerprint:
            return artifact
    return None


def _pack(work: Draft, plan: Plan, workers: int) -> tuple[pa.Table, pa.Table]:
    """Shards written; the sample table and the quarantine. InputError when too much is bad."""
    writer, ids = ShardWriter(work), plan.class_ids()
    refused: list[dict[str, str]] = []
    seen: set[tuple[str, str]] = set()
    with Progress("ingest", total=len(plan.sources), unit="image") as progress:
        prepared = prepare_all(plan.sources, plan.root, plan.config.short_side_px, workers)
        for source, result in zip(plan.sources, prepared, strict=True):
            progress.advance()
            if isinstance(result, Refused):
                refused.append(_refusal(source, result))
            elif not (plan.config.dedup and source.domain == "photo" and (source.class_name, result.sha256) in seen):
                seen.add((source.class_name, result.sha256))
                writer.add(Row(source, ids[source.class_name], plan.split_of[source.class_name]), result)
    table = writer.finish()
    _check_bad(work, plan.config, refused, len(plan.sources))
    return table, pa.Table.from_pylist(refused, QUARANTINE_SCHEMA)


def _publish(work: Draft, plan: Plan, table: pa.Table, quarantine: pa.Table, fingerprint: str) -> Artifact:
    """Classes, quarantine and findings beside the shards; then the manifest signs it all."""
    classes = json.dumps(_classes(table, plan), indent=1, ensure_ascii=False)
    work.file("classes.json").write_text(classes + "\n", "utf-8")
    pq.write_table(quarantine, work.file("quarantine.parquet"))
    real = plan.config.layout != "toy"  # toys are what they are drawn to be
    findings = doctor.examine(table, quarantine, imagenet=real)
    _tell(findings, notes=real)
    content = table.select(["path", "domain", "class_name", "split", "sha256"]).to_pylist()
    rows = [list(row.values()) for row in content]
    digest = digest_of([FORM, plan.config.short_side_px, rows, quarantine["path"].to_pylist()])
    return work.commit(
        digest[:16],
        digest=digest,
        config=plan.config,
        counts={**_counts(table, plan.split_of), "quarantined": quarantine.num_rows},
        facts={"source_fingerprint": fingerprint, "findings": [finding.model_dump() for finding in findings]},
    )


def _tell(findings: Sequence[doctor.Finding], *, notes: bool) -> None:
    for finding in findings:
        if finding.severity == "warning":
            warn(f"{finding.check}: {finding.message}")
        elif notes:
            say(f"{finding.check}: {finding.message}")


def _refusal(source: Source, refused: Refused) -> dict[str, str]:
    return {"path": source.path, "domain": source.domain, "class_name": source.class_name, "reason": refused.reason}


def _check_bad(work: Draft, config: IngestConfig, refused: Sequence[dict[str, str]], total: int) -> None:
    """InputError when more than the tolerated share is bad; the whole list then lies beside the datasets, as text."""
    if len(refused) <= config.max_bad_frac * total:
        return
    listing = work.parent / "quarantine.tsv"
    write_atomic(listing, "".join(f"{row['path']}\t{row['reason']}\n" for row in refused).encode())
    first = "; ".join(f"{row['path']}: {row['reason']}" for row in refused[:3])
    raise InputError(
        f"{len(refused)} of {total} images are bad, more than --max-bad-frac {config.max_bad_frac} allows: {first};"
        f" the whole list is in {listing}"
    )


def _classes(table: pa.Table, plan: Plan) -> list[dict[str, Any]]:
    """What classes.json says. InputError when no good photo or no good sketch of a class is left."""
    counts = Counter(zip(table["class_name"].to_pylist(), table["domain"].to_pylist(), strict=True))
    rows: list[dict[str, Any]] = []
    for name, number in plan.class_ids().items():
        by_domain = {_PLURAL[domain]: counts[name, domain] for domain in DOMAINS}
        for plural, count in by_domain.items():
            if not count:
                raise InputError(f"all {plural} of class {name!r} are bad: replace them, or remove the class")
        rows.append({"class_id": number, "name": name, "split": plan.split_of[name], **by_domain})
    return rows


def _counts(table: pa.Table, split_of: Mapping[str, str]) -> dict[str, int]:
    by_domain = Counter(table["domain"].to_pylist())
    by_both = Counter(zip(table["split"].to_pylist(), table["domain"].to_pylist(), strict=True))
    return {
        "samples": table.num_rows,
        **{_PLURAL[domain]: by_domain[domain] for domain in DOMAINS},
        "classes": len(split_of),
        **splits.count_by_split(split_of),
        **{f"{split}_{_PLURAL[domain]}": by_both[split, domain] for split in SPLITS for domain in DOMAINS},
    }


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
