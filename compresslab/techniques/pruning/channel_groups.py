"""Dependency groups of channels: which layers share the channels that structured pruning removes.

A convolution *writes* its output channels: each is one row of its weight, dimension 0. A BatchNorm *scales*
them: one number per channel in each of its four vectors. The next layer *reads* them: each is one column of
its weight, dimension 1, or, after a Flatten, one column per pixel. A sum joins two sets of channels, because
it adds channel c of one to channel c of the other:

    relu(norm2(conv2(…)) + x)        the writers of x and the readers of the sum share channels with conv2

So in a chain of residual blocks the channels between the blocks form one group, and only the channels inside
a block form separate groups. A channel is removed from all layers of its group or from none.

What it saves: nothing itself; ``channel_removal`` removes channels. What it costs: one symbolic trace,
without data. What is left out: concatenations, attention heads, grouped convolutions other than depthwise,
and operations that map a channel of zeros to something else (Sigmoid gives 0.5); each raises an error that
names the layer. The channels of the network's input and output cannot be removed, so they have no group.

Source: Li, Kadav, Durdanovic, Samet and Graf 2017, "Pruning filters for efficient ConvNets",
arXiv:1608.08710 (filters, and the shortcuts of a residual block); Fang, Ma, Song, Mi and Wang 2023,
"DepGraph: Towards any structural pruning", arXiv:2301.12900 (the groups of any network).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from compresslab.errors import Unsupported
from compresslab.models.graph import Add, fx_graph

__all__ = ["Group", "Member", "dependency_groups"]

WRITES, SCALES, FILTERS, READS = "writes", "scales", "filters", "reads"


@dataclass(frozen=True)
class Member:
    """A layer that belongs to a group.

    Args:
        layer: its name, as in ``model.named_modules()``.
        kind: its class, such as ``"Conv2d"``.
        role: ``"writes"`` the channels, ``"scales"`` them (BatchNorm), ``"filters"`` each separately (a
            depthwise convolution), or ``"reads"`` them.
        each: number of neighbouring entries per channel along the dimension: 1, or after a Flatten the
            number of pixels.
    """

    layer: str
    kind: str
    role: str
    each: int = 1

    @property
    def dimension(self) -> int:
        """The dimension of the layer's weight that indexes the channels: 1 for a reader, else 0."""
        return 1 if self.role == READS else 0


@dataclass(frozen=True)
class Group:
    """Channels that must be removed together; ``print(group)`` lists the layers that share them.

    Args:
        name: the first layer that writes them.
        channels: number of channels.
        members: all layers with a weight for these channels, in execution order.
    """

    name: str
    channels: int
    members: tuple[Member, ...]

    @property
    def writers(self) -> tuple[str, ...]:
        """The names of the layers that write these channels."""
        return tuple(member.layer for member in self.members if member.role == WRITES)

    def __str__(self) -> str:
        layer, kind = (max(len(getattr(m, field)) for m in self.members) for field in ("layer", "kind"))
        lines = [
            f"  {m.layer:{layer}}  {m.kind:{kind}}  {m.role:7}  dimension {m.dimension}"
            + (f", {m.each} entries per channel" if m.each > 1 else "")
            for m in self.members
        ]
        return "\n".join([f"{self.name}: {self.channels} channels", *lines])


def dependency_groups(model: nn.Module) -> dict[str, Group]:
    """Return {name: Group} of all channels that can be removed, in the order in which they are written.

    A group has the name of the first layer that writes it. The model is not changed.

    Raises:
        Unsupported: channels can't be followed through a layer (the text names it), or ``torch.fx``
            can't trace the forward.

    >>> pixels = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 10))
    >>> print(dependency_groups(pixels)["0"])
    0: 8 channels
      0  Conv2d       writes   dimension 0
      1  BatchNorm2d  scales   dimension 0
      3  Linear       reads    dimension 1, 9 entries per channel
    """
    modules, channels = dict(model.named_modules()), _Channels()
    values: dict[fx.Node, _Value] = {}
    for node in fx_graph(model).nodes:
        given = [values[before] for before in node.all_input_nodes]
        if node.op == "placeholder":
            values[node] = _Value(_INPUT, "")
        elif node.op == "output":
            channels.join(_INPUT, given[0].written_by, of="the output")
        else:
            values[node] = _follow(node, given, channels, modules)
    return channels.groups()


@dataclass(frozen=True)
class _Value:
    """A value in the graph: the layer that wrote its channels, and their layout.

    ``layout`` is "maps" (n, channels, h, w), "flat" (n, channels · h · w), "rows" (…, channels), or "" for
    the network's input, whose layout is unknown.
    """

    written_by: str
    layout: str


