"""Affine quantization, held against torch's own fake quantization, ONNX Runtime, and the laws of a grid."""

import re

import onnx
import onnxruntime
import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.techniques.quantization.affine import (
    channel_range,
    dequantize,
    fake_quantize,
    from_groups,
    integer_range,
    quantize,
    scale_and_zero_point,
    to_groups,
)

every_width = pytest.mark.parametrize("bits", range(2, 9))
either_kind = pytest.mark.parametrize("symmetric", [True, False])


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def grid_of(x, bits, symmetric):
    return scale_and_zero_point(x.min(), x.max(), bits=bits, symmetric=symmetric)


def steps_apart(ours, theirs, scale):
    return ((ours - theirs) / scale).abs().round()


# quantize and dequantize


@every_width
@either_kind
def test_torch_moves_values_to_the_same_places(bits, symmetric):
    x = drawn(20_000)
    scale, zero = scale_and_zero_point(x.min() * 0.8, x.max() * 0.8, bits=bits, symmetric=symmetric)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale, zero, *integer_range(bits, signed=symmetric))
    apart = steps_apart(fake_quantize(x, scale, zero, bits=bits, signed=symmetric), theirs, scale)
    # torch multiplies by 1 / scale where the equation divides: about once in a million the other neighbour
    assert apart.max() <= 1
    assert apart.sum() <= 1


@every_width
def test_torch_moves_the_weights_of_each_channel_to_the_same_places(bits):
    w = drawn(6, 5, 3, 3) * torch.logspace(-3, 2, 6).reshape(6, 1, 1, 1)
    scale, zero = scale_and_zero_point(*channel_range(w), bits=bits, symmetric=True)
    assert scale.shape == zero.shape == (6, 1, 1, 1)
    theirs = torch.fake_quantize_per_channel_affine(
        w, scale.flatten(), zero.flatten(), 0, *integer_range(bits, signed=True)
    )
    ours = fake_quantize(w, scale, zero, bits=bits, signed=True)
    assert steps_apart(ours, theirs, scale).sum() <= 1


def test_onnx_runtime_gives_the_same_integers():
    x = drawn(50_000)
    scale, zero = scale_and_zero_point(x.min() * 0.7, x.max() * 0.7, bits=8, symmetric=False)
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    float_type, byte_type = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", float_type, [None])],
        [onnx.helper.make_tensor_value_info("q", byte_type, [None])],
        [
            onnx.helper.make_tensor("s", float_type, [], [float(scale)]),
            onnx.helper.make_tensor("z", byte_type, [], [int(zero)]),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"x": x.numpy()})[0].astype("int32"))
    assert torch.equal(quantize(x, scale, zero, bits=8, signed=False), theirs)


@every_width
@either_kind
def test_inside_the_range_the_error_is_at_most_half_a_step(bits, symmetric):
    for seed in range(20):
        x = drawn(500, seed=seed).double()
        scale, zero = grid_of(x, bits, symmetric)
        error = (fake_quantize(x, scale, zero, bits=bits, signed=symmetric) - x).abs()
        lowest, highest = integer_range(bits, signed=symmetric)
        # the zero point is rounded, so an asymmetric grid may end half a step before the range does
        reached = (x >= scale * (lowest - zero)) & (x <= scale * (highest - zero))
        assert error[reached].max() <= scale * 0.5 * (1 + 1e-9)
        assert error.max() <= scale * (1 + 1e-9)


@every_width
@either_kind
def test_a_number_on_the_grid_stays_where_it_is(bits, symmetric):
    scale, zero = grid_of(drawn(100), bits, symmetric)
    low, high = integer_range(bits, signed=symmetric)
    every = torch.arange(low, high + 1, dtype=torch.int32)
    x = dequantize(every, scale, zero)
    assert torch.equal(quantize(x, scale, zero, bits=bits, signed=symmetric), every)


def test_halves_go_to_the_even_integer():
    q = quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), 1.0, 0, bits=8, signed=True)
    assert q.tolist() == [0, 2, 2, 0, -2]


def test_what_is_far_out_of_range_becomes_the_end_of_the_range():
    far = torch.tensor([1e30, -1e30, torch.inf, -torch.inf])
    assert quantize(far, 0.1, 0, bits=8, signed=True).tolist() == [127, -127, 127, -127]
    assert quantize(far, 0.1, 7, bits=8, signed=False).tolist() == [255, 0, 255, 0]


def test_integers_below_the_zero_point_become_negative_whatever_their_dtype():
    assert dequantize(torch.tensor([0, 200], dtype=torch.uint8), 1.0, 100).tolist() == [-100.0, 100.0]


def test_the_given_tensor_is_left_alone_and_the_result_is_int32_in_its_shape():
    x = drawn(3, 4, 5).transpose(0, 2)
    before = x.clone()
    q = quantize(x, 0.1, 3, bits=4, signed=False)
    assert (q.shape, q.dtype) == (x.shape, torch.int32)
    assert torch.equal(x, before)


# scale and zero point

RANGES = [
    (-1.0, 2.0),
    (-1.0, 2.3),
    (-2.6, 1.0),
    (0.0, 5.0),
    (3.0, 5.0),
    (-5.0, -3.0),
    (2.0, 2.0),
    (-1e-30, 1e-30),
    (-60000.0, 60000.0),
]


