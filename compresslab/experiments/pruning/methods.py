"""The criteria, granularities and channel selections that lab 03 compares, by their names in its tables.

All criteria have one signature: from a network and training images to scores of every layer's weights. Random
and magnitude do not use the images; gradient, Taylor and OBD also use the labels. All channel selections have
another: the channels to keep within a budget of MACs. Sources are listed in the techniques' modules.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from compresslab.data.images import Images
from compresslab.experiments.results import RESULTS, read_json
from compresslab.measurement.costs import count_macs
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.channel_selection import (
    Keep,
    channel_scores,
    keep_channels,
    keep_channels_within,
)
from compresslab.techniques.pruning.criteria import (
    gradient,
    optimal_brain_damage,
    random_scores,
    taylor,
    wanda,
)
from compresslab.techniques.pruning.gradients import input_norms, mean_gradients, squared_gradients
from compresslab.techniques.pruning.granularity import (
    Granularity,
    channel,
    fine,
    kernel,
    local_masks,
    magnitudes,
    n_of_m_mask,
    vector,
)
from compresslab.techniques.pruning.masks import Masks, prunable_layers

__all__ = [
    "CHANNEL_CHOICES",
    "CRITERIA",
    "GRANULARITIES",
    "Criterion",
    "choose_masks",
    "masks_of_two_in_four",
    "torch_prunings_channels",
]

LAB = "03_pruning"
Criterion = Callable[[nn.Module, Images, int], dict[str, Tensor]]  # (model, images, seed) → {layer: scores}


def _random(model: nn.Module, images: Images, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers = prunable_layers(model)
    return {name: random_scores(layer.weight, generator=generator) for name, layer in layers.items()}


def _magnitude(model: nn.Module, images: Images, seed: int) -> dict[str, Tensor]:
    return magnitudes(model)


def _gradient(model: nn.Module, images: Images, seed: int) -> dict[str, Tensor]:
    return {name: gradient(g) for name, g in mean_gradients(model, images.batches()).items()}


def _of_weight(
    evidence: Callable, score: Callable, model: nn.Module, images: Images, seed: int
) -> dict[str, Tensor]:
    """Return a criterion of the weights and of one statistic of the data."""
    layers = prunable_layers(model)
    return {name: score(layers[name].weight, e) for name, e in evidence(model, images.batches()).items()}


CRITERIA: dict[str, Criterion] = {
    "magnitude": _magnitude,
    "random": _random,
    "gradient": _gradient,
    "taylor": functools.partial(_of_weight, mean_gradients, taylor),
    "obd": functools.partial(_of_weight, squared_gradients, optimal_brain_damage),
    "wanda": functools.partial(_of_weight, input_norms, wanda),
}
GRANULARITIES: dict[str, Granularity] = {"fine": fine, "vector": vector, "kernel": kernel, "channel": channel}


def choose_masks(
    scores: dict[str, Tensor], granularity: Granularity, *, sparsity: float, model: nn.Module
) -> Masks:
    """Return ``local_masks``, with single weights in the last layer, where each row is a class.

    Args:
        scores: {layer: scores in its weight's shape}.
        granularity: of all other layers.
        sparsity: the share of groups that every layer loses.
        model: whose last Conv2d or Linear gives the logits.

    Raises:
        CompressionError: sparsity out of range, or scores that are not numbers.
    """
    last = list(prunable_layers(model))[-1]
    inner = {name: s for name, s in scores.items() if name != last}
    masks = local_masks(inner, sparsity=sparsity, granularity=granularity)
    return masks | local_masks({last: scores[last]}, sparsity=sparsity)


def masks_of_two_in_four(scores: dict[str, Tensor]) -> Masks:
    """Return 2:4 masks of all layers whose number of inputs is a multiple of four; the others stay dense."""
    return {name: n_of_m_mask(s) for name, s in scores.items() if s.shape[1] % 4 == 0}


def _uniform(model: nn.Module, images: Images, macs: int) -> Keep:
    """Remove the channels with the lowest magnitudes, the same smallest sufficient share in every group."""
    scores, one = _group_scores(model, magnitudes(model)), images.first(1).inputs()

    def suffices(share: float) -> bool:
        thin = remove_channels(model, keep_channels(scores, sparsity=share))
        return count_macs(thin, one) <= macs

    shares = [step / 200 for step in range(200)]
    return keep_channels(scores, sparsity=shares[bisect.bisect_left(shares, True, key=suffices)])


def _one_line(model: nn.Module, images: Images, macs: int, *, criterion: str, multiple: int) -> Keep:
    """Rank all channels together, each group's scores divided by their mean, and remove the lowest."""
    scores = _group_scores(model, CRITERIA[criterion](model, images, 0))
    line = {name: s / s.mean() for name, s in scores.items()}
    return keep_channels_within(
        model, line, images.first(1).inputs(), macs_per_sample=macs, multiple=multiple
    )


def torch_prunings_channels(*, folder: Path = RESULTS) -> dict[str, list[int]]:
    """Read the channels of the baseline that torch-pruning 1.6.1 keeps: {group: channels}; a test repeats it.

    Its group magnitude (L2) with a pruning ratio of 0.29 for every group.

    Args:
        folder: where the results are kept.

    Raises:
        CompressionError: they are not there, or can't be read.
    """
    path = folder / LAB / "torch_pruning_keeps.json"
    return read_json(path, about="it says which channels torch-pruning keeps")


def _theirs(model: nn.Module, images: Images, macs: int) -> Keep:
    """The channels that torch-pruning keeps of the baseline, whatever the arguments."""
    return {name: torch.tensor(kept) for name, kept in torch_prunings_channels().items()}


def _group_scores(model: nn.Module, scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores of channels, summed over all weights of each: {group: (channels,)}."""
    return {name: channel_scores(group, scores) for name, group in dependency_groups(model).items()}


CHANNEL_CHOICES: dict[str, Callable[[nn.Module, Images, int], Keep]] = {
    "magnitude": _uniform,
    "taylor": functools.partial(_one_line, criterion="taylor", multiple=1),
    "magnitude_of_eight": functools.partial(_one_line, criterion="magnitude", multiple=8),
    "taylor_of_eight": functools.partial(_one_line, criterion="taylor", multiple=8),
    "torch_pruning": _theirs,
}