_INPUT = ""  # the writer of the input's channels; the output's are joined to them, and none can be removed
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)  # f(0) = 0
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_THROUGH = (*_ACTIVATIONS, *_POOLS, nn.Identity, nn.Dropout, nn.Dropout2d)
_THROUGH_CALLS: tuple[Callable | str, ...] = (F.relu, torch.relu, "relu", F.gelu, F.silu, torch.tanh)
_SUMS: tuple[Callable | str, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def _follow(
    node: fx.Node, given: list[_Value], channels: _Channels, modules: Mapping[str, nn.Module]
) -> _Value:
    """Return a node's output value; a layer with weights becomes a member of its groups."""
    if node.op != "call_module":
        return _call(node, given, channels)
    name, layer = str(node.target), modules[str(node.target)]
    match layer:
        case nn.Conv2d() | nn.Linear() | nn.BatchNorm1d() | nn.BatchNorm2d():
            return _member(name, layer, given[0], channels)
        case nn.Flatten() if (layer.start_dim, layer.end_dim) == (1, -1):
            return _Value(given[0].written_by, "flat" if given[0].layout == "maps" else given[0].layout)
        case Add():
            return _sum(name, given, channels)
    if isinstance(layer, _THROUGH) or getattr(type(layer), "only_rounds", False):
        return given[0]
    raise _lost(name, layer)


def _member(name: str, layer: nn.Module, value: _Value, channels: _Channels) -> _Value:
    """Return the output value of a layer with weights, and record the channels that it reads and writes."""
    match layer:
        case nn.Conv2d() if layer.groups == 1:
            channels.share(Member(name, "Conv2d", READS), value, layer.in_channels)
            return channels.write(name, "Conv2d", layer.out_channels, "maps")
        case nn.Conv2d() if layer.groups == layer.in_channels == layer.out_channels:
            channels.share(Member(name, "Conv2d", FILTERS), value, layer.in_channels)
            return value
        case nn.Linear() if value.layout != "maps":
            channels.share(Member(name, "Linear", READS), value, layer.in_features)
            return channels.write(name, "Linear", layer.out_features, "rows")
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            channels.share(Member(name, type(layer).__name__, SCALES), value, layer.num_features)
            return value
    raise _lost(name, layer)


def _call(node: fx.Node, given: list[_Value], channels: _Channels) -> _Value:
    """Return the output value of a function or a method."""
    if node.target in _THROUGH_CALLS and len(given) == 1:
        return given[0]
    if node.target in _SUMS and all(isinstance(argument, fx.Node) for argument in node.args):
        return _sum(node.name, given, channels)
    raise _lost(node.name, getattr(node.target, "__name__", node.target))


def _sum(name: str, given: list[_Value], channels: _Channels) -> _Value:
    """Return the sum of two values (or of one with itself) and join their channels."""
    channels.join(given[0].written_by, given[-1].written_by, of=f"the sum {name}")
    return _Value(given[0].written_by, given[0].layout or given[-1].layout)


class _Channels:
    """The sets of shared channels found so far; each set is identified by its first writer."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}  # {writer: number of channels}
        self.same_as: dict[str, str] = {}  # {writer: an earlier writer of the same channels}
        self.members: dict[Member, str] = {}  # {member: a writer of its channels}

    def first(self, writer: str) -> str:
        """Return the first writer of the same channels."""
        while writer in self.same_as:
            writer = self.same_as[writer]
        return writer

    def write(self, name: str, kind: str, number: int, layout: str) -> _Value:
        """Record and return the value that a layer writes; a second run writes the same channels."""
        self.number.setdefault(name, number)
        self.members.setdefault(Member(name, kind, WRITES), name)
        return _Value(name, layout)

    def share(self, member: Member, value: _Value, entries: int) -> None:
        """Record that a layer has the value's channels along a dimension of this many entries."""
        number = self.number.get(self.first(value.written_by), entries)
        each, rest = divmod(entries, number)
        if rest or (each > 1 and value.layout != "flat"):
            raise Unsupported(
                f"{member.layer} has {entries} entries for {number} channels; a layer must have one per "
                "channel, or equally many behind a Flatten of maps: check what it reads"
            )
        member = Member(member.layer, member.kind, member.role, each)
        self.join(self.members.setdefault(member, value.written_by), value.written_by, of=member.layer)

    def join(self, one: str, other: str, *, of: str) -> None:
        """Join two sets of channels."""
        one, other = self.first(one), self.first(other)
        if one == other:
            return
        numbers = {self.number[writer] for writer in (one, other) if writer in self.number}
        if len(numbers) > 1:
            raise Unsupported(
                f"{of} joins {' and '.join(map(str, sorted(numbers)))} channels; both sides must have "
                "equally many: give them one shape"
            )
        order = [_INPUT, *self.number]
        one, other = sorted((one, other), key=order.index)
        self.same_as[other] = one

    def groups(self) -> dict[str, Group]:
        """Return all sets as groups, except the one of the network's input and output."""
        sets: dict[str, list[Member]] = {writer: [] for writer in self.number if writer == self.first(writer)}
        for member, writer in self.members.items():
            if self.first(writer) in sets:
                sets[self.first(writer)].append(member)
        return {name: Group(name, self.number[name], tuple(members)) for name, members in sets.items()}


def _lost(name: str, what: Any) -> Unsupported:
    return Unsupported(
        f"{name} is {what}; channels are followed through Conv2d (dense or depthwise), Linear behind a "
        "Flatten, BatchNorm, pooling, Flatten, sums of two values, and activations that leave zero at zero: "
        "build the network of these"
    )
