"""Multiply-accumulates of a convolution, from its shapes alone: each output number costs one weight patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Shape = tuple[int, ...]
Pair = tuple[int, int]  # (vertical, horizontal)


def cases(rng: torch.Generator) -> Iterator[Case]:
    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def case(image: Shape, weight: Shape, stride: int, padding: int, groups: int = 1) -> dict[str, Any]:
        pairs = {"stride": (stride, stride), "padding": (padding, padding), "groups": groups}
        return {"input_shape": image, "weight_shape": weight, **pairs}

    c, o, h, w = draw(2, 16), draw(2, 16), draw(5, 15), draw(5, 15)
    yield "3×3, the size stays", case((c, h, w), (o, c, 3, 3), stride=1, padding=1)
    yield "1×1", case((c, h, w), (o, c, 1, 1), stride=1, padding=0)
    yield "5×5, no padding", case((c, h, w), (o, c, 5, 5), stride=1, padding=0)
    yield "every second place, even size", case((c, 2 * h, 2 * w), (o, c, 3, 3), stride=2, padding=1)
    yield "every second place, odd size", case((c, 2 * h + 1, 2 * w + 1), (o, c, 3, 3), stride=2, padding=1)
    yield "two groups", case((2 * c, h, w), (2 * o, c, 3, 3), stride=1, padding=1, groups=2)
    yield "depthwise", case((c, h, w), (c, 1, 3, 3), stride=1, padding=1, groups=c)
    # Sizes on which no two of the mistakes below agree.
    tall = {"stride": (2, 3), "padding": (2, 1), "groups": 2}
    yield "nothing is square", {"input_shape": (8, 14, 11), "weight_shape": (6, 4, 3, 4), **tall}
    yield "one number", case((1, 1, 1), (1, 1, 1, 1), stride=1, padding=0)


def probe(case: dict[str, Any], conv_macs: Callable[..., Any]) -> dict[str, Any]:
    settings = {name: case[name] for name in ("stride", "padding", "groups")}
    return {"macs": conv_macs(case["input_shape"], case["weight_shape"], **settings)}


def judge(case: dict[str, Any], record: Record) -> None:
    macs = expect.whole_number(record["macs"])
    # Ones times ones: each output number is the number of its products. The border counts, so it is ones too.
    image, weight = (torch.ones(case[name], dtype=torch.float64) for name in ("input_shape", "weight_shape"))
    border = [side for side in reversed(case["padding"]) for _ in range(2)]  # left, right, above, below
    products = F.conv2d(
        F.pad(image, border, value=1.0)[None], weight, stride=case["stride"], groups=case["groups"]
    )
    expect.equal(macs, int(products.sum()), what="the number of multiply-accumulates")


def by_output_numbers(
    input_shape: Shape, weight_shape: Shape, *, stride: Pair, padding: Pair, groups: int
) -> int:
    _, height, width = input_shape
    out, in_per_group, kernel_height, kernel_width = weight_shape
    out_height = (height + 2 * padding[0] - kernel_height) // stride[0] + 1
    out_width = (width + 2 * padding[1] - kernel_width) // stride[1] + 1
    return out * out_height * out_width * in_per_group * kernel_height * kernel_width


def by_sliding(input_shape: Shape, weight_shape: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    channels, *size = input_shape
    macs = weight_shape[0] * (channels // groups)
    for length, kernel, step, border in zip(size, weight_shape[2:], stride, padding, strict=True):
        places = range(-border, length + border - kernel + 1, step)  # where the kernel's first row can lie
        macs *= len(places) * kernel
    return macs


def _places(length: int, kernel: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - kernel) // stride + 1


def _macs(weight_shape: Shape, out_height: int, out_width: int) -> int:
    out, in_per_group, kernel_height, kernel_width = weight_shape
    return out * out_height * out_width * in_per_group * kernel_height * kernel_width


@mistake(
    "takes the input's size for the output's",
    says="you count {yours}, one patch for each input pixel: the kernel stops only at the output's pixels, "
    "fewer without padding and with a stride",
)
def at_input_size(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, i[1], i[2])


@mistake(
    "forgets the padding",
    says="you count {yours}, as if there were no padding: the added border gives the kernel more places "
    "to stop",
)
def unpadded(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], stride[d], 0) for d in (0, 1)))


@mistake(
    "adds the padding on one side only",
    says="you count {yours}, with the padding added once: it lies above and below, left and right, so 2 · "
    "padding",
)
def padded_once(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *((i[1 + d] + padding[d] - w[2 + d]) // stride[d] + 1 for d in (0, 1)))


@mistake(
    "ignores the stride",
    says="you count {yours}, the kernel stopping at every pixel: with a stride of 2 it stops at every second",
)
def unstrided(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], 1, padding[d]) for d in (0, 1)))


@mistake(
    "divides by the stride once",
    says="you count {yours}, the stride used downwards only: it thins out the columns as well as the rows",
)
def strided_once(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], (stride[0], 1)[d], padding[d]) for d in (0, 1)))


@mistake(
    "rounds the output's size up",
    says="you count {yours}, with the last step rounded up: where the kernel would hang over the border "
    "it does not stop, so round down (//)",
)
def rounded_up(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(-(-(i[1 + d] + 2 * padding[d] - w[2 + d]) // stride[d]) + 1 for d in (0, 1)))


@mistake(
    "forgets the + 1",
    says="you count {yours}, one row and one column too few: so many steps make one place more (the + 1)",
)
def one_place_short(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], stride[d], padding[d]) - 1 for d in (0, 1)))


@mistake(
    "swaps vertical and horizontal",
    says="you count {yours}, with the pairs the wrong way round: stride and padding are (vertical, "
    "horizontal), the height takes the first",
)
def swapped(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], stride[1 - d], padding[1 - d]) for d in (0, 1)))


@mistake(
    "takes one stride and one padding for both directions",
    says="you count {yours}, using stride[0] and padding[0] for the width too: the width has its own, [1]",
)
def first_of_each_pair(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], stride[0], padding[0]) for d in (0, 1)))


@mistake(
    "takes the kernel to be square",
    says="you count {yours}, the kernel's height taken for its width as well: here it is not square",
)
def square_kernel(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    square = (w[0], w[1], w[2], w[2])
    return _macs(square, *(_places(i[1 + d], w[2], stride[d], padding[d]) for d in (0, 1)))


@mistake(
    "ignores the groups",
    says="you count {yours}, each output number fed by all input channels: in groups it sees in / groups "
    "of them, which is weight_shape[1]",
)
def all_channels(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    dense = (w[0], i[0], w[2], w[3])
    return _macs(dense, *(_places(i[1 + d], w[2 + d], stride[d], padding[d]) for d in (0, 1)))


@mistake(
    "divides by the groups twice",
    says="you count {yours}, divided by the groups once too often: weight_shape[1] is in / groups already",
)
def grouped_twice(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, *(_places(i[1 + d], w[2 + d], stride[d], padding[d]) for d in (0, 1))) // groups


@mistake(
    "counts FLOPs",
    says="you count {yours}, multiplications and additions one by one (FLOPs): a MAC is one of each",
)
def in_flops(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return 2 * _macs(w, *(_places(i[1 + d], w[2 + d], stride[d], padding[d]) for d in (0, 1)))


@mistake(
    "counts the weights",
    says="you count {yours} weights: each of them is used again at every place where the kernel stops",
)
def weights(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    return _macs(w, 1, 1)


@mistake(
    "forgets the output channels",
    says="you count {yours}, the work for one output channel: the same image is read by weight_shape[0] "
    "kernels",
)
def one_output_channel(i: Shape, w: Shape, *, stride: Pair, padding: Pair, groups: int) -> int:
    single = (1, *w[1:])
    return _macs(single, *(_places(i[1 + d], w[2 + d], stride[d], padding[d]) for d in (0, 1)))


EXERCISE = Exercise(
    name="conv_macs",
    points=2,
    minutes=10,
    difficulty=2,
    statement="conv_macs(input_shape, weight_shape, …) counts a convolution's MACs for one image.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_output_numbers, by_sliding),
    mistakes=(
        at_input_size,
        unpadded,
        padded_once,
        unstrided,
        strided_once,
        rounded_up,
        one_place_short,
        swapped,
        first_of_each_pair,
        square_kernel,
        all_channels,
        grouped_twice,
        in_flops,
        weights,
        one_output_channel,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Ask what one output number costs: a patch of the image times one kernel. Then count the "
            "output numbers.",
        ),
        Hint(
            "I am right until padding or stride comes",
            "Output height = ⌊(height + 2 · padding[0] - kernel_height) / stride[0]⌋ + 1, the width alike "
            "with [1]; MACs = out · output height · output width · (in / groups) · kernel_height · "
            "kernel_width.",
        ),
        Hint(
            "I know the formula, not the code",
            "out_height = (height + 2 * padding[0] - weight_shape[2]) // ______ + 1",
        ),
    ),
)
