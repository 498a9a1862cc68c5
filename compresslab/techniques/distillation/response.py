"""Response distillation: the student learns the teacher's class probabilities at a temperature.

A label names the right class; a teacher's probabilities also show that this shirt resembles a coat a little
and a sandal not at all. Dividing the logits z by a *temperature* T > 1 before the softmax makes those small
probabilities large enough to learn from.

    p(T) = softmax(z / T)                                       teacher p, student q

    response = T² · mean over images of  KL(p(T) ‖ q(T)),       KL(p ‖ q) = Σ_c p_c · (log p_c - log q_c)
    kd       = (1 - weight) · cross-entropy(q(1), label) + weight · response

The gradient of one image's KL to the student's logits is (q(T) - p(T)) / T, and q(T) - p(T) itself shrinks
like 1 / T. The factor T² keeps the size of the teacher's gradient independent of the temperature, so that
``weight`` has the same meaning. At high T the response approaches half the mean squared difference between
the two rows of logits, each minus its mean.

*Decoupled* distillation splits an image's KL into a term for the target t against all other classes, and a
term for the distribution among the other classes (hats: softmax over all classes but the target):

    KL(p ‖ q) = KL([p_t, 1 - p_t] ‖ [q_t, 1 - q_t]) + (1 - p_t) · KL(p̂ ‖ q̂) = TCKD + (1 - p_t) · NCKD

A confident teacher (p_t near 1) gives the second term almost no weight, although it contains the knowledge
about the other classes; DKD gives the two terms separate weights, alpha and beta. Its weights are large, so
they rise from 0 in the first twelfth of the training (``warm_up``).

What it saves: nothing itself; it improves a small student. What it costs: a run of the teacher per image, or
a file of its logits. What is left out: networks with different classes. Labels may be missing
(``UNLABELLED``).

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531;
decoupled: Zhao et al. 2022, "Decoupled knowledge distillation", arXiv:2203.08679.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_fraction, check_whole

__all__ = [
    "UNLABELLED",
    "decoupled_loss",
    "full_precision",
    "kd_loss",
    "labelled_cross_entropy",
    "response_loss",
    "soften",
    "warm_up",
]

UNLABELLED = -1  # the label of an image without one


def full_precision(x: Tensor) -> Tensor:
    """Return x as float32, or unchanged if it is float64: a loss in bfloat16 has only three digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of the labelled images; 0, with gradient 0, if there are none.

    Args:
        logits: (images, classes).
        labels: (images,) integers from 0 to classes - 1, or ``UNLABELLED``.

    Raises:
        BadSetting: shapes do not fit, or a label is not a class.

    >>> logits = torch.tensor([[0.0, 0.0], [9.0, -9.0]])
    >>> labelled_cross_entropy(logits, torch.tensor([1, UNLABELLED]))
    tensor(0.6931)
    """
    _check_labels(logits, labels)
    total = F.cross_entropy(full_precision(logits), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def soften(logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Return the probabilities softmax(logits / temperature) over the last dimension, in the shape of logits.

    Raises:
        BadSetting: temperature is not a finite number above 0.

    >>> soften(torch.tensor([8.0, 4.0, 0.0]), temperature=1.0)
    tensor([9.8169e-01, 1.7980e-02, 3.2932e-04])
    >>> soften(torch.tensor([8.0, 4.0, 0.0]), temperature=4.0)
    tensor([0.6652, 0.2447, 0.0900])
    """
    _check_temperature(temperature)
    return torch.softmax(full_precision(logits) / temperature, dim=-1)


