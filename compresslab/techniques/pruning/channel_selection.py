"""Choice of the channels to keep, by sparsity per group or by a budget of MACs.

Either every group loses the same share of its channels (or its own share), or all channels of the network are
ranked together and removed from the lowest score on until the network is within the budget:

    keep the best channels - round(sparsity · channels) of each group
    or: remove the fewest channels, lowest score first, with MACs(network) ≤ budget

MACs are counted on the network that really is smaller. They never rise as channels are removed, so a binary
search finds the number to remove in about a dozen counts.

What it saves: nothing itself; ``channel_removal`` removes channels. What it costs: the counts. What is left
out: sparsities from a sensitivity scan (``sensitivity``), and latency instead of MACs; but numbers of
channels can be rounded to a multiple, such as 8, for which kernels are fast.

Source: Li, Kadav, Durdanovic, Samet and Graf 2017, "Pruning filters for efficient ConvNets",
arXiv:1608.08710; one ranking for the whole network: Liu et al. 2017, "Learning efficient convolutional
networks through network slimming", arXiv:1708.06519.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, check_whole
from compresslab.measurement.costs import count_macs
from compresslab.techniques.pruning.channel_groups import Group, Member
from compresslab.techniques.pruning.channel_removal import remove_channels
from compresslab.techniques.pruning.granularity import fine_grained_mask

__all__ = ["Keep", "channel_scores", "keep_channels", "keep_channels_within"]

Keep = dict[str, Tensor]  # {group: indices of the channels to keep, int64, increasing}


def keep_channels(
    scores: Mapping[str, Tensor], *, sparsity: float | Mapping[str, float], multiple: int = 1
) -> Keep:
    """Return {group: kept channels}: in each group all but the given share with the lowest scores.

    Args:
        scores: {group: (channels,)}; channels with high scores are kept.
        sparsity: the share to remove, 0 ≤ sparsity < 1: one for all groups, or {group: share}; groups that
            are not named keep all channels.
        multiple: the number of kept channels is rounded up to a multiple of this (down, if the group has
            not that many); a group with fewer channels than one multiple keeps all.

    Raises:
        BadSetting: sparsity is out of range, a group would be emptied, or a name is unknown.

    >>> keep_channels({"stem": torch.tensor([3.0, 1.0, 2.0, 4.0])}, sparsity=0.5)
    {'stem': tensor([0, 3])}
    """
    multiple = _checked_multiple(multiple)
    shares = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(scores, sparsity)
    kept = {}
    for name, share in shares.items():
        if name not in scores:
            raise BadSetting(
                f"sparsity must name groups that have scores ({', '.join(scores)}), got {name!r}; leave "
                "it out"
            )
        number = int(fine_grained_mask(scores[name], sparsity=share).sum())
        if number == 0:
            raise BadSetting(
                f"sparsity must leave group {name} at least one of its {len(scores[name])} channels, got "
                f"{share}; try {1 - 1 / len(scores[name]):.3g} or less"
            )
        kept[name] = _best(scores[name], number, multiple)
    return kept


def keep_channels_within(
    model: nn.Module, scores: Mapping[str, Tensor], inputs: Tensor, *, macs_per_sample: int, multiple: int = 1
) -> Keep:
    """Return {group: kept channels} with the fewest removed, lowest score first, within a budget of MACs.

    The scores of all groups are ranked together as they are. If a criterion sums more weights per channel in
    some groups than in others, first divide each group's scores by their mean. No group is emptied.

    Args:
        model: the scored network. Not changed.
        scores: {group: (channels,)}.
        inputs: images for the count; only the first is used.
        macs_per_sample: the budget of the smaller network, as ``count_macs`` counts.
        multiple: as for ``keep_channels``.

    Raises:
        CompressionError: even the smallest network exceeds the budget, there are no scores, or a name is
            unknown.
    """
    multiple = _checked_multiple(multiple)
    if not scores:
        raise BadSetting(
            "scores must be {group: channel scores}, got none; make them of dependency_groups(model)"
        )
    group_of = torch.cat([torch.full((len(s),), index) for index, s in enumerate(scores.values())])
    lowest_first = torch.cat([s.detach().cpu().double() for s in scores.values()]).argsort(stable=True)

    def without(count: int) -> Keep:
        removed = group_of[lowest_first[:count]].bincount(minlength=len(scores)).tolist()
        return {
            name: _best(s, max(len(s) - gone, 1), multiple)
            for (name, s), gone in zip(scores.items(), removed, strict=True)
        }

    def macs(count: int) -> int:
        return count_macs(remove_channels(model, without(count)), inputs)

    if (least := macs(len(group_of))) > macs_per_sample:
        raise BadSetting(
            f"macs_per_sample must be at least {least:,} with these groups and multiple={multiple}, "
            f"got {macs_per_sample:,}; allow more, or score more groups"
        )
    counts = range(len(group_of) + 1)
    return without(bisect.bisect_left(counts, True, key=lambda count: macs(count) <= macs_per_sample))


def _best(scores: Tensor, number: int, multiple: int) -> Tensor:
    """Return the channels with the highest scores in increasing order: ``number``, rounded up."""
    channels = len(scores)
    number = min(-(-number // multiple) * multiple, channels // multiple * multiple) or channels
    return fine_grained_mask(scores, sparsity=1 - number / channels).nonzero().flatten()


def _checked_multiple(multiple: int) -> int:
    return check_whole("multiple", multiple, allowed="of at least 1", hint="try 8")


def channel_scores(group: Group, scores: Mapping[str, Tensor]) -> Tensor:
    """Return one score per channel (channels,): the sum of the scores of all its weights.

    Args:
        group: from ``dependency_groups``.
        scores: {layer: its weights' scores, in the weight's shape}, from a criterion. Members without
            scores count 0: give only those of ``group.writers`` to score filters alone.

    Raises:
        CompressionError: no member has scores, or scores in another shape.
    """
    members = [member for member in group.members if member.layer in scores]
    if not members:
        raise BadSetting(
            f"scores must have one of the layers {', '.join(m.layer for m in group.members)} of group "
            f"{group.name}, got none of them; try {{{group.name!r}: magnitude(weight)}}"
        )
    return torch.stack([_share(group, member, scores[member.layer]) for member in members]).sum(0)


def _share(group: Group, member: Member, scores: Tensor) -> Tensor:
    """Return a member's scores summed per channel: (channels,)."""
    size = scores.shape[member.dimension] if scores.dim() > member.dimension else 0
    if size != group.channels * member.each:
        raise BadSetting(
            f"scores of {member.layer} must have {group.channels * member.each} entries in dimension "
            f"{member.dimension}, got the shape {tuple(scores.shape)}; give scores in the weight's "
            "shape"
        )
    return scores.movedim(member.dimension, 0).reshape(group.channels, -1).sum(1)
