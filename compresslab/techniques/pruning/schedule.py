"""When is it removed? All at once, or a little at a time with training in between.

Pruning by much at once takes away weights whose neighbours could not yet learn to do without them. So prune a
little, *fine-tune* (train the weights that live, the dead ones held at zero), score again, prune more. The
shares of zeros on the way are a ramp s(t) from s₀ to s over T steps:

    cubic       s(t) = s + (s₀ - s) · (1 - t/T)³      much early, when there is plenty to spare, little late
    geometric   s(t) = 1 - (1 - s)^(t/T)              the same share of what still lives, each time

T = 1 is one-shot pruning. *Rewinding* trains again from an early moment of the network's own training
instead of going on: early weights under late masks, a *lottery ticket* if it then learns as well as the
whole network did.

What it saves: accuracy at the same sparsity. What it costs: a fine-tuning for each step. What is left out:
pruning in the midst of one training, every few hundred steps, as the cubic ramp's paper has it; here a whole
``fit`` goes between two prunings, because ``fit`` chooses its epoch by validation, and would choose a denser
one.

Source: iterative: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; cubic: Zhu and Gupta 2017, "To prune, or
not to prune", arXiv:1710.01878; rewinding: Frankle and Carbin 2018, "The lottery ticket hypothesis",
arXiv:1803.03635, and to an early moment rather than the start: Renda, Frankle and Carbin 2020, "Comparing
rewinding and fine-tuning in neural network pruning", arXiv:2003.02389.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.errors import BadSetting
from compresslab.techniques.pruning.granularity import check_sparsity, local_masks, magnitudes
from compresslab.techniques.pruning.masks import Masks, keep_masks, masked, masks_of
from compresslab.training.loop import Trained, accuracy, fit

__all__ = [
    "Pruned",
    "Round",
    "Score",
    "Select",
    "cubic_sparsity",
    "fit_masked",
    "geometric_sparsity",
    "prune_iteratively",
    "rewind",
]

Score = Callable[[nn.Module], Mapping[str, Tensor]]  # model → {layer's name: scores in its weight's shape}
Select = Callable[..., Masks]  # (scores, sparsity=…) → {layer's name: mask}, as local_masks and global_masks


@dataclass(frozen=True)
class Round:
    """One step: its sparsity, and the validation accuracy just after pruning and after the training."""

    sparsity: float
    pruned_accuracy: float
    trained_accuracy: float


@dataclass(frozen=True)
class Pruned:
    """The pruned and trained network in evaluation mode, the masks it keeps, the rounds that led to it."""

    model: nn.Module
    masks: Masks
    rounds: tuple[Round, ...]


def cubic_sparsity(step: int, *, steps: int, sparsity: float, initial: float = 0.0) -> float:
    """The share of zeros at a step: from ``initial`` up, steep at first, level at the end.

    Args:
        step: before 0 it is as at 0, after ``steps`` as at ``steps``.
        steps: where the ramp ends, from 1 up.
        sparsity: at the end, 0 ≤ sparsity < 1.
        initial: at step 0, in the same range.

    Raises:
        BadSetting: a setting out of range.

    >>> [cubic_sparsity(step, steps=2, sparsity=0.75) for step in range(4)]
    [0.0, 0.65625, 0.75, 0.75]
    """
    check_sparsity(initial)
    left = 1 - _progress(step, steps, sparsity)
    return sparsity + (initial - sparsity) * left**3


def geometric_sparsity(step: int, *, steps: int, sparsity: float) -> float:
    """The share of zeros at a step if each step drops the same share of what still lives.

    Args:
        step: before 0 it is as at 0, after ``steps`` as at ``steps``.
        steps: where the ramp ends, from 1 up.
        sparsity: at the end, 0 ≤ sparsity < 1.

    Raises:
        BadSetting: a setting out of range.

    >>> [geometric_sparsity(step, steps=2, sparsity=0.75) for step in range(3)]
    [0.0, 0.5, 0.75]
    """
    progress = _progress(step, steps, sparsity)
    return sparsity if progress == 1 else 1 - (1 - sparsity) ** progress


def fit_masked(
    model: nn.Module, masks: Mapping[str, Tensor], train: Images, validation: Images, **training: Any
) -> Trained:
    """``training.fit`` on the masked model, with the dead weights at zero after every step.

    Args:
        model: left alone.
        masks: {layer's name: bool tensor in its weight's shape}.
        train: images to learn from.
        validation: images to choose the epoch by.
        training: settings of ``fit``: epochs, learning_rate, seed, …; all but after_step.

    Raises:
        CompressionError: masks that don't fit the model, or a setting of ``fit`` out of range.
    """
    return fit(masked(model, masks), train, validation, after_step=keep_masks(masks), **training)


def prune_iteratively(
    model: nn.Module,
    train: Images,
    validation: Images,
    *,
    sparsities: Sequence[float],
    score: Score = magnitudes,
    select: Select = local_masks,
    early: nn.Module | None = None,
    checkpoint: Path | None = None,
    **training: Any,
) -> Pruned:
    """The model pruned to one sparsity after the other, and trained with its masks after each.

    One sparsity is one-shot pruning; ``[cubic_sparsity(t, steps=4, sparsity=0.95) for t in (1, 2, 3, 4)]`` is
    a ramp. What is dead stays dead, whatever it scores later. The given model is left alone and nothing is
    shared with it.

    Args:
        model: trained, with at least one Conv2d or Linear layer.
        train: images to learn from.
        validation: images to choose each training's epoch by.
        sparsities: the shares of zeros, rising, each 0 ≤ sparsity < 1; the last one is the result's.
        score: asked anew at each step, of the network as it is then.
        select: ``local_masks``, ``global_masks``, or one of them with a granularity.
        early: weights to rewind to before each training, for lottery tickets; None to go on with the trained
            ones.
        checkpoint: where an interrupted run goes on from; each step's training has a file of its own beside
            it (name.1, name.2, …), and all are removed at the end.
        training: settings of ``fit`` for each step: epochs, learning_rate, seed, …

    Raises:
        CompressionError: a setting out of range, or nothing to prune.
    """
    _check(sparsities)
    masks, rounds = masks_of(model), []
    places = [
        checkpoint and checkpoint.with_name(f"{checkpoint.name}.{n + 1}") for n in range(len(sparsities))
    ]
    for sparsity, place in zip(sparsities, places, strict=True):
        chosen = select(_dead_lowest(score(model), masks), sparsity=sparsity)
        masks |= {name: masks[name] & mask for name, mask in chosen.items()}
        start = masked(model if early is None else early, masks)
        trained = fit_masked(start, masks, train, validation, checkpoint=place, **training)
        rounds.append(Round(sparsity, accuracy(start, validation), trained.best.validation_accuracy))
        model = trained.model
    for place in filter(None, places):
        place.unlink(missing_ok=True)
    return Pruned(model, masks, tuple(rounds))


def rewind(pruned: nn.Module, early: nn.Module) -> nn.Module:
    """A lottery ticket: the early network with the late one's zeros. Both are left alone.

    All but the zeros is the early network's: weights, biases, BatchNorm's statistics.

    Args:
        pruned: the trained network, after pruning.
        early: the same network at an early moment of its training; ``fit`` for an epoch or two makes one.

    Raises:
        BadSetting: networks of different layers.
    """
    return masked(early, masks_of(pruned))


def _dead_lowest(scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Scores in which dead weights are below every other, so that none comes back.

    Just below: -inf would also take the living of a group that is dead in part.
    """

    def lowest(s: Tensor) -> Tensor:
        return 2 * s.amin().clamp(max=0) - torch.finfo(s.dtype).tiny

    return {name: s.masked_fill(~masks[name], lowest(s)) for name, s in scores.items()}


def _progress(step: int, steps: int, sparsity: float) -> float:
    """How much of the ramp is done, in [0, 1]."""
    check_sparsity(sparsity)
    if not isinstance(steps, int) or steps < 1:
        raise BadSetting(f"steps must be a whole number from 1 up, got {steps}; 1 is one-shot, try 4")
    return min(max(step / steps, 0.0), 1.0)


def _check(sparsities: Sequence[float]) -> None:
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not sparsities or list(sparsities) != sorted(sparsities):
        raise BadSetting(
            f"sparsities must rise from one to the next, at least one, got {list(sparsities)}; try "
            "[0.5, 0.8, 0.9], or [0.9] at once"
        )
