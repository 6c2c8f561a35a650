"""The batch plan: P classes x (K sketches + K photos) a step, as a pure function of the sample table and a seed.

Nothing here knows of workers, epochs past or files: a resumed run takes a slice of the same plan, and so does every worker.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int32

from zsbir.base.errors import InputError
from zsbir.base.seeds import stream
from zsbir.data.domains import DOMAINS
from zsbir.data.requirements import check_batch_classes
from zsbir.data.samples import Samples

BatchPlan = Int32[np.ndarray, "steps classes domains per_class"]
"""Positions in the sample table; the domains in the order of DOMAINS."""


def plan_batches(
    samples: Samples,
    positions: Int[np.ndarray, "n"],
    *,
    classes_per_batch: int,
    per_class: int,
    steps: int,
    seed: int,
) -> BatchPlan:
    """Draw all batches of a training from `positions` (this project's choice).

    Every batch has `classes_per_batch` different classes, each with `per_class` images of either domain. No class comes again
    before all others came, no image before all others of its class and domain came; within one group there is no repetition
    unless the class has too few images. Raises InputError when there are too few classes, or one has an empty domain.
    """
    class_ids = np.unique(samples.class_id[positions])
    check_batch_classes(len(class_ids), classes_per_batch)
    chosen = draw_groups(class_ids, steps, classes_per_batch, stream("order of classes", seed))
    plan = np.empty((steps, classes_per_batch, len(DOMAINS), per_class), np.int32)
    for class_id in class_ids:
        groups = chosen == class_id
        for domain, domain_name in enumerate(DOMAINS):
            pool = positions[(samples.class_id[positions] == class_id) & (samples.domain[positions] == domain)]
            if len(pool) == 0:
                raise InputError(f"class {samples.class_names[class_id]!r} has no {domain_name} to train on")
            rng = stream("order of images", seed, int(class_id), domain)
            plan[groups, domain] = draw_groups(pool, int(groups.sum()), per_class, rng)
    return plan


def draw_groups(pool: Int[np.ndarray, "n"], groups: int, size: int, rng: np.random.Generator) -> Int[np.ndarray, "groups size"]:
    """Draw `groups` x `size` items of `pool`, each used once before any is used again.

    A group repeats no item unless the pool is smaller than the group.
    """
    drawn = np.empty(groups * size + len(pool), pool.dtype)
    filled = 0
    while filled < groups * size:
        order = rng.permutation(pool)
        unfinished = filled % size
        if unfinished:
            # Items that the group across the seam already holds go to the end of the new round.
            held = np.isin(order, drawn[filled - unfinished : filled])
            order = np.concatenate([order[~held], order[held]])
        drawn[filled : filled + len(pool)] = order
        filled += len(pool)
    return drawn[: groups * size].reshape(groups, size)


def steps_per_epoch(positions: Int[np.ndarray, "n"], batch_images: int) -> int:
    """Return how many steps show `len(positions)` images, which is what an epoch means here; at least one."""
    return max(1, round(len(positions) / batch_images))
