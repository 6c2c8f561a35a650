"""Embed photos for search: Run and photos in, Index out.

    python -m zsbir.index artifacts/runs/toy-0123456789ab                     the unseen photos of the run's data set
    python -m zsbir.index artifacts/runs/toy-0123456789ab --gallery photos/   every image below a folder

Costs one forward pass a photo. The index holds its encoder and a thumbnail of each photo, so that searching needs nothing else.
Prints the URI of the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import Field

from zsbir.base import cli, events, layout, watch
from zsbir.base.artifact import Artifact, Draft, draft, exists
from zsbir.base.config import Config, digest_of
from zsbir.base.errors import InputError
from zsbir.base.storage import default_root
from zsbir.data.passed_over import PassedOver
from zsbir.training.config import Precision

if TYPE_CHECKING:
    import pyarrow as pa

    from zsbir.data.gallery import Gallery, Item, Unreadable
    from zsbir.model.encoder import Encoder


class IndexConfig(Config):
    """What decides the contents of the index."""

    outside_identity = frozenset({"gallery"})  # the digest of the photos is in that of the index

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9_.-]*)?$", description="name of the index; none: that of the run's recipe")
    gallery: str = Field("", description="folder of photos; none: the photos of the run's data set")
    split: str = Field("unseen", description="photos to take without --gallery: train, dev, unseen or all")
    max_bad_frac: float = Field(0.01, ge=0, le=1, description="share of unreadable photos above which the command fails")
    precision: Precision = Field("auto", description="autocast of the forward pass; auto: bf16 where the hardware gains by it")


class Settings(Config):
    """Where the index is stored."""

    root: str = Field(default_factory=default_root, description="storage root; default: ZSBIR_ROOT, else artifacts/")


def build_index(run_uri: str, config: IndexConfig, settings: Settings) -> Artifact:
    """Return the Index artifact of a gallery and a run's encoder; an existing one is found if no photo has changed.

    Raises InputError for an empty gallery or too many unreadable photos.
    """
    from zsbir.data.ink import ink_facts
    from zsbir.data.measured_ink import run_ink
    from zsbir.model.encoder import Encoder
    from zsbir.training.threads import free_threads

    run = Artifact(run_uri, "run")
    passed = PassedOver()
    gallery, source = _gallery(run, config, passed)
    passed.show(f"passed over in {source['uri']}")
    digest = digest_of([config.identity(), run.digest, source["digest"]])
    name = config.name or run.manifest.name
    uri = layout.index_uri(settings.root, name, digest)
    if exists(uri):
        watch.record_found(uri)
        return Artifact(uri, "index")
    with draft(uri, "index", name) as work, free_threads():
        encoder = Encoder.load(run.verified("encoder.safetensors")).eval()
        unread = PassedOver()
        vectors = _embed(encoder, gallery, work, config, unread)
        unread.show("photos that cannot be read")
        _check_bad(unread, len(gallery.entries), config)
        _write_passed_over(work, [*unread.rows(), *passed.rows()])
        np.save(work.file("vectors.npy"), vectors)
        encoder.save(work.file("encoder.safetensors"))
        return work.commit(
            digest=digest,
            config=config,
            inputs={"run": run.reference(), "gallery": source},
            counts={
                "photos": len(vectors),
                "dimensions": encoder.embedding_dim,
                "unreadable": len(unread),
                "passed_over": len(passed),
            },
            facts={"unreadable": unread.facts(), "passed_over": passed.facts(), **ink_facts(run_ink(run))},
        )


def _gallery(run: Artifact, config: IndexConfig, passed: PassedOver) -> tuple[Gallery, dict[str, str]]:
    """Return the photos to index, and the address and digest of where they come from."""
    from zsbir.data.gallery import dataset_gallery, folder_gallery

    if not config.gallery:
        dataset = run.input("dataset", "dataset")
        return dataset_gallery(dataset, config.split), dataset.reference()
    gallery = folder_gallery(config.gallery, passed)
    assert gallery.folder is not None
    return gallery, {"uri": gallery.folder.uri, "digest": digest_of([list(stamp) for stamp in gallery.stamps])}


def _embed(encoder: Encoder, gallery: Gallery, work: Draft, config: IndexConfig, unread: PassedOver) -> Float[np.ndarray, "n d"]:
    """Return the vectors of all readable photos. Their rows are written to items.parquet; unreadable ones are noted in `unread`.

    Raises InputError where a vector is not finite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from zsbir.evaluation.embed import check_finite
    from zsbir.training.context import default_device
    from zsbir.training.precision import autocast

    schema = _item_schema()
    device = default_device()
    encoder.to(device)
    vectors = [np.zeros((0, encoder.embedding_dim), np.float32)]
    with (
        pq.ParquetWriter(work.file("items.parquet"), schema) as writer,
        events.Progress("index", total=len(gallery.entries), unit="photo") as progress,
        torch.inference_mode(),
    ):
        done = 0
        for items in _batches(gallery.items(encoder.image_px), unread):
            with autocast(config.precision, device):
                pixels = torch.from_numpy(np.stack([item.pixels for item in items])).to(device)
                vectors.append(encoder(pixels)[0].float().cpu().numpy())
            check_finite(vectors[-1], "the encoder")
            rows = [_row(done + number, item) for number, item in enumerate(items)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            done += len(items)
            progress.advance(len(items))
    return np.concatenate(vectors)


def _item_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("item_id", pa.int64()), ("path", pa.string()), ("class_name", pa.string()), ("thumbnail", pa.binary())])


def _row(number: int, item: Item) -> dict[str, object]:
    return {"item_id": number, "path": item.path, "class_name": item.class_name, "thumbnail": item.thumbnail}


def _batches(items: Iterator[Item | Unreadable], unread: PassedOver) -> Iterator[list[Item]]:
    """Yield readable items, EMBED_BATCH at a time; note the others in `unread`."""
    from zsbir.data.gallery import Unreadable
    from zsbir.evaluation.embed import EMBED_BATCH

    batch: list[Item] = []
    for item in items:
        if isinstance(item, Unreadable):
            unread.add(item.path, item.reason)
            continue
        batch.append(item)
        if len(batch) == EMBED_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_bad(unread: PassedOver, total: int, config: IndexConfig) -> None:
    if len(unread) > config.max_bad_frac * total or len(unread) == total:
        first = next(unread.rows())
        raise InputError(
            f"{len(unread)} of {total} photos cannot be read, more than --max-bad-frac {config.max_bad_frac:g} allows; first:"
            f" {first['path']}: {first['reason']}"
        )


def _write_passed_over(work: Draft, rows: list[dict[str, str]]) -> None:
    """Write the list of what the index lacks, if it lacks anything."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from zsbir.data.schema import PASSED_OVER_SCHEMA

    if rows:
        pq.write_table(pa.Table.from_pylist(rows, PASSED_OVER_SCHEMA), work.file("passed_over.parquet"))


def _parse(argv: Sequence[str]) -> str:
    parser = cli.Parser("zsbir.index", __doc__ or "")
    parser.add_argument("run", help="URI of a Run artifact, as zsbir.train prints it, or models:/NAME@champion")
    parser.add_config_file()
    parser.add_fields(IndexConfig, title="index")
    parser.add_fields(Settings, title="where it is stored")
    parsed, values = parser.values(argv)
    config, settings = cli.split_fields(values, IndexConfig, Settings)
    from zsbir.edge.model_address import artifact_address

    where = Settings.of(settings)
    return build_index(artifact_address(parsed.run, "run", where.root), IndexConfig.of(config), where).uri


if __name__ == "__main__":
    cli.main(_parse)
