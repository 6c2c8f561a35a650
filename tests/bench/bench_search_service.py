"""The search service under load: 1, 8 and 32 clients beside its encoder alone, then twice and ten times what it can do.

The service is a process of its own over 10,000 random vectors, with a ResNet18 at 112 px; the clients share the machine's cores
with it. Latencies are printed; asserted are ratios to the bare forward pass of the same run, bounds on memory, and that nothing but
answers and honest refusals comes back.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import aiohttp
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bench.machine import described
from building import put
from pictures import encoded, picture
from servers.processes import HOST, free_ports, kill

from zsbir.base.cores import usable_cores
from zsbir.index import IndexConfig
from zsbir.model.encoder import Encoder
from zsbir.search_run.engine import Engine

PHOTOS, DIMENSIONS, SIDE_PX = 10_000, 512, 112
STROKES = [[[10, 90, 50, 10], [90, 90, 10, 90]], [[30, 70], [60, 60]]]
BODY = json.dumps({"strokes": STROKES, "k": 24}).encode()
EACH_S = 8.0
"""Seconds of each load."""

LEAST_SHARE = 0.5
"""Of the rate of bare forward passes of single images, at 32 clients: batches gain what HTTP, drawing and clients cost."""

CUT_OFF = 0
"""Counted as a status: a connection that the service closed, since too many waited (`services.common.server.MAX_WAITING`)."""

MEMORY_MB = 400
"""Megabytes by which the service may grow under ten times the load."""


def big_index(root: Path) -> str:
    """Return the URI of an index of random vectors."""
    torch.manual_seed(0)
    Encoder("resnet18", DIMENSIONS, SIDE_PX).save(root / "encoder")
    vectors, buffer, table = (
        np.random.default_rng(0).standard_normal((PHOTOS, DIMENSIONS), dtype=np.float32),
        io.BytesIO(),
        io.BytesIO(),
    )
    np.save(buffer, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    columns = {
        "item_id": pa.array(range(PHOTOS), pa.int64()),
        "path": [f"{number}.jpg" for number in range(PHOTOS)],
        "class_name": [""] * PHOTOS,
        "thumbnail": pa.array([encoded(picture(), "JPEG")] * PHOTOS, pa.binary()),
    }
    pq.write_table(pa.table(columns), table, row_group_size=256)
    files = {
        "encoder.safetensors": (root / "encoder").read_bytes(),
        "vectors.npy": buffer.getvalue(),
        "items.parquet": table.getvalue(),
    }
    config = IndexConfig.of({"precision": "fp32"})
    gallery = {"uri": str(root / "photos"), "digest": "0" * 64, "kind": "folder"}
    return put(str(root), "index", "big", files=files, config=config, counts={"photos": PHOTOS}, inputs={"gallery": gallery}).uri


@contextmanager
def service(index: str, root: Path) -> Iterator[tuple[str, psutil.Process]]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "services.search", f"--index={index}", f"--root={root}", "--auth=off", f"--port={port}"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{HOST}:{port}", psutil.Process(process.pid)
    finally:
        kill(process)


@dataclass
class Load:
    """What came back, and when."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_hint: int = 0
    elapsed_s: float = 0.0

    @property
    def rate(self) -> float:
        return self.statuses[200] / self.elapsed_s

    def line(self) -> str:
        p50, p99 = (quantiles(self.seconds, n=100)[place] for place in (49, 98)) if len(self.seconds) > 1 else (0.0, 0.0)
        return f"{self.rate:.0f} answers a second, p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms, {dict(self.statuses)}"


async def ask(session: aiohttp.ClientSession, address: str, load: Load) -> None:
    began_s = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{address}/api/search", data=BODY, headers=headers) as answer:
        await answer.read()
        load.statuses[answer.status] += 1
        if answer.status == 200:
            load.seconds.append(time.perf_counter() - began_s)
        else:
            load.without_hint += "Retry-After" not in answer.headers


async def ask_or_be_cut_off(session: aiohttp.ClientSession, address: str, load: Load) -> None:
    try:
        await ask(session, address, load)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        load.statuses[CUT_OFF] += 1


async def closed(address: str, clients: int, for_s: float = EACH_S) -> Load:
    """So many clients, each of which asks again once it has its answer."""
    load, began_s = Load(), time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            while time.perf_counter() < began_s + for_s:
                await ask(session, address, load)

        await asyncio.gather(*(client() for _ in range(clients)))
    load.elapsed_s = time.perf_counter() - began_s
    return load


async def offered(address: str, rate: float, process: psutil.Process) -> tuple[Load, int]:
    """So many requests a second, whether answers come or not; also the most memory of the service meanwhile, in bytes."""
    load, began_s, most, tasks = Load(), time.perf_counter(), 0, []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        while (now_s := time.perf_counter() - began_s) < EACH_S:
            while len(tasks) < now_s * rate:
                tasks.append(asyncio.create_task(ask_or_be_cut_off(session, address, load)))
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
    load.elapsed_s = time.perf_counter() - began_s
    return load, most


def bare_rates(index: str) -> tuple[float, float]:
    """Forward passes of the encoder alone, in images a second: one image at a time, and 32."""
    engine = Engine(index, threads=usable_cores())
    image, rates = engine.pixels(picture()), []
    for size in (1, 32):
        engine.embed_pixels([image] * size)
        done, began_s = 0, time.perf_counter()
        while time.perf_counter() < began_s + 4:
            engine.embed_pixels([image] * size)
            done += size
        rates.append(done / (time.perf_counter() - began_s))
    return rates[0], rates[1]


@pytest.mark.long
def test_a_service_answers_what_its_encoder_can_and_refuses_the_rest(tmp_path: Path) -> None:
    index = big_index(tmp_path)
    one, many = bare_rates(index)
    print(f"\nbare forward passes: {one:.0f} images a second one by one, {many:.0f} in batches of 32; {described()}")
    with service(index, tmp_path) as (address, process):
        await_answer(address)
        for clients in (1, 8, 32):
            load = asyncio.run(closed(address, clients))
            print(f"{clients} clients: {load.line()}")
            assert set(load.statuses) == {200}
        sustainable, quiet = load.rate, process.memory_info().rss
        assert sustainable > LEAST_SHARE * one
        for times in (2, 10):
            load, most = asyncio.run(offered(address, times * sustainable, process))
            print(f"{times} x {sustainable:.0f} a second: {load.line()}; {(most - quiet) / 1e6:+.0f} MB")
            assert set(load.statuses) <= {200, 429, 503, CUT_OFF}
            assert times > 2 or not load.statuses[CUT_OFF], "at twice the load every refusal is an answer"
            assert load.without_hint == 0
            assert times == 2 or load.statuses.keys() & {429, 503}, "ten times the load cannot all be answered"
            assert load.rate > (0.25 if times == 2 else 0.1) * sustainable  # the generators take their share of the cores
            assert most - quiet < 1e6 * MEMORY_MB
        began_s = time.perf_counter()
        after = asyncio.run(closed(address, 1, 1.0))
        print(f"after that: {after.line()}")
        assert set(after.statuses) == {200}
        assert time.perf_counter() - began_s < 5


def await_answer(address: str) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if asyncio.run(closed(address, 1, 0.1)).statuses[200]:
                return
        except aiohttp.ClientError:
            time.sleep(0.2)
    raise AssertionError("the service did not answer in two minutes")
