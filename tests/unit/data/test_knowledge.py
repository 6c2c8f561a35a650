import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put

from zsbir.base.artifact import Artifact
from zsbir.base.draft import draft
from zsbir.base.errors import InputError
from zsbir.base.layout import knowledge_uri
from zsbir.data.knowledge import KNOWLEDGE_SCHEMA, ClassKnowledge, is_distribution, load_knowledge, load_mean_features
from zsbir.teacher import TeacherConfig


def signed(root, dataset: Artifact, *totals, features=None) -> Artifact:
    """A Knowledge of one class for each total over two photos. features: the sum of each class's features; None: not kept."""
    sums = [np.array(total) for total in features] if features else [np.zeros(0)] * len(totals)
    known = [
        ClassKnowledge(number, f"class {number}", 2, np.array(total), kept)
        for number, (total, kept) in enumerate(zip(totals, sums, strict=True))
    ]
    with draft(knowledge_uri(str(root), dataset.digest, "1" * 64), "knowledge", "toy") as work:
        table = pa.Table.from_pylist([entry.row(tuple("abc")) for entry in known], KNOWLEDGE_SCHEMA)
        pq.write_table(table, work.file("knowledge.parquet"))
        config = TeacherConfig(mean_features=bool(features))
        return work.commit(digest="1" * 64, config=config, inputs={"dataset": dataset.reference()})


SURE = ([2.0, 0.0, 0.0], [0.0, 2.0, 0.0])
"""The totals of two classes of which the teacher is sure."""


def test_mean_features_come_back_by_class(tmp_path):
    dataset = put(str(tmp_path), "dataset")
    knowledge = signed(tmp_path, dataset, *SURE, features=([2.0, 4.0], [0.0, 6.0]))
    assert {number: values.tolist() for number, values in load_mean_features(knowledge).items()} == {0: [1, 2], 1: [0, 3]}


def test_knowledge_without_mean_features_says_how_to_get_them(tmp_path):
    knowledge = signed(tmp_path, put(str(tmp_path), "dataset"), *SURE)
    with pytest.raises(InputError, match=r"holds no mean features .* --mean-features"):
        load_mean_features(knowledge)


@pytest.mark.parametrize(
    ("features", "line"),
    [
        (([1.0, np.nan], [1.0, 2.0]), "the mean features are not finite"),
        (([1.0, np.inf], [1.0, 2.0]), "the mean features are not finite"),
        (([1.0], [1.0, 2.0]), "the mean features are not of one length"),
    ],
)
def test_damaged_mean_features_are_refused(tmp_path, features, line):
    knowledge = signed(tmp_path, put(str(tmp_path), "dataset"), *SURE, features=features)
    with pytest.raises(InputError, match=line):
        load_mean_features(knowledge)


def test_distributions_come_back_by_class(tmp_path):
    dataset = put(str(tmp_path), "dataset")
    found = load_knowledge(signed(tmp_path, dataset, [2.0, 0.0, 0.0], [0.5, 0.5, 1.0]), dataset)
    assert {number: values.tolist() for number, values in found.items()} == {0: [1, 0, 0], 1: [0.25, 0.25, 0.5]}


@pytest.mark.parametrize("total", [[np.nan] * 3, [np.inf, 0, 0], [0.0, 0.0, 0.0], [3.0, -1.0, 0.0]])
def test_knowledge_that_holds_no_probabilities_is_refused_with_the_teacher_to_blame(tmp_path, total):
    dataset = put(str(tmp_path), "dataset")
    knowledge = signed(tmp_path, dataset, [2.0, 0.0, 0.0], total)
    with pytest.raises(InputError, match=r"holds no probabilities for some classes: its teacher's weights .* zsbir\.teacher"):
        load_knowledge(knowledge, dataset)


def test_a_distribution_is_finite_and_sums_to_one():
    assert is_distribution(np.full(1000, 1e-3, np.float32).astype(float))
    assert not any(is_distribution(np.array(values)) for values in ([], [0.5, 0.4], [1.5, -0.5], [np.nan, 1.0]))
