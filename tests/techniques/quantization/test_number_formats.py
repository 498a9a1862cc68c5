"""Number formats, held against numpy's own float16, torch.finfo, and the bytes of a file."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.measurement.costs import storage_bytes
from compresslab.models.residual import baseline
from compresslab.techniques.quantization.number_formats import format_values, round_to, store_as

FORMATS = [torch.float16, torch.bfloat16, torch.int8, torch.int4]
x = torch.randn(300, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_float_format_ends_where_torch_says_and_has_its_step_after_one(dtype):
    numbers, facts = format_values(dtype), torch.finfo(dtype)
    assert (numbers[0], numbers[-1]) == (facts.min, facts.max)
    one = int((numbers == 1).nonzero())
    assert numbers[one + 1] - 1 == facts.eps


def test_float16_is_numpys():
    theirs = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    assert np.array_equal(format_values(torch.float16).numpy(), np.unique(theirs[np.isfinite(theirs)]))
    assert np.array_equal(round_to(x, torch.float16).numpy(), x.numpy().astype(np.float16).astype(np.float32))


def test_integer_formats_have_equal_steps_and_the_usual_ends():
    for dtype, low, high in [(torch.int8, -128, 127), (torch.int4, -8, 7)]:
        assert format_values(dtype, scale=0.5).tolist() == [q / 2 for q in range(low, high + 1)]


@pytest.mark.parametrize("dtype", FORMATS)
def test_no_number_of_the_format_is_nearer_than_the_one_it_is_rounded_to(dtype):
    step = float(x.abs().max()) / (127 if dtype == torch.int8 else 7)
    numbers = format_values(dtype, scale=step)
    nearest = (x.double()[:, None] - numbers[numbers.abs() < 10]).abs().min(dim=1).values
    rounded = round_to(x, dtype)
    assert rounded.dtype == x.dtype
    assert torch.allclose((rounded - x).double().abs(), nearest, atol=1e-6)


@pytest.mark.parametrize("dtype", FORMATS)
def test_rounding_what_is_rounded_changes_nothing(dtype):
    once = round_to(x, dtype)
    assert torch.allclose(round_to(once, dtype), once, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_16_bits_computes_with_rounded_weights_and_has_half_the_file(dtype):
    torch.manual_seed(0)
    model = baseline().eval()
    stored = store_as(model, dtype=dtype)
    assert 1.95 < storage_bytes(model) / storage_bytes(stored) < 2.0
    images = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_(round_to(layer.weight, dtype))
        assert torch.equal(stored(images), model(images))


WIDE = nn.Linear(2, 2)
nn.init.constant_(WIDE.weight, 1e5)
ALL = "torch.float16, torch.bfloat16, torch.int8, torch.int4"
WRONG = {
    f"dtype must be one of {ALL}, got torch.int16; try torch.float16": lambda: format_values(torch.int16),
    f"dtype must be one of {ALL}, got torch.float32; try torch.float16": lambda: round_to(x, torch.float32),
    "dtype must be one of torch.float16, torch.bfloat16, got torch.int8; try torch.float16": lambda: store_as(
        WIDE, dtype=torch.int8
    ),
    "torch.float16 reaches 65,504, got 100000 in weight; try torch.bfloat16, which reaches 3.4e38": lambda: (
        store_as(WIDE, dtype=torch.float16)
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_input_is_refused_with_its_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
