"""Multiply-accumulates of a whole network: watch every call of a convolution or linear layer, add up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.networks import build

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def conv(channels: int, out: int, **settings: Any) -> list[Any]:
        three = {"in_channels": channels, "out_channels": out, "kernel_size": 3, "padding": 1}
        return ["Conv2d", three | settings]

    def linear(width: int, out: int) -> list[Any]:
        return ["Linear", {"in_features": width, "out_features": out}]

    def case(batch: int, channels: int, *layers: list[Any], training: bool = False) -> dict[str, Any]:
        image = torch.randn(batch, channels, 6, 8, generator=rng)
        return {"layers": list(layers), "image": image, "training": training}

    a, b, c = draw(2, 4), draw(5, 7), draw(2, 9)
    head = [["AdaptiveAvgPool2d", {"output_size": 1}], ["Flatten", {}], linear(b, c)]
    norm, pool = ["BatchNorm2d", {"num_features": b}], ["MaxPool2d", {"kernel_size": 2}]
    nested = ["Sequential", {"layers": [["Residual", {"layers": [conv(a, a, bias=False)]}]]}]
    yield "one convolution", case(1, a, conv(a, b))
    yield "a batch of images", case(draw(2, 4), a, conv(a, b))
    yield "convolution, pooling, linear layer", case(1, a, conv(a, b, bias=False), ["ReLU", {}], *head)
    yield "layers inside layers", case(1, a, nested, conv(a, b))
    yield "a layer used on two sizes", case(1, a, conv(a, a), pool, ["Same", {"as": 0}])
    yield "depthwise, every second place", case(1, a, conv(a, 2 * a, groups=a, stride=2))
    yield "a linear layer on every row", case(1, a, linear(8, c))
    yield "BatchNorm in between", case(2, a, conv(a, b, bias=False), norm, *head)
    yield "in training mode", case(1, a, conv(a, b), ["ReLU", {}], *head, training=True)
    yield "nothing to multiply", case(1, a, ["ReLU", {}])


def probe(case: dict[str, Any], network_macs: Callable[..., Any]) -> dict[str, Any]:
    model = build(case["layers"]).train(case["training"])
    return {"macs": network_macs(model, case["image"])}


def judge(case: dict[str, Any], record: Record) -> None:
    macs = expect.whole_number(record["macs"])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(case["layers"])(case["image"][:1])
    expect.equal(macs, counter.get_total_flops() // 2, what="the number of multiply-accumulates per image")


def by_hooks(model: nn.Module, image: Tensor) -> int:
    macs = []

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        macs.append(output[0].numel() * layer.weight[0].numel())

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return sum(macs)


def by_a_copy(model: nn.Module, image: Tensor) -> int:
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        elif isinstance(layer, nn.Conv2d):
            high, wide = layer.kernel_size
            total += output.numel() * (layer.in_channels // layer.groups) * high * wide

    spare = copy.deepcopy(model)
    for layer in spare.modules():
        layer.register_forward_hook(count)
    spare(image[:1])
    return total


Call = tuple[Any, Tensor, Tensor]  # (layer, what went in, what came out)
COUNTED = (nn.Conv2d, nn.Linear)


def _calls(model: nn.Module, image: Tensor, kinds: tuple[type[nn.Module], ...] = COUNTED) -> list[Call]:
    """Every call of a layer of these kinds in one run."""
    calls: list[Call] = []
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: calls.append((layer, inputs[0], output)))
        for layer in model.modules()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return calls


def _macs(layer: Any, output: Tensor) -> int:
    return output[0].numel() * layer.weight[0].numel()


@mistake(
    "counts the whole batch",
    says="you count {yours} for all images of the batch together: wanted are those of one image, {wanted}",
)
def whole_batch(model: nn.Module, image: Tensor) -> int:
    return sum(len(image) * _macs(layer, output) for layer, _, output in _calls(model, image))


@mistake(
    "counts the weights",
    says="you count {yours} weights: a convolution uses each of them again at every output pixel",
)
def weights(model: nn.Module, image: Tensor) -> int:
    return sum(layer.weight.numel() for layer, _, _ in _calls(model, image))


@mistake(
    "counts a linear layer's weights",
    says="you count {yours}, in · out for a linear layer: that is the work on one row, and here it gets "
    "many rows",
)
def linear_as_weights(model: nn.Module, image: Tensor) -> int:
    return sum(
        layer.weight.numel() if isinstance(layer, nn.Linear) else _macs(layer, output)
        for layer, _, output in _calls(model, image)
    )


@mistake(
    "counts a layer once though it is called twice",
    says="you count {yours}, one entry for each layer: a layer that runs twice multiplies twice, so add "
    "at each call",
)
def once_a_layer(model: nn.Module, image: Tensor) -> int:
    return sum({id(layer): _macs(layer, output) for layer, _, output in _calls(model, image)}.values())


@mistake(
    "looks at the outer layers only",
    says="you count {yours}: layers inside other layers are missing; model.children() stops at the first "
    "level, model.modules() goes all the way down",
)
def outer_only(model: nn.Module, image: Tensor) -> int:
    macs = []
    spare = copy.deepcopy(model)
    for layer in spare.children():
        if isinstance(layer, COUNTED):
            layer.register_forward_hook(lambda layer, inputs, output: macs.append(_macs(layer, output)))
    spare(image)
    return sum(macs)


@mistake(
    "forgets the linear layers",
    says="you count {yours}, convolutions alone: a linear layer multiplies too, in_features times an "
    "output number",
)
def convolutions_only(model: nn.Module, image: Tensor) -> int:
    return sum(_macs(layer, output) for layer, _, output in _calls(model, image, (nn.Conv2d,)))


@mistake(
    "counts every layer that has a weight",
    says="you count {yours}, BatchNorm's scaling among it: by convention only convolutions and linear "
    "layers count",
)
def batch_norm_too(model: nn.Module, image: Tensor) -> int:
    calls = _calls(model, image, (*COUNTED, nn.BatchNorm2d))
    return sum(_macs(layer, output) for layer, _, output in calls)


@mistake(
    "takes the input's numbers for the output's",
    says="you count {yours}, one patch of weights for each number that goes in: it is one for each that "
    "comes out",
)
def by_inputs(model: nn.Module, image: Tensor) -> int:
    return sum(_macs(layer, given) for layer, given, _ in _calls(model, image))


@mistake(
    "counts the bias as a multiplication",
    says="you count {yours}, one too many for each output number that has a bias: a bias is added, not "
    "multiplied",
)
def with_bias(model: nn.Module, image: Tensor) -> int:
    calls = _calls(model, image)
    biases = sum(output[0].numel() for layer, _, output in calls if layer.bias is not None)
    return biases + sum(_macs(layer, output) for layer, _, output in calls)


@mistake(
    "ignores the groups",
    says="you count {yours}, each output number fed by all in_channels: in groups it sees fewer, and "
    "weight[0] already has the right size",
)
def all_channels(model: nn.Module, image: Tensor) -> int:
    calls = _calls(model, image)
    return sum(_macs(layer, output) * getattr(layer, "groups", 1) for layer, _, output in calls)


@mistake(
    "counts FLOPs",
    says="you count {yours} FLOPs: one multiplication and one addition together are one MAC, so half of it",
)
def in_flops(model: nn.Module, image: Tensor) -> int:
    return sum(2 * _macs(layer, output) for layer, _, output in _calls(model, image))


@mistake(
    "leaves its hooks behind",
    says="your count is right, but your hooks still hang on the model and will fire at its next run: keep "
    "what register_forward_hook returns, and call remove() on each",
)
def hooks_left(model: nn.Module, image: Tensor) -> int:
    for layer in model.modules():
        if isinstance(layer, COUNTED):
            layer.register_forward_hook(lambda layer, inputs, output: None)
    return by_a_copy(model, image)


@mistake(
    "leaves the model in evaluation mode",
    says="your count is right, but a model that came in training mode goes back in evaluation mode: "
    "remember model.training and restore it with model.train(…), or leave the mode alone",
)
def mode_left(model: nn.Module, image: Tensor) -> int:
    return by_a_copy(model.eval(), image)


EXERCISE = Exercise(
    name="network_macs",
    points=3,
    minutes=15,
    difficulty=3,
    statement="network_macs(model, image) counts the MACs of all Conv2d and Linear layers for one image.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_hooks, by_a_copy),
    mistakes=(
        whole_batch,
        weights,
        linear_as_weights,
        once_a_layer,
        outer_only,
        convolutions_only,
        batch_norm_too,
        by_inputs,
        with_bias,
        all_channels,
        in_flops,
        hooks_left,
        mode_left,
    ),
    hints=(
        Hint(
            "I do not know how big a layer's output is",
            "Let the network tell: a function given to layer.register_forward_hook is called as "
            "hook(layer, inputs, output) at every run of that layer.",
        ),
        Hint(
            "my count is too large or too small",
            "MACs = Σ over calls of output[0].numel() · layer.weight[0].numel(): output (batch, …) "
            "without its batch, weight (out, in / groups, …) without its out.",
        ),
        Hint(
            "the check says that I change my input",
            "Keep the hooks: hooks = [layer.register_forward_hook(count) for …]; after model(image) comes "
            "for hook in hooks: hook.______()",
        ),
    ),
)
