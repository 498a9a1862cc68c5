"""Sparse tensors: bitmap, relative index and CSR against plain loops, and against damage."""

import contextlib
import math
import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compresslab.errors import CompressionError
from compresslab.storage.packing import unpack
from compresslab.storage.sparse import (
    AGAIN,
    bitmap_layout,
    csr_layout,
    from_bitmap,
    from_csr,
    from_relative_index,
    relative_index_layout,
    to_bitmap,
    to_csr,
    to_relative_index,
)


def gaps_of(bits):
    """To parts, from parts and layout of the relative index with gaps of so many bits."""
    return (
        lambda tensor: to_relative_index(tensor, bits=bits),
        lambda parts, shape: from_relative_index(parts, shape, bits=bits),
        lambda shape, stored: relative_index_layout(shape, stored, bits=bits),
    )


FORMATS = {
    "bitmap": (to_bitmap, from_bitmap, bitmap_layout),
    **{f"gaps of {bits} bits": gaps_of(bits) for bits in range(1, 9)},
    "csr": (to_csr, from_csr, csr_layout),
}
every_format = pytest.mark.parametrize(
    ("there", "back", "layout"), [pytest.param(*three, id=name) for name, three in FORMATS.items()]
)


def drawn(shape, *, sparsity, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    zeros = torch.rand(shape, generator=generator) < sparsity
    return torch.randn(shape, generator=generator).masked_fill(zeros, 0.0).to(dtype)


def bits_of(tensor):
    """The very bits, so that NaN equals itself and 0.0 is not -0.0."""
    return tensor.contiguous().flatten().view(torch.uint8).tolist()


SHAPES = [(1,), (7,), (), (3, 5), (1, 1), (5, 1), (1, 9), (4, 3, 3, 3), (2, 300), (0, 4), (3, 0), (2, 3, 1)]


# there and back


@every_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 1.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_tensor_comes_back_bit_by_bit(there, back, layout, shape, sparsity, dtype):
    tensor = drawn(shape, sparsity=sparsity, dtype=dtype)
    before = tensor.clone()
    result = back(there(tensor), shape)
    assert (result.shape, result.dtype) == (tensor.shape, dtype)
    assert bits_of(result) == bits_of(tensor)
    assert bits_of(tensor) == bits_of(before)


@every_format
def test_nan_infinity_and_the_smallest_numbers_are_not_zeros(there, back, layout):
    tensor = torch.tensor([[0.0, math.nan, -math.inf], [1e-45, 0.0, -1e-45]])
    parts = there(tensor)
    assert bits_of(back(parts, (2, 3))) == bits_of(tensor)
    assert parts["values"].isnan().any()


@every_format
def test_a_negative_zero_is_a_zero_so_what_a_mask_left_of_a_negative_weight_takes_no_bytes(
    there, back, layout
):
    masked = torch.tensor([-2.0, -3.0]) * torch.tensor([True, False])
    assert masked[1].signbit()
    parts = there(masked)
    assert parts["values"].tolist() == [-2.0]
    assert bits_of(back(parts, (2,))) == bits_of(torch.tensor([-2.0, 0.0]))


@every_format
def test_any_stride_is_read_row_by_row_and_a_trainable_tensor_is_written_without_its_history(
    there, back, layout
):
    tensor = drawn((5, 7), sparsity=0.6).requires_grad_()
    parts = there(tensor.t())
    assert torch.equal(back(parts, (7, 5)), tensor.detach().t())
    assert not any(part.requires_grad for part in parts.values())


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.5, -2.0]), max_size=60), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_any_list_of_numbers_comes_back_in_every_form(numbers, rows):
    tensor = torch.tensor(numbers * rows).reshape(rows, len(numbers))
    for there, back, _ in FORMATS.values():
        assert torch.equal(back(there(tensor), tensor.shape), tensor)


# what is written


@every_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layout_says_the_dtype_and_the_length_of_every_part_but_the_values(there, back, layout, shape):
    parts = there(drawn(shape, sparsity=0.8))
    promised = layout(shape, len(parts["values"]))
    assert {name: (part.dtype, len(part)) for name, part in parts.items() if name != "values"} == promised


def gaps_by_hand(numbers, bits):
    """The oracle: counts zeros one by one, and stores a filler where the counter is full."""
    entries, zeros = [], 0
    for position, number in enumerate(numbers):
        full = zeros == 2**bits - 1 and any(numbers[position:])
        if number != 0 or full:
            entries.append((zeros, number))
            zeros = 0
        else:
            zeros += 1
    return entries


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.98])
def test_gaps_are_those_that_one_counts_by_hand(bits, sparsity):
    tensor = drawn((6, 101), sparsity=sparsity)
    parts = to_relative_index(tensor, bits=bits)
    gaps = unpack(parts["gaps"], bits=bits, count=len(parts["values"]), signed=False)
    assert list(zip(gaps.tolist(), parts["values"].tolist(), strict=True)) == gaps_by_hand(
        tensor.flatten().tolist(), bits
    )


@pytest.mark.parametrize(("zeros", "fillers"), [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2)])
def test_sixteen_zeros_are_one_too_many_for_four_bits_and_zeros_at_the_end_need_nothing(zeros, fillers):
    values = to_relative_index(torch.tensor([0.0] * zeros + [3.0] + [0.0] * 99))["values"]
    assert values.tolist() == [0.0] * fillers + [3.0]


def test_csr_is_torchs():
    tensor = drawn((9, 30), sparsity=0.7)
    with warnings.catch_warnings(action="ignore"):  # torch says that its sparse tensors are in beta
        oracle = tensor.to_sparse_csr()
    parts = to_csr(tensor)
    assert parts["row_pointers"].tolist() == oracle.crow_indices().tolist()
    assert parts["columns"].tolist() == oracle.col_indices().tolist()
    assert torch.equal(parts["values"], oracle.values())


