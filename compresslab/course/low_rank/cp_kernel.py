"""A convolution's kernel back from its four CP factors: a sum of products, one number from each factor.

Source: Lebedev et al. 2014, "Speeding-up convolutional neural networks using fine-tuned CP-decomposition",
arXiv:1412.6553.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

NAMES = ("outputs", "inputs", "rows", "columns")


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Equal sizes, where an order mixed up shows in the numbers alone; and sizes that are all different."""

    def factors(sizes: tuple[int, int, int, int], rank: int) -> dict[str, Tensor]:
        return {
            name: torch.randn(size, rank, generator=rng, dtype=torch.float64)
            for name, size in zip(NAMES, sizes, strict=True)
        }

    yield "all sizes equal", factors((3, 3, 3, 3), 2)
    yield "all sizes different", factors((4, 3, 2, 5), 3)
    yield "one component", factors((3, 2, 3, 3), 1)
    yield "more components than channels", factors((2, 2, 3, 2), 5)
    yield "a kernel of 1 × 1", factors((4, 3, 1, 1), 2)
    yield "a kernel that is a row", factors((2, 3, 1, 3), 2)
    quarters = factors((3, 2, 3, 3), 2).items()  # their products are exact in float32, however written
    yield "float32", {name: ((4 * value).round() / 4).float() for name, value in quarters}
    turned = factors((3, 2, 4, 3), 2)
    yield "not contiguous", {name: value.T.contiguous().T for name, value in turned.items()}
    empty = factors((2, 3, 3, 2), 3)
    empty["rows"][:, 1] = 0.0
    yield "a component of zeros", empty


