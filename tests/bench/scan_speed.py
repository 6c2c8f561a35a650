"""How long a search takes beside the float product, as a program of its own, without the checks of shapes that tests install.

    PYTHONPATH=tests python -m bench.scan_speed scan clustered 100000
    PYTHONPATH=tests python -m bench.scan_speed graph clustered 10000

Prints what it measured; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from bench.machine import described

from zsbir.retrieval.graph import Graph
from zsbir.retrieval.scan import Scan

DIMENSIONS, K, QUERIES, CLUSTERS = 512, 24, 64, 300


def made(kind: str, count: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors; clustered ones lie around CLUSTERS centres, with a cosine of about .5 between two of a cluster."""
    vectors = np.empty((count, DIMENSIONS), np.float32)
    centres = np.random.default_rng(9).standard_normal((CLUSTERS, DIMENSIONS)).astype(np.float32)
    for start in range(0, count, 10_000):
        rows = vectors[start : start + 10_000]
        random.standard_normal(rows.shape, np.float32, out=rows)
        if kind == "clustered":
            rows += centres[random.integers(0, CLUSTERS, len(rows))]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


Times = dict[str, list[tuple[float, float]]]
"""Milliseconds of each work in each round: by the clock, and of all the process's threads on a CPU."""


def in_turn(works: dict[str, Callable[[int], object]], rounds: int) -> Times:
    """Time the works one after the other in each round, so that a noisy machine disturbs all alike."""
    taken: Times = {name: [] for name in works}
    for number in range(-1, rounds):
        for name, work in works.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            work(number % QUERIES)
            if number >= 0:
                taken[name].append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - began_cpu)))
    return taken


def show(title: str, taken: Times) -> dict[str, float]:
    """Print each work's times; return the median of its ratios to the first work's time in the same round, by the clock."""
    print(f"{title}; {described()}")
    bare, ratios = next(iter(taken)), {}
    for name, times in taken.items():
        ratios[name] = median(a / b for (a, _), (b, _) in zip(times, taken[bare], strict=True))
        clock, cpu = zip(*times, strict=True)
        bare_clock, bare_cpu = zip(*taken[bare], strict=True)
        print(
            f"  {name:22} ms: median {median(clock):8.2f}, least {min(clock):8.2f}, CPU {median(cpu):8.2f};"
            f" of {bare}: {ratios[name]:5.2f} by round, {min(clock) / min(bare_clock):5.2f} of the least,"
            f" {median(cpu) / median(bare_cpu):5.2f} of the CPU time"
        )
    return ratios


def measure_scan(kind: str, count: int) -> dict[str, float]:
    """Print and return the ratios for one query and for 64."""
    random = np.random.default_rng(0)
    vectors, queries = made(kind, count, random), made(kind, QUERIES, random)
    began = time.perf_counter()
    scan = Scan([vectors])
    opened_s = time.perf_counter() - began
    floats = Scan([vectors], codes=False)
    share = scan.memory_bytes / vectors.nbytes
    print(f"{count} {kind}: opened in {opened_s:.2f} s, {share:.3f} of the vectors' bytes")
    matrix, asked = torch.from_numpy(vectors), torch.from_numpy(queries)
    one: dict[str, Callable[[int], object]] = {
        "torch.mv + topk": lambda number: torch.topk(torch.mv(matrix, asked[number]), K),
        "scan": lambda number: scan.search(queries[number : number + 1], K),
        "scan without codes": lambda number: floats.search(queries[number : number + 1], K),
    }
    many: dict[str, Callable[[int], object]] = {
        "product + topk": lambda _: torch.topk(asked @ matrix.T, K),
        "scan": lambda _: scan.search(queries, K),
        "scan without codes": lambda _: floats.search(queries, K),
    }
    of_one = show("one query", in_turn(one, 30))
    of_many = show(f"{QUERIES} queries", in_turn(many, 5))
    return {"one": of_one["scan"], "many": of_many["scan"], "one_without_codes": of_one["scan without codes"], "memory": share}


def measure_graph(kind: str, count: int) -> dict[str, float]:
    """Print and return recalls of HNSW and of the scalar quantiser: shares of results whose score is no worse than the k-th."""
    import faiss

    random = np.random.default_rng(0)
    vectors, queries = made(kind, count, random), made(kind, QUERIES, random)
    scan = Scan([vectors])
    began = time.perf_counter()
    graph = Graph.build(scan)
    built_s = time.perf_counter() - began
    began = time.perf_counter()
    quantiser = faiss.IndexScalarQuantizer(DIMENSIONS, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    quantiser.train(vectors)
    quantiser.add(vectors)
    quantised_s = time.perf_counter() - began
    print(f"{count} {kind}: graph built in {built_s:.1f} s, quantiser in {quantised_s:.1f} s")
    kth = scan.search(queries, K)[1][:, -1:]
    rows = quantiser.search(queries, K)[1]
    found = np.stack([vectors[rows[number]] @ query for number, query in enumerate(queries)])
    recalls = {f"graph_{effort}": float(graph.recall(queries, K, effort=effort).mean()) for effort in (32, 128, 512)}
    recalls["quantiser"] = float((found >= kth - 1e-6).mean())
    works: dict[str, Callable[[int], object]] = {
        "scan": lambda number: scan.search(queries[number : number + 1], K),
        "graph, effort 32": lambda number: graph.search(queries[number : number + 1], K, effort=32),
        "graph, effort 128": lambda number: graph.search(queries[number : number + 1], K),
        "graph, effort 512": lambda number: graph.search(queries[number : number + 1], K, effort=512),
        "quantiser (faiss SQ8)": lambda number: quantiser.search(queries[number : number + 1], K),
    }
    show("one query", in_turn(works, 30))
    return recalls


if __name__ == "__main__":
    what, kind, count = sys.argv[1:]
    print(json.dumps({"scan": measure_scan, "graph": measure_graph}[what](kind, int(count))))
