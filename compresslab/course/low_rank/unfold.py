"""A tensor as a matrix: one mode becomes the rows, all the others the columns.

Source: Kolda and Bader 2009, "Tensor decompositions and applications", SIAM Review 51(3). Paper: the first of
the other modes runs fastest; here the last does, because that is how torch lies in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """First a cube, in which a wrong order has the right shape; then every mode, and sizes that differ."""

    def drawn(*shape: int, mode: int) -> dict[str, Any]:
        return {"tensor": torch.randn(shape, generator=rng, dtype=torch.float64), "mode": mode}

    def sizes(count: int) -> list[int]:
        return [int(2 + place) for place in torch.randperm(count, generator=rng)]

    yield "a cube, mode 1", drawn(3, 3, 3, mode=1)
    for mode in range(3):
        yield f"three sizes, mode {mode}", drawn(*sizes(3), mode=mode)
    yield "a cube, its last mode", drawn(3, 3, 3, mode=2)
    for mode in range(4):
        yield f"a convolution's kernel, mode {mode}", drawn(*sizes(4), mode=mode)
    yield "a square matrix, mode 1", drawn(3, 3, mode=1)
    yield "a vector", drawn(4, mode=0)
    yield "a mode of one index", drawn(3, 1, 2, mode=1)
    yield "five modes", drawn(2, 3, 2, 2, 3, mode=3)
    turned = drawn(4, 3, 2, mode=1)
    yield "turned: not contiguous", turned | {"tensor": turned["tensor"].permute(2, 0, 1)}
    yield "float32", {"tensor": torch.randn(2, 4, 3, generator=rng), "mode": 1}


def probe(case: dict[str, Any], unfold: Callable[..., Any]) -> dict[str, Any]:
    return {"matrix": unfold(case["tensor"], mode=case["mode"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Entry by entry: the columns count through the indices of the other modes as an odometer does."""
    tensor, mode = case["tensor"], case["mode"]
    rows = tensor.shape[mode]
    shape = (rows, tensor.numel() // rows)
    yours = expect.tensor(record["matrix"], shape=shape, dtype=tensor.dtype, what="the matrix")
    matrix, numbers = yours.numpy(), tensor.numpy()
    others = [range(size) for place, size in enumerate(tensor.shape) if place != mode]
    for column, rest in enumerate(itertools.product(*others)):
        for row in range(rows):
            index = (*rest[:mode], row, *rest[mode:])
            came, want = matrix[row, column], numbers[index]
            where, wanted = f"[{row}, {column}]", f"tensor{list(index)}"
            found = _place(tensor, came) if came != want else wanted
            reason = f"the matrix at {where} is {wanted} = {want:.4g}; yours is {came:.4g}"
            expect.true(came == want, reason, where=where, wanted=wanted, found=found)


def _place(tensor: Tensor, value: float) -> str:
    """Where in the tensor a value stands, as far as it does."""
    places = (tensor == value).nonzero().tolist()
    return f"tensor{places[0]}" if places else f"{value:.4g}, which is not in the tensor"


def by_moving(tensor: Tensor, *, mode: int) -> Tensor:
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1)


def by_slices(tensor: Tensor, *, mode: int) -> Tensor:
    return torch.stack([part.flatten() for part in tensor.unbind(mode)])


def by_permuting(tensor: Tensor, *, mode: int) -> Tensor:
    others = [place for place in range(tensor.dim()) if place != mode]
    return tensor.permute(mode, *others).flatten(1) if others else tensor[:, None]


def by_columns(tensor: Tensor, *, mode: int) -> Tensor:
    last = tensor.transpose(mode, -1) if mode == tensor.dim() - 1 else tensor.movedim(mode, -1)
    return last.reshape(-1, tensor.shape[mode]).T


@mistake(
    "always unfolds mode 0",
    says="at {where} belongs {wanted} and you have {found}: your rows are the indices of mode 0, whatever "
    "mode is asked for",
)
def mode_zero(tensor, *, mode):
    return tensor.reshape(tensor.shape[0], -1)


@mistake(
    "reshapes and does not move the mode",
    says="at {where} belongs {wanted} and you have {found}: reshape alone cuts the numbers into rows as they "
    "lie in memory, where mode 0 runs slowest; move the mode to the front first",
)
def not_moved(tensor, *, mode):
    return tensor.reshape(tensor.shape[mode], -1)