def probe(case: dict[str, Any], cp_kernel: Callable[..., Any]) -> dict[str, Any]:
    return {"kernel": cp_kernel(case["outputs"], case["inputs"], case["rows"], case["columns"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """The kernel as one long vector: each component is the Kronecker product of its four columns."""
    factors = [case[name].double() for name in NAMES]
    kernel = expect.tensor(record["kernel"], shape=[len(factor) for factor in factors], what="the kernel")
    columns = [reduce(torch.kron, (factor[:, r] for factor in factors)) for r in range(factors[0].shape[1])]
    wanted = torch.stack(columns).sum(dim=0).view(kernel.shape)
    expect.close(kernel, wanted, what="the kernel")


def by_einsum(outputs: Tensor, inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.einsum("or,ir,yr,xr->oiyx", outputs, inputs, rows, columns)


def by_components(outputs: Tensor, inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    kernel = torch.zeros(len(outputs), len(inputs), len(rows), len(columns), dtype=outputs.dtype)
    for a, b, c, d in zip(outputs.T, inputs.T, rows.T, columns.T, strict=True):
        kernel += a[:, None, None, None] * b[:, None, None] * c[:, None] * d
    return kernel


def by_matrices(outputs: Tensor, inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    channels = outputs[:, None] * inputs  # (out, in, r)
    places = rows[:, None] * columns  # (kh, kw, r)
    flat = channels.flatten(0, 1) @ places.flatten(0, 1).T  # (out · in, kh · kw)
    return flat.view(len(outputs), len(inputs), len(rows), len(columns))


_HERE = "the kernel at {where} should be {wanted} and yours is {yours}: "


@mistake(
    "mixes up outputs and inputs",
    says=_HERE + "this is the number of inputs and outputs exchanged; a convolution's weight in PyTorch is "
    "(out, in, kh, kw), with the outputs first",
)
def channels_swapped(outputs, inputs, rows, columns):
    return by_einsum(inputs, outputs, rows, columns)


@mistake(
    "mixes up rows and columns",
    says=_HERE + "your kernels are lying on their side; in (out, in, kh, kw) the rows, which say where from "
    "top to bottom, come before the columns",
)
def places_swapped(outputs, inputs, rows, columns):
    return by_einsum(outputs, inputs, columns, rows)


@mistake(
    "puts the places before the channels",
    says=_HERE + "your order is (kh, kw, in, out), which other libraries have; PyTorch's is "
    "(out, in, kh, kw), the order of the arguments",
)
def places_first(outputs, inputs, rows, columns):
    return by_einsum(rows, columns, inputs, outputs)


@mistake(
    "puts the channels last",
    says=_HERE + "your order is (out, kh, kw, in), the channels at the end; PyTorch's is (out, in, kh, kw)",
)
def channels_last(outputs, inputs, rows, columns):
    return by_einsum(outputs, rows, columns, inputs)


@mistake(
    "takes the first component alone",
    says=_HERE + "that is component 0; a kernel is the sum of all r of them, and with one component your "
    "answer is right",
)
def first_alone(outputs, inputs, rows, columns):
    return by_einsum(outputs[:, :1], inputs[:, :1], rows[:, :1], columns[:, :1])


@mistake(
    "returns the last component alone",
    says=_HERE + "that is the last component; a loop that writes = forgets the ones before: += adds them up",
)
def last_alone(outputs, inputs, rows, columns):
    return by_einsum(outputs[:, -1:], inputs[:, -1:], rows[:, -1:], columns[:, -1:])


@mistake(
    "leaves the last component out",
    says=_HERE + "the last component is missing; range(r) ends at r - 1 by itself",
)
def one_too_few(outputs, inputs, rows, columns):
    return by_einsum(outputs[:, :-1], inputs[:, :-1], rows[:, :-1], columns[:, :-1])


@mistake(
    "takes the mean of the components",
    says=_HERE + "you divided by the number of components; they are added up, each carries its own size",
)
def mean(outputs, inputs, rows, columns):
    return by_einsum(outputs, inputs, rows, columns) / outputs.shape[1]


@mistake(
    "sums each factor before it multiplies",
    says=_HERE + "you have the product of four sums; r is one and the same in all four factors, so multiply "
    "first and sum the products: four different letters for r in einsum do what you did",
)
def product_of_sums(outputs, inputs, rows, columns):
    return by_einsum(*(factor.sum(dim=1, keepdim=True) for factor in (outputs, inputs, rows, columns)))


@mistake(
    "sums the channels and the places on their own",
    says=_HERE + "outputs · inputsᵀ has summed over r already, and rows · columnsᵀ once more; a component's "
    "channels belong to its own places, so there is one sum, over all four factors together",
)
def two_sums(outputs, inputs, rows, columns):
    return (outputs @ inputs.T)[:, :, None, None] * (rows @ columns.T)


@mistake(
    "keeps the components apart",
    says="your answer has a fifth dimension, the components; the kernel is their sum: .sum() over it, or "
    "leave r out behind the arrow of einsum",
)
def not_summed(outputs, inputs, rows, columns):
    return torch.einsum("or,ir,yr,xr->oiyxr", outputs, inputs, rows, columns)


@mistake(
    "adds the four numbers of a component",
    says=_HERE + "you have added the four factors; within a component they are multiplied, and only the "
    "components are added",
)
def added(outputs, inputs, rows, columns):
    return (outputs[:, None, None, None] + inputs[:, None, None] + rows[:, None] + columns).sum(dim=-1)


EXERCISE = Exercise(
    name="cp_kernel",
    points=1,
    minutes=6,
    difficulty=2,
    bonus=True,
    statement="cp_kernel(outputs, inputs, rows, columns) is the convolution's kernel that four CP factors "
    "stand for.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_einsum, by_components, by_matrices),
    mistakes=(
        channels_swapped,
        places_swapped,
        places_first,
        channels_last,
        first_alone,
        last_alone,
        one_too_few,
        mean,
        product_of_sums,
        two_sums,
        not_summed,
        added,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Take one component and one entry of the kernel. It is the product of four numbers, one from "
            "each factor: which row of each, and which column?",
        ),
        Hint(
            "right with one component, wrong with two",
            "Each factor is (size, r), and column r of all four makes component r, (out, in, kh, kw). First "
            "the product of the four, then the sum over r: one sum, outermost.",
        ),
        Hint("I want to write it in one line", 'torch.einsum("or,ir,yr,xr->____", …)'),
    ),
)
