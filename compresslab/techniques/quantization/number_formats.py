"""Number formats: which numbers there are. Between two neighbours is nothing, so every value is rounded.

A *float* has a sign, an exponent and a fraction. Its numbers lie close together near zero and far apart away
from it, so the *relative* error is the same everywhere. An *integer* grid has equal steps, so the *absolute*
error is, and it needs a scale that says how wide a step is.

    format      bits: sign, exponent, fraction    largest     relative step    numbers
    float32     1, 8, 23                          3.4e38      2^-23            about 4 billion
    float16     1, 5, 10                          65,504      2^-10            63,487
    bfloat16    1, 8, 7                           3.4e38      2^-7             65,279
    int8        8                                 127 · s     –                256
    int4        4                                 7 · s       –                16

float16 has the finer steps, bfloat16 the wider range: it is float32 with its last 16 bits rounded away, and
reaches as far. Trained weights need neither range nor fine steps, which is why either usually costs no
accuracy.

What it saves: 16 bits halve the file. What it costs: nothing but the rounding. What is left out: time. The
weights are kept in 16 bits and computed with in 32; arithmetic in 16 bits is fast only where the processor
has it. ``torch.qint8`` was a tensor type with its scale built in, for ``torch.ao.quantization``; the removal
of both is announced (pytorch/pytorch#184982, pytorch/ao#2259), and what replaced them is what this kit
uses as well: plain integers, and scales beside them.

Source: IEEE 754 (float32, float16); Kalamkar et al. 2019, "A study of BFLOAT16 for deep learning training",
arXiv:1905.12322.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, Unsupported
from compresslab.techniques.quantization.affine import fake_quantize, scale_and_zero_point
from compresslab.techniques.quantization.weight_only import on_grid, replace_layers

__all__ = ["FloatGrid", "format_values", "round_to", "store_as"]

FLOATS = (torch.float16, torch.bfloat16)
INTEGERS = {torch.int8: 8, torch.int4: 4}  # type: ignore[attr-defined]  # int4 is a name: torch has no arithmetic for it


def format_values(dtype: torch.dtype, *, scale: float = 1.0) -> Tensor:
    """All finite numbers of a format, in order: (numbers,) float64. Zero is there once.

    Args:
        dtype: torch.float16, torch.bfloat16, torch.int8 or torch.int4.
        scale: the step of an integer format; a float format brings its own.

    Raises:
        CompressionError: another dtype.

    >>> format_values(torch.int4, scale=0.5).tolist()[:3], len(format_values(torch.float16))
    ([-4.0, -3.5, -3.0], 63487)
    """
    _check(dtype, (*FLOATS, *INTEGERS))
    if dtype in INTEGERS:
        half = 2 ** (INTEGERS[dtype] - 1)
        return torch.arange(-half, half, dtype=torch.float64) * scale
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)  # every pattern of 16 bits, read as a float
    numbers = patterns.view(dtype).double()
    return numbers[numbers.isfinite()].unique()


def round_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Each x moved to the format's nearest number, in x's shape and dtype.

    An integer format gets the symmetric step that makes the largest |x| its largest integer. What is beyond
    float16's largest number becomes infinite.

    Raises:
        CompressionError: a dtype that isn't float16, bfloat16, int8 or int4.

    >>> round_to(torch.tensor([0.1, 1.0]), torch.bfloat16).tolist(), round_to(torch.tensor([0.1, 1.0]), torch.int4).tolist()
    ([0.10009765625, 1.0], [0.1428571492433548, 1.0])
    """  # noqa: E501
    _check(dtype, (*FLOATS, *INTEGERS))
    if dtype in FLOATS:
        return x.detach().to(dtype).to(x.dtype)
    bits, widest = INTEGERS[dtype], x.detach().abs().amax()
    scale, zero = scale_and_zero_point(-widest, widest, bits=bits, symmetric=True)
    return fake_quantize(x, scale, zero, bits=bits, signed=True).to(x.dtype)


class FloatGrid(nn.Module):
    """The numbers of a 16-bit float format, as a grid for weights: w → the nearest of them, in w's dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        _check(dtype, FLOATS)
        self.dtype = dtype

    def forward(self, w: Tensor) -> Tensor:
        return w.to(self.dtype).to(w.dtype)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """What the file holds of the weight: itself, in 16 bits."""
        return {"weight": w.detach().to(self.dtype)}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """The weight again."""
        return tensors["weight"].reshape(shape)


def store_as(model: nn.Module, *, dtype: torch.dtype) -> nn.Module:
    """A copy of the model whose Conv2d and Linear weights are kept in 16 bits and computed with in 32.

    Biases and normalisation stay in 32 bits. The given model is left alone and nothing is shared with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        dtype: torch.float16 or torch.bfloat16.

    Raises:
        CompressionError: another dtype, a weight beyond float16's range, or no such layer.
    """
    grid = FloatGrid(dtype)
    largest = torch.finfo(dtype).max
    for name, weight in model.named_parameters():
        came = float(weight.detach().abs().max())
        if came > largest:
            raise Unsupported(
                f"{dtype} reaches {largest:,.0f}, got {came:g} in {name}; "
                "try torch.bfloat16, which reaches 3.4e38"
            )
    return replace_layers(model, lambda _, layer: on_grid(layer, grid))


def _check(dtype: torch.dtype, allowed: tuple[torch.dtype, ...]) -> None:
    if dtype not in allowed:
        names = ", ".join(map(str, allowed))
        raise BadSetting(f"dtype is one of {names}, got {dtype}; try {allowed[0]}")
