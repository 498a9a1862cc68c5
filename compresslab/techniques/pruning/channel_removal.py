"""Structured pruning: removing channels, which leaves a smaller dense network.

If a channel's BatchNorm has γ = β = 0, the channel is zero for all its readers. Then the weights that write
it and the weights that read it have no effect on any output, and both can be removed:

    y = Σ_c w[:, c] ∗ x_c  =  Σ_{c kept} w[:, c] ∗ x_c                    if x_c = 0 for the others

    kept:  rows w[kept] of the writers, entries of γ, β, μ, σ² of the norms, columns w[:, kept] of the readers

What it saves: parameters, MACs, activations and time, on any machine and without a special format. Half the
channels leave about a quarter of the weights, because most layers lose rows *and* columns. What it costs:
accuracy, more than single zeros at the same sparsity; fine-tuning recovers most of it, and norms need new
statistics because their inputs change. What is left out: the fine-tuning (``training.loop.fit``).

A pruned network can't be built as ``ResidualNetwork(stem, blocks)``, because a block's inner and outer widths
differ. The file holds only the tensors, and their shapes give the widths: ``load_pruned`` (or ``empty_like``,
for a state dict) gives these shapes to the structure of the unpruned network, without pickle.

Source: Li, Kadav, Durdanovic, Samet and Graf 2017, "Pruning filters for efficient ConvNets",
arXiv:1608.08710; Fang, Ma, Song, Mi and Wang 2023, "DepGraph: Towards any structural pruning",
arXiv:2301.12900 (scores summed over a group).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, DamagedFile, is_whole
from compresslab.models.graph import plain_layer
from compresslab.models.surgery import Layer
from compresslab.storage import load_model, read
from compresslab.techniques.pruning.channel_groups import Group, Member, dependency_groups

__all__ = ["empty_like", "load_pruned", "recalibrate_batch_norm", "remove_channels"]


def remove_channels(model: nn.Module, keep: Mapping[str, Tensor | Sequence[int]]) -> nn.Module:
    """Return a smaller network of the same structure in which the named groups have only the kept channels.

    Its outputs in evaluation mode are those of the given model with the other channels' γ and β (without a
    norm: rows and biases) at zero. Layers that lose channels become plain, as in ``plain_layer``; the others
    stay as they are. The given model is not changed and shares nothing with the result.

    Args:
        model: with layers that ``dependency_groups`` can follow.
        keep: {group: indices of the channels to keep}; groups that are not named keep all channels.

    Raises:
        CompressionError: a group is unknown or would be emptied, or an index is out of range.
    """
    groups = dependency_groups(model)
    _check_groups(keep, groups)
    smaller = copy.deepcopy(model)
    for name, channels in keep.items():
        kept = _indices(groups[name], channels)
        for member in groups[name].members:
            layer = smaller.get_submodule(member.layer)
            thin = _thinner(layer, member, kept)
            for path, module in list(smaller.named_modules(remove_duplicate=False)):
                if module is layer:  # a layer may have two names
                    smaller.set_submodule(path, thin)
    return smaller


def empty_like(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the model's structure with a state dict's shapes, all zeros, for ``load_state_dict(state)``.

    Args:
        model: the unpruned network, such as ``models.baseline()``. Not changed.
        state: of a pruned network of the same structure.

    Raises:
        CompressionError: the state dict belongs to another network.
    """
    empty = copy.deepcopy(model)
    _check_state(empty.state_dict(), state)
    for name, tensor in state.items():
        path, _, part = name.rpartition(".")
        layer = empty.get_submodule(path)
        _put(layer, part, getattr(layer, part).new_zeros(tensor.shape))
    for module in empty.modules():
        _note_sizes(module)
    return empty


def load_pruned(path: str | Path, *, into: nn.Module) -> nn.Module:
    """Load a pruned network from a file of ``save_model``, with the widths of the file.

    A file of a ``store_sparsely`` network has no shapes of weights, so it can't be read without the widths.

    Args:
        path: the file.
        into: the unpruned network, which gives the structure. Not changed.

    Raises:
        CompressionError: the file is missing or damaged, has no shapes, or contains another network.
    """
    state = {name.replace("/", ".").removeprefix("."): tensor for name, tensor in read(path)[0].items()}
    _check_shapes(path, state, into.state_dict())
    return load_model(path, into=empty_like(into, state))


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> nn.Module:
    """Return a copy with new running statistics in its BatchNorms; weights, γ and β do not change.

    Each norm's mean and variance become the average over the batches of the statistics of its inputs; all
    other layers run in evaluation mode. A model without norms is only copied. The given model is not changed.

    Args:
        model: with BatchNorm layers.
        batches: training images (n, 1, 28, 28), or (images, labels) as from ``Images.batches``; of one size,
            because all batches have the same weight.

    Raises:
        CompressionError: there are no batches.
    """
    fresh = copy.deepcopy(model).eval()
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None  # the plain average over all batches
    seen = 0
    for seen, batch in enumerate(batches, 1):  # noqa: B007 (counted)
        fresh(batch if isinstance(batch, Tensor) else batch[0])
    if not seen:
        raise BadSetting("batches must have at least one batch of images, got none; try train.batches(500)")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, original in zip(fresh.modules(), model.modules(), strict=True):
        module.training = original.training
    return fresh


