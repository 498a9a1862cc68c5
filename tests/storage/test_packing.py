"""Packing: a stream of bits in bytes, held against Python's own big integers."""

import re

import pytest
import torch

from compresslab.errors import CompressionError
from compresslab.storage.packing import pack, unpack


def drawn(low, high, count, seed=0):
    return torch.randint(low, high + 1, (count,), generator=torch.Generator().manual_seed(seed))


def as_one_number(integers, bits):
    """The oracle: the integers as digits, in base 2^bits, of one number in little-endian bytes."""
    number = sum((q % 2**bits) << (bits * place) for place, q in enumerate(integers))
    return list(number.to_bytes(-(-len(integers) * bits // 8), "little"))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 1001])
def test_bytes_are_those_of_one_long_number(bits, count):
    integers = drawn(0, 2**bits - 1, count)
    packed = pack(integers, bits=bits)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == as_one_number(integers.tolist(), bits)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_what_was_packed_comes_back_with_its_sign(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    integers = torch.cat([torch.arange(low, high + 1), drawn(low, high, 101)])
    back = unpack(pack(integers, bits=bits), bits=bits, count=len(integers), signed=signed)
    assert back.dtype == (torch.int8 if signed else torch.uint8)
    assert torch.equal(back.long(), integers)


def test_the_first_of_two_four_bit_integers_is_the_low_half_of_the_byte():
    assert pack(torch.tensor([0x3, 0xA]), bits=4).tolist() == [0xA3]


def test_an_odd_count_fills_the_last_byte_with_zeros():
    assert pack(torch.tensor([-1, -1, -1]), bits=4).tolist() == [0xFF, 0x0F]


def test_any_shape_and_any_stride_is_packed_row_by_row():
    square = drawn(-8, 7, 35).reshape(5, 7).t()
    assert torch.equal(pack(square, bits=4), pack(square.contiguous().flatten(), bits=4))
    assert torch.equal(pack(square.to(torch.int8), bits=4), pack(square, bits=4))


BYTES = torch.zeros(2, dtype=torch.uint8)
WRONG = {
    "bits must be a whole number from 1 to 8, got 9; try 4: two integers a byte": lambda: pack(BYTES, bits=9),
    "bits must be a whole number from 1 to 8, got 0; try 4: two integers a byte": lambda: unpack(
        BYTES, bits=0, count=4, signed=True
    ),
    "integers must have an integer dtype, got torch.float32; round and cast them first: "
    "x.round().to(torch.int32)": lambda: pack(torch.ones(2), bits=4),
    "integers of 4 bits must lie in -8 … 15, got 16; clamp them first, or give more bits": lambda: pack(
        torch.tensor([0, 16]), bits=4
    ),
    "integers of 4 bits must lie in -8 … 15, got -9; clamp them first, or give more bits": lambda: pack(
        torch.tensor([-9]), bits=4
    ),
    "packed must be (3,) torch.uint8 for 5 integers of 4 bits, got (2,) torch.uint8; "
    "give the bits and the count with which they were packed": lambda: unpack(
        BYTES, bits=4, count=5, signed=True
    ),
    "packed must be (2,) torch.uint8 for 4 integers of 4 bits, got (2,) torch.int8; "
    "give the bits and the count with which they were packed": lambda: unpack(
        BYTES.to(torch.int8), bits=4, count=4, signed=True
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_bad_input_is_refused_with_its_text(says):
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        WRONG[says]()
