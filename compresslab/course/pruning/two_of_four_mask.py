"""2:4 sparsity: of every four neighbours two stay, a pattern that some processors know how to skip.

Source: Mishra et al. 2021, "Accelerating sparse deep neural networks", arXiv:2104.08378.
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


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No two magnitudes are nearly equal, except where all of a layer are."""

    def drawn(*shape: int) -> Tensor:
        count = torch.Size(shape).numel()
        sizes = 0.1 + (torch.randperm(count, generator=rng) + 0.5 * torch.rand(count, generator=rng)) / count
        return (sizes * (torch.randint(0, 2, (count,), generator=rng) * 2 - 1)).view(shape)

    def case(weight: Tensor, *, tied: bool = False) -> dict[str, Any]:
        return {"weight": weight, "tied": tied}

    yield "a linear layer", case(drawn(5, 16))
    yield "one output", case(drawn(1, 8))
    yield "negative weights", case(-drawn(4, 8).abs())
    yield "three rows with large weights, three with small ones", case(drawn(6, 12).sort(dim=0).values)
    yield "a convolution: its inputs are neighbours, not its kernel's weights", case(drawn(3, 8, 3, 2))
    yield "a last group of three", case(drawn(3, 7).double())
    yield "a last group of two", case(drawn(4, 6))
    yield "fewer than four inputs", case(drawn(4, 1, 2, 2))
    yield "transposed in memory", case(drawn(8, 5).T)
    yield "all equal", case(torch.full((1, 4), -0.5), tied=True)
    yield "all zero", case(torch.zeros(1, 4), tied=True)


def probe(case: dict[str, Any], two_of_four_mask: Callable[..., Any]) -> dict[str, Any]:
    mask = two_of_four_mask(case["weight"])
    if case["tied"] and isinstance(mask, torch.Tensor) and mask.dim() == 2:  # any of the equal ones may stay
        mask = torch.cat([group.sort(dim=1).values for group in mask.split(4, dim=1)], dim=1)
    return {"mask": mask}


def judge(case: dict[str, Any], record: Record) -> None:
    """Brute force: no choice of two in a group, of all six, is larger than the one that was made."""
    weight = case["weight"]
    mask = expect.tensor(record["mask"], shape=weight.shape, dtype=torch.bool, what="the mask")
    for out, *place in itertools.product(*map(range, [len(weight), *weight.shape[2:]])):
        row, kept = (tensor[out].movedim(0, -1)[tuple(place)].tolist() for tensor in (weight, mask))
        for start in range(0, len(row), 4):
            inputs = slice(start, min(start + 4, len(row)))
            _judge_group(row[inputs], kept[inputs], where=_name(out, inputs, place))


def _judge_group(group: list[float], kept: list[bool], *, where: str) -> None:
    best = max(itertools.combinations(group, min(2, len(group))), key=lambda pair: sum(map(abs, pair)))
    mine = [w for w, stays in zip(group, kept, strict=True) if stays]
    yours, wanted = (", ".join(f"{w:.3g}" for w in pair) or "nothing" for pair in (mine, best))
    right = len(mine) == len(best) and sum(map(abs, mine)) >= sum(map(abs, best)) * 0.99999
    expect.true(
        right,
        f"of {where} the mask keeps {wanted}; yours keeps {yours}",
        where=where,
        yours=yours,
        wanted=wanted,
    )


def _name(out: int, inputs: slice, place: list[int]) -> str:
    """``w[0, 4:8]`` or ``w[0, 4:8, 2, 1]``."""
    return f"w[{', '.join(map(str, [out, f'{inputs.start}:{inputs.stop}', *place]))}]"


def by_splitting(weight: Tensor) -> Tensor:
    masks = []
    for group in weight.abs().split(4, dim=1):  # (out, 4, …), the last may be narrower
        places = group.topk(min(2, group.shape[1]), dim=1).indices
        masks.append(torch.zeros_like(group, dtype=torch.bool).scatter(1, places, True))
    return torch.cat(masks, dim=1)


def by_folding(weight: Tensor) -> Tensor:
    size = weight.abs().movedim(1, -1)  # (out, …, in)
    missing = -size.shape[-1] % 4
    groups = torch.nn.functional.pad(size, (0, missing), value=-1.0).unflatten(-1, (-1, 4))
    rank = groups.argsort(dim=-1, descending=True).argsort(dim=-1)
    return (rank < 2).flatten(-2)[..., : size.shape[-1]].movedim(-1, 1)


def by_duels(weight: Tensor) -> Tensor:
    mask = torch.ones(weight.shape, dtype=torch.bool)
    size = weight.abs()
    for i in range(weight.shape[1]):
        others = [j for j in range(i - i % 4, min(i - i % 4 + 4, weight.shape[1])) if j != i]
        beaten = sum((size[:, j] > size[:, i]) | ((size[:, j] == size[:, i]) & (j < i)) for j in others)
        mask[:, i] = torch.as_tensor(beaten, dtype=torch.int64) < 2
    return mask


def by_parts(weight, *, kept=2, of=4, score=torch.abs, short=lambda group, kept: min(kept, group.shape[1])):
    """Right as it stands; many a mistake is one of its parts replaced."""
    masks = []
    for group in score(weight).split(of, dim=1):
        lowest_last = group.sort(dim=1, descending=True, stable=True).indices
        places = lowest_last[:, : kept if group.shape[1] == of else short(group, kept)]
        masks.append(torch.zeros_like(group, dtype=torch.bool).scatter(1, places, True))
    return torch.cat(masks, dim=1)


signed = mistake(
    "forgets abs()",
    says="of {where} the mask keeps {wanted}, yours {yours}: a large negative weight is not small; "
    "compare |w|",
)(partial(by_parts, score=torch.Tensor.clone))

