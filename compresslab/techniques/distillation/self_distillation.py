"""Self-distillation: born-again generations, early exits that learn from the deepest, and Noisy Student.

The teacher is an earlier network of the same architecture, the network's own deepest layers, or the network's
predictions on unlabelled images.

*Born-again generations*: a trained network teaches a new one of the same architecture, which then teaches the
next. Each training has a fixed teacher, so it is not online, although it is sometimes called so. (``learn``
may also build a smaller network of the same family.)

*Be your own teacher*: exits after the shallow blocks predict too. The deepest prediction teaches them, and
through them the shallow blocks; F are the features before an exit's pooling, C is the deepest exit.

    L = CE(p_C, y) + Σ_{i<C} [(1 - a)·CE(p_i, y) + a·T²·KL(p_C ‖ p_i) + b·‖F_i - F_C‖²],   p_C, F_C detached

*Noisy Student*: a teacher labels unlabelled images; a student learns from those with confident labels,
equally many of each class, with augmentation as noise (``fit`` shifts, mirrors and erases).

What it saves: a larger teacher. What it costs: one training per generation; exits that run during training
and are discarded; a run of the teacher on the unlabelled images. What is left out: ensembles of exits; a
student that is larger than its teacher and teaches again.

Source: Furlanello et al. 2018, "Born-again neural networks", arXiv:1805.04770; Zhang et al. 2019, "Be your
own teacher", arXiv:1905.08094; Xie et al. 2019, "Self-training with noisy student", arXiv:1911.04252.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_fraction, check_whole
from compresslab.models.residual import ResidualBlock, ResidualNetwork
from compresslab.techniques.distillation.response import (
    UNLABELLED,
    full_precision,
    kd_loss,
    labelled_cross_entropy,
)

__all__ = [
    "EarlyExits",
    "balanced_choice",
    "born_again",
    "confident_labels",
    "early_exit_loss",
    "exit_hint_loss",
    "own_teacher_loss",
]


def born_again(
    first: nn.Module, learn: Callable[[nn.Module], nn.Module], *, generations: int
) -> list[nn.Module]:
    """Train generations of students, each taught by the one before; return all networks, ``first`` included.

    ``Peers`` of several generations is their ensemble (in the paper: BANE).

    Args:
        first: the trained first teacher, in evaluation mode.
        learn: teacher → a new student trained with it; the teacher must not change.
        generations: number of students, at least 1; the list has one more entry.

    Raises:
        BadSetting: generations is out of range, or a student shares weights with its teacher.
    """
    generations = check_whole("generations", generations, hint="try 3")
    line = [first]
    for _ in range(generations):
        student = learn(line[-1])
        if {*student.parameters()} & {*line[-1].parameters()}:
            raise BadSetting(
                "learn must return a fresh student, got one that shares weights with its teacher; build "
                "a new network in it"
            )
        line.append(student)
    return line


class EarlyExits(nn.Module):
    """A residual network with an exit after every block but the last: images → the deepest logits (n, 10).

    Paper: exits after groups of blocks, each with a bottleneck of several convolutions; here: an exit after
    each block, one 3 × 3 convolution to the last block's channels, with a stride to its resolution.

    Attributes:
        network: a copy of the given network, which is kept after training.
        exits: convolutions that only training needs; their parameters are reported and discarded.
        heads: the exits' linear layers, discarded too.

    Args:
        network: at least two blocks, trained or not.

    Raises:
        CompressionError: the network is of another class, or has a single block.
    """

    def __init__(self, network: ResidualNetwork) -> None:
        super().__init__()
        if not isinstance(network, ResidualNetwork) or len(network.blocks) < 2:
            raise BadSetting(
                f"network must be a ResidualNetwork of two or more blocks, got {_described(network)}; try "
                "compresslab.models.student()"
            )
        self.network = copy.deepcopy(network)
        blocks = [block for block in network.blocks if isinstance(block, ResidualBlock)]
        strides = [block.conv1.stride[0] for block in blocks]
        deepest = network.head.in_features
        self.exits = nn.ModuleList(
            _exit(block.conv2.out_channels, deepest, math.prod(strides[index + 1 :]))
            for index, block in enumerate(blocks[:-1])
        )
        self.heads = nn.ModuleList(nn.Linear(deepest, network.head.out_features) for _ in self.exits)

    def outputs(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits (n, 10) and features (n, c, h, w) of every exit, from shallow to deep."""
        x = self.network.stem(inputs)
        reached = []
        for block in self.network.blocks:
            x = block(x)
            reached.append(x)
        features = [leave(x) for leave, x in zip(self.exits, reached, strict=False)] + [x]
        heads = [*self.heads, self.network.head]
        return [head(self.network.pool(f)) for head, f in zip(heads, features, strict=True)], features

    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)


def _exit(channels: int, deepest: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, deepest, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(deepest), nn.ReLU())


def _described(network: nn.Module) -> str:
    blocks = f" of {len(network.blocks)}" if isinstance(network, ResidualNetwork) else ""
    return f"a {type(network).__name__}{blocks}"


