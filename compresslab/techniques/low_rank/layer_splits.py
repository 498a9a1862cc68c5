"""Splits: ways to factorize one layer into a sequence of smaller ones (channel, spatial, Tucker, CP).

A *split* is a value: which layers it leaves alone and why, the settings of the smaller layers at a rank (so
that their weights and MACs can be counted before anything is decomposed), and their kernels.

    split       a convolution (out, in, kh, kw) becomes                               weights at rank r
    CHANNELS    kh × kw: in → r,  1 × 1: r → out                                      r (in·kh·kw + out)
    SPACE       kh × 1: in → r,  1 × kw: r → out                                      r (in·kh + out·kw)
    TUCKER      1 × 1: in → r_in,  kh × kw: r_in → r_out,  1 × 1: r_out → out         see ``tucker``
    CP          1 × 1: in → r,  kh × 1 and 1 × kw on each channel,  1 × 1: r → out    r (in + kh + kw + out)
    DEPTHWISE   1 × 1: in → r,  kh × kw on each channel,  1 × 1: r → out              r (in + kh·kw + out)

Stride, padding and dilation belong to the layer that has the kernel's height or width; the bias belongs to
the last layer. Every smaller layer has the groups of the original one, and each group has its own factors. A
Linear layer becomes two by its singular value decomposition, with any split (as in Kim et al. 2016,
arXiv:1511.06530).

What it saves: weights and MACs, at ranks below the break-even. What it costs: accuracy, and more layers. What
is left out: the choice of the rank, in ``rank_selection``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, check_whole, is_whole
from compresslab.models.surgery import Layer, check_layer_names
from compresslab.techniques.low_rank.activation_aware import whitened_channel_kernels, whitened_svd
from compresslab.techniques.low_rank.cp import cp_kernels, depthwise_kernels
from compresslab.techniques.low_rank.svd import channel_kernels, space_kernels, truncated_svd
from compresslab.techniques.low_rank.tucker import tucker_kernels

__all__ = [
    "CHANNELS",
    "CP",
    "DEPTHWISE",
    "SPACE",
    "SPLITS",
    "TUCKER",
    "Rank",
    "Split",
    "count_weights",
    "thin_layers",
    "whitened",
]

Rank = int | tuple[int, int]  # Tucker-2 has two: (r_out, r_in)


@dataclass(frozen=True, repr=False)
class Split:
    """A way to factorize one layer into several smaller ones; ``rank`` is per group.

    Attributes:
        name: for tables.
        refuses: layer → the reason why a convolution is left alone, or "".
        full: layer → its largest rank.
        looks: (layer, rank) → the settings of the smaller convolutions.
        kernels: (name, layer, rank) → their weights.
        matrices: (name, weight, rank) → the two matrices of a Linear layer.
    """

    name: str
    refuses: Callable[[nn.Conv2d], str]
    full: Callable[[nn.Conv2d], Rank]
    looks: Callable[[nn.Conv2d, Any], Sequence[dict[str, Any]]]
    kernels: Callable[[str, nn.Conv2d, Any], Sequence[Tensor]]
    matrices: Callable[[str, Tensor, int], Sequence[Tensor]]

    def __repr__(self) -> str:
        return f"Split({self.name!r})"

    def full_rank(self, layer: Layer) -> Rank:
        """Return the largest rank of a layer; at this rank the factorization is exact, except for CP."""
        return min(layer.weight.shape) if isinstance(layer, nn.Linear) else self.full(layer)

    def ranks(self, layer: Layer, *, multiple: int = 1) -> list[Rank]:
        """Return the ranks to try in increasing order; each has more weights than the one before.

        Args:
            layer: Conv2d or Linear.
            multiple: ranks are multiples of this, except the largest; kernels are fast at multiples of 8.

        Raises:
            CompressionError: multiple is below 1.
        """
        multiple = check_whole("multiple", multiple, hint="8 suits a processor")
        full = self.full_rank(layer)
        if isinstance(full, int):
            return list(dict.fromkeys(min(r, full) for r in range(multiple, full + multiple, multiple)))
        most = max(full)  # both ranks at the same share of their channels, rounded up

        def pair(step: int) -> Rank:
            out, inputs = (min(side, -(-side * step // (most * multiple)) * multiple) for side in full)
            return out, inputs

        return list(dict.fromkeys(pair(step) for step in range(1, most + 1)))

    def why_not(self, layer: Layer) -> str:
        """Return the reason why the layer can't be factorized; "" if it can."""
        if type(layer) not in (nn.Conv2d, nn.Linear):  # a subclass may not multiply by its weight
            return f"a {type(layer).__name__} computes otherwise"
        return "" if isinstance(layer, nn.Linear) else self.refuses(layer)


