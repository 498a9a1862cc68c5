"""Number formats: the values of float16, bfloat16, int8 and int4, and rounding to them.

A *float* has a sign, an exponent and a fraction. Its values are close together near zero and far apart away
from it, so the *relative* rounding error is the same everywhere. An *integer* grid has equal steps, so the
*absolute* error is the same everywhere, and it needs a scale for the width of a step.

    format      bits: sign, exponent, fraction    largest     relative step    numbers
    float32     1, 8, 23                          3.4e38      2^-23            about 4 billion
    float16     1, 5, 10                          65,504      2^-10            63,487
    bfloat16    1, 8, 7                           3.4e38      2^-7             65,279
    int8        8                                 127 · s     –                256
    int4        4                                 7 · s       –                16

float16 has the finer steps, bfloat16 the wider range: it is float32 without its last 16 bits and has the same
range. Trained weights need neither a wide range nor fine steps, so both formats usually cost no accuracy.

What it saves: 16 bits halve the file. What it costs: the rounding error. What is left out: speed. Weights are
stored in 16 bits and used in 32; 16-bit arithmetic is fast only on processors that support it. Also left out:
``torch.qint8``, a tensor type with a built-in scale for ``torch.ao.quantization``. The removal of both is
announced (pytorch/pytorch#184982, pytorch/ao#2259); their replacement, also used here, is plain integers with
separate scales.

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
    """Return all finite values of a format in increasing order: (numbers,) float64, zero once.

    Args:
        dtype: torch.float16, torch.bfloat16, torch.int8 or torch.int4.
        scale: the step of an integer format; not used for a float format.

    Raises:
        BadSetting: another dtype.

    >>> format_values(torch.int4, scale=0.5).tolist()[:3], len(format_values(torch.float16))
    ([-4.0, -3.5, -3.0], 63487)
    """
    _check(dtype, (*FLOATS, *INTEGERS))
    if dtype in INTEGERS:
        half = 2 ** (INTEGERS[dtype] - 1)
        return torch.arange(-half, half, dtype=torch.float64) * scale
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int16)  # every 16-bit pattern, read as a float
    numbers = patterns.view(dtype).double()
    return numbers[numbers.isfinite()].unique()


def round_to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return each x rounded to the format's nearest value, in x's shape and dtype.

    An integer format has the symmetric scale that maps the largest |x| to its largest integer. Values beyond
    float16's range become infinite.

    Raises:
        BadSetting: dtype is not float16, bfloat16, int8 or int4.

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
    """A 16-bit float format as a grid for weights: w → the nearest values, in w's dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        _check(dtype, FLOATS)
        self.dtype = dtype

    def forward(self, w: Tensor) -> Tensor:
        return w.to(self.dtype).to(w.dtype)

    def parts(self, w: Tensor) -> dict[str, Tensor]:
        """Return the stored form of the weight: 16 bits per number."""
        return {"weight": w.detach().to(self.dtype)}

    def load_parts(self, tensors: Mapping[str, Tensor], *, shape: torch.Size) -> Tensor:
        """Return the weight in its shape."""
        return tensors["weight"].reshape(shape)


def store_as(model: nn.Module, *, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose Conv2d and Linear weights are stored in 16 bits and used in 32.

    Biases and normalisation stay in 32 bits. The given model is not changed and shares nothing with the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        dtype: torch.float16 or torch.bfloat16.

    Raises:
        CompressionError: another dtype, a parameter beyond float16's range, or no such layer.
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
        raise BadSetting(f"dtype must be one of {names}, got {dtype}; try {allowed[0]}")