def _indices(group: Group, channels: Tensor | Sequence[int]) -> Tensor:
    """Return the channels to keep in increasing order, after checking them."""
    if isinstance(channels, list | tuple):  # torch can't join NumPy's unsigned numbers with others
        channels = [int(each) if is_whole(each, 0) else each for each in channels]
    kept = torch.as_tensor(channels)
    if kept.numel() == 0:
        raise BadSetting(
            f"keep must leave group {group.name} at least one of its {group.channels} channels, got "
            "none; nothing would pass"
        )
    whole = kept.dim() == 1 and not kept.is_floating_point() and kept.dtype != torch.bool
    if not whole or not 0 <= kept.min() <= kept.max() < group.channels or kept.unique().numel() < len(kept):
        raise BadSetting(
            f"keep of group {group.name} must be different whole numbers from 0 to "
            f"{group.channels - 1}, got {channels}; of a mask, give mask.nonzero().flatten()"
        )
    return kept.sort().values


@torch.no_grad()
def _thinner(layer: Any, member: Member, kept: Tensor) -> nn.Module:
    """Return a new layer with only the kept channels of this member."""
    thin = plain_layer(layer) if isinstance(layer, Layer) else copy.deepcopy(layer)
    entries = (kept[:, None] * member.each + torch.arange(member.each)).flatten()
    parts = ["weight"] if member.dimension else ["weight", "bias", "running_mean", "running_var"]
    for part in parts:
        tensor = getattr(thin, part, None)
        if tensor is not None:
            _put(thin, part, tensor.index_select(member.dimension, entries.to(tensor.device)))
    _note_sizes(thin)
    return thin


def _put(layer: Any, part: str, tensor: Tensor) -> None:
    """Replace a parameter or buffer by another tensor; a parameter keeps its requires_grad."""
    old = getattr(layer, part)
    setattr(layer, part, nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor)


def _note_sizes(layer: nn.Module) -> None:
    """Set a layer's size attributes from the shapes of its tensors."""
    match layer:
        case nn.Conv2d():
            depthwise = layer.groups == layer.in_channels == layer.out_channels
            layer.out_channels = layer.weight.shape[0]
            if depthwise:
                layer.groups = layer.out_channels
            layer.in_channels = layer.weight.shape[1] * layer.groups
        case nn.Linear():
            layer.out_features, layer.in_features = layer.weight.shape
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            vectors = (layer.weight, layer.running_mean)
            layer.num_features = next((len(v) for v in vectors if v is not None), layer.num_features)


def _check_groups(names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise BadSetting(
                f"a group must be one of {', '.join(known)}, got {name!r}; see dependency_groups(model)"
            )


def _check_shapes(path: str | Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise for files of ``store_sparsely``, whose layers have positions instead of a weight with a shape."""
    odd = sorted(name for name in state if name.rpartition(".")[2] == "positions" and name not in wanted)
    if odd:
        raise DamagedFile(
            f"{path} is a file without shapes ({odd[0]} stands for a weight); load_pruned takes widths from "
            "the weights' shapes: save the thin network as it is, or load it with "
            "load_model(path, into=store_sparsely(a network of the same widths))"
        )


def _check_state(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    odd = sorted(wanted.keys() ^ state.keys())
    if odd:
        where = "only in the state dict" if odd[0] in state else "only in the model"
        raise DamagedFile(
            f"the state dict is of another network: {odd[0]} is {where}; "
            "give the network as it was before pruning"
        )
    for name, tensor in state.items():
        full, thin = wanted[name].shape, tensor.shape
        alike = len(full) == len(thin) and full[2:] == thin[2:]
        if not alike or any(t > f for t, f in zip(thin, full, strict=True)):
            raise DamagedFile(
                f"{name} is {tuple(thin)} in the state dict and {tuple(full)} in the model; pruning leaves "
                "fewer channels and the same kernel: give the network as it was before pruning"
            )
