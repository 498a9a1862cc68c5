"""Online distillation: deep mutual learning, in which peers train together and teach each other.

Several students see the same images. Each learns from the labels and from the current predictions of the
others, which are constants in its loss.

    L_k = CE(p_k, y) + 1/(K - 1) · Σ_{j ≠ k} T² · KL(p_j ‖ p_k),        p_j detached,  k = 1 … K

Networks with equal initial weights and the same images stay equal and have nothing to teach, so peers start
from different weights or differ in architecture. The mean of their probabilities is an *ensemble*. It can
make the predictions, and the ensemble of the others can be a peer's only teacher (``ensemble_losses``; the
paper found K - 1 teachers better).

What it saves: training a large teacher first. What it costs: K trainings at once, of which one network is
used. What is left out: turns. In the paper peers step one after another, each with the updated others; here
all step at once, from the same predictions, so that one loss fits the shared training loop.

Source: Zhang et al. 2017, "Deep mutual learning", arXiv:1706.00384.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting
from compresslab.techniques.distillation.response import (
    full_precision,
    labelled_cross_entropy,
    response_loss,
)

__all__ = ["Peers", "ensemble_logits", "ensemble_losses", "mutual_loss", "peer_losses"]


def peer_losses(logits: Sequence[Tensor], *, temperature: float = 1.0) -> Tensor:
    """Return each peer's loss against the others: (peers,), means of T² · KL(other ‖ peer), in nats.

    Entry k has a gradient only to the logits of peer k.

    Args:
        logits: one (n, classes) per peer, at least two.
        temperature: above 0.

    Raises:
        BadSetting: there are fewer than two peers, shapes differ, or temperature is out of range.

    >>> peer_losses([torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])])
    tensor([1.5232, 1.5232])
    """
    _check(logits)
    losses = []
    for k, mine in enumerate(logits):
        # response_loss detaches its second argument
        taught = [response_loss(mine, theirs, temperature=temperature) for theirs in _others(logits, k)]
        losses.append(torch.stack(taught).mean())
    return torch.stack(losses)


def ensemble_logits(logits: Sequence[Tensor]) -> Tensor:
    """Return logits (n, classes) whose softmax is the mean of the members' probabilities.

    Args:
        logits: one (n, classes) per member, at least one.

    Raises:
        BadSetting: there is no member, or shapes differ.

    >>> ensemble_logits([torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])]).softmax(dim=1)
    tensor([[0.5000, 0.5000]])
    """
    _check(logits, least=1)
    every = torch.stack([full_precision(z) for z in logits])  # (members, n, classes)
    return every.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))


def ensemble_losses(logits: Sequence[Tensor], *, temperature: float = 1.0) -> Tensor:
    """Return each peer's loss against the ensemble of the others: (peers,), T² · KL(mean of others ‖ peer).

    For two peers it equals ``peer_losses``, for more it is never larger. Arguments, gradients and errors are
    those of ``peer_losses``. Paper: the mean of the others' probabilities at T = 1; here: at T.
    """
    _check(logits)
    losses = []
    for k, mine in enumerate(logits):
        mean = temperature * ensemble_logits([theirs / temperature for theirs in _others(logits, k)])
        losses.append(response_loss(mine, mean, temperature=temperature))
    return torch.stack(losses)


class Peers(nn.Module):
    """Students that train together: images (n, 1, 28, 28) → the logits of their ensemble (n, classes).

    Attributes:
        students: copies of the given networks; each can be used alone.

    Args:
        students: at least two networks with the same classes; equal architectures need different weights.

    Raises:
        CompressionError: there are fewer than two students, or two with equal weights.
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(students) < 2:
            raise BadSetting(f"students must be two or more, got {len(students)}; a lone student is fit's")
        for (i, one), (j, other) in itertools.combinations(enumerate(students), 2):
            if _equal(one, other):
                raise BadSetting(
                    f"students must start from different weights, got the same in {i} and {j}, which then "
                    "would always agree; build each one after another torch.manual_seed"
                )
        self.students = nn.ModuleList(copy.deepcopy(student) for student in students)

    def outputs(self, inputs: Tensor) -> list[Tensor]:
        """Return the logits (n, classes) of each peer."""
        return [student(inputs) for student in self.students]

    def forward(self, inputs: Tensor) -> Tensor:
        return ensemble_logits(self.outputs(inputs))


def mutual_loss(
    peers: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    temperature: float = 1.0,
    lessons: Callable[..., Tensor] = peer_losses,
) -> Tensor:
    """Return the sum over peers of cross-entropy and peer loss: a loss for ``compresslab.training.loop.fit``.

    It is a sum, so that each peer has the same gradient as in a training of its own.

    Args:
        peers: a ``Peers``.
        images: (n, 1, 28, 28).
        labels: (n,), ``UNLABELLED`` where unknown: there the peers learn only from each other.
        temperature: above 0.
        lessons: (logits, temperature=…) → (peers,): ``peer_losses`` or ``ensemble_losses``.

    Raises:
        BadSetting: peers is another kind of network, or temperature is out of range.
    """
    if not isinstance(peers, Peers):
        raise BadSetting(f"peers must be Peers, got a {type(peers).__name__}; try Peers([a, b])")
    logits = peers.outputs(images)
    hard = torch.stack([labelled_cross_entropy(z, labels) for z in logits])  # (peers,)
    return (hard + lessons(logits, temperature=temperature)).sum()


def _equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _others(logits: Sequence[Tensor], k: int) -> list[Tensor]:
    return [theirs for j, theirs in enumerate(logits) if j != k]


def _check(logits: Sequence[Tensor], *, least: int = 2) -> None:
    shapes = [tuple(z.shape) for z in logits]
    if len(shapes) < least or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise BadSetting(
            f"logits must be {least} or more tensors of one shape (n, classes), got {shapes}; "
            "Peers([a, b]).outputs(images) makes them"
        )
