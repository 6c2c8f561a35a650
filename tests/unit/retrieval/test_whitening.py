"""Statistics of training embeddings: against slow formulas, bit for bit by row, and their file."""

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.linalg import fractional_matrix_power

from zsbir.base.errors import InputError
from zsbir.retrieval.whitening import MOST_DECOYS, DomainStatistics, load_statistics, measure_statistics, unit_rows

DIM = 12


def domains(seed=0, classes=7, each=15):
    """Unit embeddings of sketches and photos of the same classes, each domain with its own offset."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(classes, DIM))
    labels = np.repeat(np.arange(classes), each)
    sides = [centres[labels] + random.normal(size=DIM) * 2 + random.normal(size=(len(labels), DIM)) * 0.4 for _ in range(2)]
    sketches, photos = (unit_rows(side) for side in sides)
    return sketches, labels, photos, labels


def test_the_means_and_the_root_are_those_of_the_formula_written_out():
    sketches, labels, photos, _ = domains()
    found = measure_statistics(sketches, labels, photos, labels, shrink=0.3)
    within = np.zeros((DIM, DIM))
    for side in (sketches, photos):
        for label in range(7):
            for row in side[labels == label].astype(float):
                difference = row - side[labels == label].astype(float).mean(axis=0)
                within += np.outer(difference, difference) / (2 * len(labels))
    gaps = np.array(
        [sketches[labels == c].astype(float).mean(axis=0) - photos[labels == c].astype(float).mean(axis=0) for c in range(7)]
    )
    gaps -= gaps.mean(axis=0)
    covariance = within + gaps.T @ gaps / 7
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / DIM * np.eye(DIM)
    root = fractional_matrix_power(shrunk, -0.25)
    assert np.allclose(found.root, root / np.linalg.eigvalsh(root).max(), atol=1e-5)
    assert np.allclose(found.sketch_mean, sketches.mean(axis=0), atol=1e-6)
    assert np.allclose(found.photo_mean, photos.mean(axis=0), atol=1e-6)


def test_whitened_rows_are_the_product_written_out():
    sketches, labels, photos, _ = domains()
    statistics = measure_statistics(sketches, labels, photos, labels)
    for vectors, domain, mean in ((sketches, "sketch", statistics.sketch_mean), (photos, "photo", statistics.photo_mean)):
        moved = vectors.astype(float) - mean
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        assert np.allclose(statistics.centred(vectors, domain), moved, atol=1e-6)
        turned = moved @ statistics.root.astype(float)
        assert np.allclose(statistics.whitened(vectors, domain), turned / np.linalg.norm(turned, axis=1, keepdims=True), atol=1e-5)


def test_a_row_has_the_same_bits_alone_and_among_others():
    sketches, labels, photos, _ = domains(classes=40, each=17)
    statistics = measure_statistics(sketches, labels, photos, labels)
    for change in (statistics.centred, statistics.whitened):
        together = change(photos, "photo")
        for row in (0, 1, 300, len(photos) - 1):
            assert (change(photos[row : row + 1], "photo") == together[row : row + 1]).all()


def test_whitening_brings_the_domains_together():
    """On data made of an offset for each domain, a sketch is nearer to the photos of its class afterwards."""
    sketches, labels, photos, _ = domains(seed=3)
    statistics = measure_statistics(sketches, labels, photos, labels)

    def right(queries, gallery):
        return (labels[np.argmax(queries @ gallery.T, axis=1)] == labels).mean()

    moved = right(statistics.whitened(sketches, "sketch"), statistics.whitened(photos, "photo"))
    assert moved > right(sketches, photos) + 0.2


def test_classes_that_one_domain_lacks_and_a_single_class_are_no_obstacle():
    sketches, labels, photos, _ = domains()
    only_photos = labels != 3
    found = measure_statistics(sketches[only_photos], labels[only_photos], photos, labels)
    alone = measure_statistics(sketches[:15], labels[:15], photos[:15], labels[:15])
    assert np.isfinite(found.root).all()
    assert np.isfinite(alone.root).all()
    with pytest.raises(InputError, match="training sketches"):
        measure_statistics(sketches[:0], labels[:0], photos, labels)


def test_identical_images_leave_a_root_that_changes_nothing():
    same = np.tile(unit_rows(np.ones((1, DIM))), (10, 1))
    found = measure_statistics(same, np.zeros(10, int), same, np.zeros(10, int))
    assert np.allclose(found.root, np.eye(DIM), atol=1e-6)


def test_decoys_are_training_photos_and_bounded():
    random = np.random.default_rng(0)
    photos = unit_rows(random.normal(size=(MOST_DECOYS + 500, DIM)))
    labels = np.arange(len(photos)) % 9
    found = measure_statistics(photos[:50], labels[:50], photos, labels).decoys
    assert len(found) == MOST_DECOYS
    rows = {row.tobytes() for row in photos}
    assert all(row.tobytes() in rows for row in found)
    assert len({row.tobytes() for row in found}) == MOST_DECOYS


def test_a_file_gives_back_what_was_saved(tmp_path):
    sketches, labels, photos, _ = domains()
    saved = measure_statistics(sketches, labels, photos, labels)
    saved.save(tmp_path / "statistics.safetensors")
    found = load_statistics(tmp_path / "statistics.safetensors", DIM)
    assert all((getattr(found, name) == values).all() for name, values in vars(saved).items())


def hostile(name):
    good = {
        "sketch_mean": np.zeros(DIM, np.float32),
        "photo_mean": np.zeros(DIM, np.float32),
        "root": np.eye(DIM, dtype=np.float32),
        "decoys": np.zeros((20, DIM), np.float32),
    }
    return {
        "other dimensions": {**good, "root": np.eye(DIM + 1, dtype=np.float32)},
        "a tensor too many": {**good, "more": np.zeros(3, np.float32)},
        "a tensor too few": {key: value for key, value in good.items() if key != "decoys"},
        "decoys without rows": {**good, "decoys": np.zeros(DIM, np.float32)},
        "NaN": {**good, "photo_mean": np.full(DIM, np.nan, np.float32)},
        "double precision": {**good, "photo_mean": np.zeros(DIM)},
        "too many decoys": {**good, "decoys": np.zeros((MOST_DECOYS + 1, DIM), np.float32)},
        "far too large": {**good, "decoys": np.zeros((100 * MOST_DECOYS, DIM), np.float32)},
    }[name]


@pytest.mark.parametrize(
    "fault",
    [
        "other dimensions",
        "a tensor too many",
        "a tensor too few",
        "decoys without rows",
        "NaN",
        "double precision",
        "too many decoys",
        "far too large",
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, fault):
    save_file(hostile(fault), tmp_path / "file")
    with pytest.raises(InputError, match="holds no statistics of embeddings") as error:
        load_statistics(tmp_path / "file", DIM)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 64])
def test_bytes_that_are_no_such_file_are_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="holds no statistics of embeddings"):
        load_statistics(tmp_path / "file", DIM)
    with pytest.raises(InputError, match="holds no statistics of embeddings"):
        load_statistics(tmp_path / "none", DIM)


def test_embeddings_of_another_encoder_are_refused():
    statistics = DomainStatistics(
        np.zeros(DIM, np.float32), np.zeros(DIM, np.float32), np.eye(DIM, dtype=np.float32), np.zeros((0, DIM), np.float32)
    )
    with pytest.raises(InputError, match="take both from one encoder"):
        statistics.centred(np.ones((2, DIM + 1), np.float32), "photo")
