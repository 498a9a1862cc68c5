"""A convolution as three: 1 × 1 into few channels, k × k among these, 1 × 1 out again.

Source: Kim et al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile
applications", arXiv:1511.06530.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.networks import build
from compresslab.checks.record import Recorded
from compresslab.errors import WrongAnswer

__all__ = ["EXERCISE"]

_THREE = "three convolutions in an nn.Sequential"


def cases(rng: torch.Generator) -> Iterator[Case]:
    """First one in which every shape is square: there a factor the wrong way round fits as well."""

    def drawn(out: int, inputs: int, *kernel: int, ranks: tuple[int, int], **how: Any) -> dict[str, Any]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=rng, dtype=torch.float64)

        settings: Any = {"stride": 1, "padding": 0, "dilation": 1, "bias": True} | how
        return {
            "settings": {"in_channels": inputs, "out_channels": out, "kernel_size": kernel} | settings,
            "bias": normal(out) + 2 if settings["bias"] else None,
            "core": normal(*ranks, *kernel),
            "u_out": normal(out, ranks[0]),
            "u_in": normal(inputs, ranks[1]),
            "x": normal(2, inputs, 9, 10),
        }

    yield "square shapes, stride 2", drawn(3, 3, 3, 3, ranks=(3, 3), stride=2, padding=1)
    yield "small ranks, no bias", drawn(5, 4, 3, 3, ranks=(2, 3), padding=1, bias=False)
    yield "no padding", drawn(4, 3, 3, 3, ranks=(2, 1), stride=2)
    yield "a kernel of 3 × 5, padding 2", drawn(4, 3, 3, 5, ranks=(3, 2), padding=2)
    yield "padding and stride of two numbers", drawn(3, 5, 5, 3, ranks=(2, 2), padding=(2, 1), stride=(1, 2))
    yield "dilation 2", drawn(3, 4, 3, 3, ranks=(3, 2), dilation=2, padding=2)
    yield "full ranks, a kernel of 1 × 1", drawn(4, 2, 1, 1, ranks=(4, 2))
    single = drawn(4, 3, 3, 3, ranks=(2, 2), padding=1)
    single = {name: value.float() if isinstance(value, Tensor) else value for name, value in single.items()}
    yield "float32", single


def probe(case: dict[str, Any], tucker_layer: Callable[..., Any]) -> dict[str, Any]:
    """Which bias each layer has is written down in a word, for a forgotten one is random."""
    conv: Any = build([["Conv2d", case["settings"]]])[0].to(case["core"].dtype)
    if case["bias"] is not None:
        conv.bias.data.copy_(case["bias"])
    layer = tucker_layer(conv, case["core"], case["u_out"], case["u_in"])
    sound = isinstance(layer, nn.Sequential) and [isinstance(part, nn.Conv2d) for part in layer] == [True] * 3
    biases: list[str] = []
    sizes: list[str] = []
    x, shared = None, False
    if sound:
        for bias in (part.bias for part in layer):
            alike = bias is not None and conv.bias is not None and bias.shape == conv.bias.shape
            alike = alike and torch.allclose(bias.double(), conv.bias.double())
            biases.append("no bias" if bias is None else "conv's bias" if alike else "another bias")
        theirs = [parameter.data_ptr() for parameter in conv.parameters()]
        shared = any(parameter.data_ptr() in theirs for parameter in layer.parameters())
    if biases == ["no bias", "no bias", "no bias" if case["bias"] is None else "conv's bias"]:
        x = case["x"]
        try:
            with torch.no_grad():
                for part in layer:
                    x = part(x)
                    sizes.append(str(list(x.shape[2:])))
        except RuntimeError:  # shapes or dtypes that do not fit: the judge sees them in the weights
            x, sizes = None, [*sizes, "nothing", "nothing", "nothing"][:3]
    return {
        "biases": tuple(biases),
        "sizes": tuple(sizes),
        "output": x,
        "shared": shared,
        "layer": "three convolutions in an nn.Sequential" if sound else layer,
        "weights": tuple(part.weight.detach() for part in layer) if sound else (),
    }


def judge(case: dict[str, Any], record: Record) -> None:
    """Three weights and one bias; then what flows through, against one convolution in float64."""
    core, u_out, u_in, bias, x = (case[name] for name in ("core", "u_out", "u_in", "bias", "x"))
    came = expect.came(record["layer"])
    expect.true(record["layer"].text == _THREE, f"the answer is {_THREE}; yours is {came}")
    weights = expect.parts(record["weights"], count=3)
    shapes = ((*u_in.T.shape, 1, 1), core.shape, (*u_out.shape, 1, 1))
    for part, weight, shape in zip(("first", "middle", "last"), weights, shapes, strict=True):
        try:
            expect.tensor(weight, shape=shape, dtype=core.dtype, what=f"the {part} layer's weight")
        except WrongAnswer as wrong:
            raise WrongAnswer(wrong.reason, wrong.hint, part=part) from None
    wanted = ["no bias", "no bias", "no bias" if bias is None else "conv's bias"]
    _compare(record["biases"], wanted, what="the bias")
    settings = {name: case["settings"][name] for name in ("stride", "padding", "dilation")}
    kernel = torch.einsum("abyx,oa,ib->oiyx", core.double(), u_out.double(), u_in.double())
    output = F.conv2d(x.double(), kernel, None if bias is None else bias.double(), **settings)
    sizes = [str(list(flow.shape[2:])) for flow in (x, output, output)]
    _compare(record["sizes"], sizes, what="the (height, width) of what leaves")
    yours = expect.tensor(record["output"], shape=output.shape, what="the output")
    expect.close(yours.double(), output, tolerance=1e-4, what="the output (image, channel, row, column)")
    own = record["shared"].text == "False"
    expect.true(own, "your layers share a parameter with conv; give them a copy")


def _compare(found: Recorded, wanted: list[str], *, what: str) -> None:
    """Word by word, a word a layer."""
    texts = [item.text for item in found.items or ()]
    for place, (word, yours) in enumerate(zip(wanted, texts, strict=True), 1):
        reason = f"{what}, layer {place} of 3, is {word}; yours is {yours}"
        expect.true(yours == word, reason, layer=place, yours=yours, wanted=word)


def by_copying(conv, core, u_out, u_in):
    (out, r_out), (inputs, r_in) = u_out.shape, u_in.shape
    how = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    first = nn.Conv2d(inputs, r_in, 1, bias=False, dtype=core.dtype)
    middle = nn.Conv2d(r_in, r_out, conv.kernel_size, **how, bias=False, dtype=core.dtype)
    last = nn.Conv2d(r_out, out, 1, bias=conv.bias is not None, dtype=core.dtype)
    with torch.no_grad():
        first.weight.copy_(u_in.T[:, :, None, None])
        middle.weight.copy_(core)
        last.weight.copy_(u_out[:, :, None, None])
        if last.bias is not None:
            last.bias.copy_(conv.bias)
    return nn.Sequential(first, middle, last)


def by_parameters(conv, core, u_out, u_in):
    kernels = [u_in.t().unsqueeze(2).unsqueeze(3), core, u_out.reshape(*u_out.shape, 1, 1)]
    sizes = (1, conv.kernel_size, 1)
    layers = []
    for place, kernel in enumerate(kernels):
        how = (conv.stride, conv.padding, conv.dilation) if place == 1 else ()
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], sizes[place], *how)
        layer.weight, layer.bias = nn.Parameter(kernel.clone()), None
        layers.append(layer)
    if conv.bias is not None:
        layers[2].bias = nn.Parameter(conv.bias.detach().clone())
    return nn.Sequential(*layers)


def by_state(conv, core, u_out, u_in):
    (r_out, r_in), biased = core.shape[:2], conv.bias is not None
    layer = nn.Sequential()
    layer.add_module("into", nn.Conv2d(len(u_in), r_in, 1, bias=False))
    middle = nn.Conv2d(r_in, r_out, conv.kernel_size, bias=False)
    middle.stride, middle.padding, middle.dilation = conv.stride, conv.padding, conv.dilation
    layer.add_module("among", middle)
    layer.add_module("out", nn.Conv2d(r_out, len(u_out), 1, bias=biased))
    into = torch.einsum("ib->bi", u_in)[..., None, None]
    state = {"into.weight": into, "among.weight": core, "out.weight": u_out[..., None, None]}
    layer.to(core.dtype).load_state_dict(state | ({"out.bias": conv.bias} if biased else {}))
    return layer


def _layer(
    conv,
    core,
    u_out,
    u_in,
    *,
    kernels=lambda core, u_out, u_in: (u_in.T, core, u_out),
    biases=(),
    dtype=lambda core: core.dtype,
    size=lambda core: tuple(core.shape[2:]),
    bias=lambda conv: conv.bias,
    **places: tuple[int, ...],
) -> Any:
    """Right as it stands; ``places`` says which layers have the stride, the padding, the dilation."""
    widths = (len(u_in), core.shape[1], core.shape[0], len(u_out))
    layers = []
    for place, kernel in enumerate(kernels(core, u_out, u_in)):
        kernel = kernel if kernel.dim() == 4 else kernel[:, :, None, None]
        names = [name for name in ("stride", "padding", "dilation") if place in places.get(name, (1,))]
        how = {name: getattr(conv, name) for name in names}
        window = size(core) if place == 1 else 1
        how |= {"bias": place in biases, "dtype": dtype(core)}
        layer = nn.Conv2d(widths[place], widths[place + 1], window, **how)
        layer.weight.data.copy_(kernel)
        layers.append(layer)
    if bias(conv) is not None:
        layers[2].bias = nn.Parameter(bias(conv).detach().clone())
    return nn.Sequential(*layers)


_HAS = "layer {layer} of the three should have {wanted} and yours has {yours}: "
_RANDOM = _HAS + "nn.Conv2d gives itself a bias of random numbers unless told bias=False; "
_OUTPUT = "the output at {where} should be {wanted} and yours is {yours}: "
_LEAVES = "what leaves layer {layer} of the three should be {wanted} and yours is {yours}: "


@mistake(
    "adds the bias in the middle as well",
    says=_HAS + "added there it goes through the last layer and is added again; only the last has it",
)
def bias_doubled(conv, core, u_out, u_in):
    layer = _layer(conv, core, u_out, u_in)
    if conv.bias is not None:
        layer[1].bias = nn.Parameter(conv.bias.detach()[: len(core)].clone())
    return layer


@mistake(
    "guesses the padding from the kernel",
    says=_LEAVES + "half the kernel is a usual padding, but not the one of this conv; take conv.padding",
)
def padding_guessed(conv, core, u_out, u_in):
    layer = _layer(conv, core, u_out, u_in)
    layer[1].padding = tuple(side // 2 for side in core.shape[2:])
    return layer


variations = tuple(
    mistake(title, says=says)(partial(_layer, **parts))
    for title, says, parts in (
        (
            "drops the bias",
            _HAS + "bias=False is for the first two layers; the last adds what conv adds",
            {"bias": lambda conv: None},
        ),
        ("leaves a bias in the first layer", _RANDOM + "here the first has one", {"biases": (0,)}),
        ("leaves a bias in the middle", _RANDOM + "here the middle has one", {"biases": (1,)}),
        ("leaves a bias in both of the first layers", _RANDOM + "here two have one", {"biases": (0, 1)}),
        ("leaves a bias in every layer", _RANDOM + "here all have one", {"biases": (0, 1, 2)}),
        ("gives a bias where conv has none", _RANDOM + "here conv.bias is None", {"biases": (2,)}),
        (
            "gives the stride to the first layer",
            _LEAVES + "it throws pixels away that the k × k "
            "kernel has to see; the stride belongs to the middle",
            {"stride": (0,)},
        ),
        (
            "gives the stride to the last layer",
            _LEAVES + "the numbers come out right, but the "
            "dear k × k layer computes most for nothing; the stride is the middle's",
            {"stride": (2,)},
        ),
        (
            "gives the stride to all three",
            _LEAVES + "strides multiply: three of 2 take every eighth pixel; the middle alone has it",
            {"stride": (0, 1, 2)},
        ),
        ("drops the stride", _LEAVES + "the middle has stride 1; give it conv's", {"stride": ()}),
        (
            "pads in all three layers",
            _LEAVES + "a 1 × 1 kernel needs no border, and each border makes the "
            "picture larger; only the middle pads",
            {"padding": (0, 1, 2)},
        ),
        (
            "pads in the first layer",
            _LEAVES + "the numbers come out right, but a border "
            "of zeros is mixed for nothing; the middle pads",
            {"padding": (0,)},
        ),
        ("drops the padding", _LEAVES + "the middle does not pad; give it conv.padding", {"padding": ()}),
        (
            "forgets the dilation",
            _LEAVES + "conv looks at every second pixel and yours at neighbours; give "
            "conv.dilation to the middle",
            {"dilation": ()},
        ),
        (
            "takes every kernel for a square",
            "a kernel of 3 × 5 does not fit into a layer made for 3 × 3: pass conv.kernel_size, both numbers",
            {"size": lambda core: core.shape[2]},
        ),
        (
            "makes float32 layers whatever comes",
            "the core is float64 and the {part} layer's weight float32: pass dtype=core.dtype to nn.Conv2d",
            {"dtype": lambda core: torch.float32},
        ),
        (
            "does not transpose u_in",
            _OUTPUT + "u_in is (in, r_in), and a convolution's weight has its "
            "outputs first: (r_in, in, 1, 1)",
            {"kernels": lambda core, u_out, u_in: (u_in, core, u_out)},
        ),
        (
            "reshapes u_in where it should be transposed",
            _OUTPUT + "reshape cuts the rows of u_in anew: "
            "numbers land at other channels; u_in.T exchanges rows and columns",
            {"kernels": lambda core, u_out, u_in: (u_in.reshape(u_in.T.shape), core, u_out)},
        ),
        (
            "transposes u_out",
            _OUTPUT + "u_out is (out, r_out), outputs first as a convolution has it; only u_in is turned",
            {"kernels": lambda core, u_out, u_in: (u_in.T, core, u_out.T)},
        ),
        (
            "exchanges the factors",
            _OUTPUT + "u_out stands in the first layer; what comes in meets u_in",
            {"kernels": lambda core, u_out, u_in: (u_out.T, core, u_in)},
        ),
    )
)


@mistake(
    "hands on conv's own bias",
    says="your last layer holds the very bias of conv: train one and the other changes; copy its numbers",
)
def shared_bias(conv, core, u_out, u_in):
    layer = _layer(conv, core, u_out, u_in)
    layer[2].bias = conv.bias
    return layer


@mistake(
    "puts the kernel together again", says="one convolution of the old size; return the three that make it up"
)
def rebuilt(conv, core, u_out, u_in):
    kernel = torch.einsum("abyx,oa,ib->oiyx", core, u_out, u_in)
    whole = by_copying(conv, core, u_out, u_in)[1]
    whole.weight = nn.Parameter(kernel)
    return whole


EXERCISE = Exercise(
    name="tucker_layer",
    points=3,
    minutes=15,
    difficulty=3,
    statement="tucker_layer(conv, core, u_out, u_in) makes three thin convolutions that do what "
    "the rebuilt one would.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_copying, by_parameters, by_state),
    mistakes=(*variations, bias_doubled, padding_guessed, shared_bias, rebuilt),
    hints=(
        Hint(
            "the picture comes out too small, or too large",
            "A 1 × 1 layer works on one pixel at a time; it knows no neighbours and no border. Which of the "
            "three layers moves over the picture?",
        ),
        Hint(
            "the sizes are right and the numbers are not",
            "A convolution's weight is (outputs, inputs, kh, kw). First u_inᵀ, (r_in, in, 1, 1); then the "
            "core, (r_out, r_in, kh, kw); last u_out, (out, r_out, 1, 1), with conv's bias, the only one.",
        ),
        Hint("the first layer's weight is missing", "first.weight.copy_(u_in.____[:, :, None, None])"),
    ),
)
