"""Online and self-distillation: peers, born-again generations, early exits and Noisy Student.

Peers learn from the labels and, on all images, from each other; the first one, fixed in advance, is the
student. Born-again generations start from fresh weights each; the last one is the student. Their ensembles
are measured too. An own teacher needs a student deep enough for several exits, so it has an architecture and
a baseline of its own (``deep_alone``). Noisy Student has three rounds, balanced classes, and dropout before
the last layer beside the augmentation; the paper's stochastic depth has no place in a network of two blocks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.experiments.distillation.comparison.learning import Learned, fresh, learn
from compresslab.experiments.distillation.comparison.response import alone
from compresslab.experiments.distillation.comparison.task import Task
from compresslab.models.residual import ResidualNetwork
from compresslab.models.surgery import layer_outputs
from compresslab.techniques.distillation.offline import Pupil, know, numbered
from compresslab.techniques.distillation.online import Peers, ensemble_losses, peer_losses
from compresslab.techniques.distillation.response import UNLABELLED, kd_loss, labelled_cross_entropy
from compresslab.techniques.distillation.self_distillation import (
    EarlyExits,
    balanced_choice,
    born_again,
    confident_labels,
    own_teacher_loss,
)
from compresslab.training.loop import fit

__all__ = ["by_peers", "deep_alone", "deep_student", "generations", "noisy_student", "own_teacher"]

GENERATIONS, ROUNDS = 2, 3  # students after the first
DROPOUT = 0.2
FAR = 1000  # between the seeds of a run's networks


def deep_student() -> ResidualNetwork:
    """Return the untrained student of twice as many blocks."""
    return ResidualNetwork(8, [(16, 2), (16, 1), (32, 2), (32, 1)])


def by_peers(task: Task, *, seed: int, weight: float, peers: int = 2, ensemble: bool = False) -> Learned:
    """Train peers, each taught by the others one by one, or by their ensemble; return the first."""
    labels, lessons = task.views.labels, ensemble_losses if ensemble else peer_losses

    def loss(model: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        logits = model.outputs(views)  # type: ignore[operator]
        hard = torch.stack([labelled_cross_entropy(each, labels[index]) for each in logits])
        return (hard + weight * lessons(logits)).sum()

    together = Peers([fresh(seed + FAR * peer) for peer in range(peers)])
    trained = _on_views(task, together, loss, seed)
    return Learned(trained.students[0], beside={"ensemble": trained})  # type: ignore[index, arg-type]


def generations(task: Task, *, seed: int, share: float) -> Learned:
    """Train a student alone, then generations from fresh weights, each taught by the one before at T = 1."""
    labels, seeds = task.views.labels, iter(range(seed + FAR, seed + FAR * (GENERATIONS + 1), FAR))

    def next_one(teacher: nn.Module) -> nn.Module:
        logits, own = know(teacher, task.views, precision=task.precision).logits, next(seeds)

        def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
            return kd_loss(pupil(views), logits[index], labels[index], temperature=1.0, weight=share)

        return learn(task, Pupil(fresh(own)), task.views, loss, seed=own)

    line = born_again(alone(task, seed=seed).network, next_one, generations=GENERATIONS)
    return Learned(line[-1], beside={"first": line[0], "ensemble": Peers(line).eval()})


def deep_alone(task: Task, *, seed: int) -> Learned:
    """Train the deep student on the labels alone."""
    return alone(task, seed=seed, make=deep_student)


def own_teacher(task: Task, *, seed: int, share: float) -> Learned:
    """Train the deep student with an exit after every block, all taught by the deepest."""
    labels, lesson = task.views.labels, functools.partial(own_teacher_loss, weight=share)

    def loss(model: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        return lesson(model, views, labels[index])

    exits = EarlyExits(fresh(seed, deep_student))  # type: ignore[arg-type]
    left = sum(p.numel() for part in (exits.exits, exits.heads) for p in part.parameters())
    trained = _on_views(task, exits, loss, seed)
    return Learned(trained.network, {"exit_parameters": left})  # type: ignore[arg-type]


def noisy_student(task: Task, *, seed: int, threshold: float) -> Learned:
    """Train a student alone; let it label images for the next, whose training is noisy; three rounds."""
    network, share = alone(task, seed=seed).network, 0.0
    for number in range(1, ROUNDS + 1):
        logits = know(network, task.unlabelled, precision=task.precision).logits
        found = confident_labels(logits, threshold=threshold)
        share = float((found != UNLABELLED).float().mean())
        index, labels = _pseudo_labelled(task, logits, found)
        network = _noisily(task, index, labels, seed + FAR * number)
    return Learned(network, {"pseudo_labelled": share})


def _pseudo_labelled(task: Task, logits: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return the views of a round and their labels: the labelled ones, and those of a balanced choice."""
    known = (task.views.labels != UNLABELLED).nonzero().squeeze(1)
    count, classes = len(task.unlabelled), len(found[found != UNLABELLED].unique())
    if classes == 0:
        return known, task.views.labels[known]
    chosen = balanced_choice(logits, found, per_class=math.ceil(count / classes))
    rounds = (len(task.views) - len(known)) // count
    more = [len(known) + count * number + chosen for number in range(rounds)]
    return torch.cat([known, *more]), torch.cat([task.views.labels[known], *[found[chosen]] * rounds])


def _noisily(task: Task, index: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Train a fresh student on some views, with dropout before its last layer."""

    def loss(pupil: nn.Module, views: Tensor, number: Tensor) -> Tensor:
        _, (embedding,) = layer_outputs(pupil.student, views, ["pool"])  # type: ignore[arg-type]
        logits = pupil.student.head(pupil.companion(embedding))  # type: ignore[operator, union-attr]
        return labelled_cross_entropy(logits, labels[number])

    views = Images(task.views.pixels[index], labels)
    return learn(task, Pupil(fresh(seed), nn.Dropout(DROPOUT)), views, loss, seed=seed)


def _on_views(task: Task, model: nn.Module, loss: Callable[..., Tensor], seed: int) -> nn.Module:
    """Return any network after a pass over all views, in evaluation mode."""
    settings = task.training(seed) | {"epochs": 1, "augmented": False}
    return fit(model, numbered(task.views), task.validation, loss=loss, **settings).model
