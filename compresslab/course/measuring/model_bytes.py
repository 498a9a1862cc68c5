"""Bytes of a model: every tensor that its file must hold, so many bits a number, in whole bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.networks import build

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def odd() -> int:
        return 2 * int(torch.randint(1, 5, (), generator=rng)) + 1

    def linear(width: int, out: int) -> list[Any]:
        return ["Linear", {"in_features": width, "out_features": out}]

    def case(bits: int, *layers: list[Any], dtype: str = "float32") -> dict[str, Any]:
        return {"layers": list(layers), "bits": bits, "dtype": dtype}

    a, b, c = odd(), odd(), odd()
    conv = ["Conv2d", {"in_channels": a, "out_channels": b, "kernel_size": 3, "bias": False}]
    yield "32 bits", case(32, linear(a, b), ["ReLU", {}], linear(b, c))
    yield "16 bits", case(16, linear(a, b), ["ReLU", {}], linear(b, c))
    yield "8 bits, given in float64", case(8, linear(a, b), linear(b, c), dtype="float64")
    yield "4 bits, odd sizes", case(4, linear(a, b))
    yield "4 bits, three odd tensors", case(4, conv, linear(b, c))
    yield "a shared layer", case(16, linear(a, a), ["ReLU", {}], ["Same", {"as": 0}], linear(a, c))
    yield "BatchNorm in 8 bits", case(8, linear(a, b), ["BatchNorm1d", {"num_features": b}])
    yield (
        "BatchNorm inside a layer, 4 bits",
        case(4, ["Residual", {"layers": [linear(a, a), ["BatchNorm1d", {"num_features": a}]]}]),
    )
    yield "no tensor at all", case(4, ["ReLU", {}])


def probe(case: dict[str, Any], model_bytes: Callable[..., Any]) -> dict[str, Any]:
    model = build(case["layers"]).to(getattr(torch, case["dtype"]))
    return {"bytes": model_bytes(model, bits=case["bits"])}


def judge(case: dict[str, Any], record: Record) -> None:
    count = expect.whole_number(record["bytes"])
    tensors = {id(t): t for t in build(case["layers"]).state_dict(keep_vars=True).values()}
    file = b"".join(_written(tensor.detach(), case["bits"]) for tensor in tensors.values())
    expect.equal(count, len(file), what="the number of bytes")


def _written(tensor: Tensor, bits: int) -> bytes:
    """The tensor as it would stand in a file: of each float32 the first so many bits, an integer as it is."""
    if not tensor.is_floating_point():
        return tensor.numpy().tobytes()
    pattern = np.unpackbits(tensor.numpy().astype(">f4").reshape(-1).view(np.uint8)).reshape(-1, 32)
    return np.packbits(pattern[:, :bits]).tobytes()


def by_loop(model: nn.Module, *, bits: int) -> int:
    total = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        width = bits if tensor.is_floating_point() else 8 * tensor.element_size()
        total += (tensor.numel() * width + 7) // 8
    return total


def by_state_dict(model: nn.Module, *, bits: int) -> int:
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values()
    floats = [tensor.numel() for tensor in tensors if tensor.is_floating_point()]
    integers = [tensor.nbytes for tensor in tensors if not tensor.is_floating_point()]
    return int(np.ceil(np.array(floats) * bits / 8).sum()) + sum(integers)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _width(tensor: Tensor, bits: int) -> int:
    return bits if tensor.is_floating_point() else 8 * tensor.element_size()


@mistake(
    "takes bits for bytes",
    says="you return {yours}, which is the number of bits, but a byte has eight: wanted are {wanted} bytes",
)
def in_bits(model: nn.Module, *, bits: int) -> int:
    return sum(tensor.numel() * _width(tensor, bits) for tensor in _tensors(model))


@mistake(
    "always takes 4 bytes",
    says="you return {yours}, 4 bytes for each number whatever `bits` says: a number of `bits` bits takes "
    "bits / 8",
)
def four_bytes(model: nn.Module, *, bits: int) -> int:
    return sum(4 * tensor.numel() for tensor in _tensors(model))


@mistake(
    "takes the size that the numbers have now",
    says="you return {yours}, the bytes in memory today (element_size, nbytes): asked is the file with "
    "floats in `bits`",
)
def as_it_is(model: nn.Module, *, bits: int) -> int:
    return sum(tensor.nbytes for tensor in _tensors(model))


@mistake(
    "rounds down",
    says="you return {yours}: // 8 throws the last, half-filled byte of a tensor away, and the number in "
    "it is lost",
)
def rounded_down(model: nn.Module, *, bits: int) -> int:
    return sum(tensor.numel() * _width(tensor, bits) // 8 for tensor in _tensors(model))


@mistake(
    "rounds up once, at the end",
    says="you return {yours}, rounded up once: every tensor begins at a byte of its own, so round up "
    "tensor by tensor",
)
def rounded_once(model: nn.Module, *, bits: int) -> int:
    return (sum(tensor.numel() * _width(tensor, bits) for tensor in _tensors(model)) + 7) // 8


@mistake(
    "gives every number a byte of its own",
    says="you return {yours}, at least a byte for each number: two 4-bit numbers share one byte, so round "
    "up after multiplying",
)
def a_byte_each(model: nn.Module, *, bits: int) -> int:
    return sum(tensor.numel() * ((_width(tensor, bits) + 7) // 8) for tensor in _tensors(model))


@mistake(
    "divides before multiplying",
    says="you return {yours}: bits // 8 is 0 for 4 bits, so such numbers would cost nothing; multiply "
    "first, then divide",
)
def divided_first(model: nn.Module, *, bits: int) -> int:
    return sum(tensor.numel() * (_width(tensor, bits) // 8) for tensor in _tensors(model))


@mistake(
    "forgets the buffers",
    says="you return {yours}, the parameters alone: without BatchNorm's running mean and variance the "
    "loaded model answers otherwise, so the file holds buffers too",
)
def without_buffers(model: nn.Module, *, bits: int) -> int:
    return sum((tensor.numel() * bits + 7) // 8 for tensor in model.parameters())


@mistake(
    "stores a shared tensor twice",
    says="you return {yours}, with a shared tensor twice: state_dict() lists it under each of its names, "
    "the file needs it once",
)
def shared_twice(model: nn.Module, *, bits: int) -> int:
    return sum((tensor.numel() * _width(tensor, bits) + 7) // 8 for tensor in model.state_dict().values())


@mistake(
    "converts integer tensors too",
    says="you return {yours}, with BatchNorm's step counter squeezed into `bits` as well: only "
    "floating-point numbers are converted, an int64 keeps its 8 bytes",
)
def integers_too(model: nn.Module, *, bits: int) -> int:
    return sum((tensor.numel() * bits + 7) // 8 for tensor in _tensors(model))


@mistake(
    "leaves integer tensors out",
    says="you return {yours}, without BatchNorm's step counter: an int64 is not converted, but its 8 "
    "bytes are stored",
)
def no_integers(model: nn.Module, *, bits: int) -> int:
    return sum((t.numel() * bits + 7) // 8 for t in _tensors(model) if t.is_floating_point())


EXERCISE = Exercise(
    name="model_bytes",
    points=2,
    minutes=8,
    difficulty=2,
    statement="model_bytes(model, bits=…) counts the bytes of all tensors when a float takes so many bits.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_loop, by_state_dict),
    mistakes=(
        in_bits,
        four_bytes,
        as_it_is,
        rounded_down,
        rounded_once,
        a_byte_each,
        divided_first,
        without_buffers,
        shared_twice,
        integers_too,
        no_integers,
    ),
    hints=(
        Hint(
            "my count is right until BatchNorm comes",
            "A file holds model.parameters() and model.buffers(); among the buffers is an integer, which "
            "keeps its own element_size().",
        ),
        Hint(
            "I am off by a byte or two at 4 bits",
            "Σ over tensors of ⌈numel · width / 8⌉, width = bits for a float, 8 · element_size() for an "
            "integer: the rounding up is inside the sum. In whole numbers ⌈n / 8⌉ is (n + 7) // 8.",
        ),
        Hint(
            "I know the formula, not the code",
            "total += (tensor.numel() * width + ______) // 8, with width = bits if "
            "tensor.is_floating_point() else …",
        ),
    ),
)
