"""Response distillation: the student learns what the teacher answers, and how sure it is of each class.

A label says which class is right; a teacher's probabilities also say that this shirt looks a little like a
coat and not at all like a sandal. Dividing the logits z by a *temperature* T > 1 before the softmax makes
those small probabilities large enough to be learned from.

    p(T) = softmax(z / T)                                       teacher p, student q

    response = T² · mean over images of  KL(p(T) ‖ q(T)),       KL(p ‖ q) = Σ_c p_c · (log p_c - log q_c)
    kd       = (1 - weight) · cross-entropy(q(1), label) + weight · response

The gradient of one image's KL to the student's logits is (q(T) - p(T)) / T, and q(T) - p(T) itself shrinks
like 1 / T: the factor T² keeps the pull of the teacher as strong at every temperature, so that ``weight``
means the same. At high T the response becomes half the mean square between the two rows of logits, each
minus its mean.

*Decoupled* distillation splits an image's KL into what the teacher says of the target t against all the rest,
and how it shares the rest among the other classes (hats: softmax over all classes but the target):

    KL(p ‖ q) = KL([p_t, 1 - p_t] ‖ [q_t, 1 - q_t]) + (1 - p_t) · KL(p̂ ‖ q̂) = TCKD + (1 - p_t) · NCKD

A sure teacher (p_t near 1) thus all but mutes the second part, in which its knowledge is; DKD gives the two
parts weights of their own, alpha and beta.

What it costs: one pass of the teacher an image, or a file of its logits. What it saves: nothing by itself;
a better small network does. What is left out: labels may be missing (``UNLABELLED``), the classes may not
differ between the two networks.

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531;
decoupled: Zhao et al. 2022, "Decoupled knowledge distillation", arXiv:2203.08679.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting

__all__ = [
    "UNLABELLED",
    "decoupled_loss",
    "full_precision",
    "kd_loss",
    "labelled_cross_entropy",
    "response_loss",
    "soften",
]

UNLABELLED = -1  # the label of an image that has none


def full_precision(x: Tensor) -> Tensor:
    """The same numbers as float32, or as they are where x is float64: a loss in bfloat16 has three digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy, in nats, over the images that have a label; 0, with gradient 0, if none has.

    Args:
        logits: (images, classes).
        labels: (images,) whole numbers from 0 to classes - 1, or ``UNLABELLED``.

    Raises:
        CompressionError: another shape, or a label that is no class.

    >>> logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]])
    >>> labelled_cross_entropy(logits, torch.tensor([1, UNLABELLED]))
    tensor(0.6931)
    """
    _check_labels(logits, labels)
    total = F.cross_entropy(full_precision(logits), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def soften(logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """The probabilities softmax(logits / temperature) over the last dimension, in the shape of logits.

    Raises:
        CompressionError: a temperature that isn't a finite number above 0.

    >>> soften(torch.tensor([8.0, 4.0, 0.0]), temperature=1.0)
    tensor([9.8169e-01, 1.7980e-02, 3.2932e-04])
    >>> soften(torch.tensor([8.0, 4.0, 0.0]), temperature=4.0)
    tensor([0.6652, 0.2447, 0.0900])
    """
    _check_temperature(temperature)
    return torch.softmax(full_precision(logits) / temperature, dim=-1)


def response_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """T² · mean over the images of KL(teacher ‖ student), both softened; the teacher gets no gradient.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes).
        temperature: T, above 0.

    Raises:
        CompressionError: two shapes, or a temperature that isn't a finite number above 0.
    """
    z, t = _softened(logits, teacher_logits, temperature)
    return temperature**2 * _divergence(z, t).mean()


def kd_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 4.0, weight: float = 0.9
) -> Tensor:
    """(1 - weight) · cross-entropy with the labels + weight · response loss.

    The first mean is over the images with a label, the second over all.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes). Gets no gradient.
        labels: (images,) whole numbers, or ``UNLABELLED``.
        temperature: T, above 0; the cross-entropy is always at 1.
        weight: the teacher's share, in [0, 1].

    Raises:
        CompressionError: shapes, labels, temperature or weight out of range.
    """
    if not 0 <= weight <= 1:
        raise BadSetting(f"weight is the teacher's share, in [0, 1], got {weight}; try 0.9")
    response = response_loss(logits, teacher_logits, temperature=temperature)
    return (1 - weight) * labelled_cross_entropy(logits, labels) + weight * response


def decoupled_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float | Tensor = 8.0,
) -> Tensor:
    """T² · mean over the images of alpha · TCKD + beta · NCKD, without any cross-entropy: add that yourself.

    With alpha = 1 and beta = 1 - p_t, image by image, where p_t is the teacher's probability of the target
    *at temperature T*, this is ``response_loss`` at the same T.

    Paper: every image has a label; here an unlabelled image's target is the teacher's most likely class.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes). Gets no gradient.
        labels: (images,) whole numbers, or ``UNLABELLED``.
        temperature: T, above 0.
        alpha: weight of the target against the rest.
        beta: weight of the classes that are not the target: a number, or one an image (images,).

    Raises:
        CompressionError: shapes, labels or temperature out of range.
    """
    _check_labels(logits, labels)
    z, t = _softened(logits, teacher_logits, temperature)
    target = torch.where(labels == UNLABELLED, t.argmax(dim=1), labels)
    (target_z, others_z), (target_t, others_t) = _split(z, target), _split(t, target)
    images = alpha * _divergence(target_z, target_t) + beta * _divergence(others_z, others_t)  # (images,)
    return temperature**2 * images.mean()


def _split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of target against rest (images, 2), and of the other classes alone (images, classes - 1)."""
    is_target = F.one_hot(target, logits.shape[1]).bool()
    others = logits[~is_target].reshape(len(logits), -1)
    return torch.stack([logits[is_target], others.logsumexp(dim=1)], dim=1), others


def _divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher_logits) ‖ softmax(logits)) of each image: twice (images, classes) → (images,)."""
    log_p, log_q = teacher_logits.log_softmax(dim=1), logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _softened(logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both logits over the temperature, in full precision, the teacher's detached."""
    _check_temperature(temperature)
    if logits.dim() != 2 or logits.shape != teacher_logits.shape:
        raise BadSetting(
            "the student's and the teacher's logits have one shape (images, classes), "
            f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}; give both the same images"
        )
    return full_precision(logits) / temperature, full_precision(teacher_logits).detach() / temperature


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise BadSetting(
            f"temperature is a finite number above 0, got {temperature}; try 4, or 1 for the plain softmax"
        )


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise BadSetting(
            f"logits (images, classes) come with labels (images,), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}; give one label an image, -1 where there is none"
        )
    classes = logits.shape[1]
    wrong = (labels < UNLABELLED) | (labels >= classes)
    if wrong.any():
        raise BadSetting(
            f"a label is a class from 0 to {classes - 1}, or -1 for none, got {labels[wrong][0].item()}; "
            "count the classes from 0"
        )
