"""A k × k convolution as a column after a row: kh × 1, then 1 × kw, with a few channels between them.

Source: Jaderberg, Vedaldi and Zisserman 2014, "Speeding up convolutional neural networks with low rank
expansions", arXiv:1405.3866, scheme 2. Paper: fitted by descent; here by one SVD, which is the nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Two = tuple[Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Singular values well apart, above 1 and below it, so that S, its root and no S at all all differ."""

    def drawn(*shape: int, rank: int) -> dict[str, Any]:
        out, inputs, kh, kw = shape
        width = min(inputs * kh, out * kw)
        left, right = (
            torch.linalg.qr(torch.randn(size, width, generator=rng, dtype=torch.float64)).Q
            for size in (inputs * kh, out * kw)
        )
        s = 3 * 0.7 ** (torch.arange(width) + 0.5 * torch.rand(width, generator=rng))
        matrix = (left * s) @ right.T
        return {"kernel": matrix.view(inputs, kh, out, kw).permute(2, 0, 1, 3).contiguous(), "rank": rank}

    yield "as many inputs as outputs", drawn(3, 3, 3, 3, rank=4)
    yield "fewer outputs than inputs", drawn(2, 4, 3, 3, rank=3)
    yield "a kernel of 3 × 5", drawn(3, 2, 3, 5, rank=2)
    yield "a kernel of 4 × 2", drawn(3, 3, 4, 2, rank=5)
    yield "a row only", drawn(3, 5, 1, 3, rank=2)
    yield "a single column", drawn(5, 2, 3, 1, rank=3)
    yield "full rank: nothing is lost", drawn(2, 3, 2, 3, rank=6)
    yield "rank 1", drawn(4, 2, 3, 3, rank=1)
    turned = drawn(2, 3, 3, 2, rank=3)
    yield "turned: not contiguous", turned | {"kernel": turned["kernel"].permute(2, 1, 0, 3)}
    single = torch.zeros(3, 2, 3, 3)
    single[[2, 0, 1], [0, 1, 1], [1, 0, 2], [0, 2, 1]] = torch.tensor([4.0, 1.0, 0.25])
    yield "zeros in most places, float32", {"kernel": single, "rank": 2}


def probe(case: dict[str, Any], spatial_split: Callable[..., Any]) -> dict[str, Any]:
    """Signs are free: the largest entry of a vertical filter is made positive, its partner goes along."""
    (out, inputs, kh, kw), rank = case["kernel"].shape, case["rank"]
    two = spatial_split(case["kernel"], rank=rank)
    shapes = [(rank, inputs, kh, 1), (out, rank, 1, kw)]
    fits = isinstance(two, tuple | list) and [getattr(part, "shape", None) for part in two] == shapes
    if fits and all(isinstance(part, torch.Tensor) and part.is_floating_point() for part in two):
        rows = two[0].flatten(1)  # (rank, in * kh)
        largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
        signs = torch.where(largest < 0, -1, 1).view(rank, 1, 1)
        two = (two[0] * signs[..., None], two[1] * signs)
    return {"two": two}


def judge(case: dict[str, Any], record: Record) -> None:
    """The rebuilt kernel against a projection of the given one, by eigenvectors; then the sizes of both."""
    kernel, rank, dtype = case["kernel"].double(), case["rank"], case["kernel"].dtype
    out, inputs, kh, kw = kernel.shape
    both = expect.parts(record["two"], count=2)
    shapes = ((rank, inputs, kh, 1), (out, rank, 1, kw))
    vertical, horizontal = (
        expect.tensor(value, shape=size, dtype=dtype, what=f"{name}, one of two entries,").double()
        for value, size, name in zip(both, shapes, ("vertical", "horizontal"), strict=True)
    )
    product = torch.einsum("oiyx,ojzx->iyjz", kernel, kernel).reshape(inputs * kh, -1)
    squares, vectors = torch.linalg.eigh(product)
    leading = vectors[:, -rank:].view(inputs, kh, rank)
    nearest = torch.einsum("iyr,jzr,ojzx->oiyx", leading, leading, kernel)
    yours = torch.einsum("riyk,orkx->oiyx", vertical, horizontal)
    expect.close(yours, nearest, tolerance=1e-4, what="the rebuilt kernel (out, in, row, column)")
    for r, s in enumerate(squares[-rank:].flip(0).sqrt().tolist()):
        sizes = [float(part.square().sum()) ** 0.5 for part in (vertical[r], horizontal[:, r])]
        expect.true(
            all(abs(size - s**0.5) <= 1e-4 * (1 + s) for size in sizes),
            f"vertical[{r}] and horizontal[:, {r}] both have the norm √S[{r}] = {s**0.5:.4g}; yours have "
            f"{sizes[0]:.4g} and {sizes[1]:.4g}",
            where=r,
            wanted=f"{s**0.5:.4g}",
            first=f"{sizes[0]:.4g}",
            second=f"{sizes[1]:.4g}",
        )


