"""Counting parameters: each number that the network learns, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.networks import build

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def size() -> int:
        return int(torch.randint(2, 9, (), generator=rng))

    def linear(width: int, out: int, bias: bool = True) -> list[Any]:
        return ["Linear", {"in_features": width, "out_features": out, "bias": bias}]

    a, b, c = size(), size(), size()
    yield "two linear layers", {"layers": [linear(a, b), ["ReLU", {}], linear(b, c)], "frozen": 0}
    yield "no bias", {"layers": [linear(a, b, bias=False)], "frozen": 0}
    yield (
        "a shared layer",
        {"layers": [linear(a, a), ["ReLU", {}], ["Same", {"as": 0}], linear(a, c)], "frozen": 0},
    )
    yield (
        "BatchNorm, which has buffers",
        {"layers": [linear(a, b), ["BatchNorm1d", {"num_features": b}]], "frozen": 0},
    )
    yield "a frozen layer", {"layers": [linear(a, b), linear(b, c)], "frozen": 2}
    yield (
        "a layer inside a layer",
        {"layers": [["Residual", {"layers": [linear(a, a)]}], linear(a, b)], "frozen": 0},
    )
    yield "no parameters at all", {"layers": [["ReLU", {}]], "frozen": 0}


def probe(case: dict[str, Any], count_parameters: Callable[..., Any]) -> dict[str, Any]:
    model = build(case["layers"])
    for parameter in list(model.parameters())[: case["frozen"]]:
        parameter.requires_grad_(False)
    return {"count": count_parameters(model)}


def judge(case: dict[str, Any], record: Record) -> None:
    count = expect.whole_number(record["count"])
    distinct = {
        id(p): p for module in build(case["layers"]).modules() for p in module.parameters(recurse=False)
    }
    expect.equal(count, sum(p.nelement() for p in distinct.values()), what="the number of parameters")


def by_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def by_modules(model: nn.Module) -> int:
    seen: set[int] = set()
    total = 0
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                total += parameter.numel()
    return total


@mistake(
    "counts a shared layer twice",
    says="you count {yours}, as one does who adds up layer by layer: a layer used twice is learned once",
)
def layer_by_layer(model: nn.Module) -> int:
    def total(module: nn.Module) -> int:
        own = sum(parameter.numel() for parameter in module._parameters.values() if parameter is not None)
        return own + sum(total(child) for child in module._modules.values() if child is not None)

    return total(model)


@mistake(
    "counts buffers too",
    says="you count {yours}, with BatchNorm's running averages and step counter: "
    "those are buffers, no optimiser learns them",
)
def with_buffers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())


@mistake(
    "adds up the state dict",
    says="you count {yours}, all that model.state_dict() lists: buffers are in it, "
    "and a shared layer is in it twice",
)
def state_dict(model: nn.Module) -> int:
    return sum(tensor.numel() for tensor in model.state_dict().values())


@mistake(
    "leaves frozen parameters out",
    says="you count {yours}, without the frozen ones: what is not trained today "
    "is still stored and multiplied",
)
def trainable_only(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@mistake(
    "counts tensors instead of numbers", says="you count {yours} tensors; each holds many numbers (numel)"
)
def tensors(model: nn.Module) -> int:
    return len(list(model.parameters()))


@mistake("leaves biases out", says="you count {yours}: the biases are missing, they are learned too")
def weights_only(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)


@mistake(
    "looks at the outer layers only",
    says="you count {yours}: layers inside other layers are missing; "
    "model.parameters() goes all the way down",
)
def outer_only(model: nn.Module) -> int:
    return sum(
        p.numel() for child in dict.fromkeys(model.children()) for p in child.parameters(recurse=False)
    )


EXERCISE = Exercise(
    name="count_parameters",
    points=1,
    minutes=5,
    difficulty=1,
    statement="count_parameters(model) counts every number that the model learns, shared ones once.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_parameters, by_modules),
    mistakes=(layer_by_layer, with_buffers, state_dict, trainable_only, tensors, weights_only, outer_only),
    hints=(
        Hint(
            "I do not know where to begin",
            "model.parameters() walks over every parameter tensor, through all layers.",
        ),
        Hint(
            "my count is far too small",
            "Σ over parameter tensors of numel(): a (out, in) weight holds out · in numbers.",
        ),
        Hint(
            "I get a tensor or a list, not a number",
            "return sum(parameter.______() for parameter in model.parameters())",
        ),
    ),
)
