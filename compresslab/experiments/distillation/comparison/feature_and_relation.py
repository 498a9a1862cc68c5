"""Feature and relation distillation, alone and on top of KD.

    loss = (1 - share) · cross-entropy(labels) + share · KD + weight · the method's term

Alone, the share is 0 and the first term is the cross-entropy; on top of KD, share and temperature are KD's.
The hint is in the middle of both networks. Attention maps are compared at both resolutions of the student,
relations between the embeddings. FitNet comes in two forms: joint, with the loss above, and in the paper's
two stages, of which the first learns the hint alone, on a third of the views, and the second KD on the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.errors import BadSetting
from compresslab.experiments.distillation.comparison.learning import Learned, Loss, fresh, learn, taught
from compresslab.experiments.distillation.comparison.task import Task
from compresslab.models.residual import ResidualNetwork
from compresslab.models.surgery import evaluating, layer_outputs
from compresslab.techniques.distillation import feature, relation
from compresslab.techniques.distillation.offline import Pupil
from compresslab.techniques.distillation.response import kd_loss

__all__ = ["ATTENTION", "HINT", "attention", "fitnet", "fitnet_in_stages", "pkt", "rkd", "sp"]

HINT = ("blocks.0", 2)  # 14 × 14, in the middle: the student's layer; the teacher's block
ATTENTION = {"blocks.0": "blocks.2", "blocks.1": "blocks.4"}  # layers of one resolution: student's, teacher's
ANGLES = 64  # images per batch for which angles are computed

Term = Callable[[nn.Module, Tensor, Sequence[Tensor], Tensor], Tensor]  # pupil, views, outputs, indices


def attention(
    task: Task, *, seed: int, weight: float, temperature: float = 1.0, share: float = 0.0
) -> Learned:
    """Train by attention maps."""
    known = taught(task).attention

    def term(pupil: nn.Module, views: Tensor, outputs: Sequence[Tensor], index: Tensor) -> Tensor:
        maps = [feature.attention_map(output) for output in outputs]
        pairs = zip(maps, ATTENTION.values(), strict=True)
        apart = [(mine - known[theirs][index]).square().sum(dim=1).mean() for mine, theirs in pairs]
        return torch.stack(apart).sum()

    loss = _loss(task, list(ATTENTION), term, weight=weight, temperature=temperature, share=share)
    return Learned(learn(task, Pupil(fresh(seed)), task.views, loss, seed=seed))


def fitnet(task: Task, *, seed: int, weight: float, temperature: float = 1.0, share: float = 0.0) -> Learned:
    """Train by a hint and the labels, or KD, at once."""
    student = fresh(seed)
    regressor, hint = _regressor(student, task), _hint_of(task)
    loss = _loss(task, [HINT[0]], hint, weight=weight, temperature=temperature, share=share)
    network = learn(task, Pupil(student, regressor), task.views, loss, seed=seed)
    return Learned(network, {"regressor_parameters": sum(p.numel() for p in regressor.parameters())})


def fitnet_in_stages(task: Task, *, seed: int, temperature: float, share: float) -> Learned:
    """Train by the hint alone on a third of the views, then by KD on the others."""
    order = torch.randperm(len(task.views), generator=torch.Generator().manual_seed(seed))
    first, second = order[: len(order) // 3], order[len(order) // 3 :]
    student = fresh(seed)
    hint, regressor = _hint_of(task), _regressor(student, task)

    def by_hint(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        _, outputs = layer_outputs(pupil.student, views, [HINT[0]])  # type: ignore[arg-type]
        return hint(pupil, views, outputs, index)

    by_kd = _loss(task, [], None, weight=0.0, temperature=temperature, share=share)
    for chosen, loss, companion in ((first, by_hint, regressor), (second, by_kd, None)):
        student = learn(task, Pupil(student, companion), _part(task, chosen), _at(chosen, loss), seed=seed)
    return Learned(student)


def rkd(task: Task, *, seed: int, weight: float, temperature: float = 1.0, share: float = 0.0) -> Learned:
    """Train by distances and, with twice their weight, angles; angles for half of each batch."""

    def loss(mine: Tensor, theirs: Tensor) -> Tensor:
        angles = relation.rkd_angle_loss(mine[:ANGLES], theirs[:ANGLES])
        return relation.rkd_distance_loss(mine, theirs) + 2 * angles

    return _by_relations(task, loss, seed=seed, weight=weight, temperature=temperature, share=share)


def pkt(task: Task, *, seed: int, weight: float, temperature: float = 1.0, share: float = 0.0) -> Learned:
    """Train by neighbours' probabilities."""
    term = relation.pkt_loss
    return _by_relations(task, term, seed=seed, weight=weight, temperature=temperature, share=share)


