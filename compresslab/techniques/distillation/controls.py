"""Controls of distillation: what a teacher gives that is not in the probabilities of the wrong classes.

KD gives a student three things at once. A control leaves out one of them, or replaces it:

- *Hard labels*: the teacher's most likely class alone. It labels images that have no label, and corrects
  labels, but says nothing about the other classes.
- *Label smoothing*: the same small probability for every class, without a teacher: doubt that knows nothing.

      smoothed target = (1 - ε) · one-hot(label) + ε / classes

- *Permuted wrong classes*: the teacher's logits, those of the wrong classes exchanged at random, image by
  image. The target's probability and the amount of doubt stay, at every temperature; which class resembles
  which is lost.

If a control reaches what KD reaches, then what it leaves out is not what helped.

What it saves: a wrong explanation. What it costs: as many trainings. What is left out: a control for the
teacher's own augmentation and for the longer training of KD.

Source: Szegedy et al. 2015, "Rethinking the Inception architecture" (label smoothing), arXiv:1512.00567;
Furlanello et al. 2018, "Born-again neural networks" (dark knowledge with permuted predictions),
arXiv:1805.04770; Müller, Kornblith and Hinton 2019, "When does label smoothing help?", arXiv:1906.02629.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_fraction
from compresslab.techniques.distillation.response import UNLABELLED, full_precision, labelled_cross_entropy

__all__ = ["hard_labels", "permute_wrong_classes", "smoothed_cross_entropy"]


def hard_labels(logits: Tensor) -> Tensor:
    """Return the most likely class of each image: (n, classes) → (n,) int64.

    >>> hard_labels(torch.tensor([[0.0, 2.0, 1.0]]))
    tensor([1])
    """
    return logits.detach().argmax(dim=1)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    """Return the mean cross-entropy, in nats, of the labelled images with smoothed labels.

    Args:
        logits: (images, classes).
        labels: (images,) integers, or ``UNLABELLED``; if none has a label, the loss is 0 with gradient 0.
        smoothing: ε, the probability that is spread evenly over all classes, in [0, 1].

    Raises:
        BadSetting: shapes do not fit, a label is not a class, or smoothing is out of range.
    """
    check_fraction("smoothing", smoothing, within="[0, 1]", hint="try 0.1")
    known = (labels != UNLABELLED).unsqueeze(1)
    evenly = -full_precision(logits).log_softmax(dim=1).mean(dim=1, keepdim=True)  # (images, 1)
    spread = evenly.where(known, 0.0).sum() / known.sum().clamp(min=1)
    return (1 - smoothing) * labelled_cross_entropy(logits, labels) + smoothing * spread


def permute_wrong_classes(logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return logits in which those of the wrong classes have changed places at random, image by image.

    The right class of an unlabelled image is the most likely one.

    Args:
        logits: (images, classes). Not changed.
        labels: (images,) integers, or ``UNLABELLED``.
        generator: the source of randomness, advanced by the draws.

    Raises:
        BadSetting: the numbers of images differ.

    >>> permute_wrong_classes(torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([0]), torch.Generator())[0, 0]
    tensor(9.)
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise BadSetting(
            f"labels must be (images,) for logits (images, classes), got {tuple(labels.shape)} for "
            f"{tuple(logits.shape)}; give one label per image, -1 where there is none"
        )
    right = torch.where(labels == UNLABELLED, hard_labels(logits), labels)
    wrong = ~F.one_hot(right, logits.shape[1]).bool()
    others = logits[wrong].reshape(len(logits), -1)  # (images, classes - 1)
    order = torch.rand(others.shape, generator=generator).argsort(dim=1)
    exchanged = logits.clone()
    exchanged[wrong] = others.gather(1, order).flatten()
    return exchanged