def early_exit_loss(
    logits: Sequence[Tensor], labels: Tensor, *, temperature: float = 4.0, weight: float = 0.5
) -> Tensor:
    """Return the deepest exit's cross-entropy plus the other exits' ``kd_loss`` with it as teacher, in nats.

    The deepest logits get their gradient from the labels only.

    Args:
        logits: one (n, classes) per exit, from shallow to deep, at least two.
        labels: (n,), ``UNLABELLED`` where unknown: there the deepest exit still teaches the others.
        temperature: above 0.
        weight: the share of the deepest exit's response, in [0, 1].

    Raises:
        BadSetting: there are fewer than two exits, or weight or temperature is out of range.
    """
    _check_exits(len(logits), "logits")
    *shallow, deepest = logits
    taught = [kd_loss(z, deepest, labels, temperature=temperature, weight=weight) for z in shallow]
    return labelled_cross_entropy(deepest, labels) + torch.stack(taught).sum()


def exit_hint_loss(features: Sequence[Tensor]) -> Tensor:
    """Return the sum over the shallow exits of the mean squared error to the deepest features, detached.

    Paper: the sum over a feature's entries; here: the mean, so that the weight does not depend on the size.

    Args:
        features: one (n, c, h, w) per exit, all of one shape, from shallow to deep, at least two.

    Raises:
        BadSetting: there are fewer than two exits.
    """
    _check_exits(len(features), "features")
    *shallow, deepest = features
    fixed = full_precision(deepest).detach()
    return torch.stack([F.mse_loss(full_precision(f), fixed) for f in shallow]).sum()


def own_teacher_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    weight: float = 0.5,
    hint_weight: float = 0.1,
) -> Tensor:
    """Return ``early_exit_loss`` + hint_weight · ``exit_hint_loss``: a loss for ``fit``.

    Args:
        model: an ``EarlyExits``.
        images: (n, 1, 28, 28).
        labels: (n,), ``UNLABELLED`` where unknown.
        temperature: above 0.
        weight: the share of the deepest exit's response, in [0, 1].
        hint_weight: weight of the deepest features, at least 0.

    Raises:
        BadSetting: the model is not an ``EarlyExits``, or a setting is out of range.
    """
    if not isinstance(model, EarlyExits):
        raise BadSetting(f"model must be EarlyExits, got a {type(model).__name__}; try EarlyExits(student())")
    if not 0 <= hint_weight < math.inf:
        raise BadSetting(f"hint_weight must be a number from 0 up, got {hint_weight}; try 0.1")
    logits, features = model.outputs(images)
    response = early_exit_loss(logits, labels, temperature=temperature, weight=weight)
    return response + hint_weight * exit_hint_loss(features)


def confident_labels(logits: Tensor, *, threshold: float) -> Tensor:
    """Return pseudo-labels (n,): the most likely class, or ``UNLABELLED`` if its probability is too low.

    These are the paper's *hard* labels; for its soft labels, the probabilities, use ``response_loss``.

    Args:
        logits: (n, classes), the teacher's.
        threshold: the lowest accepted probability, in [0, 1]; in the paper 0.3, with 1000 classes.

    Raises:
        BadSetting: threshold is out of range.

    >>> confident_labels(torch.tensor([[4.0, 0.0], [0.1, 0.0]]), threshold=0.9)
    tensor([ 0, -1])
    """
    check_fraction("threshold", threshold, within="[0, 1]", hint="try 0.9")
    probability, label = logits.detach().softmax(dim=1).max(dim=1)
    return label.where(probability >= threshold, UNLABELLED)


def balanced_choice(logits: Tensor, labels: Tensor, *, per_class: int) -> Tensor:
    """Return the indices of the most confident images: ``per_class`` of each class that occurs, by class.

    The most confident come first. If a class has too few images, they are repeated in the same order. Paper:
    repeated at random; here: in turn, so that the result is deterministic.

    Args:
        logits: (n, classes), the teacher's.
        labels: (n,), from ``confident_labels``; ``UNLABELLED`` images are never chosen.
        per_class: at least 1.

    Returns:
        (chosen,) int64, for ``pixels[chosen]`` and ``labels[chosen]``.

    Raises:
        BadSetting: per_class is out of range, or no image has a label.

    >>> balanced_choice(torch.tensor([[1.0, 0], [3, 0], [0, 2]]), torch.tensor([0, 0, 1]), per_class=2)
    tensor([1, 0, 2, 2])
    """
    per_class = check_whole("per_class", per_class, hint="try 1000")
    if not (labels != UNLABELLED).any():
        raise BadSetting("labels must have one class or more, got UNLABELLED alone; lower the threshold")
    chosen = []
    for label in labels[labels != UNLABELLED].unique():
        of_class = (labels == label).nonzero().squeeze(1)
        probability = logits.detach()[of_class].softmax(dim=1)[:, label]
        surest = of_class[probability.argsort(descending=True, stable=True)]
        chosen.append(surest.repeat(math.ceil(per_class / len(surest)))[:per_class])
    return torch.cat(chosen)


def _check_exits(count: int, name: str) -> None:
    if count < 2:
        raise BadSetting(f"{name} must have two or more exits, got {count}; EarlyExits(…).outputs makes them")
