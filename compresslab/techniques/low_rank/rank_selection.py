"""Rank selection: break-even ranks, ranks by energy, and ranks under a budget.

Two factors have r (m + n) weights instead of m n. So they save weights below the *break-even rank*

    r* = m n / (m + n)

and a square layer at half of its rank has exactly as many weights as before. Below r* there are several ways
to choose the ranks:

- **energy**: the smallest rank that keeps a share of Σ s², for each layer separately.
- **spread**: a greedy choice for the whole network, which adds one rank at a time where the next s² per MAC
  is the largest. Each layer's s² decrease, so the choice is within one step of the optimum; if all ranks cost
  the same, it is the optimum.
- **scan**: each layer alone is factorized at several ranks, the sensitivity is measured on the network, and a
  budget of MACs is allocated to lose least (``analysis.allocation``).

What it saves: accuracy at the same cost. What it costs: energy and spread take one singular value
decomposition per layer, the scan as many evaluations as layers times ranks. What is left out: that
fine-tuning recovers more in some layers than in others.

Source: energy and a greedy choice over layers: Zhang et al. 2015, arXiv:1505.06798, section 2.4 (there the
product of the layers' energies); ranks for Tucker from the estimated noise of a kernel: Kim et al. 2016,
arXiv:1511.06530 (left out here: the scan measures the network itself).
"""

from __future__ import annotations

import bisect
import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compresslab.analysis.allocation import Choice, allocate_greedily, allocate_units
from compresslab.analysis.sensitivity import Measure, scan
from compresslab.errors import BadSetting, check_fraction, is_whole
from compresslab.measurement.costs import count_macs
from compresslab.models.surgery import Layer, evaluating, forward_hooks, weight_layers
from compresslab.techniques.low_rank.factorization import factorize
from compresslab.techniques.low_rank.layer_splits import CHANNELS, Rank, Split, count_weights, thin_layers

__all__ = [
    "break_even_rank",
    "rank_for_energy",
    "rank_for_weights",
    "ranks_for_energy",
    "ranks_for_weights",
    "ranks_under_budget",
    "scan_ranks",
    "spread_ranks",
]


def break_even_rank(m: int, n: int) -> int:
    """Return the largest rank at which two factors have fewer weights than a layer (m, n), or 0.

    Raises:
        CompressionError: a size is below 1.

    >>> break_even_rank(1024, 1024), break_even_rank(10, 1024), break_even_rank(1, 8)
    (511, 9, 0)
    """
    if not (is_whole(m) and is_whole(n)):
        raise BadSetting(f"m and n must be at least 1, got {m} and {n}; try the sizes of layer.weight")
    m, n = int(m), int(n)
    return (m * n - 1) // (m + n)


def rank_for_energy(s: Tensor, *, energy: float) -> int:
    """Return the smallest rank that keeps at least this share of Σ s²; 1 if all are zero.

    Args:
        s: (ranks,), singular values, decreasing.
        energy: a share, 0 < energy ≤ 1.

    Raises:
        CompressionError: energy is out of range, or there are no values.

    >>> rank_for_energy(torch.tensor([3.0, 1.0, 1.0]), energy=0.9)
    2
    """
    check_fraction("energy", energy, within="(0, 1]", hint="0.9 keeps most of a layer")
    if s.dim() != 1 or len(s) == 0:
        raise BadSetting(
            f"s must be a list of singular values, got shape {tuple(s.shape)}; try torch.linalg.svdvals(w)"
        )
    kept = s.double().square().cumsum(0)
    return int((kept < energy * kept[-1]).sum()) + 1 if kept[-1] > 0 else 1


