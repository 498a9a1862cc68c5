"""Pruning schedules: one-shot or iterative pruning, sparsity ramps, and rewinding.

One-shot pruning removes many weights before the others can adapt. Iterative pruning removes a few weights,
*fine-tunes* (trains the kept weights, with the pruned ones at zero), scores again and removes more. The
sparsities form a ramp s(t) from s₀ to s over T steps:

    cubic       s(t) = s + (s₀ - s) · (1 - t/T)³      many weights early, when many are redundant, few late
    geometric   s(t) = 1 - (1 - s)^(t/T)              the same share of the remaining weights at each step

T = 1 is one-shot pruning. *Rewinding* trains again from an early point of the network's own training instead
of continuing: early weights under late masks, a *lottery ticket* if it then trains as well as the whole
network did.

What it saves: accuracy at the same sparsity. What it costs: one fine-tuning per step. What is left out:
pruning during one training, every few hundred steps, as in the paper of the cubic ramp. Here a complete
``fit`` separates two prunings, because ``fit`` chooses its epoch by validation and would choose a denser
network.

Source: iterative: Han, Pool, Tran and Dally 2015, arXiv:1506.02626; cubic: Zhu and Gupta 2017, "To prune, or
not to prune", arXiv:1710.01878; rewinding: Frankle and Carbin 2018, "The lottery ticket hypothesis",
arXiv:1803.03635, and to an early point rather than the start: Renda, Frankle and Carbin 2020, "Comparing
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
from compresslab.errors import BadSetting, check_whole
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
    """One step: its sparsity, and the validation accuracy after pruning and after training."""

    sparsity: float
    pruned_accuracy: float
    trained_accuracy: float


@dataclass(frozen=True)
class Pruned:
    """The pruned and trained network in evaluation mode, its masks, and the rounds that led to it."""

    model: nn.Module
    masks: Masks
    rounds: tuple[Round, ...]


def cubic_sparsity(step: int, *, steps: int, sparsity: float, initial: float = 0.0) -> float:
    """Return the sparsity at a step of the cubic ramp, which starts at ``initial`` and flattens at the end.

    Args:
        step: clamped to 0 … ``steps``.
        steps: the end of the ramp, at least 1.
        sparsity: at the end, 0 ≤ sparsity < 1.
        initial: at step 0, in the same range.

    Raises:
        BadSetting: a setting is out of range.

    >>> [cubic_sparsity(step, steps=2, sparsity=0.75) for step in range(4)]
    [0.0, 0.65625, 0.75, 0.75]
    """
    check_sparsity(initial)
    left = 1 - _progress(step, steps, sparsity)
    return sparsity + (initial - sparsity) * left**3


def geometric_sparsity(step: int, *, steps: int, sparsity: float) -> float:
    """Return the sparsity at a step if each step drops the same share of the remaining weights.

    Args:
        step: clamped to 0 … ``steps``.
        steps: the end of the ramp, at least 1.
        sparsity: at the end, 0 ≤ sparsity < 1.

    Raises:
        BadSetting: a setting is out of range.

    >>> [geometric_sparsity(step, steps=2, sparsity=0.75) for step in range(3)]
    [0.0, 0.5, 0.75]
    """
    progress = _progress(step, steps, sparsity)
    return sparsity if progress == 1 else 1 - (1 - sparsity) ** progress


def fit_masked(
    model: nn.Module, masks: Mapping[str, Tensor], train: Images, validation: Images, **training: Any
) -> Trained:
    """Train the masked model with ``fit``, setting pruned weights to zero after every step.

    Args:
        model: not changed.
        masks: {layer's name: bool tensor in its weight's shape}.
        train: training images.
        validation: images for the choice of the epoch.
        training: settings of ``fit``: epochs, learning_rate, seed, …; all but after_step.

    Raises:
        CompressionError: masks do not fit the model, or a setting of ``fit`` is out of range.
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
    """Prune the model to one sparsity after the other, training it under its masks after each.

    One sparsity is one-shot pruning; ``[cubic_sparsity(t, steps=4, sparsity=0.95) for t in (1, 2, 3, 4)]`` is
    a ramp. Pruned weights are never restored, whatever their later scores. The given model is not changed and
    shares nothing with the result.

    Args:
        model: trained, with at least one Conv2d or Linear layer.
        train: training images.
        validation: images for the choice of each training's epoch.
        sparsities: increasing, each 0 ≤ sparsity < 1; the last one is the result's.
        score: computed at each step for the current network.
        select: ``local_masks``, ``global_masks``, or one of them with a granularity.
        early: weights to rewind to before each training, for lottery tickets; None continues with the trained
            weights.
        checkpoint: a path from which an interrupted run resumes; the training of each step has its own file
            beside it (name.1, name.2, …), and all are removed at the end.
        training: settings of ``fit`` for each step: epochs, learning_rate, seed, …

    Raises:
        CompressionError: a setting is out of range, or the model has no layer to prune.
    """
    _check(sparsities)
    masks, rounds = masks_of(model), []
    paths = [
        checkpoint and checkpoint.with_name(f"{checkpoint.name}.{n + 1}") for n in range(len(sparsities))
    ]
    for sparsity, path in zip(sparsities, paths, strict=True):
        chosen = select(_pruned_lowest(score(model), masks), sparsity=sparsity)
        masks |= {name: masks[name] & mask for name, mask in chosen.items()}
        start = masked(model if early is None else early, masks)
        trained = fit_masked(start, masks, train, validation, checkpoint=path, **training)
        rounds.append(Round(sparsity, accuracy(start, validation), trained.best.validation_accuracy))
        model = trained.model
    for path in filter(None, paths):
        path.unlink(missing_ok=True)
    return Pruned(model, masks, tuple(rounds))


def rewind(pruned: nn.Module, early: nn.Module) -> nn.Module:
    """Return a lottery ticket: the early network with the pruned network's zeros. Neither is changed.

    Weights, biases and BatchNorm statistics are those of the early network.

    Args:
        pruned: the trained network, after pruning.
        early: the same network at an early point of its training, such as after an epoch or two of ``fit``.

    Raises:
        BadSetting: the networks have different layers.
    """
    return masked(early, masks_of(pruned))


def _pruned_lowest(scores: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Return scores in which pruned weights are below all others, so that none is restored.

    Only just below: -inf would also remove the kept weights of a partly pruned group.
    """

    def lowest(s: Tensor) -> Tensor:
        return 2 * s.amin().clamp(max=0) - torch.finfo(s.dtype).tiny

    return {name: s.masked_fill(~masks[name], lowest(s)) for name, s in scores.items()}


def _progress(step: int, steps: int, sparsity: float) -> float:
    """The completed share of the ramp, in [0, 1]."""
    check_sparsity(sparsity)
    steps = check_whole("steps", steps, hint="1 is one-shot, try 4")
    return float(min(max(step / steps, 0.0), 1.0))


def _check(sparsities: Sequence[float]) -> None:
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not sparsities or list(sparsities) != sorted(sparsities):
        raise BadSetting(
            f"sparsities must rise from one to the next, at least one, got {list(sparsities)}; try "
            "[0.5, 0.8, 0.9], or [0.9] at once"
        )
