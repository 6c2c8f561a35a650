"""The arithmetic behind docs/scale.md: what grows with GPUs and photos, from measured rates and from stated assumptions.

    PYTHONPATH=tests python tests/simulations/scale.py        the tables of docs/scale.md, in a few seconds

Measured rates carry the page that they come from. `ASSUMED` holds everything that was not measured here; change a value there and
run it again. Nothing of this has run at these sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zsbir.base import limits

GPUS = (1, 8, 64, 512)
PHOTOS = (10**6, 10**7, 10**8, 10**9)


@dataclass(frozen=True)
class Assumed:
    """What was not measured here. Rates are for one GPU of the kind of an H100, ResNet50 at 224 px, bf16."""

    gpus_per_node: int = 8
    train_images_s: float = 2500.0
    embed_images_s: float = 8000.0
    parameters: float = 25.6e6
    embedding_dim: int = 512
    feature_dim: int = 2048
    images_per_gpu: int = 64
    network_bytes_s: float = 25e9  # one 200 Gbit/s port a node
    exposed: float = 0.5  # part of the gradients' all-reduce that the backward pass does not hide
    image_bytes: float = 20e3  # stored, 256 px
    store_bytes_s: float = 1e9  # one node from object storage
    cores_per_gpu: int = 16
    memory_bytes_s: float = 300e9  # a server of two sockets
    gpu_days_a_failure: float = 2110.0  # Llama 3 on 16,384 GPUs: 419 interruptions in 54 days (arXiv 2407.21783, table 5)
    spot_hours: float = 20.0  # an interruptible node, taken back once in that time
    restart_s: float = 90.0  # until all work again, with a spare node; here: 42 s (docs/benchmarks/2026-12-01-three-nodes.md)
    pause_s: float = 0.5  # a checkpoint's snapshot; it is written by a thread


ASSUMED = Assumed()

AUGMENTED_PER_CORE_S = 500.0  # docs/benchmarks/2026-11-22-pipeline.md: a photo takes 2 ms of a core
INGESTED_PER_CORE_S = 1435 / 2  # the same page, from disk
INGESTED_FROM_S3_S = 300.0  # docs/benchmarks/2026-11-22-storage.md: 260 to 360, one process
INGEST_BYTES = (853e6 - 258e6) / 900e3  # the same page: peak memory at 10^5 and at 10^6 images
INGEST_START_BYTES = 258e6 - 1e5 * INGEST_BYTES  # before the first image
CODES_BYTES = 0.256 * 4  # docs/benchmarks/2026-11-30-scan.md: a dimension in memory
SCAN_S = 14.1e-3 / 10**6  # the same page: a vector of 512 dimensions, two cores
SCAN_BYTES = 512.0  # read a photo
OPEN_BYTES = 220.0  # docs/benchmarks/2026-11-30-index-memory.md
MAKE_BYTES = 580.0  # the same page
GRAPH_BYTES, LINK_S = 260.0 + 4 * 512, 42 * 2 / 10**5  # docs/search.md; scan.md: 42 s of two cores for 10^5
CLAIMS_S = {"SQLite": 111.0, "PostgreSQL": 66.0}  # docs/benchmarks/2026-11-23-jobs.md, 1,000 queued
RAY_JOBS = 30  # jobs at a time at which one head of Ray Jobs becomes unstable (ray issue 37894)


# --- training


@dataclass(frozen=True)
class Step:
    """One step of a data-parallel training. Seconds and bytes for one GPU; efficiency: the share of time that the images take."""

    batch: int
    compute_s: float
    gradients_s: float
    gathered_bytes: float
    gather_s: float
    loss_s: float
    loss_bytes: float

    @property
    def total_s(self) -> float:
        """Seconds, one part after the other, but for the part of the gradients that the backward pass hides."""
        return self.compute_s + self.gradients_s + self.gather_s + self.loss_s

    @property
    def efficiency(self) -> float:
        """Share of the time that the images take."""
        return self.compute_s / self.total_s


def step(gpus: int, given: Assumed = ASSUMED) -> Step:
    """The parts of a step with a global batch that grows with the GPUs, after training/gather.py and losses/quadruplet.py.

    A ring passes (n-1)/n of the whole through the port of each of n nodes; inside a node nothing is counted. Embeddings and
    features go there once (gathered) and their gradients twice (reduced and spread again).
    """
    batch, nodes = gpus * given.images_per_gpu, max(1, gpus // given.gpus_per_node)
    ring = (nodes - 1) / nodes
    gradients = 2 * ring * given.parameters * 4 / given.network_bytes_s * given.exposed
    gathered = batch * (given.embedding_dim + given.feature_dim) * 4.0
    gather = 3 * ring * gathered / given.network_bytes_s
    flops = 3 * 2.0 * batch**2 * given.embedding_dim  # cosines, forward and back
    tables = 12 * batch**2 * 4.0  # distances, masks and their copies, read and written
    loss = flops / 50e12 + tables / 2e12  # a GPU's float32, and its memory
    return Step(batch, given.images_per_gpu / given.train_images_s, gradients, gathered, gather, loss, 6 * batch**2 * 4.0)


def cores_for_images(given: Assumed = ASSUMED) -> float:
    """Cores that one GPU needs for decoding and augmenting."""
    return given.train_images_s / AUGMENTED_PER_CORE_S


# --- nodes that fail


def node_mtbf_s(gpus: int, given: Assumed = ASSUMED, *, spot: bool = False) -> float:
    """Seconds between two failures of any node of a training."""
    if spot:
        return given.spot_hours * 3600 / max(1, math.ceil(gpus / given.gpus_per_node))
    return given.gpu_days_a_failure * 86400 / gpus


def best_interval_s(mtbf_s: float, pause_s: float) -> float:
    """Seconds between checkpoints that lose least time (Young, CACM 1974): the root of twice pause times time between failures."""
    return math.sqrt(2 * pause_s * mtbf_s)


def lost_frac(mtbf_s: float, interval_s: float, given: Assumed = ASSUMED) -> float:
    """The share of time that is lost, to first order: half an interval and a restart a failure, and the pauses."""
    return (interval_s / 2 + given.restart_s) / mtbf_s + given.pause_s / interval_s


def simulated_lost_frac(mtbf_s: float, interval_s: float, failures: int, given: Assumed = ASSUMED, seed: int = 0) -> float:
    """Simulate that many failures of a training that goes on from its last checkpoint each time; return the share of time lost.

    Failures come at a constant rate, also while the training restarts, which then begins once more.
    """
    random = np.random.default_rng(seed)
    ran = random.exponential(mtbf_s, failures)  # from the end of a restart to the next failure
    saved = np.floor(ran / (interval_s + given.pause_s)) * interval_s
    restarts = random.geometric(math.exp(-given.restart_s / mtbf_s), failures)  # the last of them comes to its end
    cut_off = np.minimum(random.exponential(mtbf_s, int(restarts.sum()) - failures), given.restart_s)
    spent = ran.sum() + failures * given.restart_s + cut_off.sum()
    return float(1 - saved.sum() / spent)


# --- the queue


def simulated_busy(gpus: int, job_s: float, claim_s: float, jobs: int, seed: int = 0) -> float:
    """Simulate a dispatcher that claims one-GPU jobs one by one for GPUs that fall free; return the share of time they work.

    Jobs take exponentially many seconds. There are always jobs that wait.
    """
    random = np.random.default_rng(seed)
    free_at = np.zeros(gpus)
    claimed_at, worked = 0.0, 0.0
    for _ in range(jobs):
        gpu = int(free_at.argmin())
        claimed_at = max(claimed_at, free_at[gpu]) + claim_s
        length = random.exponential(job_s)
        free_at[gpu] = claimed_at + length
        worked += length
    return worked / (gpus * float(free_at.mean()))


# --- photos


def index_numbers(photos: int, given: Assumed = ASSUMED) -> dict[str, float]:
    """Memory, in bytes, and seconds of a search by all photos, on two cores and as fast as a server's memory is."""
    codes = photos * CODES_BYTES * given.embedding_dim
    return {
        "memory": codes + photos * OPEN_BYTES,
        "vectors": photos * 4.0 * given.embedding_dim,
        "two_cores_s": photos * SCAN_S,
        "server_s": photos * SCAN_BYTES / given.memory_bytes_s,
        "graph": photos * (GRAPH_BYTES + CODES_BYTES * given.embedding_dim + OPEN_BYTES),
        "link_core_days": photos * LINK_S * math.log2(photos) / math.log2(10**5) / 86400,
        "embed_gpu_hours": photos / given.embed_images_s / 3600,
        "make_memory": photos * MAKE_BYTES,
        "shards": math.ceil(photos / limits.INDEX_PHOTOS),
    }


