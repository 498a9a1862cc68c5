"""Weights that go together: rows of a kernel, kernels, filters, scored by their L1 norm.

Source: Li, Kadav, Durdanovic, Samet and Graf 2016, "Pruning filters for efficient ConvNets",
arXiv:1608.08710; the finer groups: Mao et al. 2017, "Exploring the regularity of sparse structure in
convolutional neural networks", arXiv:1705.08922.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Group = tuple[int | slice, ...]  # the index of a group's weights


def cases(rng: torch.Generator) -> Iterator[Case]:
    """The share times the groups is 0.3 beside a whole number: round() never meets a half."""

    def case(weight: Tensor, *granularity: int, drop: float, tied: bool = False) -> dict[str, Any]:
        sparsity = drop / len(list(_groups(weight, granularity)))
        return {"weight": weight, "granularity": granularity, "sparsity": sparsity, "tied": tied}

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    def filters(*filled: float) -> Tensor:
        """Filters of 2 × 3 × 3, each of one value and a little noise."""
        middle = torch.tensor(filled)[:, None, None, None]
        return middle * (1 + 0.1 * torch.rand(len(filled), 2, 3, 3, generator=rng))

    def more(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    yield "kernels", case(drawn(3, 4, 3, 3), 2, 3, drop=more(4, 5) - 0.3)
    yield "rows of a kernel", case(drawn(3, 4, 3, 3), 3, drop=more(12, 16) + 0.3)
    yield "filters", case(drawn(6, 5, 3, 3), 1, 2, 3, drop=more(2, 4) + 0.3)
    yield "input channels", case(drawn(4, 7, 3, 2), 0, 2, 3, drop=more(2, 3) - 0.3)
    yield "neurons of a linear layer, transposed in memory", case(drawn(6, 9).T, 1, drop=more(2, 4) + 0.3)
    yield "negative weights", case(filters(0.5, -3, 2, -0.3, 1), 1, 2, 3, drop=2.3)
    cancel = filters(0.6, 2, 0.4, 3)
    cancel[1, 0] *= -1
    yield "weights that cancel each other", case(cancel, 1, 2, 3, drop=1.7)
    lonely = filters(0.4, 0.4, 2, 2)
    lonely[1] *= 1e-3
    lonely[1, 0, 1, 2] = 2.5
    yield "one large weight, and many small ones", case(lonely.double(), 1, 2, 3, drop=0.7)
    partly = filters(0.5, 3, 2, 0.6)
    partly[1:3, :, 0] *= 1e-3
    yield "large weights with near zeros among them", case(partly, 1, 2, 3, drop=1.7)
    yield "all equal", case(torch.ones(4, 3, 3, 3), 2, 3, drop=5.3, tied=True)
    yield "all zero", case(torch.zeros(5, 2, 3, 3), 1, 2, 3, drop=1.7, tied=True)


def _groups(weight: Tensor, granularity: tuple[int, ...]) -> Iterator[Group]:
    """The index of every group: all of the dimensions that it spans, one place in each other one."""
    places = [[slice(None)] if d in granularity else range(n) for d, n in enumerate(weight.shape)]
    return itertools.product(*places)


def probe(case: dict[str, Any], structured_mask: Callable[..., Any]) -> dict[str, Any]:
    mask = structured_mask(case["weight"], granularity=case["granularity"], sparsity=case["sparsity"])
    if case["tied"] and isinstance(mask, torch.Tensor):  # any of the equal groups may go: say the first ones
        mask = mask.flatten().sort().values.reshape(mask.shape)
    return {"mask": mask}


def judge(case: dict[str, Any], record: Record) -> None:
    """Three laws: a group is kept or dropped as one, the count is exact, no kept group is the smaller one."""
    weight = case["weight"].double()
    mask = expect.tensor(record["mask"], shape=weight.shape, dtype=torch.bool, what="the mask")
    kept: list[tuple[float, str]] = []
    dropped: list[tuple[float, str]] = []
    for group in _groups(weight, case["granularity"]):
        count, size = int(mask[group].sum()), mask[group].numel()
        split = f"the group {_name(group)} stays or goes as one; yours keeps {count} of its {size} weights"
        expect.true(count in (0, size), split, where=_name(group), yours=count, wanted=size)
        norm = sum(abs(w) for w in weight[group].flatten().tolist())
        (kept if count else dropped).append((norm, _name(group)))
    wanted = round(case["sparsity"] * len(kept + dropped))
    expect.equal(len(dropped), wanted, what="the number of dropped groups")
    (small, left), (large, gone) = min(kept), max(dropped)
    expect.true(
        large <= small * 1.00001,
        f"you drop {gone}, of L1 norm {large:.4g}, and keep {left}, of only {small:.4g}",
        where=gone,
        yours=f"{large:.4g}",
        other=left,
        wanted=f"{small:.4g}",
    )


def _name(group: Group) -> str:
    """``w[2, 0, :, :]``."""
    return f"w[{', '.join(':' if isinstance(place, slice) else str(place) for place in group)}]"


def by_order(weight: Tensor, *, granularity: tuple[int, ...], sparsity: float) -> Tensor:
    norms = weight.abs().sum(dim=granularity, keepdim=True)  # 1 along the dimensions that a group spans
    kept = torch.ones(norms.numel(), dtype=torch.bool)
    kept[norms.flatten().argsort()[: round(sparsity * norms.numel())]] = False
    return kept.view(norms.shape).expand(weight.shape)


def by_rows(weight: Tensor, *, granularity: tuple[int, ...], sparsity: float) -> Tensor:
    ends = tuple(range(-len(granularity), 0))
    last = weight.movedim(granularity, ends)  # a group's dimensions come last
    rows = last.reshape(-1, last[(0,) * (last.dim() - len(ends))].numel())  # (groups, weights of one)
    mask = torch.ones_like(rows, dtype=torch.bool)
    norms = torch.linalg.vector_norm(rows, ord=1, dim=1)
    mask[norms.topk(round(sparsity * len(rows)), largest=False).indices] = False
    return mask.view(last.shape).movedim(ends, granularity)


def by_groups(weight: Tensor, *, granularity: tuple[int, ...], sparsity: float) -> Tensor:
    mask = torch.full(weight.shape, True)
    groups = sorted(_groups(weight, granularity), key=lambda group: weight[group].norm(p=1).item())
    for group in groups[: round(sparsity * len(groups))]:
        mask[group] = False
    return mask


def by_parts(
    weight,
    *,
    granularity,
    sparsity,
    spans=lambda granularity, weight: granularity,
    norm=lambda weight, dims: weight.abs().sum(dims, keepdim=True),
    count=lambda sparsity, groups: round(sparsity * groups),
    largest=False,
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    norms = norm(weight, spans(granularity, weight))
    lowest = norms.flatten().sort(descending=largest, stable=True).indices
    mask = torch.ones(norms.numel(), dtype=torch.bool)
    mask[lowest[: count(sparsity, norms.numel())]] = False
    return mask.view(norms.shape).expand(weight.shape).clone()


def _exchanged(granularity, one, other):
    return tuple({one: other, other: one}.get(d, d) for d in granularity)


wrong_axis = mistake(
    "takes columns of a kernel for rows",
    says="the row {where} keeps {yours} of its {wanted} weights: you removed columns. Of a kernel's two "
    "dimensions the last, 3, runs along a row",
)(partial(by_parts, spans=lambda granularity, weight: _exchanged(granularity, 2, 3)))

channel_for_filter = mistake(
    "takes input channels for filters",
    says="the group {where} keeps {yours} of its {wanted} weights: you mixed up dimension 0, the output "
    "channels, and dimension 1, the input channels. A filter makes one output channel and spans 1, 2, 3",
)(partial(by_parts, spans=lambda granularity, weight: _exchanged(granularity, 0, 1)))

the_other_dimensions = mistake(
    "sums over the dimensions that a group does not span",
    says="the group {where} keeps {yours} of its {wanted} weights: you summed over all other dimensions. "
    "granularity names what lies inside a group, so these are the dimensions to sum over",
)(partial(by_parts, spans=lambda granularity, weight: tuple({*range(weight.dim())} - {*granularity})))

single_weights = mistake(
    "drops single weights",
    says="the group {where} keeps {yours} of its {wanted} weights: yours is the fine-grained mask, every "
    "weight on its own. Give each group one score and drop whole groups",
)(partial(by_parts, norm=lambda weight, dims: weight.abs()))

signed_sum = mistake(
    "forgets abs()",
    says="you drop {where}, of L1 norm {yours}, and keep {other}, of only {wanted}: you added up the weights "
    "with their signs, and large negative ones came out as the smallest; abs() comes first",
)(partial(by_parts, norm=lambda weight, dims: weight.sum(dims, keepdim=True)))

abs_after_sum = mistake(
    "takes abs() of the sum",
    says="you drop {where}, of L1 norm {yours}, and keep {other}, of only {wanted}: inside the sum positive "
    "and negative weights cancelled each other; abs() belongs to the weights, before the sum",
)(partial(by_parts, norm=lambda weight, dims: weight.sum(dims, keepdim=True).abs()))

squares = mistake(
    "takes the L2 norm",
    says="you drop {where}, of L1 norm {yours}, and keep {other}, of only {wanted}: squares let one large "
    "weight outweigh many smaller ones; here the norm is the plain sum of |w|",
)(partial(by_parts, norm=lambda weight, dims: weight.square().sum(dims, keepdim=True)))

smallest_weight = mistake(
    "judges a group by its smallest weight",
    says="you drop {where}, of L1 norm {yours}, and keep {other}, of only {wanted}: a few zeros do not "
    "make a group unimportant; add up all of its |w|",
)(partial(by_parts, norm=lambda weight, dims: weight.abs().amin(dims, keepdim=True)))

largest_removed = mistake(
    "drops the largest",
    says="you drop {where}, of L1 norm {yours}, and keep {other}, of only {wanted}: it is the other way "
    "round, the groups with the smallest norms go",
)(partial(by_parts, largest=True))

share_kept = mistake(
    "takes sparsity for the share that stays",
    says="you drop {yours} groups and {wanted} should go: sparsity is the share of the groups that is "
    "dropped, not of those that stay",
)(partial(by_parts, count=lambda sparsity, groups: groups - round(sparsity * groups)))

rounds_down = mistake(
    "rounds the count down",
    says="you drop {yours} groups and {wanted} should go: int() and // cut off what follows the point; take "
    "round(sparsity * groups)",
)(partial(by_parts, count=lambda sparsity, groups: int(sparsity * groups)))


@mistake(
    "drops too many at ties",
    says="you drop {yours} groups and {wanted} should go: a threshold takes all groups whose norm equals it. "
    "Sort the norms and drop the first so many",
)
def threshold_drops_all(weight, *, granularity, sparsity):
    norms = weight.abs().sum(granularity, keepdim=True)
    count = round(sparsity * norms.numel())
    return (norms > norms.flatten().kthvalue(count).values).expand(weight.shape)


@mistake(
    "drops too few at ties",
    says="you drop {yours} groups and {wanted} should go: a threshold that keeps whatever equals it keeps "
    "every group of that norm. Sort the norms and drop the first so many",
)
def threshold_keeps_all(weight, *, granularity, sparsity):
    norms = weight.abs().sum(granularity, keepdim=True)
    count = round(sparsity * norms.numel())
    return (norms >= norms.flatten().sort().values[count]).expand(weight.shape)


@mistake(
    "marks what goes",
    says="you drop {yours} groups and {wanted} should go: your mask is True where a group is dropped; weight "
    "* mask would remove all the others. True means that a weight stays",
)
def marks_dropped(weight, *, granularity, sparsity):
    return ~by_order(weight, granularity=granularity, sparsity=sparsity)


@mistake(
    "leaves the mask in the shape of the groups",
    says="your mask has one entry for each group; it should have one for each weight: with "
    "keepdim=True the summed dimensions are 1 wide; expand them to weight.shape",
)
def group_shape(weight, *, granularity, sparsity):
    mask = by_order(weight, granularity=granularity, sparsity=sparsity)
    return mask.amax(granularity, keepdim=True)


@mistake(
    "returns the pruned weight",
    says="you returned weight * mask, numbers; return the mask alone, of True and False, so that training "
    "can apply it again and again",
)
def pruned_weight(weight, *, granularity, sparsity):
    return weight * by_order(weight, granularity=granularity, sparsity=sparsity)


EXERCISE = Exercise(
    name="structured_mask",
    points=3,
    minutes=15,
    difficulty=3,
    statement="structured_mask(weight, granularity=…, sparsity=…) drops whole groups: those with the "
    "smallest L1 norm.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_order, by_rows, by_groups),
    mistakes=(
        wrong_axis,
        channel_for_filter,
        the_other_dimensions,
        single_weights,
        signed_sum,
        abs_after_sum,
        squares,
        smallest_weight,
        largest_removed,
        share_kept,
        rounds_down,
        threshold_drops_all,
        threshold_keeps_all,
        marks_dropped,
        group_shape,
        pruned_weight,
    ),
    hints=(
        Hint(
            "some groups are kept in part",
            "A group has one score and one fate. Which dimensions does granularity name: those inside a "
            "group, or those that tell the groups apart?",
        ),
        Hint(
            "the scores are right, and I can't get back to the weight's shape",
            "norms = weight.abs().sum(dim=granularity, keepdim=True) is (out, in, 1, 1) for kernels and "
            "(out, 1, 1, 1) for filters: as many numbers as groups. A mask of that shape expands to "
            "weight.shape by itself.",
        ),
        Hint(
            "it fails where norms are equal",
            "kept[norms.flatten().argsort()[:________]] = False        # kept: a True for each group",
        ),
    ),
)