smallest = mistake(
    "keeps the two smallest",
    says="of {where} the mask keeps {wanted}, yours {yours}, the smallest: these are the two to drop",
)(partial(by_parts, score=lambda weight: -weight.abs()))

one_of_two = mistake(
    "keeps one of two",
    says="of {where} the mask keeps {wanted}, yours {yours}: you let each weight compete with one "
    "neighbour, so the two largest lose one of them where they stand side by side. 2:4 is two of four",
)(partial(by_parts, kept=1, of=2))

four_of_eight = mistake(
    "keeps four of eight",
    says="of {where} the mask keeps {wanted}, yours {yours}: your groups have eight members; half of "
    "them stay here, too, but a processor looks at four at a time",
)(partial(by_parts, kept=4, of=8, short=lambda group, kept: min(2 * -(-group.shape[1] // 4), group.shape[1])))

one_of_four = mistake(
    "keeps one of four",
    says="of {where} the mask keeps {wanted}, yours {yours} alone: two of four stay, half of all",
)(partial(by_parts, kept=1))

three_of_four = mistake(
    "keeps three of four",
    says="of {where} the mask keeps {wanted}, yours {yours}: you drop only the smallest one of each group; "
    "two of four go",
)(partial(by_parts, kept=3))

last_is_dropped = mistake(
    "drops the last group where it is incomplete",
    says="of {where} the mask keeps {wanted}, yours {yours}: these are the inputs left over when in is "
    "no multiple of 4; they are a group as well, and keep their two largest",
)(partial(by_parts, short=lambda group, kept: 0))

last_is_whole = mistake(
    "keeps all of an incomplete last group",
    says="of {where} the mask keeps {wanted}, yours {yours}: fewer than four inputs are left over at "
    "the end, and of these, too, at most two stay",
)(partial(by_parts, short=lambda group, kept: group.shape[1]))

along_outputs = mistake(
    "groups the outputs",
    says="of {where} the mask keeps {wanted}, yours {yours}: you grouped four outputs of one input, "
    "along dimension 0; the four are inputs of one output, along dimension 1",
)(lambda weight: by_splitting(weight.transpose(0, 1)).transpose(0, 1))

in_memory = mistake(
    "groups what lies side by side in a kernel",
    says="of {where} the mask keeps {wanted}, yours {yours}: flattened, (out, in, h, w) has the "
    "weights of one kernel side by side; the four neighbours are inputs, at the same place of their kernels",
)(lambda weight: by_splitting(weight.flatten(1)).view(weight.shape))


@mistake(
    "keeps the larger half of the layer",
    says="of {where} the mask keeps {wanted}, yours {yours}: half of the whole layer stays, wherever "
    "it lies; here each group of four has its own two",
)
def half_of_all(weight):
    return by_rank(weight.flatten()[None]).view(weight.shape)


@mistake(
    "keeps the larger half of each row",
    says="of {where} the mask keeps {wanted}, yours {yours}: one threshold for all the inputs of an "
    "output lets some groups keep three and others one",
)
def half_of_rows(weight):
    return by_rank(weight)


def by_rank(weight):
    order = weight.abs().argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1) < weight.shape[1] // 2


@mistake(
    "keeps too many at ties",
    says="of {where} the mask keeps {wanted}, yours {yours}: all that reach the second largest |w| "
    "stay, and where they are equal that is more than two; keep the places that topk names",
)
def threshold_keeps_ties(weight):
    groups = weight.abs().split(4, dim=1)
    second = [group.topk(min(2, group.shape[1]), dim=1).values[:, -1:] for group in groups]
    return torch.cat([group >= lowest for group, lowest in zip(groups, second, strict=True)], dim=1)


@mistake(
    "keeps too few at ties",
    says="of {where} the mask keeps {wanted}, yours {yours}: what must be larger than the third "
    "largest |w| loses where they are equal; keep the places that topk names",
)
def threshold_drops_ties(weight):
    groups = [
        torch.nn.functional.pad(group.movedim(1, -1), (0, 2), value=-1.0).movedim(-1, 1)
        for group in weight.abs().split(4, dim=1)
    ]
    masks = [group > group.topk(3, dim=1).values[:, -1:] for group in groups]
    return torch.cat([mask[:, :-2] for mask in masks], dim=1)


@mistake(
    "returns the pruned weight",
    says="you returned weight * mask, numbers; return the mask alone, of True and False",
)
def pruned_weight(weight):
    return weight * by_splitting(weight)


EXERCISE = Exercise(
    name="two_of_four_mask",
    points=2,
    minutes=10,
    difficulty=2,
    bonus=True,
    statement="two_of_four_mask(weight) keeps the two largest of every four neighbouring inputs.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_splitting, by_folding, by_duels),
    mistakes=(
        signed,
        smallest,
        one_of_two,
        four_of_eight,
        one_of_four,
        three_of_four,
        last_is_dropped,
        last_is_whole,
        along_outputs,
        in_memory,
        half_of_all,
        half_of_rows,
        threshold_keeps_ties,
        threshold_drops_ties,
        pruned_weight,
    ),
    hints=(
        Hint(
            "half of the weights stay, and still it is wrong",
            "Half of a layer is not half of every group. Who competes with whom: which four weights share "
            "two places?",
        ),
        Hint(
            "it works for a linear layer, and not for a convolution",
            "weight.abs().split(4, dim=1) gives groups of (out, 4) or (out, 4, h, w), the last one perhaps "
            "narrower. topk(2, dim=1).indices says which two stay, in each column of a group; a group of one "
            "input has one to keep.",
        ),
        Hint(
            "equal weights: I keep three, or none",
            "torch.zeros_like(group, dtype=torch.bool).scatter(1, ______, True)        # True at two places",
        ),
    ),
)
