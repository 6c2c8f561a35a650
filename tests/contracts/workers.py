"""The jobs of the processes of a crew, and small stages to put faults into."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from zsbir import ingest
from zsbir.base import s3
from zsbir.base.artifact import Artifact, exists
from zsbir.base.draft import Draft, code_version, draft
from zsbir.base.storage import open_folder
from zsbir.data import blocks
from zsbir.data.schema import ROW_GROUP_ROWS, SAMPLES_SCHEMA, SHARD_SCHEMA, shard_name
from zsbir.training import checkpoint

READY = (s3, code_version())
"""Loaded here once; else each process would do it anew."""


def create_each(uri: str, keys: Sequence[str], data: bytes, barrier: Barrier) -> list[bool]:
    """Try to create each of the files, all processes at the same moment."""
    folder, won = open_folder(uri), []
    for key in keys:
        barrier.wait(60)
        won.append(folder.create(key, data))
    return won


FILES = ("a/first.bin", "second.parquet", "third.json")


def content(name: str, seed: int) -> bytes:
    """Return what a writer of that seed puts into a file."""
    return f"{name} of {seed}. ".encode() * 500


def write_files(work: Draft, seed: int) -> None:
    """Write the files of an artifact, and publish the first one at once."""
    for name in FILES:
        work.file(name).write_bytes(content(name, seed))
        if name == FILES[0]:
            work.publish(name)


def commit_each(uris: Sequence[str], seed: int, barrier: Barrier) -> list[tuple[str, str]]:
    """Write each of the artifacts, all processes at the same moment: address and writer of what they then find there.

    In every second round they begin together, in the others they commit together.
    """
    found = []
    for number, uri in enumerate(uris):
        barrier.wait(60)
        with draft(uri, "index", "test") as work:
            write_files(work, seed)
            if number % 2:
                barrier.wait(60)
            artifact = work.commit(digest="d" * 64)
        artifact.verify()
        found.append((artifact.uri, artifact.manifest.written_by))
    return found


def hang_after_publishing(uri: str, seed: int, files: int, told: Connection) -> None:
    """Publish so many files, say so, and wait to be killed."""
    with draft(uri, "index", "test") as work:
        for name in FILES[:files]:
            work.file(name).write_bytes(content(name, seed))
            work.publish(name)
        work.file("half.bin").write_bytes(bytes(10))
        told.send("now")
        time.sleep(60)


def shards(uri: str, seed: int = 0) -> Artifact:
    """Like a data set: three shards published one by one, one table more at the end."""
    if exists(uri):
        return Artifact(uri)
    with draft(uri, "dataset", "test") as work:
        for number in range(3):
            work.file(f"shards/{number}.parquet").write_bytes(content(str(number), seed))
            work.publish(f"shards/{number}.parquet")
        work.file("samples.parquet").write_bytes(content("samples", seed))
        return work.commit(digest="d" * 64, counts={"photos": 3})


def knowledge(uri: str, seed: int = 0) -> Artifact:
    """Like what a teacher makes: one file."""
    if exists(uri):
        return Artifact(uri)
    with draft(uri, "knowledge", "test") as work:
        work.file("knowledge.parquet").write_bytes(content("knowledge", seed))
        return work.commit(digest="d" * 64, facts={"labels": "abc"})


class Small(nn.Linear):
    """Stands where a run's encoder does, without its 45 MB."""

    def facts(self) -> dict[str, object]:
        return {"backbone": "resnet18", "embedding_dim": 4, "image_px": 4}


def modules(step: int) -> tuple[dict[str, nn.Module], torch.optim.Optimizer]:
    """Return a network and its optimiser as they are after so many steps."""
    encoder = Small(3, 2)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9)
    for parameter in encoder.parameters():
        parameter.data.fill_(step)
        optimiser.state[parameter]["momentum_buffer"] = torch.full_like(parameter, -step)
    return {"encoder": encoder}, optimiser


def save(run: str, step: int = 2) -> None:
    """Save a checkpoint with a best encoder."""
    trained, optimiser = modules(step)
    best = checkpoint.BestEncoder.of(trained["encoder"], step, step / 10)
    state = checkpoint.TrainState(step=step, best=best, history=[{"step": float(step)}])
    with checkpoint.Checkpoints(run) as checkpoints:
        checkpoints.save(trained, optimiser, state)


def table(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a shard with these images."""
    facts = {"domain": "photo", "class_id": 0, "class_name": "a", "split": "train", "width": 1, "height": 1}
    return [
        {
            **facts,
            "sample_id": number,
            "sha256": hashlib.sha256(image(number)).hexdigest(),
            "path": f"{number}.jpg",
            "image": {"bytes": image(number), "path": f"{number}.jpg"},
        }
        for number in numbers
    ]


def image(number: int) -> bytes:
    """Bytes that no other image has."""
    return random.Random(number).randbytes(300 + number)


def dataset(uri: str) -> Artifact:
    """Make a data set with two shards, of which the first has two row groups."""
    shards, samples = (range(ROW_GROUP_ROWS + 5), range(ROW_GROUP_ROWS + 5, ROW_GROUP_ROWS + 12)), []
    with draft(uri, "dataset", "test") as work:
        for shard, numbers in enumerate(shards):
            rows = table(numbers)
            pq.write_table(pa.Table.from_pylist(rows, SHARD_SCHEMA), work.file(shard_name(shard)), row_group_size=ROW_GROUP_ROWS)
            samples += [{**row, "shard": shard, "row": number} for number, row in enumerate(rows)]
        pq.write_table(pa.Table.from_pylist(samples, SAMPLES_SCHEMA), work.file("samples.parquet"))
        return work.commit(digest="d" * 64)


def ingest_images(root: str, images: str) -> Artifact:
    """Run the real verb, with blocks of twelve images."""
    blocks.BLOCK_IMAGES = 12
    config = ingest.IngestConfig(layout="folder", unseen_classes=("cat",), dev_classes=("bee",))
    return ingest.ingest(config, images, ingest.Settings(root=root, threads=1))