@mistake(
    "views what was moved",
    says="view raises a RuntimeError here: moving a mode leaves the numbers where they are in memory, so the "
    "rows do not lie in one piece; reshape copies where it has to",
)
def viewed(tensor, *, mode):
    return tensor.movedim(mode, 0).view(tensor.shape[mode], -1)


@mistake(
    "returns the matrix transposed",
    says="your matrix lies on its side: the mode's indices should be its rows, and in yours they are the "
    "columns",
)
def transposed(tensor, *, mode):
    return tensor.movedim(mode, 0).reshape(tensor.shape[mode], -1).T


@mistake(
    "lets the first of the others run fastest",
    says="at {where} belongs {wanted} and you have {found}: you count the other modes in reverse, the first "
    "of them fastest, as Kolda and Bader and MATLAB do; here the last runs fastest",
)
def reversed_others(tensor, *, mode):
    others = [place for place in reversed(range(tensor.dim())) if place != mode]
    return tensor.permute(mode, *others).reshape(tensor.shape[mode], -1)


@mistake(
    "counts the modes from 1",
    says="at {where} belongs {wanted} and you have {found}: you unfolded mode - 1; modes are counted from 0, "
    "as torch counts dimensions",
)
def counted_from_one(tensor, *, mode):
    return tensor.movedim(mode - 1, 0).reshape(tensor.shape[mode - 1], -1)


@mistake(
    "moves the mode to the end and cuts into rows",
    says="at {where} belongs {wanted} and you have {found}: you moved the mode to the end, where it runs "
    "fastest; the rows are the slowest, so it belongs to the front",
)
def to_the_end(tensor, *, mode):
    return tensor.movedim(mode, -1).reshape(tensor.shape[mode], -1)


@mistake(
    "moves the mode to the front and cuts after every few",
    says="your matrix has the product of the other modes for rows: reshape(-1, size) makes rows of that "
    "size; it is the number of rows here, reshape(size, -1)",
)
def cut_short(tensor, *, mode):
    return tensor.movedim(mode, 0).reshape(-1, tensor.shape[mode])


@mistake(
    "exchanges the mode with mode 0",
    says="at {where} belongs {wanted} and you have {found}: transpose(0, mode) puts mode 0 where the mode "
    "was, behind others that it came before; movedim keeps them in order",
)
def exchanged(tensor, *, mode):
    return tensor.transpose(0, mode).reshape(tensor.shape[mode], -1)


@mistake(
    "moves mode 0 to the mode's place",
    says="at {where} belongs {wanted} and you have {found}: movedim(0, mode) takes the first mode away; it "
    "is movedim(from, to), and what moves is the mode",
)
def moved_backwards(tensor, *, mode):
    return tensor.movedim(0, mode).reshape(tensor.shape[mode], -1)


@mistake(
    "goes round in a circle",
    says="at {where} belongs {wanted} and you have {found}: you take the modes after this one first, then "
    "those before it; the others stay in their order, 0, 1, 2, …",
)
def cyclic(tensor, *, mode):
    order = [(mode + step) % tensor.dim() for step in range(tensor.dim())]
    return tensor.permute(*order).reshape(tensor.shape[mode], -1)


EXERCISE = Exercise(
    name="unfold",
    points=1,
    minutes=5,
    difficulty=2,
    bonus=True,
    statement="unfold(tensor, mode=…) lays a tensor out as a matrix: row i is all that has index i in "
    "that mode.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_moving, by_slices, by_permuting, by_columns),
    mistakes=(
        mode_zero,
        not_moved,
        viewed,
        transposed,
        reversed_others,
        counted_from_one,
        to_the_end,
        cut_short,
        exchanged,
        moved_backwards,
        cyclic,
    ),
    hints=(
        Hint(
            "the shape is right and the numbers stand in wrong places",
            "reshape never looks at what a number means: it reads them all, the last index fastest, and cuts "
            "that line into rows. Which index must be the slowest for your rows to come out?",
        ),
        Hint(
            "it is right for mode 0 and for no other",
            "Two steps: (n0, …, n_mode, …) with the mode moved to the front is (n_mode, n0, …), the others "
            "in their old order; then reshape to (n_mode, product of the others). movedim(from, to) does it.",
        ),
        Hint("only the first step is missing", "tensor.movedim(____, 0).reshape(tensor.shape[mode], -1)"),
    ),
)
