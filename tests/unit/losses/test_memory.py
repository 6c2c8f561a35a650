import torch
from torch.nn.functional import normalize

from zsbir.losses.memory import Memory


def rows(number: int, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numbers = torch.arange(first, first + number)
    return normalize(numbers[:, None] + torch.eye(3)[numbers % 3], dim=1), numbers, numbers % 2


def test_the_newest_rows_are_remembered_and_the_oldest_forgotten():
    memory = Memory(rows=8, dim=3)
    assert memory.read() is None
    for first in range(0, 20, 4):
        memory.write(*rows(4, first))
    found = memory.read()
    assert found is not None
    assert sorted(found.classes.tolist()) == list(range(12, 20))
    for embedding, number, domain in zip(*found, strict=True):
        expected = rows(1, int(number))
        assert torch.equal(embedding, expected[0][0])
        assert domain == expected[2][0]


def test_what_is_remembered_has_no_gradient_and_is_in_the_state():
    memory, copy = Memory(rows=6, dim=3), Memory(rows=6, dim=3)
    embeddings, classes, domains = rows(4, 0)
    memory.write(embeddings.requires_grad_(), classes, domains)
    copy.load_state_dict(memory.state_dict())
    for one in (memory, copy):
        found = one.read()
        assert found is not None
        assert not found.embeddings.requires_grad
        assert found.classes.tolist() == [0, 1, 2, 3]


def test_writing_later_does_not_change_what_was_read():
    memory = Memory(rows=4, dim=3)
    memory.write(*rows(4, 0))
    found = memory.read()
    assert found is not None
    before = found.embeddings.clone()
    memory.write(*rows(4, 4))
    assert torch.equal(found.embeddings, before)