def thin_layers(split: Split, name: str, layer: Layer, rank: Rank, *, filled: bool = True) -> nn.Sequential:
    """Return the smaller layers that replace a layer; they share nothing with it.

    Args:
        split: the kind of factorization.
        name: of the layer, for splits with data per layer.
        layer: Conv2d or Linear. Not changed.
        rank: from 1 to ``split.full_rank(layer)``.
        filled: False creates weights as "meta" tensors, which is enough for counts.

    Raises:
        CompressionError: rank is out of range.
    """
    rank = _checked_rank(split, layer, rank)
    linear = isinstance(layer, nn.Linear)
    looks = _two_linear(layer, rank) if isinstance(layer, nn.Linear) else split.looks(layer, rank)
    kind: Callable[..., nn.Module] = nn.Linear if linear else nn.Conv2d
    meta = {"device": "meta", "dtype": layer.weight.dtype}
    thin = nn.Sequential(*(kind(**look, bias=False, **meta) for look in looks))
    last: Any = thin[-1]
    if filled:
        decompose: Callable[[str, Any, Any], Sequence[Tensor]] = split.matrices if linear else split.kernels
        kernels = decompose(name, layer.weight if linear else layer, rank)
        for piece, kernel in zip(thin, kernels, strict=True):
            piece.weight = nn.Parameter(kernel.clone().contiguous(), layer.weight.requires_grad)
    if layer.bias is not None:
        bias = layer.bias.detach().clone() if filled else torch.empty_like(layer.bias, device="meta")
        last.bias = nn.Parameter(bias, layer.bias.requires_grad)
    return thin.train(layer.training)


def count_weights(layers: nn.Module) -> int:
    """Return the number of weights without biases, which a factorization does not change."""
    return sum(p.numel() for p in layers.parameters() if p.dim() > 1)


def whitened(grams: Mapping[str, Tensor]) -> Split:
    """Return CHANNELS with the least error of the outputs, not of the weights; grouped layers stay whole.

    Args:
        grams: {layer's name: E[x xᵀ] (n, n)}, as ``gram_matrices`` finds them.

    Raises:
        CompressionError: when it is used: a layer without a Gram matrix.
    """

    def of(name: str) -> Tensor:
        check_layer_names("ranks", [name], grams, of="layers with a Gram matrix")
        return grams[name]

    def kernels(name: str, layer: nn.Conv2d, rank: int) -> Sequence[Tensor]:
        return whitened_channel_kernels(layer.weight, of(name), rank=rank)

    def matrices(name: str, weight: Tensor, rank: int) -> Sequence[Tensor]:
        return whitened_svd(weight, of(name), rank=rank)

    return Split("whitened", _in_groups, _smaller_side, _look_channels, kernels, matrices)


# settings of the smaller layers


def _two_linear(layer: nn.Linear, rank: Any) -> list[dict[str, Any]]:
    return [
        {"in_features": layer.in_features, "out_features": rank},
        {"in_features": rank, "out_features": layer.out_features},
    ]


def _piece(inputs: int, outputs: int, groups: int, **settings: Any) -> dict[str, Any]:
    return {"in_channels": inputs, "out_channels": outputs, "kernel_size": 1, "groups": groups, **settings}


def _in_space(layer: nn.Conv2d, axes: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
    """The settings of a layer with the original's kernel, stride, padding and dilation along these axes."""

    def along(values: Any, otherwise: int) -> tuple[int, int]:
        return tuple(values[axis] if axis in axes else otherwise for axis in (0, 1))  # type: ignore[return-value]

    padding = layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0)
    return {
        "kernel_size": along(layer.kernel_size, 1),
        "stride": along(layer.stride, 1),
        "padding": padding,
        "dilation": along(layer.dilation, 1),
        "padding_mode": layer.padding_mode,
    }


def _look_channels(layer: nn.Conv2d, rank: int) -> list[dict[str, Any]]:
    g, between = layer.groups, layer.groups * rank
    return [
        _piece(layer.in_channels, between, g, **_in_space(layer)),
        _piece(between, layer.out_channels, g),
    ]


def _look_space(layer: nn.Conv2d, rank: int) -> list[dict[str, Any]]:
    g, between = layer.groups, layer.groups * rank
    return [
        _piece(layer.in_channels, between, g, **_in_space(layer, (0,))),
        _piece(between, layer.out_channels, g, **_in_space(layer, (1,))),
    ]


