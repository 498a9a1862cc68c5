"""The smallest rank that keeps a share of a layer's energy: of the sum of its squared singular values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Of a drawn weight, energy lies midway between two shares. The diagonal ones are exact in floats."""

    def turned(rows: int, columns: int, values: list[float]) -> Tensor:
        """A matrix with these singular values, each up to 3 % larger."""
        one, other = (torch.randn(n, n, generator=rng, dtype=torch.float64) for n in (rows, columns))
        middle = torch.zeros(rows, columns, dtype=torch.float64)
        middle.diagonal().copy_(torch.tensor(values, dtype=torch.float64))
        middle *= 1 + 0.03 * torch.rand(rows, 1, generator=rng, dtype=torch.float64)
        return torch.linalg.qr(one).Q @ middle @ torch.linalg.qr(other).Q.T

    def given(weight: Tensor, rank: int) -> dict[str, Any]:
        squares = [0.0, *torch.linalg.eigvalsh(_gram(weight.double())).flip(0).tolist()]
        energy = (sum(squares[:rank]) + sum(squares[: rank + 1])) / 2 / sum(squares)
        return {"weight": weight, "energy": energy}

    def diagonal(values: list[float], energy: float) -> dict[str, Any]:
        """Singular values that are powers of two, with signs, whose squares add up to one."""
        signs = torch.randint(0, 2, (len(values),), generator=rng) * 2 - 1
        return {"weight": torch.diag(signs * torch.tensor(values, dtype=torch.float64)), "energy": energy}

    yield "a steep spectrum", given(turned(6, 8, [8, 3, 2, 1.5, 1, 0.5]), 3)
    yield "a flat spectrum", given(turned(9, 10, [3, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3, 2.2]), 4)
    yield "one strong direction", given(turned(5, 5, [9, 1, 0.9, 0.8, 0.7]), 1)
    yield "nearly all of it", given(turned(5, 9, [6, 4, 3, 2, 1]), 4)
    yield "half of it", given(turned(8, 6, [5, 4.5, 4, 3, 2, 1]), 2)
    yield "float32, transposed in memory", given(turned(7, 5, [7, 5, 4, 2, 1]).float().T, 3)
    yield "a share that is met exactly", diagonal([4, 2, 2, 2, 2], 0.5)
    yield "equal singular values", diagonal([2, 2, 2, 2], 0.75)
    yield "all of the energy, and a zero", diagonal([2, 2, 2, 2, 0], 1.0)
    yield "one output", {"weight": turned(1, 6, [3]), "energy": 0.4}
    yield "all zero", {"weight": torch.zeros(3, 5), "energy": 0.9}


def _gram(weight: Tensor) -> Tensor:
    """The products of the shorter side, (min, min): its eigenvalues are the squared singular values."""
    return weight @ weight.T if len(weight) <= weight.shape[1] else weight.T @ weight