@every_width
@either_kind
@pytest.mark.parametrize("ends", RANGES)
def test_zero_is_exact_and_the_zero_point_is_one_of_the_integers(bits, symmetric, ends):
    low, high = map(torch.tensor, ends)
    scale, zero = scale_and_zero_point(low, high, bits=bits, symmetric=symmetric)
    lowest, highest = integer_range(bits, signed=symmetric)
    assert lowest <= zero <= highest
    assert scale > 0
    assert fake_quantize(torch.zeros(1), scale, zero, bits=bits, signed=symmetric) == 0


@every_width
@either_kind
@pytest.mark.parametrize("ends", RANGES)
def test_the_grid_reaches_as_far_as_the_range(bits, symmetric, ends):
    low, high = (torch.tensor(end, dtype=torch.float64) for end in ends)
    scale, zero = scale_and_zero_point(low, high, bits=bits, symmetric=symmetric)
    for end in (low, high):
        near = fake_quantize(end, scale, zero, bits=bits, signed=symmetric)
        assert (near - end).abs() <= scale * 0.5 * (1 + 1e-9)


def test_the_steps_of_an_asymmetric_grid_are_one_fewer_than_its_integers():
    scale, zero = scale_and_zero_point(torch.tensor(-51.0), torch.tensor(204.0), bits=8, symmetric=False)
    assert (scale, zero) == (1.0, 51)


def test_a_symmetric_grid_has_the_opposite_of_each_of_its_numbers():
    low, high = integer_range(4, signed=True)
    assert low == -high == -7
    scale, zero = scale_and_zero_point(torch.tensor(-14.0), torch.tensor(7.0), bits=4, symmetric=True)
    assert (scale, zero) == (2.0, 0)


@either_kind
def test_a_tensor_of_zeros_stays_zero(symmetric):
    x = torch.zeros(5)
    scale, zero = grid_of(x, 8, symmetric)
    assert scale == 1
    assert torch.equal(fake_quantize(x, scale, zero, bits=8, signed=symmetric), x)


@pytest.mark.parametrize("value", [7.3, -7.3])
@either_kind
def test_a_constant_is_kept(value, symmetric):
    x = torch.full((5,), value)
    scale, zero = grid_of(x, 8, symmetric)
    assert torch.allclose(fake_quantize(x, scale, zero, bits=8, signed=symmetric), x, rtol=1e-6)


def test_a_range_in_half_precision_is_computed_in_single():
    low, high = torch.tensor(-60000.0).half(), torch.tensor(60000.0).half()  # their difference is not a half
    scale, _ = scale_and_zero_point(low, high, bits=8, symmetric=False)
    assert scale.dtype == torch.float32
    assert scale.item() == pytest.approx((float(high) - float(low)) / 255)


# channels and groups


def test_the_range_of_a_channel_is_that_of_its_own_weights():
    w = drawn(4, 3, 2, 2)
    low, high = channel_range(w)
    assert low.shape == high.shape == (4, 1, 1, 1)
    for channel in range(4):
        assert (low[channel].item(), high[channel].item()) == (w[channel].min(), w[channel].max())


@pytest.mark.parametrize("shape", [(4, 6), (3, 5, 3, 3), (2, 1)])
@pytest.mark.parametrize("size", [2, 7, 128])
def test_groups_hold_neighbours_of_one_channel_and_go_back_to_the_weight(shape, size):
    w = drawn(*shape)
    groups = to_groups(w, size=size)
    for channel, row in enumerate(w.flatten(1)):
        for group, part in enumerate(row.split(size)):
            assert torch.equal(groups[channel, group, : len(part)], part)
            assert not groups[channel, group, len(part) :].any()
    assert torch.equal(from_groups(groups, shape=w.shape), w)


# errors

ONE, NAN = torch.tensor(1.0), torch.tensor(torch.nan)
BITS = "bits must be a whole number from 2 to 8, got {}; try 8, or 4: two in a byte"
TAKE = "take both from the same values, and look for a training that diverged"
WRONG = {
    BITS.format(16): lambda: integer_range(16, signed=True),
    BITS.format(1): lambda: quantize(ONE, 1.0, 0, bits=1, signed=True),
    BITS.format(4.0): lambda: scale_and_zero_point(ONE, ONE, bits=4.0, symmetric=True),
    f"low ≤ high must hold, both finite, got 1 … -1; {TAKE}": lambda: scale_and_zero_point(
        ONE, -ONE, bits=8, symmetric=True
    ),
    f"low ≤ high must hold, both finite, got nan … 1; {TAKE}": lambda: scale_and_zero_point(
        NAN, ONE, bits=8, symmetric=False
    ),
    "low and high must have one shape, got () and (2,); take both from the same tensor, as channel_range "
    "does": lambda: scale_and_zero_point(ONE, torch.ones(2), bits=8, symmetric=True),
    "x must not hold NaN, got some; look for a division by zero, or for a training that diverged": lambda: (
        quantize(NAN, 1.0, 0, bits=8, signed=True)
    ),
    "size must be a whole number of at least 2 weights per group, got 1; try 128, or None: one "
    "per channel": lambda: to_groups(torch.ones(2, 2), size=1),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_input_is_refused_with_its_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