def by_svd(kernel: Tensor, *, rank: int) -> Two:
    out, inputs, kh, kw = kernel.shape
    matrix = kernel.permute(1, 2, 0, 3).reshape(inputs * kh, out * kw)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    root = s[:rank].sqrt()
    vertical = (u[:, :rank] * root).T.reshape(rank, inputs, kh, 1)
    horizontal = (root[:, None] * vh[:rank]).view(rank, out, 1, kw).transpose(0, 1)
    return vertical, horizontal


def by_columns(kernel: Tensor, *, rank: int) -> Two:
    """The matrix transposed, and written one entry at a time."""
    out, inputs, kh, kw = kernel.shape
    columns = [kernel[o, :, :, x].flatten() for o in range(out) for x in range(kw)]
    left, s, right = torch.linalg.svd(torch.stack(columns))
    vertical = torch.empty(rank, inputs, kh, 1, dtype=kernel.dtype)
    horizontal = torch.empty(out, rank, 1, kw, dtype=kernel.dtype)
    for r in range(rank):
        vertical[r, :, :, 0] = right[r].view(inputs, kh) * s[r] ** 0.5
        horizontal[:, r, 0, :] = left[:, r].view(out, kw) * s[r] ** 0.5
    return vertical, horizontal


def by_eigenvectors(kernel: Tensor, *, rank: int) -> Two:
    matrix = torch.cat([torch.cat(tuple(k), dim=1) for k in kernel.transpose(0, 1)])  # (in * kh, out * kw)
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    u, root = vectors[:, -rank:].flip(1), squares[-rank:].flip(0) ** 0.25
    vertical = (u * root).T.reshape(rank, kernel.shape[1], kernel.shape[2], 1)
    horizontal = (matrix.T @ u / root).view(len(kernel), 1, kernel.shape[3], rank)
    return vertical, horizontal.permute(0, 3, 1, 2)


def _matrix(kernel: Tensor) -> Tensor:
    return kernel.permute(1, 2, 0, 3).reshape(kernel.shape[1] * kernel.shape[2], -1)


def _split(
    kernel,
    *,
    rank,
    matrix=_matrix,
    keep=slice,
    sides=lambda s: (s.sqrt(), s.sqrt()),
    fold_first=lambda first, shape: first.T.reshape(shape),
    fold_second=lambda second, shape: second.reshape(shape[1], shape[0], 1, shape[3]).transpose(0, 1),
) -> Two:
    """Right as it stands; many a mistake is one of its parts replaced."""
    out, inputs, kh, kw = kernel.shape
    u, s, vh = torch.linalg.svd(matrix(kernel), full_matrices=False)
    kept = keep(rank)
    left, right = sides(s[kept])
    first = fold_first(u[:, kept] * left, (rank, inputs, kh, 1))
    return first, fold_second(right[:, None] * vh[kept], (out, rank, 1, kw))


_REBUILT = "the rebuilt kernel at {where} should be {wanted} and is {yours}: "

not_permuted = mistake(
    "reshapes and does not permute",
    says=_REBUILT + "reshape cuts the numbers as they "
    "lie, (out, in, kh, kw); permute to (in, kh, out, kw) first",
)(partial(_split, matrix=lambda kernel: kernel.reshape(kernel.shape[1] * kernel.shape[2], -1)))

channels_mixed_up = mistake(
    "mixes up inputs and outputs",
    says=_REBUILT + "your matrix has (out · kh) rows; "
    "the vertical filters see the inputs, so it is (in · kh, out · kw)",
)(partial(_split, matrix=lambda kernel: _matrix(kernel.transpose(0, 1))))

axes_swapped = mistake(
    "exchanges height and width",
    says=_REBUILT + "your matrix is (in · kw, out · kh); "
    "the vertical filters have the height, (in · kh, out · kw)",
)(partial(_split, matrix=lambda kernel: _matrix(kernel.transpose(2, 3))))

twice = mistake(
    "multiplies by S on both sides",
    says=_REBUILT + "S is in it twice; the square root of it on either side makes once",
)(partial(_split, sides=lambda s: (s, s)))

