"""A range chosen by information: cut the histogram where the quantized one still tells most about it.

Source: Migacz 2017, "8-bit inference with TensorRT", a talk at NVIDIA's GTC; compared with other rules by
Wu et al. 2020, arXiv:2004.09602.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Histograms that fall from left to right. The first bin is never empty."""

    def drawn(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    def bell(bins: int, width: float, *, noise: float = 0.3) -> Tensor:
        """Half a bell of this width, in bins, with noisy counts."""
        heights = 400 * torch.exp(-0.5 * (torch.arange(bins) / width) ** 2)
        return (heights * (1 + noise * torch.randn(bins, generator=rng))).clamp(min=0).round()

    def tail(bins: int, share: float, most: int) -> Tensor:
        """A count from 1 to most in this share of the bins."""
        counts = torch.randint(1, most + 1, (bins,), generator=rng).float()
        return counts * (torch.rand(bins, generator=rng) < share)

    def slope(bins: int, width: float) -> Tensor:
        return (1e6 * torch.exp(-torch.arange(bins) / width)).round()

    def case(counts: Tensor, levels: int) -> dict[str, Any]:
        counts[0] = counts[0].clamp(min=50)
        return {"counts": counts, "levels": levels}

    gaps = (torch.arange(64) > 8) & (torch.arange(64) % 2 == 0)
    hollow = bell(64, drawn(8, 10)) + 1
    hollow[[15, 23, 31, 39, 47, 55]] = 0
    yield "a bell and a thin tail", case(bell(64, drawn(8, 10)) + tail(64, 0.3, 2), 8)
    yield "a smooth slope", case(slope(120, drawn(10, 13)), 4)
    yield "a smooth slope, float64", case(slope(96, drawn(7, 11)).double(), 8)
    yield "gaps", case((bell(64, drawn(12, 16)) + tail(64, 1.0, 3)) * ~gaps, 8)
    yield "empty just before most cuts", case(hollow, 8)
    yield "outliers in the last bin", case(torch.cat([bell(60, 12), torch.tensor([0.0, 0, 0, 25])]), 4)
    yield "flat: nothing is worth cutting", case(90 + bell(48, 400, noise=0.02), 8)
    yield "bins that are no multiple of levels", case(bell(61, 10) + tail(61, 0.5, 4), 8)


def probe(case: dict[str, Any], entropy_range: Callable[..., Any]) -> dict[str, Any]:
    return {"kept": entropy_range(case["counts"], levels=case["levels"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """PyTorch's own divergence of two categorical distributions; of equally good cuts any one will do."""
    yours = expect.whole_number(record["kept"], what="the cut")
    counts, levels = case["counts"].tolist(), case["levels"]
    cuts = range(levels, len(counts) + 1, levels)
    tried = f"{levels}, {2 * levels}, … {cuts[-1]}"
    expect.true(yours in cuts, f"the cut is one of {tried}; yours is {yours}", outside=yours)

    def divergence(cut: int) -> float:
        p, q = counts[:cut], []
        p[-1] += sum(counts[cut:])
        for level in range(levels):
            bins = counts[level * cut // levels : (level + 1) * cut // levels]
            q += [sum(bins) / (len(bins) - bins.count(0)) if count else 0.0 for count in bins]
        both = [Categorical(torch.tensor(values, dtype=torch.float64)) for values in (p, q)]
        return float(kl_divergence(*both))

    best = min(cuts, key=divergence)
    expect.true(
        divergence(yours) <= divergence(best) * 1.0001 + 1e-9,
        f"{yours} bins have the divergence {divergence(yours):.4g}, and {best} have {divergence(best):.4g}",
        yours=yours,
        wanted=best,
    )


def by_rows(counts: Tensor, *, levels: int) -> int:
    best, least = 0, float("inf")
    for cut in range(levels, len(counts) + 1, levels):
        inside = counts[:cut].view(levels, -1)  # a row a level
        filled = inside > 0
        share = inside.sum(dim=1, keepdim=True) / filled.sum(dim=1, keepdim=True).clamp(min=1)
        q = (share * filled).flatten()
        p = counts[:cut].clone()
        p[-1] += counts[cut:].sum()
        p, q = p / p.sum(), q / q.sum()
        divergence = torch.where(p > 0, p * (p / q).log(), 0.0).sum().item()
        if divergence < least:
            best, least = cut, divergence
    return best


def by_numbers(counts: Tensor, *, levels: int) -> int:
    numbers = counts.tolist()

    def divergence(cut: int) -> float:
        size, outliers, result = cut // levels, sum(numbers[cut:]), 0.0
        ratio = sum(numbers[:cut]) / sum(numbers)
        for place, count in enumerate(numbers[:cut]):
            p = count + outliers * (place == cut - 1)
            if p and not count:
                return math.inf
            if p:
                level = numbers[place // size * size :][:size]
                q = sum(level) / sum(map(bool, level))
                result += p * math.log(p / q * ratio)
        return result / sum(numbers)

    return min(range(levels, len(numbers) + 1, levels), key=divergence)


def _cuts(counts: Tensor, levels: int) -> range:
    return range(levels, len(counts) + 1, levels)


def _p(counts: Tensor, cut: int) -> Tensor:
    p = counts[:cut].clone()
    p[-1] += counts[cut:].sum()
    return p


def _spread(groups: Tensor) -> Tensor:
    """The sum of each row, spread evenly over its bins that are not empty."""
    filled = (groups > 0).to(groups)
    return (groups.sum(1, keepdim=True) / filled.sum(1, keepdim=True).clamp(min=1) * filled).flatten()


def _q(inside: Tensor, levels: int) -> Tensor:
    return _spread(inside.view(levels, -1))


def _sum(p: Tensor, q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return _sum(p / p.sum(), q / q.sum())


def _best(counts: Tensor, levels: int, kl: Any = _kl, *, p: Any = _p, q: Any = _q, cuts: Any = ()) -> int:
    """The cut with the least divergence of p(counts, cut) from q(inside, levels)."""
    cuts = cuts or _cuts(counts, levels)
    return min(cuts, key=lambda cut: kl(p(counts, cut), q(counts[:cut], levels)).item())


@mistake(
    "turns the divergence round",
    says="you keep {yours} bins, and {wanted} lose less: yours is Σ q log(q / p), which does not mind that Q "
    "is empty where P is not; the true histogram weighs, Σ p log(p / q)",
)
def turned_round(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, lambda p, q: _kl(q, p))


@mistake(
    "leaves the outliers out of P, or adds them to Q too",
    says="you keep {yours} bins, as few as there are levels: there each bin is a level of its own and Q "
    "equals P, unless P alone has the outliers; add counts[cut:] to P's last bin, and not to Q",
)
def no_outliers(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, p=lambda counts, cut: counts[:cut])


@mistake(
    "spreads over empty bins too",
    says="you keep {yours} bins, and {wanted} lose less: a level's sum goes to those of its bins that are "
    "not empty; elsewhere your Q has what P never had",
)
def over_empty_bins(counts: Tensor, *, levels: int) -> int:
    def even(inside: Tensor, levels: int) -> Tensor:
        return inside.view(levels, -1).mean(dim=1).repeat_interleave(len(inside) // levels)

    return _best(counts, levels, q=even)


@mistake(
    "does not normalise",
    says="you keep {yours} bins, and {wanted} lose less: P has more samples than Q, which has no outliers; "
    "divide each by its own sum: a divergence compares probabilities",
)
def not_normalised(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, _sum)


@mistake(
    "takes the largest divergence",
    says="you keep {yours} bins, whose levels tell least about the samples; the least divergence, with "
    "{wanted} bins, tells most",
)
def largest(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, lambda p, q: -_kl(p, q))


@mistake(
    "makes groups of as many bins as there are levels",
    says="you keep {yours} bins, and {wanted} lose less: the groups are as many as there are levels, of "
    "cut / levels bins each: view(levels, -1), not view(-1, levels)",
)
def groups_of_levels(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, q=lambda inside, levels: _spread(inside.view(-1, levels)))


@mistake(
    "lets 0 · log 0 be NaN",
    says="you choose as if cuts with an empty bin were none: there p log(p / q) is 0 · log(0 / 0), NaN, and "
    "no comparison with NaN is true; a bin with p = 0 adds 0",
)
def not_a_number(counts: Tensor, *, levels: int) -> int:
    def divergence(p: Tensor, q: Tensor) -> Tensor:
        p, q = p / p.sum(), q / q.sum()
        return (p * (p / q).log()).sum().nan_to_num(nan=torch.inf)

    return _best(counts, levels, divergence)


@mistake(
    "never tries to keep all bins",
    says="you keep {yours} bins, and all {wanted} lose less: range(levels, len(counts), levels) ends "
    "before len(counts); add 1",
)
def without_all(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels, cuts=range(levels, len(counts), levels))


@mistake(
    "returns the number of the try",
    says="your cut is {outside}, the place of the best cut among those tried: return how many bins it keeps",
)
def number_of_the_try(counts: Tensor, *, levels: int) -> int:
    return _best(counts, levels) // levels - 1


EXERCISE = Exercise(
    name="entropy_range",
    points=3,
    minutes=25,
    difficulty=4,
    bonus=True,
    statement="entropy_range(counts, levels) cuts a histogram where its quantized version loses least.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_rows, by_numbers),
    mistakes=(
        turned_round,
        no_outliers,
        over_empty_bins,
        not_normalised,
        largest,
        groups_of_levels,
        not_a_number,
        without_all,
        number_of_the_try,
    ),
    hints=(
        Hint(
            "I do not see what P and Q stand for",
            "P is what the samples look like after cutting: what lay beyond is in the last bin. Q is what is "
            "left of it after quantizing: inside one level nobody knows any more which bin a sample came "
            "from.",
        ),
        Hint(
            "my divergence is NaN, or infinite where it should not be",
            "inside = counts[:cut].view(levels, -1); a row's sum, divided by how many of its bins are > 0, "
            "goes to just those. Divide P and Q by their sums. KL = Σ over bins with p > 0 of p log(p / q).",
        ),
        Hint(
            "I always keep as few bins as there are levels",
            "p = counts[:cut].clone(); p[____] += counts[____].sum(); and q is made from counts[:cut] alone.",
        ),
    ),
)
