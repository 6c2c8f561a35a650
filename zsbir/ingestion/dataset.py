"""The data set of a plan: blocks packed into shards, here or by Ray workers, and the Dataset artifact made of their records."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zsbir.base import watch
from zsbir.base.artifact import Artifact, exists
from zsbir.base.cores import usable_cores
from zsbir.base.draft import Draft, draft
from zsbir.base.errors import DataError, InputError, RunError
from zsbir.base.events import Progress, say, warn
from zsbir.base.layout import datasets_folder
from zsbir.base.parquet import read_table
from zsbir.base.storage import Folder, join, open_folder
from zsbir.base.text import clean
from zsbir.data import doctor, summary
from zsbir.data.ink import Ink, ink_facts
from zsbir.data.measured_ink import measure_encoded, rows_to_measure
from zsbir.data.packing import PARTS, OtherForm, Packer, Packing, Record, found_records
from zsbir.data.passed_over import PassedOver
from zsbir.data.preparing import Form, Packed, prepare_all
from zsbir.data.schema import PASSED_OVER_SCHEMA, QUARANTINE_SCHEMA, SAMPLES_SCHEMA, shard_name
from zsbir.ingestion.plan import FORM, Plan, Settings

QUARANTINE_LIST = "quarantine.tsv"


def make_dataset(plan: Plan, settings: Settings) -> Artifact:
    """Return the Dataset artifact of a plan; an existing one is found, not made again.

    Raises DataError for too many bad images.
    """
    plan.passed.show(f"passed over in {plan.source_uri}")
    datasets = open_folder(datasets_folder(settings.root, plan.config.name))
    folder = datasets.sub(plan.fingerprint[:16])
    dataset = _already_made(datasets, folder, plan)
    if dataset is None:
        with draft(folder.uri, "dataset", plan.config.name) as work:
            dataset = _finish(work, datasets, plan, _collect(work, datasets, plan, _records(folder, plan, settings)))
    folder.delete([f"{PARTS}/{entry.key}" for entry in folder.sub(PARTS).walk()])
    return dataset


def _already_made(datasets: Folder, folder: Folder, plan: Plan) -> Artifact | None:
    """Return the data set of this plan if there is one. Raises DataError if it has more bad images than are allowed now."""
    if not exists(folder.uri):
        return None
    made = Artifact(folder.uri, "dataset")
    if _too_many(plan, made.manifest.counts["quarantined"]):
        _fail(datasets, plan, _read_quarantine(made), len(plan.sources))
    say(f"nothing has changed since {made.uri} was made")
    watch.record_found(made.uri)
    return made


def _read_quarantine(dataset: Artifact) -> pa.Table:
    columns = {field.name: field.type for field in QUARANTINE_SCHEMA}
    return read_table(dataset.file("quarantine.parquet"), columns, dataset.address("quarantine.parquet"))


def _records(folder: Folder, plan: Plan, settings: Settings) -> Generator[Record]:
    """Yield the record of each block, in order: those that an interrupted command left, and new ones."""
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
    """Yield the records of these blocks in order, packed in this process or by Ray workers."""
    packing = Packing(plan.config.short_side_px, plan.classes(), plan.config.dedup, plan.config.invert_sketches)
    arguments = (plan.source_uri, folder.uri, packing, settings.threads)
    wanted = plan.cuts.blocks(plan.sources, numbers)
    if not settings.num_workers:
        yield from Packer(*arguments).pack(wanted, progress.advance)
        return
    from zsbir.edge.ray_map import ray_map  # Ray is loaded only where it is asked for

    workers = min(settings.num_workers, len(numbers))
    # Two blocks a worker at a time: one is packed while the shard of the other is uploaded.
    results = ray_map(Packer, (*arguments, 1), "pack", wanted, workers=workers, chunks_a_task=1, tasks_at_once=2)
    for number, record in zip(numbers, results, strict=True):
        progress.advance(plan.cuts.images(number))
        yield record


def _collect(work: Draft, datasets: Folder, plan: Plan, records: Generator[Record]) -> Record:
    """Return the sample table and the quarantine of all blocks together. Raises DataError as soon as too many images are bad."""
    samples, refused = [SAMPLES_SCHEMA.empty_table()], [QUARANTINE_SCHEMA.empty_table()]
    inverted: list[str] = []
    bad = 0
    with closing(records):
        for number, record in enumerate(records):
            if record.shard:
                work.adopt(shard_name(number), record.shard.key, record.shard.entry)
            samples.append(record.samples)
            refused.append(record.refused)
            inverted += record.inverted
            bad += record.refused.num_rows
            if _too_many(plan, bad):
                _fail(datasets, plan, pa.concat_tables(refused), plan.cuts.stops[number])
    return Record(pa.concat_tables(samples), pa.concat_tables(refused), None, tuple(inverted))


def _too_many(plan: Plan, bad: int) -> bool:
    return bad > plan.config.max_bad_frac * len(plan.sources)


def _fail(datasets: Folder, plan: Plan, refused: pa.Table, seen: int) -> NoReturn:
    """Raise DataError for too many bad images, after writing the list of them as text beside the data sets."""
    rows, total = refused.to_pylist(), len(plan.sources)
    datasets.replace(QUARANTINE_LIST, "".join(f"{clean(row['path'])}\t{clean(row['reason'])}\n" for row in rows).encode())
    of = f"{total}" if seen == total else f"the first {seen} of {total}"
    first = "; ".join(f"{row['path']}: {row['reason']}" for row in rows[:3])
    raise DataError(
        f"{len(rows)} of {of} images are bad, more than --max-bad-frac {plan.config.max_bad_frac} allows: {first};"
        f" the {'whole list' if seen == total else 'list so far'} is in {join(datasets.uri, QUARANTINE_LIST)}"
    )


def _finish(work: Draft, datasets: Folder, plan: Plan, packed: Record) -> Artifact:
    """Write sample table, classes and quarantine beside the shards, examine them, and commit the artifact."""
    samples, quarantine = packed.samples, packed.refused
    classes = json.dumps(summary.class_rows(samples, plan.classes()), indent=1, ensure_ascii=False)
    digest = summary.content_digest(samples, quarantine, FORM, plan.config.short_side_px)
    same = _same_content(datasets, work.folder, digest)
    if same:
        work.folder.delete(work.key(shard_name(number)) for number in samples["shard"].unique().to_pylist())
        say(f"files have new times, but their contents were ingested before, as {same.uri}")
        return same
    work.file("classes.json").write_text(classes + "\n", "utf-8")
    pq.write_table(samples, work.file("samples.parquet"), compression="zstd")
    pq.write_table(quarantine, work.file("quarantine.parquet"))
    passed = _note_repeats(plan, packed)
    if len(passed):
        pq.write_table(pa.Table.from_pylist(list(passed.rows()), PASSED_OVER_SCHEMA), work.file("passed_over.parquet"))
    PassedOver((row["path"], row["reason"]) for row in quarantine.to_pylist()).show("refused images")
    real = plan.config.layout != "toy"  # what is odd about drawn images is known
    inverted = doctor.Inverted(packed.inverted, mended=plan.config.invert_sketches)
    findings = doctor.examine(samples, quarantine, inverted=inverted, imagenet=real)
    _show_findings(findings, notes=real)
    return work.commit(
        digest=digest,
        config=plan.config,
        counts={**summary.counts_of(samples, plan.split_of), "quarantined": quarantine.num_rows, "passed_over": len(passed)},
        facts={
            "source_fingerprint": plan.fingerprint,
            "findings": [finding.model_dump() for finding in findings],
            "passed_over": passed.facts(),
            **ink_facts(_measured_ink(plan, samples)),
        },
    )


def _measured_ink(plan: Plan, samples: pa.Table) -> Ink | None:
    """Return the ink of the sketches. A few are read once more: the shards that hold them may be in object storage by now."""
    rows = rows_to_measure(samples)
    sources = [plan.sources[number] for number in samples["sample_id"].take(rows).to_pylist()]
    form = Form(plan.config.short_side_px, plan.config.invert_sketches)
    read = prepare_all(sources, open_folder(plan.source_uri), form, usable_cores())
    return measure_encoded(sketch.data for sketch in read if isinstance(sketch, Packed))


def _note_repeats(plan: Plan, packed: Record) -> PassedOver:
    """Return what the plan passed over, and the images whose bytes repeat: they are neither in the table nor refused."""
    stored = np.zeros(len(plan.sources), bool)
    stored[packed.samples["sample_id"].to_numpy()] = True
    refused = set(packed.refused["path"].to_pylist())
    repeats = [plan.sources[number].path for number in np.flatnonzero(~stored).tolist()]
    plan.passed.add_all((path for path in repeats if path not in refused), "a photo whose bytes came before in its class (--dedup)")
    return plan.passed


def _same_content(datasets: Folder, folder: Folder, digest: str) -> Artifact | None:
    """Return the data set with this digest in another folder of the same name, if there is one."""
    for name in datasets.names():
        with suppress(InputError):  # not a data set, or one of a newer version
            made = Artifact(join(datasets.uri, name), "dataset")
            if made.digest == digest and made.uri != folder.uri:
                return made
    return None


def _show_findings(findings: Sequence[doctor.Finding], *, notes: bool) -> None:
    """Print warnings, and with `notes` the other findings too."""
    for finding in findings:
        if finding.severity == "warning":
            warn(f"{finding.check}: {finding.message}")
        elif notes:
            say(f"{finding.check}: {finding.message}")