@pytest.mark.parametrize(
    ("width", "stored", "columns", "pointers"),
    [
        (256, 255, torch.uint8, torch.uint8),
        (257, 256, torch.uint16, torch.uint16),
        (2**16, 2**16 - 1, torch.uint16, torch.uint16),
        (2**16 + 1, 2**16, torch.uint32, torch.uint32),
        (2**32 + 1, 2**32, torch.uint64, torch.uint64),
    ],
)
def test_an_index_has_the_smallest_type_in_which_the_largest_possible_one_fits(
    width, stored, columns, pointers
):
    layout = csr_layout((3, width), stored)
    assert layout == {"row_pointers": (pointers, 4), "columns": (columns, stored)}


@pytest.mark.parametrize("width", [256, 257, 2**16 + 1])
def test_the_last_column_of_each_type_comes_back(width):
    tensor = torch.zeros(2, width)
    tensor[1, -1] = 1.0
    assert torch.equal(from_csr(to_csr(tensor), tensor.shape), tensor)


# damage

TENSOR = torch.tensor([[0.0, 5.0, 0.0], [7.0, 0.0, 8.0]])
SHAPE = (2, 3)


def changed(parts, **others):
    return {**parts, **others}


def bytes_of(*numbers):
    return torch.tensor(numbers, dtype=torch.uint8)


B, G, C = to_bitmap(TENSOR), to_relative_index(TENSOR), to_csr(TENSOR)
WRONG = {
    "bitmap must be among the tensor's parts, got gaps, values": lambda: from_bitmap(G, SHAPE),
    "values must be among the tensor's parts, got bitmap": lambda: from_bitmap(
        {"bitmap": B["bitmap"]}, SHAPE
    ),
    "values must have one dimension, got (1, 3)": lambda: from_bitmap(
        changed(B, values=B["values"][None]), SHAPE
    ),
    "bitmap must be (1,) torch.uint8 for 3 values in a tensor (2, 3), got (0,) torch.uint8": lambda: (
        from_bitmap(changed(B, bitmap=bytes_of()), SHAPE)
    ),
    "bitmap must be (2,) torch.uint8 for 3 values in a tensor (9, 1), got (1,) torch.uint8": lambda: (
        from_bitmap(B, (9, 1))
    ),
    "values must be as many as the bitmap marks, 3, got 2": lambda: from_bitmap(
        changed(B, values=B["values"][:2]), SHAPE
    ),
    "gaps must be (2,) torch.uint8 for 3 values in a tensor (2, 3), got (1,) torch.uint8": lambda: (
        from_relative_index(changed(G, gaps=G["gaps"][:1]), SHAPE)
    ),
    "gaps must be (3,) torch.uint8 for 3 values in a tensor (2, 3), got (2,) torch.uint8": lambda: (
        from_relative_index(G, SHAPE, bits=8)
    ),
    "gaps must stay within the tensor's 5 numbers, got one at 5": lambda: from_relative_index(G, (5,)),
    "row_pointers must be (3,) torch.uint8 for 3 values in a tensor (2, 3), got (2,) torch.uint8": lambda: (
        from_csr(changed(C, row_pointers=C["row_pointers"][:2]), SHAPE)
    ),
    "columns must be (3,) torch.uint8 for 3 values in a tensor (2, 3), got (3,) torch.int64": lambda: (
        from_csr(changed(C, columns=C["columns"].long()), SHAPE)
    ),
    "row_pointers must rise from 0 to the 3 values, got 0, 1, 2": lambda: from_csr(
        changed(C, row_pointers=bytes_of(0, 1, 2)), SHAPE
    ),
    "row_pointers must rise from 0 to the 3 values, got 1, 1, 3": lambda: from_csr(
        changed(C, row_pointers=bytes_of(1, 1, 3)), SHAPE
    ),
    "row_pointers must rise from 0 to the 3 values, got 0, 200, 3": lambda: from_csr(
        changed(C, row_pointers=bytes_of(0, 200, 3)), SHAPE
    ),
    "columns must lie in 0 … 2, got 3 among them": lambda: from_csr(
        changed(C, columns=bytes_of(1, 0, 3)), SHAPE
    ),
    "columns must rise within a row, got 1, 2, 2": lambda: from_csr(
        changed(C, columns=bytes_of(1, 2, 2)), SHAPE
    ),
}


@pytest.mark.parametrize("bits", [0, 9, -1, 4.0])
def test_gaps_of_no_such_width_are_refused_with_their_text(bits):
    says = f"bits must be a whole number from 1 to 8, got {bits}; try 5: up to 31 zeros a gap"
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        to_relative_index(TENSOR, bits=bits)


@pytest.mark.parametrize("says", WRONG)
def test_damaged_parts_are_refused_with_their_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(f'{says}; {AGAIN}')}$"):
        WRONG[says]()


def test_long_indices_are_shown_by_their_first_four():
    parts = to_csr(torch.ones(5, 1))
    with pytest.raises(CompressionError, match=r"got 0, 0, 0, 0, …; write"):
        from_csr(changed(parts, row_pointers=bytes_of(0, 0, 0, 0, 0, 0)), (5, 1))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_bytes_the_indices_become_the_error_is_ours_or_there_is_none(data):
    there, back, _ = data.draw(st.sampled_from(list(FORMATS.values())))
    parts = there(TENSOR)
    for name in [name for name in parts if name != "values"]:
        parts[name] = bytes_of(*data.draw(st.lists(st.integers(0, 255), max_size=5)))
    with contextlib.suppress(CompressionError):
        assert back(parts, SHAPE).shape == SHAPE