def probe(case: dict[str, Any], rank_for_energy: Callable[..., Any]) -> dict[str, Any]:
    return {"rank": rank_for_energy(case["weight"], energy=case["energy"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """No SVD: the eigenvalues of W Wᵀ, added up one after the other, each by more than rounding."""
    yours = expect.whole_number(record["rank"])
    squares = torch.linalg.eigvalsh(_gram(case["weight"].double())).clamp(min=0).flip(0).tolist()
    total, energy = sum(squares), case["energy"]
    wanted = 1
    for rank in range(1, len(squares)):
        wanted += sum(squares[:rank]) < energy * total * (1 - 1e-9)
    shares = {rank: f"{sum(squares[: max(rank, 0)]) / (total or 1):.4g}" for rank in (yours, wanted)}
    kept = f", which keeps {shares[wanted]}; yours is {yours}, which keeps {shares[yours]}"
    expect.true(
        yours == wanted,
        f"for an energy of {energy:.4g} the rank is {wanted}"
        + (kept if total else f", as a weight of zeros has none; yours is {yours}"),
        yours=yours,
        wanted=wanted,
        where=f"{energy:.4g}",
        energy=shares[yours],
        least=shares[wanted],
        count=len(squares),
    )


def by_counting(weight: Tensor, *, energy: float) -> int:
    kept = torch.linalg.svdvals(weight).square().cumsum(0)  # (min,), of ranks 1, 2, …
    return int((kept < energy * kept[-1]).sum()) + 1


def by_loop(weight: Tensor, *, energy: float) -> int:
    squares = [float(s) ** 2 for s in torch.linalg.svd(weight)[1]]
    for rank in range(1, len(squares)):
        if sum(squares[:rank]) >= energy * sum(squares):
            return rank
    return len(squares)


def by_what_is_lost(weight: Tensor, *, energy: float) -> int:
    squares = torch.linalg.svdvals(weight).double().square()
    lost = squares.flip(0).cumsum(0).flip(0)  # what ranks 0, 1, … leave out
    return max(1, int((lost > (1 - energy) * squares.sum()).sum()))


def _values(weight, power=2):
    return torch.linalg.svdvals(weight) ** power


def _first(values, energy):
    """The first rank that reaches this share of the sum of any numbers."""
    sums = values.cumsum(0)
    return int((sums < energy * sums[-1]).sum()) + 1


WANTED = "for an energy of {where} the rank is {wanted}, which keeps {least} of it, and yours is {yours}: "


@mistake(
    "adds up s, not s²",
    says=f"{WANTED}you added up the singular values themselves; what a matrix holds, the sum of its squared "
    "weights, is the sum of their squares",
)
def not_squared(weight, *, energy):
    return _first(_values(weight, 1), energy)


@mistake(
    "squares twice",
    says=f"{WANTED}you added up s⁴: the eigenvalues of W Wᵀ are s² already and need no further square",
)
def squared_twice(weight, *, energy):
    return _first(_values(weight, 4), energy)


@mistake(
    "compares lengths",
    says=f"{WANTED}you took the root of the kept sum before comparing; energy is a share of the sum of s², "
    "with no root over it",
)
def lengths(weight, *, energy):
    return _first(_values(weight), energy**2)


@mistake(
    "writes > for >=",
    says=f"{WANTED}rank {{wanted}} reaches the share exactly, and at least means that this is enough",
)
def more_than(weight, *, energy):
    sums = _values(weight).cumsum(0)
    return int((sums <= energy * sums[-1]).sum()) + 1


@mistake(
    "gives the place, not the rank",
    says=f"{WANTED}that is the place of the last singular value, counted from 0; a rank is how many are kept",
)
def place(weight, *, energy):
    return _first(_values(weight), energy) - 1


@mistake(
    "gives the largest rank below",
    says=f"{WANTED}it keeps {{energy}}, still too little; the last rank that falls short is one below the "
    "first that suffices",
)
def largest_below(weight, *, energy):
    return max(1, _first(_values(weight), energy) - 1)


@mistake(
    "adds one too many",
    says=f"{WANTED}one fewer was enough; you add 1 to a rank that needs none",
)
def one_more(weight, *, energy):
    return min(min(weight.shape), _first(_values(weight), energy) + 1)


@mistake(
    "counts singular values above a threshold",
    says=f"{WANTED}you counted those above (1 - energy) · the largest; one by one they say nothing of their "
    "sum",
)
def above_threshold(weight, *, energy):
    s = _values(weight, 1)
    return max(1, int((s >= (1 - energy) * s[0]).sum()))


@mistake(
    "measures against the largest s²",
    says=f"{WANTED}you counted the s² above (1 - energy) · the largest s²; the share is of the sum of all "
    "of them",
)
def against_largest(weight, *, energy):
    squares = _values(weight)
    return max(1, int((squares >= (1 - energy) * squares[0]).sum()))


@mistake(
    "takes a share of the number of ranks",
    says=f"{WANTED}that is the share of the {{count}} ranks, whatever they hold; the first ranks hold more "
    "than the last",
)
def share_of_ranks(weight, *, energy):
    return max(1, round(energy * min(weight.shape)))


@mistake(
    "rounds up a share of the number of ranks",
    says=f"{WANTED}that is energy · {{count}} ranks, rounded up, and looks at no singular value; add up "
    "their squares",
)
def share_of_ranks_up(weight, *, energy):
    return int(-(-energy * min(weight.shape) // 1))


@mistake(
    "adds up from the smallest",
    says=f"{WANTED}you began with the smallest singular value, as eigvalsh sorts them; the largest are kept "
    "first",
)
def from_the_smallest(weight, *, energy):
    return _first(_values(weight).flip(0), energy)


@mistake(
    "takes energy for what may be lost",
    says=f"{WANTED}you kept 1 - energy and gave up the rest; energy is the share that stays",
)
def share_lost(weight, *, energy):
    return _first(_values(weight), 1 - energy)


@mistake(
    "returns how many are dropped",
    says=f"{WANTED}so many singular values may go; the rank is how many of the {{count}} stay",
)
def dropped(weight, *, energy):
    return min(weight.shape) - _first(_values(weight), energy)


@mistake(
    "takes the fraction for percent",
    says=f"{WANTED}energy is a fraction already, so nothing has to be divided by 100",
)
def percent(weight, *, energy):
    return _first(_values(weight), energy / 100)


@mistake(
    "divides the zero weight by its energy",
    says="a weight of zeros has the energy 0, and 0 / 0 is NaN, which reaches no share: compare the sums "
    "with energy · total instead; rank 1 is enough there",
)
def divides(weight, *, energy):
    squares = _values(weight)
    shares = squares.cumsum(0) / squares.sum()
    return int((shares >= min(energy, 1 - 1e-9)).nonzero()[0]) + 1


@mistake(
    "keeps everything of a weight of zeros",
    says="you keep all {yours} ranks of a weight of zeros; its energy is 0, and rank {wanted} keeps that too",
)
def keeps_zeros(weight, *, energy):
    return min(weight.shape) if not weight.any() else _first(_values(weight), energy)


EXERCISE = Exercise(
    name="rank_for_energy",
    points=1,
    minutes=7,
    difficulty=2,
    statement="rank_for_energy(weight, energy=…) is the smallest rank that keeps this share of the energy.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_counting, by_loop, by_what_is_lost),
    mistakes=(
        not_squared,
        squared_twice,
        lengths,
        more_than,
        place,
        largest_below,
        one_more,
        above_threshold,
        against_largest,
        share_of_ranks,
        share_of_ranks_up,
        from_the_smallest,
        share_lost,
        dropped,
        percent,
        divides,
        keeps_zeros,
    ),
    hints=(
        Hint(
            "the rank is too large, most of all where a few directions are strong",
            "A layer's energy is the sum of its squared weights, and that equals the sum of something of "
            "its singular values. Of what?",
        ),
        Hint(
            "I have the s² and do not know how to find the rank",
            "kept = s².cumsum(0) is (min,): at place 0 the energy of rank 1, at the last place the total. "
            "The ranks that fall short are those with kept < energy · kept[-1]; the answer is the next one.",
        ),
        Hint("only the last step is missing", "return int((kept < energy * kept[-1]).sum()) + ____"),
    ),
)
