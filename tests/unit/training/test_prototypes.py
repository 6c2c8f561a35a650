import numpy as np
import pytest

from zsbir.base.errors import InputError
from zsbir.training.prototypes import prototypes


def means(classes: int = 6, dim: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((classes, dim)) + 3


def angles(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_a_class_points_from_the_mean_of_all_to_its_own():
    found, given = prototypes(means()), means()
    for row, mean in zip(found, given, strict=True):
        away = mean - sum(given) / len(given)
        np.testing.assert_allclose(row, away / np.sqrt((away**2).sum()))


def test_another_teachers_means_are_turned_and_keep_their_angles():
    teacher, student = means(dim=40), means(dim=16, seed=1)
    found = prototypes(teacher, student)
    assert found.shape == (6, 16)
    np.testing.assert_allclose(angles(found), angles(teacher - teacher.mean(axis=0)), atol=1e-10)


def test_a_turned_teacher_is_turned_back():
    student = means(dim=16)
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((40, 16)))
    np.testing.assert_allclose(prototypes(student @ turn.T, student), prototypes(student), atol=1e-10)


def test_no_other_rotation_lies_nearer_to_the_student():
    teacher, student = means(dim=16), means(dim=16, seed=1)
    centred, wanted = teacher - teacher.mean(axis=0), student - student.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    best = np.linalg.norm(prototypes(teacher, student) * lengths - wanted)
    for seed in range(50):
        turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
        assert np.linalg.norm(centred @ turn - wanted) >= best - 1e-9


@pytest.mark.parametrize("given", [np.ones((3, 4)), np.array([[1.0, 0], [2, 0], [3, 0]])])
def test_a_class_of_which_the_teacher_knows_nothing_is_refused(given):
    with pytest.raises(InputError, match="say nothing about it"):
        prototypes(given)