def sp(task: Task, *, seed: int, weight: float, temperature: float = 1.0, share: float = 0.0) -> Learned:
    """Train by similarities."""
    term = relation.similarity_loss
    return _by_relations(task, term, seed=seed, weight=weight, temperature=temperature, share=share)


def _by_relations(
    task: Task,
    relations: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int,
    weight: float,
    temperature: float,
    share: float,
) -> Learned:
    known = taught(task).embeddings

    def term(pupil: nn.Module, views: Tensor, outputs: Sequence[Tensor], index: Tensor) -> Tensor:
        return relations(outputs[0], known[index])

    loss = _loss(task, ["pool"], term, weight=weight, temperature=temperature, share=share)
    return Learned(learn(task, Pupil(fresh(seed)), task.views, loss, seed=seed))


def _loss(
    task: Task, layers: Sequence[str], term: Term | None, *, weight: float, temperature: float, share: float
) -> Loss:
    """Return the loss (1 - share) · cross-entropy + share · KD + weight · term; no term if there is none."""
    logits, labels = taught(task).logits, task.views.labels

    def loss(pupil: nn.Module, views: Tensor, index: Tensor) -> Tensor:
        mine, outputs = layer_outputs(pupil.student, views, layers)  # type: ignore[arg-type]
        base = kd_loss(mine, logits[index], labels[index], temperature=temperature, weight=share)
        if term is None:
            return base
        return base + weight * term(pupil, views, [output.float() for output in outputs], index)

    return loss


def _hint_of(task: Task) -> Term:
    """Return the hint's term; the teacher's front runs in each step: features are too large to keep."""
    teacher = _teacher_of(task)
    front = nn.Sequential(teacher.stem, teacher.blocks[: HINT[1] + 1])

    def hint(pupil: nn.Module, views: Tensor, outputs: Sequence[Tensor], index: Tensor) -> Tensor:
        with evaluating(front):
            wanted = front(views)
        return feature.hint_loss(pupil.companion(outputs[0]), wanted)  # type: ignore[operator]

    return hint


def _regressor(student: nn.Module, task: Task) -> feature.Regressor:
    image = torch.zeros(1, 1, 28, 28)
    with evaluating(student):
        _, (mine,) = layer_outputs(student, image, [HINT[0]])
    teacher = _teacher_of(task)
    with evaluating(teacher):
        _, (theirs,) = layer_outputs(teacher, image, [f"blocks.{HINT[1]}"])
    return feature.Regressor(mine.shape[1], theirs.shape[1])


def _teacher_of(task: Task) -> ResidualNetwork:
    if not isinstance(task.teacher, ResidualNetwork):
        name = type(task.teacher).__name__
        raise BadSetting(f"teacher must be a ResidualNetwork, got {name}; try compresslab.models.baseline()")
    return task.teacher


def _part(task: Task, chosen: Tensor) -> Images:
    return Images(task.views.pixels[chosen], task.views.labels[chosen])


def _at(chosen: Tensor, loss: Loss) -> Loss:
    """Return a loss of some views that is given their numbers among all."""
    return lambda pupil, views, index: loss(pupil, views, chosen[index])
