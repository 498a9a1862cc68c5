"""How thin? The rank at which a factorisation begins to pay, and which layer gets how much of a budget.

Two thin layers have r (m + n) weights where the whole one has m n. So they save below the *break-even rank*

    r* = m n / (m + n)

and a square layer at half of its rank has exactly as many weights as before. Below r* there are several ways
to say how thin a layer may be:

- **energy**: the smallest rank that keeps a share of Σ s². It asks the layer alone.
- **spread**: ranks are bought one by one for the whole network, where the next s² a MAC is the largest.
  As each layer's s² fall, the choice comes within one step of the best there is, and where all layers'
  ranks cost the same it is the best.
- **scan**: each layer alone is made thin in several strengths, the network's answers are looked at, and a
  budget of MACs goes where it does the least damage (``analysis.allocation``). It asks the network.

What it saves: nothing; it says where saving does little harm. What it costs: energy and spread a singular
value decomposition a layer, the scan as many runs as layers times strengths. What is left out: that fine-
tuning mends some layers better than others.

Source: energy and a greedy choice over layers: Zhang et al. 2015, arXiv:1505.06798, section 2.4 (there the
product of the layers' energies); ranks for Tucker from the noise that a kernel seems to have: Kim et al.
2016, arXiv:1511.06530 (left out here: the scan is measured on the network itself).
"""

from __future__ import annotations

import bisect
import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from compresslab.analysis.allocation import Choice, least_damage
from compresslab.analysis.sensitivity import Damage
from compresslab.errors import BadSetting
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
    """The largest rank at which two thin layers have fewer weights than one (m, n): 0 if there is none.

    Raises:
        CompressionError: a size below 1.

    >>> break_even_rank(1024, 1024), break_even_rank(10, 1024), break_even_rank(1, 8)
    (511, 9, 0)
    """
    if min(m, n) < 1:
        raise BadSetting(f"m and n must be at least 1, got {m} and {n}; try the sizes of layer.weight")
    return (m * n - 1) // (m + n)


def rank_for_energy(s: Tensor, *, energy: float) -> int:
    """The smallest rank whose kept s² make at least that share of Σ s²; 1 if all are zero.

    Args:
        s: (ranks,), singular values, falling.
        energy: a share, 0 < energy ≤ 1.

    Raises:
        CompressionError: energy out of range, or no values.

    >>> rank_for_energy(torch.tensor([3.0, 1.0, 1.0]), energy=0.9)
    2
    """
    if not 0 < energy <= 1:
        hint = f"; did you mean {energy / 100:g}?" if 1 < energy <= 100 else "; 0.9 keeps most of a layer"
        raise BadSetting(f"energy must be a fraction in (0, 1], got {energy}{hint}")
    if s.dim() != 1 or len(s) == 0:
        raise BadSetting(
            f"s must be a list of singular values, got shape {tuple(s.shape)}; try torch.linalg.svdvals(w)"
        )
    kept = s.double().square().cumsum(0)
    return int((kept < energy * kept[-1]).sum()) + 1 if kept[-1] > 0 else 1