not_at_all = mistake(
    "leaves S out",
    says=_REBUILT + "U and Vh have directions and no "
    "size; each filter is multiplied by the square root of its S",
)(partial(_split, sides=lambda s: (torch.ones_like(s), torch.ones_like(s))))

one_root = mistake(
    "takes the root on one side and nothing on the other",
    says=_REBUILT + "of each S there is only the root; the other root belongs to the other side",
)(partial(_split, sides=lambda s: (s.sqrt(), torch.ones_like(s))))

all_in_first = mistake(
    "puts all of S into the vertical filters",
    says="the product is right and the halves are uneven: √S[{where}] is {wanted}, vertical has {first} and "
    "horizontal {second}; with the root on both sides one learning rate suits both layers",
)(partial(_split, sides=lambda s: (s, torch.ones_like(s))))

all_in_second = mistake(
    "puts all of S into the horizontal filters",
    says="the product is right and the halves are uneven: √S[{where}] is {wanted}, horizontal has {second} "
    "and vertical {first}; with the root on both sides one learning rate suits both layers",
)(partial(_split, sides=lambda s: (torch.ones_like(s), s)))

smallest = mistake(
    "keeps the smallest",
    says=_REBUILT + "you kept the last singular values; "
    "an svd begins with the largest, and these are the ones to keep",
)(partial(_split, keep=lambda rank: slice(-rank, None)))

first_not_turned = mistake(
    "does not transpose U",
    says=_REBUILT + "U[:, :rank] is (in · kh, rank) and vertical has rank first; transpose it, then reshape",
)(partial(_split, fold_first=lambda first, shape: first.reshape(shape)))

second_not_turned = mistake(
    "reshapes Vh to (out, rank, 1, kw) at once",
    says=_REBUILT + "Vh[:rank] is (rank, out · kw), rank "
    "first; give it the shape (rank, out, 1, kw), then exchange the first two axes",
)(partial(_split, fold_second=lambda second, shape: second.reshape(shape)))


@mistake(
    "takes Vh for V",
    says=_REBUILT + "torch.linalg.svd returns V "
    "already transposed, so its singular vectors are the rows, Vh[:rank]",
)
def columns_of_vh(kernel, *, rank):
    out, inputs, kh, kw = kernel.shape
    u, s, v = torch.linalg.svd(_matrix(kernel))
    root = s[:rank].sqrt()
    first, second = (u[:, :rank] * root).T, (v[:, :rank] * root).T
    return first.reshape(rank, inputs, kh, 1), second.reshape(rank, out, 1, kw).transpose(0, 1)


@mistake(
    "returns horizontal first", says="the first of the two is vertical, (rank, in, kh, 1), and yours is last"
)
def horizontal_first(kernel, *, rank):
    return _split(kernel, rank=rank)[::-1]


@mistake(
    "leaves horizontal with rank first",
    says="your horizontal is (rank, out, 1, kw); a convolution's weight has its outputs first, "
    "(out, rank, 1, kw)",
)
def rank_first(kernel, *, rank):
    vertical, horizontal = _split(kernel, rank=rank)
    return vertical, horizontal.transpose(0, 1)


EXERCISE = Exercise(
    name="spatial_split",
    points=2,
    minutes=10,
    difficulty=3,
    bonus=True,
    statement="spatial_split(kernel, rank=…) returns a vertical and a horizontal kernel whose product is the "
    "nearest to the given one.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_svd, by_columns, by_eigenvectors),
    mistakes=(
        not_permuted,
        channels_mixed_up,
        axes_swapped,
        twice,
        not_at_all,
        one_root,
        all_in_first,
        all_in_second,
        smallest,
        first_not_turned,
        second_not_turned,
        columns_of_vh,
        horizontal_first,
        rank_first,
    ),
    hints=(
        Hint(
            "I do not see which matrix to split",
            "Look at the indices: vertical has r, i and y; horizontal has o, r and x. What both share is r, "
            "summed over. So the kernel is a matrix whose row is the pair (i, y) and whose column is (o, x).",
        ),
        Hint(
            "the shapes are right and the rebuilt kernel is not",
            "permute (out, in, kh, kw) to (in, kh, out, kw), reshape to (in·kh, out·kw). U[:, :r] · √S is "
            "(in·kh, r): transpose, then (r, in, kh, 1). √S · Vh[:r] is (r, out·kw): (r, out, 1, kw), then "
            "exchange the first two axes.",
        ),
        Hint("only the matrix is missing", "kernel.permute(________).reshape(inputs * kh, out * kw)"),
    ),
)
