"""Retrieval metrics of embeddings: recall@1 and one-shot accuracy, also for classes unseen in training.

A good embedding places images of one class close together, even of classes without labels in training. Both
metrics use cosine similarity, which orders unit vectors as the Euclidean distance does:

- *Recall@1*: the share of images whose nearest other image has the same class.
- *5-way 1-shot accuracy*: five classes are drawn and one image of each, its *prototype*; the share of the
  other images of these classes that are nearest to the prototype of their class, averaged over many episodes.

What is left out: recall at more than one neighbour, more than one shot, and training for either.

Source: Recall@1 of embeddings: Song et al. 2015, arXiv:1511.06452; prototypes: Snell, Swersky and Zemel
2017, arXiv:1703.05175 (there with Euclidean distances); both as measures of relational distillation: Park et
al. 2019, arXiv:1904.05068.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_whole

__all__ = ["draw_support", "one_shot_accuracy", "recall_at_1"]

_ROWS = 1024  # similarities are computed for this many images at once


def recall_at_1(embeddings: Tensor, labels: Tensor) -> float:
    """Return the share of images whose nearest other image, by cosine similarity, has the same label.

    Of equally near images the first is taken. The only image of a class is always wrong.

    Args:
        embeddings: (n, width), at least two rows; a row of zeros is equally near to all.
        labels: (n,).

    Raises:
        BadSetting: shapes do not fit, or there are fewer than two images.

    >>> recall_at_1(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    0.6666666666666666
    """
    _check(embeddings, labels)
    unit = F.normalize(embeddings.detach(), dim=1)
    right = 0
    for rows in torch.arange(len(unit)).split(_ROWS):
        similarity = unit[rows] @ unit.T  # (rows, n)
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        right += int((labels[similarity.argmax(dim=1)] == labels[rows]).sum())
    return right / len(unit)


def draw_support(labels: Tensor, *, ways: int, generator: torch.Generator) -> Tensor:
    """Return the indices (ways,) of one image from each of ``ways`` classes, drawn uniformly.

    Only classes with at least two images are drawn: a prototype and an image to classify.

    Args:
        labels: (n,).
        ways: number of classes, at least 2.
        generator: the source of randomness.

    Raises:
        BadSetting: ways is below 2, or above the number of classes.
    """
    classes, counts = labels.unique(return_counts=True)
    classes = classes[counts >= 2]
    allowed = f"from 2 to the {len(classes)} classes with two or more images"
    hint = "try fewer ways, or images of more classes"
    ways = check_whole("ways", ways, least=2, most=len(classes), allowed=allowed, hint=hint)
    drawn = classes[torch.randperm(len(classes), generator=generator)[:ways]]
    images = [(labels == label).nonzero().squeeze(1) for label in drawn]
    return torch.stack([of[torch.randint(len(of), (), generator=generator)] for of in images])


def one_shot_accuracy(
    embeddings: Tensor, labels: Tensor, *, ways: int = 5, episodes: int = 600, generator: torch.Generator
) -> float:
    """Return the mean over episodes of the share of images that are nearest to their class's prototype.

    Papers: an episode classifies 15 images per class; here: all images of its classes except the prototypes,
    which makes each share more precise. Of equally near prototypes the first is taken.

    Args:
        embeddings: (n, width).
        labels: (n,).
        ways: classes per episode, at least 2.
        episodes: number of episodes, at least 1.
        generator: the source of randomness.

    Raises:
        BadSetting: shapes do not fit, or ways or episodes are out of range.
    """
    _check(embeddings, labels)
    episodes = check_whole("episodes", episodes, hint="try 600")
    unit = F.normalize(embeddings.detach(), dim=1)
    shares = []
    for _ in range(episodes):
        support = draw_support(labels, ways=ways, generator=generator)
        asked = torch.isin(labels, labels[support])
        asked[support] = False
        nearest = (unit[asked] @ unit[support].T).argmax(dim=1)
        shares.append((labels[support][nearest] == labels[asked]).double().mean())
    return float(torch.stack(shares).mean())


def _check(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.dim() != 2 or labels.shape != embeddings.shape[:1] or len(labels) < 2:
        raise BadSetting(
            "embeddings must be (n, width) and labels (n,), n from 2 up, got "
            f"{tuple(embeddings.shape)} and {tuple(labels.shape)}; flatten(1) makes rows of features"
        )
