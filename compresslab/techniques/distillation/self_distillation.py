"""Self-distillation: the teacher is the network itself, a moment ago, a few layers on, or on other images.

*Born-again generations*: a trained network teaches a fresh one of the same architecture, which then teaches
the next. That is one training after another, each with a teacher that no longer changes: so it is not online,
although it is sometimes listed there. (``learn`` may as well make a smaller one of the same family.)

*Be your own teacher*: exits after the shallow blocks answer too. The deepest answer teaches them, and through
them the shallow blocks; F are the features before an exit's pooling, C is the deepest exit.

    L = CE(p_C, y) + Σ_{i<C} [(1 - a)·CE(p_i, y) + a·T²·KL(p_C ‖ p_i) + b·‖F_i - F_C‖²],   p_C, F_C held fixed

*Noisy Student*: a teacher labels images that have no label; those that it is sure of, equally many of each
class, are what a student learns from, under noise (``fit`` shifts, mirrors and erases).

What it saves: a larger teacher. What it costs: a training a generation; exits that compute along until the
training ends, and are never shipped; a teacher's run over the unlabelled images.
What is left out: several exits answering together; a noisy student that grows, and teaches again.

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

from compresslab.errors import BadSetting
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
    """The networks, oldest first: ``first``, then each one taught by the one before it.

    ``Peers`` of several generations answers as their ensemble (in the paper: BANE).

    Args:
        first: the trained ancestor, in evaluation mode.
        learn: teacher → a fresh student that it taught; it leaves the teacher alone.
        generations: how many are taught, from 1 up: the list is one longer.

    Raises:
        CompressionError: generations out of range, or a student that shares weights with its teacher.
    """
    if not isinstance(generations, int) or generations < 1:
        raise BadSetting(f"generations is a whole number from 1 up, got {generations}; try 3")
    line = [first]
    for _ in range(generations):
        student = learn(line[-1])
        if {*student.parameters()} & {*line[-1].parameters()}:
            raise BadSetting(
                "learn returns a fresh student, got one that shares weights with its teacher; "
                "build a new network in it"
            )
        line.append(student)
    return line


class EarlyExits(nn.Module):
    """A residual network with an exit after every block but the last: images → the deepest logits (n, 10).

    Paper: exits after groups of blocks, a bottleneck of several convolutions in each; here: after each block,
    and one 3 × 3 convolution to the last block's channels, with a stride to its resolution.

    Attributes:
        network: what is shipped; copied from the one given.
        exits: convolutions that only training needs; their parameters are reported and left behind.
        heads: the exits' linear layers, left behind too.

    Args:
        network: at least two blocks, trained or not.

    Raises:
        CompressionError: another kind of network, or one with a single block.
    """

    def __init__(self, network: ResidualNetwork) -> None:
        super().__init__()
        if not isinstance(network, ResidualNetwork) or len(network.blocks) < 2:
            raise BadSetting(
                f"network is a ResidualNetwork of two or more blocks, got {_described(network)}; "
                "try compresslab.models.student()"
            )
        self.network = copy.deepcopy(network)
        blocks = [block for block in network.blocks if isinstance(block, ResidualBlock)]
        strides = [block.conv1.stride[0] for block in blocks]
        deepest = network.head.in_features
        self.exits = nn.ModuleList(
            _exit(block.conv2.out_channels, deepest, math.prod(strides[number + 1 :]))
            for number, block in enumerate(blocks[:-1])
        )
        self.heads = nn.ModuleList(nn.Linear(deepest, network.head.out_features) for _ in self.exits)

    def outputs(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (n, 10) and features (n, c, h, w) of every exit, from shallow to deep, the deepest last."""
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
    """CE of the deepest + Σ over the others of ``kd_loss`` with the deepest as teacher, a scalar in nats.

    The deepest logits have their gradient from the labels alone.

    Args:
        logits: one (n, classes) an exit, from shallow to deep, at least two.
        labels: (n,), ``UNLABELLED`` where not known: there the deepest exit still teaches the others.
        temperature: above 0.
        weight: the share of the deepest exit's word, in [0, 1].

    Raises:
        CompressionError: fewer than two exits, a weight or temperature out of range.
    """
    _check_exits(len(logits), "logits")
    *shallow, deepest = logits
    taught = [kd_loss(z, deepest, labels, temperature=temperature, weight=weight) for z in shallow]
    return labelled_cross_entropy(deepest, labels) + torch.stack(taught).sum()