def ranks_for_energy(model: nn.Module, *, energy: float) -> dict[str, int]:
    """Return the smallest rank that keeps this share of Σ s², for each layer of CHANNELS: {name: rank}.

    A grouped convolution has the largest rank that one of its groups needs.

    Raises:
        CompressionError: energy is out of range, or the model has no layer.
    """
    ranks = {}
    for name, layer in _supported(CHANNELS, model).items():
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        w = layer.weight.detach().double()
        values = torch.linalg.svdvals(w.reshape(groups, len(w) // groups, -1))
        ranks[name] = max(rank_for_energy(s, energy=energy) for s in values)
    return ranks


def rank_for_weights(
    layer: Layer, *, share: float, split: Split = CHANNELS, multiple: int = 1
) -> Rank | None:
    """Return the largest rank with at most this share of the layer's weights, or None.

    Args:
        layer: Conv2d or Linear.
        share: 0 < share < 1.
        split: the kind of factorization; if it can't factorize the layer, the result is None.
        multiple: the rank is a multiple of this; kernels are fast at multiples of 8.

    Raises:
        CompressionError: share is out of range.
    """
    check_fraction("share", share, within="(0, 1)", hint="0.5 halves the weights")
    if split.why_not(layer):
        return None
    ranks = split.ranks(layer, multiple=multiple)

    def weights(rank: Rank) -> int:
        return count_weights(thin_layers(split, "", layer, rank, filled=False))

    fitting = bisect.bisect_right(ranks, share * layer.weight.numel(), key=weights)
    return ranks[fitting - 1] if fitting else None


def ranks_for_weights(
    model: nn.Module, *, share: float, split: Split = CHANNELS, multiple: int = 1
) -> dict[str, Rank]:
    """Return each layer's largest rank with at most this share of its weights; others are omitted.

    Raises:
        CompressionError: share is out of range, or the model has no layer.
    """
    found = {
        name: rank_for_weights(layer, share=share, split=split, multiple=multiple)
        for name, layer in weight_layers(model).items()
    }
    return {name: rank for name, rank in found.items() if rank is not None}


def spread_ranks(spectra: Sequence[Tensor], costs: Sequence[int], *, budget: int) -> list[int]:
    """Return a rank per layer by a greedy choice: from 1 up, always the largest next s² per unit of cost.

    Args:
        spectra: singular values of each layer, decreasing; scaled so that layers are comparable.
        costs: cost per rank of each layer, in weights or MACs.
        budget: the largest total cost.

    Raises:
        CompressionError: rank 1 in every layer exceeds the budget.

    >>> spread_ranks([torch.tensor([5.0, 4.0, 1.0]), torch.tensor([5.0, 2.0])], [1, 1], budget=4)
    [2, 2]
    """
    if len(spectra) != len(costs):
        raise BadSetting(
            f"spectra and costs must be one per layer, got {len(spectra)} and {len(costs)}; take both "
            "from the same layers"
        )
    left = budget - sum(costs)
    if left < 0:
        raise BadSetting(
            f"budget must be at least {sum(costs):,}, rank 1 everywhere, got {budget:,}; leave a layer whole"
        )
    squares = [[float(value) ** 2 for value in s[1:]] for s in spectra]  # what each further rank keeps
    return [1 + further for further in allocate_units(squares, costs, budget=left)]


def scan_ranks(
    model: nn.Module,
    measure: Measure,
    *,
    shares: Sequence[float],
    split: Split = CHANNELS,
    multiple: int = 1,
) -> dict[str, list[float | None]]:
    """Measure the network with each layer thin alone: {layer's name: one sensitivity per share}.

    It is None where no rank fits the share.

    Args:
        model: left alone.
        measure: factorized network → how much worse it is, as ``output_sensitivity`` makes it.
        shares: of the layer's weights that may remain, each 0 < share < 1.
        split: the kind of factorization; layers that it can't factorize are not in the result.
        multiple: ranks are multiples of this.

    Raises:
        CompressionError: a share is out of range, or the model has no layer.
    """
    layers = _supported(split, model)

    def thin(name: str, share: float) -> nn.Module | None:
        rank = rank_for_weights(layers[name], share=share, split=split, multiple=multiple)
        return None if rank is None else factorize(model, {name: rank}, split=split)

    return scan(layers, shares, thin, measure)


def ranks_under_budget(
    model: nn.Module,
    inputs: Tensor,
    sensitivities: Mapping[str, Sequence[float | None]],
    *,
    shares: Sequence[float],
    macs_per_sample: int,
    split: Split = CHANNELS,
    multiple: int = 1,
) -> dict[str, Rank]:
    """A rank for each layer, with a small sum of sensitivities within the budget of MACs.

    Layers that are not in the result stay whole.

    Args:
        model: not changed.
        inputs: at least one image, (n, 1, 28, 28): MACs depend on its size.
        sensitivities: from ``scan_ranks`` with these shares, this split and multiple.
        shares: of a layer's weights.
        macs_per_sample: the budget of the whole network.
        split: the kind of factorization.
        multiple: ranks are multiples of this.

    Raises:
        CompressionError: even the smallest ranks exceed the budget.
    """
    layers, shapes = weight_layers(model), _input_shapes(model, inputs)
    choices: dict[str, list[Choice]] = {}
    ranks: dict[str, list[Rank | None]] = {}
    for name, row in sensitivities.items():
        choices[name], ranks[name] = [Choice(_macs(layers[name], shapes[name]), 0.0)], [None]
        for share, found in zip(shares, row, strict=True):
            rank = rank_for_weights(layers[name], share=share, split=split, multiple=multiple)
            if rank is not None and found is not None:
                thin = thin_layers(split, name, layers[name], rank, filled=False)
                choices[name].append(Choice(_macs(thin, shapes[name]), found))
                ranks[name].append(rank)
    fixed = count_macs(model, inputs) - sum(layer[0].cost for layer in choices.values())
    picks = allocate_greedily({**choices, "all else": [Choice(fixed, 0.0)]}, budget=macs_per_sample)
    chosen = {name: ranks[name][picks[name]] for name in ranks}
    return {name: rank for name, rank in chosen.items() if rank is not None}


def _supported(split: Split, model: nn.Module) -> dict[str, Layer]:
    """The layers that the split can factorize."""
    return {name: layer for name, layer in weight_layers(model).items() if not split.why_not(layer)}


@torch.no_grad()
def _input_shapes(model: nn.Module, inputs: Tensor) -> dict[str, list[torch.Size]]:
    """The input shapes of each layer's calls for one image: {name: shapes with a batch of 1}."""
    shapes: dict[str, list[torch.Size]] = defaultdict(list)

    def note(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        shapes[name].append(x.shape)

    with forward_hooks(weight_layers(model), note), evaluating(model):
        model(inputs[:1])
    return shapes


def _macs(layers: nn.Module, shapes: Sequence[torch.Size]) -> int:
    """The MACs per image over all calls, counted on "meta" tensors without computing."""
    light = copy.deepcopy(layers).to("meta")
    return sum(count_macs(light, torch.empty(shape, device="meta")) for shape in shapes)