def response_loss(logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Return T² · mean over the images of KL(teacher ‖ student), both at temperature T.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes). They get no gradient.
        temperature: T, above 0.

    Raises:
        BadSetting: the shapes differ, or temperature is not a finite number above 0.
    """
    z, t = _softened(logits, teacher_logits, temperature)
    return temperature**2 * _divergence(z, t).mean()


def kd_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float = 4.0, weight: float = 0.9
) -> Tensor:
    """Return (1 - weight) · cross-entropy with the labels + weight · response loss.

    The first mean is over the labelled images, the second over all.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes). They get no gradient.
        labels: (images,) integers, or ``UNLABELLED``.
        temperature: T, above 0; the cross-entropy is always at 1.
        weight: the teacher's share, in [0, 1].

    Raises:
        BadSetting: shapes do not fit, or labels, temperature or weight are out of range.
    """
    check_fraction("weight", weight, within="[0, 1]", hint="try 0.9")
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
    """Return T² · mean over the images of alpha · TCKD + beta · NCKD, without a cross-entropy term.

    With alpha = 1 and beta = 1 - p_t per image, where p_t is the teacher's probability of the target *at
    temperature T*, it equals ``response_loss`` at the same T.

    Paper: every image has a label; here an unlabelled image's target is the teacher's most likely class.

    Args:
        logits: the student's, (images, classes).
        teacher_logits: the teacher's for the same images, (images, classes). They get no gradient.
        labels: (images,) integers, or ``UNLABELLED``.
        temperature: T, above 0.
        alpha: weight of the target against the other classes.
        beta: weight of the distribution among the other classes: a number, or one per image (images,).

    Raises:
        BadSetting: shapes do not fit, or labels or temperature are out of range.
    """
    _check_labels(logits, labels)
    z, t = _softened(logits, teacher_logits, temperature)
    target = torch.where(labels == UNLABELLED, t.argmax(dim=1), labels)
    (target_z, others_z), (target_t, others_t) = _split(z, target), _split(t, target)
    images = alpha * _divergence(target_z, target_t) + beta * _divergence(others_z, others_t)  # (images,)
    return temperature**2 * images.mean()


def warm_up(step: int, *, steps: int) -> float:
    """Return the share of its weight that a loss has in a step: a linear rise to 1, which it keeps.

    Args:
        step: its number, from 1.
        steps: the length of the rise, at least 1.

    Raises:
        BadSetting: steps is out of range.

    >>> [warm_up(step, steps=4) for step in (1, 2, 4, 5)]
    [0.25, 0.5, 1.0, 1.0]
    """
    steps = check_whole("steps", steps, hint="a twelfth of all does well")
    return min(int(step) / steps, 1.0)


def _split(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the target against all others (images, 2), and of the others (images, classes - 1)."""
    is_target = F.one_hot(target, logits.shape[1]).bool()
    others = logits[~is_target].reshape(len(logits), -1)
    return torch.stack([logits[is_target], others.logsumexp(dim=1)], dim=1), others


def _divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(softmax(teacher_logits) ‖ softmax(logits)) of each image: twice (images, classes) → (images,)."""
    log_p, log_q = teacher_logits.log_softmax(dim=1), logits.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _softened(logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return both logits divided by the temperature, in full precision, the teacher's detached."""
    _check_temperature(temperature)
    if logits.dim() != 2 or logits.shape != teacher_logits.shape:
        raise BadSetting(
            "logits and teacher_logits must have one shape (images, classes), got "
            f"{tuple(logits.shape)} and {tuple(teacher_logits.shape)}; give both the same images"
        )
    return full_precision(logits) / temperature, full_precision(teacher_logits).detach() / temperature


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise BadSetting(
            f"temperature must be a finite number above 0, got {temperature}; try 4, or 1 for the "
            "plain softmax"
        )


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise BadSetting(
            f"labels must be (images,) for logits (images, classes), got {tuple(labels.shape)} for "
            f"{tuple(logits.shape)}; give one label per image, -1 where there is none"
        )
    classes = logits.shape[1]
    wrong = (labels < UNLABELLED) | (labels >= classes)
    if wrong.any():
        raise BadSetting(
            f"labels must be classes from 0 to {classes - 1}, or -1 for none, got "
            f"{labels[wrong][0].item()}; count the classes from 0"
        )
