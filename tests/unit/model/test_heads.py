import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from zsbir.model.encoder import Encoded
from zsbir.model.heads import CosineClassifier, Heads

BATCH, FEATURES, DIM, CLASSES, LABELS = 5, 12, 8, 4, 7


@pytest.fixture
def seen():
    """What an encoder gives."""
    random = torch.Generator().manual_seed(0)
    raw = torch.randn(BATCH, DIM, generator=random)
    return Encoded(normalize(raw, dim=1), torch.randn(BATCH, FEATURES, generator=random), raw.norm(dim=1))


@pytest.fixture
def start():
    random = torch.Generator().manual_seed(5)
    return torch.randn(LABELS, FEATURES, generator=random), torch.randn(LABELS, generator=random)


def heads(**changes):
    words = {"feature_dim": FEATURES, "embedding_dim": DIM, "classes": CLASSES, "teacher_labels": LABELS, **changes}
    return Heads(**words)


def cosines(embeddings, classifier):
    return cosine_similarity(embeddings[:, None], classifier.weight[None], dim=2)


def test_seen_class_logits_are_cosines_over_the_temperature(seen):
    head = heads(temperature=0.1)
    logits, _ = head(seen)
    torch.testing.assert_close(logits, cosines(seen[0], head.classifier) / 0.1)
    assert logits.abs().max() <= 10


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_teacher_label_logits_on_the_embedding_are_cosines_over_the_same_temperature(seen, temperature):
    head = heads(place="embedding", temperature=temperature)
    _, teacher_logits = head(seen)
    torch.testing.assert_close(teacher_logits, cosines(seen[0], head.preserver) / temperature)


def test_the_two_heads_on_the_embedding_do_not_share_a_weight():
    head = heads(place="embedding", teacher_labels=CLASSES)
    assert head.classifier.weight is not head.preserver.weight
    assert not torch.equal(head.classifier.weight, head.preserver.weight)


def test_the_teacher_head_may_stand_on_the_embedding(seen, start):
    head = heads(place="embedding", start=start)
    assert isinstance(head.preserver, CosineClassifier)
    assert head.preserver.weight.shape == (LABELS, DIM)
    assert head(seen)[1].shape == (BATCH, LABELS)


def test_the_teacher_head_stands_on_the_pooled_features_unless_told_otherwise(seen):
    head = heads()
    assert isinstance(head.preserver, torch.nn.Linear)
    torch.testing.assert_close(head(seen)[1], seen[1] @ head.preserver.weight.T + head.preserver.bias)


def test_the_teacher_head_may_stand_on_the_embedding_before_it_is_a_unit_vector(seen):
    head = heads(place="unnormalised")
    raw = seen.embeddings * seen.lengths[:, None]
    torch.testing.assert_close(head(seen)[1], raw @ head.preserver.weight.T + head.preserver.bias)


def test_the_classifier_starts_from_the_weights_given_at_the_length_of_random_ones(seen):
    weights = 7 * torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(2))
    head = heads(class_weights=weights)
    torch.testing.assert_close(head.classifier.weight, normalize(weights, dim=1))
    assert head.classifier.weight.requires_grad


def test_a_fixed_classifier_is_not_trained(seen):
    head = heads(fixed_classes=True)
    assert not head(seen)[0].requires_grad


def test_the_teacher_head_starts_from_the_classifier_given(seen, start):
    torch.testing.assert_close(heads(start=start)(seen)[1], seen[1] @ start[0].T + start[1])


def test_training_a_head_leaves_the_classifier_it_started_from_alone(start):
    before = start[0].clone()
    head = heads(start=start)
    with torch.no_grad():
        head.preserver.weight.add_(1)
    assert torch.equal(start[0], before)


def test_without_a_start_the_teacher_head_is_new_and_the_seed_decides_it(start):
    def made(seed):
        torch.manual_seed(seed)
        return heads().preserver.weight

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))
    assert not torch.equal(made(0), start[0])


@pytest.mark.parametrize("place", ["features", "embedding"])
def test_without_teacher_labels_there_is_no_teacher_head(seen, place):
    head = heads(teacher_labels=0, place=place)
    logits, teacher_logits = head(seen)
    assert logits.shape == (BATCH, CLASSES)
    assert teacher_logits is None
    assert {name for name, _ in head.named_parameters()} == {"classifier.weight"}


def test_new_class_weights_are_about_unit_vectors():
    """Their directions are random and their lengths near 1, so that the first steps turn them at the same pace."""
    torch.manual_seed(0)
    lengths = CosineClassifier(256, 50, 0.05).weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(50), atol=0.2, rtol=0)


def test_the_length_of_a_class_weight_says_nothing(seen):
    head = CosineClassifier(DIM, CLASSES, 0.05)
    before = head(seen[0])
    with torch.no_grad():
        head.weight.mul_(3)
    torch.testing.assert_close(head(seen[0]), before)