def _look_tucker(layer: nn.Conv2d, ranks: tuple[int, int]) -> list[dict[str, Any]]:
    g, (r_out, r_in) = layer.groups, ranks
    return [
        _piece(layer.in_channels, g * r_in, g),
        _piece(g * r_in, g * r_out, g, **_in_space(layer)),
        _piece(g * r_out, layer.out_channels, g),
    ]


def _look_cp(layer: nn.Conv2d, rank: int) -> list[dict[str, Any]]:
    g, r = layer.groups, layer.groups * rank
    return [
        _piece(layer.in_channels, r, g),
        _piece(r, r, r, **_in_space(layer, (0,))),
        _piece(r, r, r, **_in_space(layer, (1,))),
        _piece(r, layer.out_channels, g),
    ]


def _look_depthwise(layer: nn.Conv2d, rank: int) -> list[dict[str, Any]]:
    g, r = layer.groups, layer.groups * rank
    return [
        _piece(layer.in_channels, r, g),
        _piece(r, r, r, **_in_space(layer)),
        _piece(r, layer.out_channels, g),
    ]


# supported layers and largest ranks


def _sides(layer: nn.Conv2d) -> tuple[int, int]:
    """The outputs and inputs per group."""
    return layer.out_channels // layer.groups, layer.in_channels // layer.groups


def _depthwise(layer: nn.Conv2d) -> str:
    return "depthwise: its groups have one channel each" if _sides(layer)[1] == 1 < layer.groups else ""


def _in_groups(layer: nn.Conv2d) -> str:
    return "in groups: Gram matrices are known of whole inputs" if layer.groups != 1 else ""


def _no_space(layer: nn.Conv2d) -> str:
    one = layer.kernel_size == (1, 1)
    return _depthwise(layer) or ("a 1 × 1 kernel has no height or width to split off" if one else "")


def _no_line(layer: nn.Conv2d) -> str:
    return _depthwise(layer) or ("a kernel of one row or column is one already" * (1 in layer.kernel_size))


def _smaller_side(layer: nn.Conv2d) -> int:
    out, inputs = _sides(layer)
    return min(out, inputs * layer.kernel_size[0] * layer.kernel_size[1])


def _smaller_line(layer: nn.Conv2d) -> int:
    out, inputs = _sides(layer)
    return min(out * layer.kernel_size[1], inputs * layer.kernel_size[0])


def _any_kernel(layer: nn.Conv2d) -> int:
    """The kernel's positions times its smaller side: enough components for any tensor."""
    return min(_sides(layer)) * layer.kernel_size[0] * layer.kernel_size[1]


def _checked_rank(split: Split, layer: Layer, rank: Rank) -> Rank:
    full = split.full_rank(layer)
    ranks, most = (x if isinstance(x, tuple) else (x,) for x in (rank, full))
    if len(ranks) != len(most) or not all(is_whole(r, 1, m) for r, m in zip(ranks, most, strict=True)):
        kind = "a whole number" if isinstance(full, int) else "a pair (r_out, r_in) of whole numbers"
        raise BadSetting(
            f"rank must be {kind} from 1 to {full} for {split.name} of this {type(layer).__name__}, "
            f"got {rank}; ranks_for_weights(model, share=0.5) finds ranks that save"
        )
    whole = [int(each) for each in ranks]
    return whole[0] if isinstance(full, int) else (whole[0], whole[1])


def _kernels(decompose: Callable[..., Sequence[Tensor]], name: str = "rank") -> Callable:
    return lambda _, layer, rank: decompose(layer.weight, groups=layer.groups, **{name: rank})


def _svd(name: str, weight: Tensor, rank: int) -> Sequence[Tensor]:
    return truncated_svd(weight, rank=rank)


CHANNELS = Split("channel split", _depthwise, _smaller_side, _look_channels, _kernels(channel_kernels), _svd)
SPACE = Split("spatial split", _no_line, _smaller_line, _look_space, _kernels(space_kernels), _svd)
TUCKER = Split("Tucker", _no_space, _sides, _look_tucker, _kernels(tucker_kernels, "ranks"), _svd)
CP = Split("CP", _no_line, _any_kernel, _look_cp, _kernels(cp_kernels), _svd)
DEPTHWISE = Split("CP, depthwise", _no_space, _any_kernel, _look_depthwise, _kernels(depthwise_kernels), _svd)
SPLITS = {"channels": CHANNELS, "space": SPACE, "tucker": TUCKER, "cp": CP, "depthwise": DEPTHWISE}
