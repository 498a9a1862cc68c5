"""Which channels must go together? A channel that is removed is missed by everyone who shares it.

A convolution *writes* its output channels: one is one row of its weight, dimension 0. A BatchNorm *scales*
them: one number a channel in each of its four vectors. Whoever comes next *reads* them: one is one column of
that weight, dimension 1, or, behind a Flatten, one column for each pixel. A sum joins two sets of channels
into one, because it adds channel c of the one to channel c of the other:

    relu(norm2(conv2(…)) + x)        whoever wrote x, and whoever reads the sum, shares channels with conv2

So along a chain of residual blocks the channels between blocks are all one group, and only those inside a
block stand alone. Such a group is removed as a whole or not at all, and it can be printed before anything is.

What it saves: nothing yet; ``channels`` removes them. What it costs: one symbolic run, without data. What is
left out: concatenations, attention heads, convolutions in groups other than depthwise, and operations that
turn a channel of zeros into something else (a Sigmoid makes 0.5 of it): these are errors that name the layer.
The channels of the network's input and output are not ours to remove, so they have no group.

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
    """One layer's share in a group.

    Args:
        layer: its name, as in ``model.named_modules()``.
        kind: its class, such as ``"Conv2d"``.
        role: ``"writes"`` the channels, ``"scales"`` them (BatchNorm), ``"filters"`` each by itself (a
            depthwise convolution), or ``"reads"`` them.
        each: how many neighbouring entries of the dimension belong to one channel: 1, or behind a Flatten
            the number of pixels.
    """

    layer: str
    kind: str
    role: str
    each: int = 1

    @property
    def dimension(self) -> int:
        """The dimension of the layer's weight along which the channels lie: 1 for a reader, else 0."""
        return 1 if self.role == READS else 0


@dataclass(frozen=True)
class Group:
    """Channels that go together: ``print(group)`` says who shares them.

    Args:
        name: the first layer that writes them.
        channels: how many there are.
        members: everyone who has them in a weight, in the order in which they run.
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
            + (f", {m.each} entries a channel" if m.each > 1 else "")
            for m in self.members
        ]
        return "\n".join([f"{self.name}: {self.channels} channels", *lines])


def dependency_groups(model: nn.Module) -> dict[str, Group]:
    """{name: Group} of all channels that can be removed, in the order in which they are written.

    A group is called after the first layer that writes it. The model is left alone.

    Raises:
        Unsupported: a layer through which channels can't be followed (which), or a forward that can't
            be written down as steps.

    >>> pixels = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 9, 10))
    >>> print(dependency_groups(pixels)["0"])
    0: 8 channels
      0  Conv2d       writes   dimension 0
      1  BatchNorm2d  scales   dimension 0
      3  Linear       reads    dimension 1, 9 entries a channel
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
    """What is handed on: the layer that wrote its channels, and how they lie.

    ``layout`` is "maps" (n, channels, h, w), "flat" (n, channels · h · w), "rows" (…, channels), or "" for
    the network's input, of which nothing is known.
    """

    written_by: str
    layout: str


_INPUT = ""  # who writes the channels of the input; those of the output are joined to them: neither may go
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh)  # f(0) = 0
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_THROUGH = (*_ACTIVATIONS, *_POOLS, nn.Identity, nn.Dropout, nn.Dropout2d)
_THROUGH_CALLS: tuple[Callable | str, ...] = (F.relu, torch.relu, "relu", F.gelu, F.silu, torch.tanh)
_SUMS: tuple[Callable | str, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")


def _follow(
    node: fx.Node, given: list[_Value], channels: _Channels, modules: Mapping[str, nn.Module]
) -> _Value:
    """What a node makes of the values that it is given; a layer with weights is noted as a member."""
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
    """What a layer with weights makes of a value; which channels it reads and writes is noted."""
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
    """What a function or a method makes of the values."""
    if node.target in _THROUGH_CALLS and len(given) == 1:
        return given[0]
    if node.target in _SUMS and all(isinstance(argument, fx.Node) for argument in node.args):
        return _sum(node.name, given, channels)
    raise _lost(node.name, getattr(node.target, "__name__", node.target))


def _sum(name: str, given: list[_Value], channels: _Channels) -> _Value:
    """The sum of two values (one, if it is added to itself), whose channels are from now on the same."""
    channels.join(given[0].written_by, given[-1].written_by, of=f"the sum {name}")
    return _Value(given[0].written_by, given[0].layout or given[-1].layout)


class _Channels:
    """Who shares which channels, as far as the network was followed. A set is known by its first writer."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}  # {writer: how many}
        self.same_as: dict[str, str] = {}  # {writer: an earlier one with the same channels}
        self.members: dict[Member, str] = {}  # {member: a writer of its channels}

    def first(self, writer: str) -> str:
        """The first writer of the same channels."""
        while writer in self.same_as:
            writer = self.same_as[writer]
        return writer

    def write(self, name: str, kind: str, number: int, layout: str) -> _Value:
        """The value that a layer writes; one that runs twice writes the same channels twice."""
        self.number.setdefault(name, number)
        self.members.setdefault(Member(name, kind, WRITES), name)
        return _Value(name, layout)

    def share(self, member: Member, value: _Value, entries: int) -> None:
        """Notes that a layer has the value's channels along a dimension with so many entries."""
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
        """Makes two sets of channels one."""
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
        """All sets but the one that the network's input and output belong to."""
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