def ingest_numbers(photos: int, given: Assumed = ASSUMED) -> dict[str, float]:
    """Core-hours of ingest from disk and from object storage, its memory, what it stores, and nodes whose caches hold that."""
    return {
        "core_hours": photos / INGESTED_PER_CORE_S / 3600,
        "s3_process_hours": photos / INGESTED_FROM_S3_S / 3600,
        "memory": INGEST_START_BYTES + photos * INGEST_BYTES,
        "stored": photos * given.image_bytes,
        "fetch_hours": photos * given.image_bytes / given.store_bytes_s / 3600,
    }


# --- the tables


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(map(str, row))} |" for row in rows)]
    return "\n".join(lines)


def size(count: float) -> str:
    """Return bytes as people write them."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"


def span(seconds: float) -> str:
    """Return a time as people write it."""
    for unit, factor in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def power(photos: int) -> str:
    """Return a power of ten."""
    return f"10^{round(math.log10(photos))}"


def training_table() -> str:
    """The parts of a step by GPUs."""
    rows = []
    for gpus in GPUS:
        one = step(gpus)
        parts = (one.compute_s, one.gradients_s, one.gather_s, one.loss_s)
        rows.append(
            [gpus, f"{one.batch:,}", *map(span, parts), *map(size, (one.gathered_bytes, one.loss_bytes)), f"{one.efficiency:.0%}"]
        )
    head = ["GPUs", "global batch", "images", "gradients", "gather", "loss", "gathered", "loss in memory", "share of images"]
    return table(head, rows)


def failure_table() -> str:
    """Lost time by GPUs and interval: the formula and the simulation."""
    rows = []
    for spot in (False, True):
        for gpus in GPUS:
            mtbf = node_mtbf_s(gpus, spot=spot)
            best = best_interval_s(mtbf, ASSUMED.pause_s)
            cells = [f"{simulated_lost_frac(mtbf, interval, 200_000):.2%}" for interval in (60, 600, 3600)]
            rows.append(["interruptible" if spot else "own", gpus, span(mtbf), span(best), *cells, f"{lost_frac(mtbf, best):.2%}"])
    head = ["nodes", "GPUs", "between failures", "best interval", "lost: 1 min", "10 min", "1 h", "at the best"]
    return table(head, rows)


def queue_table() -> str:
    """The share of time that GPUs work, by how long jobs are."""
    rows = []
    for gpus in GPUS[1:]:
        cells = [f"{simulated_busy(gpus, job_s, 1 / CLAIMS_S['PostgreSQL'], 40 * gpus):.1%}" for job_s in (5, 60, 600)]
        rows.append([gpus, *cells, f"{gpus / CLAIMS_S['PostgreSQL']:.1f} s"])
    return table(["GPUs", "jobs of 5 s", "of a minute", "of ten", "shortest that keep all busy"], rows)


def photo_tables() -> str:
    """Ingest and index by photos."""
    ingest, index = [], []
    for photos in PHOTOS:
        one, two = ingest_numbers(photos), index_numbers(photos)
        hours = [span(one[name] * 3600) for name in ("core_hours", "s3_process_hours", "fetch_hours")]
        ingest.append([power(photos), *hours[:2], size(one["memory"]), size(one["stored"]), hours[2]])
        sizes = [size(two[name]) for name in ("make_memory", "memory", "vectors", "graph")]
        times = [span(two["two_cores_s"]), span(two["server_s"])]
        linked = span(two["link_core_days"] * 86400)
        index.append([power(photos), span(two["embed_gpu_hours"] * 3600), *sizes[:3], *times, sizes[3], linked])
    first = ["photos", "ingest, one core", "from S3, one process", "its memory", "stored", "fetched by a node"]
    second = ["photos", "embedded, one GPU", "made in", "searched in", "vectors on disk", "a search, 2 cores", "a server"]
    second += ["with a graph", "linked, one core"]
    return f"{table(first, ingest)}\n\n{table(second, index)}"


def main() -> None:
    """Print the tables."""
    parts = [training_table(), failure_table(), queue_table(), photo_tables()]
    print(*(f"cores for images, one GPU: {cores_for_images():.0f}", *parts), sep="\n\n")


if __name__ == "__main__":
    main()
