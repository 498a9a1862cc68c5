"""Finding images of one kind: scikit-learn's nearest neighbours and a float64 loop are the oracles."""

import math

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from compresslab.errors import CompressionError
from compresslab.techniques.distillation import retrieval
from compresslab.techniques.distillation.retrieval import draw_support, one_shot_accuracy, recall_at_1


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n=60, width=5, classes=6, seed=0, pull=1.0):
    """Embeddings that lean towards their class, and labels; every class has images."""
    generator = seeded(seed)
    labels = torch.arange(n) % classes + 3  # labels need not start at 0
    centres = torch.randn(classes + 3, width, generator=generator)
    return torch.randn(n, width, generator=generator) + pull * centres[labels], labels


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("seed", range(3))
def test_recall_is_that_of_a_plain_loop(seed):
    embeddings, labels = drawn(seed=seed)
    rows, found = embeddings.double().tolist(), 0
    for i, row in enumerate(rows):
        nearest = max((j for j in range(len(rows)) if j != i), key=lambda j: cosine(row, rows[j]))
        found += int(labels[i] == labels[nearest])
    assert 0 < found < len(rows)
    assert recall_at_1(embeddings, labels) == pytest.approx(found / len(rows))


@pytest.mark.parametrize("rows", [7, 60, 1000])
def test_recall_is_that_of_scikit_learn_leaving_each_image_out(monkeypatch, rows):
    monkeypatch.setattr(retrieval, "_ROWS", rows)  # however many are compared at once
    embeddings, labels = drawn(seed=4)
    right = 0
    for i in range(len(labels)):
        rest = torch.arange(len(labels)) != i
        nearest = KNeighborsClassifier(1, metric="cosine").fit(embeddings[rest].numpy(), labels[rest].numpy())
        right += int(nearest.predict(embeddings[i : i + 1].numpy())[0] == labels[i])
    assert recall_at_1(embeddings, labels) == pytest.approx(right / len(labels))


def test_an_image_never_finds_itself():
    everyone_alone = torch.arange(8)
    assert recall_at_1(torch.randn(8, 3, generator=seeded()), everyone_alone) == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # the other is as far as can be, and still the nearest
    assert recall_at_1(opposite, torch.tensor([5, 5])) == 1
    assert recall_at_1(opposite, torch.tensor([5, 6])) == 0


def test_the_length_of_an_embedding_does_not_matter():
    embeddings, labels = drawn()
    stretched = embeddings * torch.rand(len(labels), 1, generator=seeded()).add(0.01) * 100
    assert recall_at_1(stretched, labels) == recall_at_1(embeddings, labels)
    wanted = one_shot_accuracy(embeddings, labels, episodes=5, generator=seeded())
    assert one_shot_accuracy(stretched, labels, episodes=5, generator=seeded()) == pytest.approx(wanted)


@pytest.mark.parametrize("ways", [2, 5, 6])
def test_a_support_is_one_image_each_of_different_classes(ways):
    _, labels = drawn()
    generator, seen = seeded(), set()
    for _ in range(400):
        support = draw_support(labels, ways=ways, generator=generator)
        assert len(set(labels[support].tolist())) == ways
        seen |= set(support.tolist())
    assert seen == set(range(len(labels)))  # every image has its turn


@pytest.mark.parametrize("ways", [2, 5])
def test_one_shot_accuracy_is_scikit_learns_over_the_same_episodes(ways):
    embeddings, labels = drawn(seed=2)
    generator, shares = seeded(9), []
    for _ in range(10):
        support = draw_support(labels, ways=ways, generator=generator)
        shown = set(support.tolist())
        asked = [
            i for i in range(len(labels)) if i not in shown and labels[i].item() in labels[support].tolist()
        ]
        nearest = KNeighborsClassifier(1, metric="cosine").fit(
            embeddings[support].numpy(), labels[support].numpy()
        )
        shares.append(nearest.score(embeddings[asked].numpy(), labels[asked].numpy()))
    wanted = sum(shares) / len(shares)
    assert 1 / ways < wanted < 1
    got = one_shot_accuracy(embeddings, labels, ways=ways, episodes=10, generator=seeded(9))
    assert got == pytest.approx(wanted)


def test_a_perfect_embedding_finds_all():
    labels = torch.arange(30) % 6
    embeddings = torch.eye(6)[labels]
    assert recall_at_1(embeddings, labels) == 1
    assert one_shot_accuracy(embeddings, labels, episodes=10, generator=seeded()) == 1


def test_an_embedding_that_knows_nothing_is_right_by_chance():
    embeddings, labels = drawn(n=600, pull=0.0)
    accuracy = one_shot_accuracy(embeddings, labels, episodes=100, generator=seeded())
    assert accuracy == pytest.approx(1 / 5, abs=0.01)


def test_a_class_with_one_image_is_never_shown():
    labels = torch.tensor([0, 0, 1, 1, 2])
    for seed in range(20):
        assert 4 not in draw_support(labels, ways=2, generator=seeded(seed))


def test_the_embedding_is_left_alone_and_may_want_a_gradient():
    embeddings, labels = drawn()
    before = embeddings.clone()
    recall_at_1(embeddings.requires_grad_(), labels)
    one_shot_accuracy(embeddings, labels, episodes=2, generator=seeded())
    assert torch.equal(embeddings, before)


@pytest.mark.parametrize("ways", [1, 4])
def test_ways_that_there_are_not_are_refused(ways):
    text = (
        f"ways must be a whole number from 2 to the 3 classes with two or more images, got "
        f"{ways}; try fewer ways"
    )
    embeddings, labels = drawn(n=9, classes=3)
    with pytest.raises(CompressionError, match=text):
        one_shot_accuracy(embeddings, labels, ways=ways, episodes=1, generator=seeded())


@pytest.mark.parametrize("episodes", [0, 2.5])
def test_episodes_are_counted_from_one(episodes):
    with pytest.raises(CompressionError, match=f"from 1 up, got {episodes}; try 600"):
        one_shot_accuracy(*drawn(), episodes=episodes, generator=seeded())


@pytest.mark.parametrize(
    ("shape", "labels", "came"),
    [
        ((4, 2, 2), 4, r"\(4, 2, 2\) and \(4,\)"),
        ((4, 2), 3, r"\(4, 2\) and \(3,\)"),
        ((1, 2), 1, r"\(1, 2\)"),
    ],
)
def test_embeddings_that_are_no_rows_with_labels_are_refused(shape, labels, came):
    text = rf"embeddings must be \(n, width\) and labels \(n,\), n from 2 up, got {came}"
    inputs = torch.zeros(shape), torch.zeros(labels, dtype=torch.long)
    with pytest.raises(CompressionError, match=text):
        recall_at_1(*inputs)
    with pytest.raises(CompressionError, match=text):
        one_shot_accuracy(*inputs, generator=seeded())
