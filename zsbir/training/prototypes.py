"""The teacher's mean features of each class as the first weights of the seen-class classifier (this project's choice).

The classifier then begins where the teacher saw the classes, relative to one another, instead of anywhere; what the teacher knows
of which classes are alike is kept in the embedding that is trained towards it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from zsbir.base.errors import InputError


def prototypes(
    teacher: Float[np.ndarray, "c t"], student: Float[np.ndarray, "c d"] | None = None
) -> Float[np.ndarray, "c t"] | Float[np.ndarray, "c d"]:
    """Return the direction of each class as the teacher sees it, from the mean of all classes.

    student: the classes' means in the student's embedding, where the teacher is another network. The teacher's means are turned
    onto them by the orthogonal Procrustes rotation, which keeps the angles between classes as far as the embedding has room for the
    space that the means span. None: the teacher is the student itself. Raises InputError for a class whose mean is that of all.
    """
    means: Float[np.ndarray, "c _"] = teacher - teacher.mean(axis=0)
    if student is not None:
        left, _, right = np.linalg.svd(means.T @ (student - student.mean(axis=0)), full_matrices=False)
        means = means @ left @ right
    lengths = np.linalg.norm(means, axis=1)
    if not (lengths > 1e-6 * max(float(lengths.max(initial=0)), 1e-12)).all():
        raise InputError("the teacher's mean features of a class say nothing about it: they are those of all classes together")
    directions: Float[np.ndarray, "c _"] = means / lengths[:, None]
    return directions
