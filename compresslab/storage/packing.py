"""Bit packing: integers of 1 to 8 bits stored without gaps in bytes, such as two 4-bit integers per byte.

The integers are written one after the other as a stream of bits, the lowest bit first, and the stream is
divided into bytes. With four bits this is the usual layout: the first integer is the low half (the *nibble*)
of the first byte, the second integer its high half. With three bits, eight integers fill three bytes, and
some integers span two bytes.

    stream[i · bits + k] = bit k of integer i,      byte j = Σ stream[8 j + k] · 2^k,   k = 0 … 7

A negative integer is stored as its lowest bits (two's complement): -1 with four bits is 1111. The bytes do
not record whether integers are signed, so the reader must know it: 1111 means 15 or -1. *Sign extension*
gives the highest of the few bits the value -2^(bits-1) instead of +2^(bits-1).

What it saves: a factor of 8 / bits compared with one integer per byte. What it costs: arithmetic needs
unpacked integers. The last byte is padded with zeros, so the reader must also know the number of integers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.errors import BadSetting, check_whole

__all__ = ["pack", "unpack"]


def pack(integers: Tensor, *, bits: int) -> Tensor:
    """Pack the lowest ``bits`` bits of each integer, in row-major order, into (⌈n · bits / 8⌉,) uint8.

    Args:
        integers: any shape, n integers in -2^(bits-1) … 2^bits - 1: signed or unsigned, as ``unpack`` will
            read them. Not changed.
        bits: 1 to 8.

    Raises:
        BadSetting: bits out of range, values that aren't integers, or an integer that needs more bits.

    >>> pack(torch.tensor([1, -1, 7]), bits=4).tolist()  # 0x1 and 0xF in one byte, 0x7 in the next
    [241, 7]
    """
    bits = _checked_bits(bits)
    if integers.is_floating_point() or integers.is_complex():
        raise BadSetting(
            f"integers must have an integer dtype, got {integers.dtype}; round and cast them first: "
            "x.round().to(torch.int32)"
        )
    flat = integers.detach().flatten().to(torch.int32)
    outside = flat[(flat < -(2 ** (bits - 1))) | (flat > 2**bits - 1)]
    if len(outside):
        raise BadSetting(
            f"integers of {bits} bits must lie in {-(2 ** (bits - 1))} … {2**bits - 1}, got "
            f"{int(outside[0])}; clamp them first, or give more bits"
        )
    stream = ((flat[:, None] >> _bit_indices(bits, flat)) & 1).flatten()  # (n · bits,)
    stream = F.pad(stream, (0, -len(stream) % 8)).reshape(-1, 8)  # (bytes, 8)
    return (stream << _bit_indices(8, flat)).sum(dim=1).to(torch.uint8)


def unpack(packed: Tensor, *, bits: int, count: int, signed: bool) -> Tensor:
    """Unpack ``count`` integers that ``pack`` wrote: (count,) int8 if signed, else uint8.

    Args:
        packed: (⌈count · bits / 8⌉,) uint8. Not changed.
        bits: 1 to 8, the same as in ``pack``.
        count: the number of integers, which the bytes do not record.
        signed: True reads -2^(bits-1) … 2^(bits-1) - 1, False reads 0 … 2^bits - 1.

    Raises:
        BadSetting: bits out of range, or bytes that can't hold exactly ``count`` integers.

    >>> packed = torch.tensor([241, 7], dtype=torch.uint8)
    >>> unpack(packed, bits=4, count=3, signed=True).tolist()
    [1, -1, 7]
    >>> unpack(packed, bits=4, count=3, signed=False).tolist()
    [1, 15, 7]
    """
    bits = _checked_bits(bits)
    count = check_whole("count", count, least=0, hint="give the number of integers that were packed")
    wanted = -(-count * bits // 8)
    if packed.dtype != torch.uint8 or packed.shape != (wanted,):
        raise BadSetting(
            f"packed must be ({wanted},) torch.uint8 for {count} integers of {bits} bits, got "
            f"{tuple(packed.shape)} {packed.dtype}; give the bits and the count with which they were "
            "packed"
        )
    whole = packed.to(torch.int32)
    stream = ((whole[:, None] >> _bit_indices(8, whole)) & 1).flatten()[: count * bits]
    integers = (stream.reshape(count, bits) << _bit_indices(bits, whole)).sum(dim=1)
    if not signed:
        return integers.to(torch.uint8)
    sign = 2 ** (bits - 1)
    return ((integers ^ sign) - sign).to(torch.int8)  # flips the sign bit, then subtracts its value


def _bit_indices(bits: int, like: Tensor) -> Tensor:
    return torch.arange(bits, dtype=torch.int32, device=like.device)


def _checked_bits(bits: int) -> int:
    return check_whole("bits", bits, most=8, hint="try 4: two integers a byte")