def exit_hint_loss(features: Sequence[Tensor]) -> Tensor:
    """Σ over the shallow exits of the mean squared distance to the deepest features, which stay fixed.

    Paper: the sum over a feature's entries; here: their mean, so that a weight means the same for every size.

    Args:
        features: one (n, c, h, w) an exit, all of one shape, from shallow to deep, at least two.

    Raises:
        CompressionError: fewer than two exits.
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
    """``early_exit_loss`` + hint_weight · ``exit_hint_loss``: a loss for ``compresslab.training.loop.fit``.

    Args:
        model: an ``EarlyExits``.
        images: (n, 1, 28, 28).
        labels: (n,), ``UNLABELLED`` where not known.
        temperature: above 0.
        weight: the share of the deepest exit's word, in [0, 1].
        hint_weight: of the deepest features, from 0 up.

    Raises:
        CompressionError: another kind of network, or a setting out of range.
    """
    if not isinstance(model, EarlyExits):
        raise BadSetting(
            f"own_teacher_loss teaches EarlyExits, got a {type(model).__name__}; try EarlyExits(student())"
        )
    if not 0 <= hint_weight < math.inf:
        raise BadSetting(f"hint_weight is a number from 0 up, got {hint_weight}; try 0.1")
    logits, features = model.outputs(images)
    words = early_exit_loss(logits, labels, temperature=temperature, weight=weight)
    return words + hint_weight * exit_hint_loss(features)


def confident_labels(logits: Tensor, *, threshold: float) -> Tensor:
    """Pseudo-labels (n,): the likeliest class, ``UNLABELLED`` where its probability is below the threshold.

    These are the paper's *hard* labels; its soft ones, the probabilities themselves, are ``response_loss``.

    Args:
        logits: (n, classes), the teacher's.
        threshold: a probability in [0, 1]; in the paper 0.3, among 1000 classes.

    Raises:
        CompressionError: a threshold out of range.

    >>> confident_labels(torch.tensor([[4.0, 0.0], [0.1, 0.0]]), threshold=0.9)
    tensor([ 0, -1])
    """
    if not 0 <= threshold <= 1:
        raise BadSetting(f"threshold is a probability in [0, 1], got {threshold}; try 0.9")
    probability, label = logits.detach().softmax(dim=1).max(dim=1)
    return label.where(probability >= threshold, UNLABELLED)


def balanced_choice(logits: Tensor, labels: Tensor, *, per_class: int) -> Tensor:
    """The numbers of the images to learn from, class by class: ``per_class`` of each that has any.

    The most confident come first; where a class has too few, they come again in the same order. (Paper: drawn
    again at random; here: in turn, so that there is no chance in it.) A class with no image stays away.

    Args:
        logits: (n, classes), the teacher's.
        labels: (n,), from ``confident_labels``: those that are ``UNLABELLED`` are never chosen.
        per_class: from 1 up.

    Returns:
        (chosen,) int64, such as for ``pixels[chosen]`` and ``labels[chosen]``.

    Raises:
        CompressionError: per_class out of range, or no image with a label.

    >>> balanced_choice(torch.tensor([[1.0, 0], [3, 0], [0, 2]]), torch.tensor([0, 0, 1]), per_class=2)
    tensor([1, 0, 2, 2])
    """
    if not isinstance(per_class, int) or per_class < 1:
        raise BadSetting(f"per_class is a whole number from 1 up, got {per_class}; try 1000")
    if not (labels != UNLABELLED).any():
        raise BadSetting("labels has one class or more, got UNLABELLED alone; lower the threshold")
    chosen = []
    for label in labels[labels != UNLABELLED].unique():
        of_class = (labels == label).nonzero().squeeze(1)
        probability = logits.detach()[of_class].softmax(dim=1)[:, label]
        surest = of_class[probability.argsort(descending=True, stable=True)]
        chosen.append(surest.repeat(math.ceil(per_class / len(surest)))[:per_class])
    return torch.cat(chosen)


def _check_exits(count: int, name: str) -> None:
    if count < 2:
        raise BadSetting(f"{name} has two or more exits, got {count}; EarlyExits(…).outputs makes them")
