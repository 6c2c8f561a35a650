import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import put

from zsbir.base.artifact import Artifact, draft
from zsbir.base.errors import InputError
from zsbir.base.layout import knowledge_uri
from zsbir.data.knowledge import KNOWLEDGE_SCHEMA, ClassKnowledge, is_distribution, load_knowledge


def signed(root, dataset: Artifact, *totals) -> Artifact:
    """A Knowledge of one class for each total over two photos, as any version of the teacher writes it."""
    rows = [ClassKnowledge(number, f"class {number}", 2, np.array(total)).row(tuple("abc")) for number, total in enumerate(totals)]
    with draft(knowledge_uri(str(root), dataset.digest, "1" * 64), "knowledge", "toy") as work:
        pq.write_table(pa.Table.from_pylist(rows, KNOWLEDGE_SCHEMA), work.file("knowledge.parquet"))
        return work.commit(digest="1" * 64, inputs={"dataset": dataset.reference()})


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