def ranks_for_energy(model: nn.Module, *, energy: float) -> dict[str, int]:
    """For every layer that CHANNELS can split, the smallest rank that keeps that share of Σ s²: {name: rank}.

    A convolution in groups takes the largest rank that one of its groups asks for.

    Raises:
        CompressionError: energy out of range, or no layer.
    """
    ranks = {}
    for name, layer in _open_to(CHANNELS, model).items():
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        w = layer.weight.detach().double()
        values = torch.linalg.svdvals(w.reshape(groups, len(w) // groups, -1))
        ranks[name] = max(rank_for_energy(s, energy=energy) for s in values)
    return ranks


def rank_for_weights(
    layer: Layer, *, share: float, split: Split = CHANNELS, multiple: int = 1
) -> Rank | None:
    """The largest rank at which the thin layers have at most that share of the layer's weights; None if none.

    Args:
        layer: Conv2d or Linear.
        share: 0 < share < 1, so that something is saved.
        split: how the layer is made thin; None too where it can't.
        multiple: of what the rank is; a processor likes widths of eight.

    Raises:
        CompressionError: share out of range.
    """
    if not 0 < share < 1:
        hint = f"; did you mean {share / 100:g}?" if 1 < share < 100 else "; 0.5 halves the weights"
        raise BadSetting(f"share must be a fraction in (0, 1), got {share}{hint}")
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
    """For every layer the largest rank with at most that share of its weights; one that has none is left out.

    Raises:
        CompressionError: share out of range, or no layer.
    """
    found = {
        name: rank_for_weights(layer, share=share, split=split, multiple=multiple)
        for name, layer in weight_layers(model).items()
    }
    return {name: rank for name, rank in found.items() if rank is not None}


def spread_ranks(spectra: Sequence[Tensor], costs: Sequence[int], *, budget: int) -> list[int]:
    """A rank for each layer, from 1 up: the next one always where it drops the most s² a unit of cost.

    Args:
        spectra: of each layer, its singular values, falling; scaled so that layers compare.
        costs: of each layer, what one rank costs: weights or MACs.
        budget: what all ranks together may cost.

    Raises:
        CompressionError: a budget that rank 1 everywhere exceeds.

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
    steps = sorted(  # as s² fall, a layer's own come in their order
        (-(float(value) ** 2) / cost, layer, cost)
        for layer, (s, cost) in enumerate(zip(spectra, costs, strict=True))
        for value in s[1:]
    )
    ranks = [1] * len(spectra)
    for _, layer, cost in steps:
        if cost <= left:
            ranks[layer], left = ranks[layer] + 1, left - cost
    return ranks


def scan_ranks(
    model: nn.Module,
    damage: Damage,
    *,
    shares: Sequence[float],
    split: Split = CHANNELS,
    multiple: int = 1,
) -> dict[str, list[float | None]]:
    """What each layer does when it alone is thin: {layer's name: one damage a share; None if no rank fits}.

    Args:
        model: left alone.
        damage: factorized network → how much worse it is, as ``compresslab.analysis.allocation`` makes it.
        shares: of the layer's weights that may be left, each 0 < share < 1.
        split: how layers are made thin; those that it can't split are not in the result.
        multiple: of what the ranks are.

    Raises:
        CompressionError: a share out of range, or no layer.
    """
    layers = _open_to(split, model)
    bar = tqdm(total=len(layers) * len(shares), desc="ranks", unit="run", leave=False)

    def alone(name: str, share: float) -> float | None:
        bar.update()
        rank = rank_for_weights(layers[name], share=share, split=split, multiple=multiple)
        return None if rank is None else damage(factorize(model, {name: rank}, split=split))

    with bar:
        return {name: [alone(name, share) for share in shares] for name in layers}


def ranks_under_budget(
    model: nn.Module,
    inputs: Tensor,
    damages: Mapping[str, Sequence[float | None]],
    *,
    shares: Sequence[float],
    macs_per_sample: int,
    split: Split = CHANNELS,
    multiple: int = 1,
) -> dict[str, Rank]:
    """A rank for each layer, of little summed damage within the budget of MACs; layers left out stay whole.

    Args:
        model: left alone.
        inputs: one image or more, (n, 1, 28, 28): MACs depend on its size.
        damages: from ``scan_ranks`` with these shares, this split and multiple.
        shares: of a layer's weights.
        macs_per_sample: what the whole network may cost.
        split: how layers are made thin.
        multiple: of what the ranks are.

    Raises:
        CompressionError: a budget that even the thinnest ranks exceed.
    """
    layers, shapes = weight_layers(model), _input_shapes(model, inputs)
    choices: dict[str, list[Choice]] = {}
    ranks: dict[str, list[Rank | None]] = {}
    for name, row in damages.items():
        choices[name], ranks[name] = [Choice(_macs(layers[name], shapes[name]), 0.0)], [None]
        for share, damage in zip(shares, row, strict=True):
            rank = rank_for_weights(layers[name], share=share, split=split, multiple=multiple)
            if rank is not None and damage is not None:
                thin = thin_layers(split, name, layers[name], rank, filled=False)
                choices[name].append(Choice(_macs(thin, shapes[name]), damage))
                ranks[name].append(rank)
    fixed = count_macs(model, inputs) - sum(layer[0].cost for layer in choices.values())
    picks = least_damage({**choices, "all else": [Choice(fixed, 0.0)]}, budget=macs_per_sample)
    chosen = {name: ranks[name][picks[name]] for name in ranks}
    return {name: rank for name, rank in chosen.items() if rank is not None}


def _open_to(split: Split, model: nn.Module) -> dict[str, Layer]:
    """The layers that the split can make thin."""
    return {name: layer for name, layer in weight_layers(model).items() if not split.why_not(layer)}


@torch.no_grad()
def _input_shapes(model: nn.Module, inputs: Tensor) -> dict[str, list[torch.Size]]:
    """What one image gives each layer at each of its calls: {name: shapes with a batch of 1}."""
    shapes: dict[str, list[torch.Size]] = defaultdict(list)

    def note(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        shapes[name].append(x.shape)

    with forward_hooks(weight_layers(model), note), evaluating(model):
        model(inputs[:1])
    return shapes


def _macs(layers: nn.Module, shapes: Sequence[torch.Size]) -> int:
    """MACs of one image in all calls; on "meta" nothing is computed."""
    light = copy.deepcopy(layers).to("meta")
    return sum(count_macs(light, torch.empty(shape, device="meta")) for shape in shapes)
