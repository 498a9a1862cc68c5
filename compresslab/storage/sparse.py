"""Sparse storage formats: bitmap, relative index and compressed sparse rows (CSR).

A zero takes as many bytes as any other value unless the file leaves it out. Then the position of every
nonzero must be stored, which costs bytes too. Three ways to store it, for n values of v bits, of which a
random share s is zero:

    format           stores                                        bits per value, zeros included
    bitmap           one bit per value: is it nonzero?             1 + (1 - s) v
    relative index   zeros since the previous nonzero, b bits      (1 - s) (v + b) / (1 - s^2^b)
    CSR              the start of each row, each value's column    (1 - s) (v + 8, 16 or 32), plus the rows

A gap of b bits counts up to 2^b - 1 zeros. If more zeros lie between two nonzeros, a *filler* is stored: the
largest gap and the value 0.0, which stands for one more zero. It costs v + b bits too, hence the division.

What it saves, in float32: a bitmap is smaller than the dense tensor from s = 3 %, 4-bit gaps from 11 %, CSR
with 16-bit columns from 33 %. The bitmap is the smallest format up to 80 %, then 5-bit gaps, beyond 89 %
6-bit gaps, and so on; CSR is the smallest only beyond 99 %, but its rows can be read independently. What it
costs: time, because the tensor is made dense again before it is used. What is left out: fewer bits for the
values, and Huffman coding.

No format is the smallest at every sparsity, and the layers of a network are not equally sparse. So
``to_smallest`` counts the bytes of each format without writing and takes the smallest, layer by layer. The
first byte written is the number of the format, so a reader needs only the shape:

    positions = [number of the format] [its index parts as bytes, one after the other],      values

A value counts as zero if it equals zero. So -0.0, which a mask makes of a negative weight, is not stored and
is restored as 0.0. All other values are restored bit for bit, NaN and infinities included.

Source: Han, Mao and Dally 2015, "Deep compression", arXiv:1510.00149, for the relative index with fillers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compresslab.errors import BadSetting, DamagedFile, check_whole
from compresslab.storage.packing import pack, unpack

__all__ = [
    "AGAIN",
    "BITMAP",
    "CSR",
    "DENSE",
    "FORMS",
    "Form",
    "Layout",
    "Parts",
    "bitmap_layout",
    "checked_forms",
    "checked_values",
    "csr_layout",
    "from_bitmap",
    "from_csr",
    "from_relative_index",
    "from_smallest",
    "gap_reach",
    "indices_and_gaps",
    "relative_index",
    "relative_index_layout",
    "sizes",
    "to_bitmap",
    "to_csr",
    "to_relative_index",
    "to_smallest",
]

Parts = Mapping[str, Tensor]
Layout = dict[str, tuple[torch.dtype, int]]  # {index part: (dtype, length)}
AGAIN = "write the tensor again, or give the shape and the bits with which it was written"


# bitmap


def to_bitmap(tensor: Tensor) -> dict[str, Tensor]:
    """Encode as ``bitmap`` (⌈n / 8⌉,) uint8, lowest bit first, and ``values`` (nonzeros,) in row-major order.

    >>> parts = to_bitmap(torch.tensor([[0.0, 5.0], [7.0, 0.0]]))
    >>> bin(parts["bitmap"].item()), parts["values"].tolist()
    ('0b110', [5.0, 7.0])
    """
    flat = tensor.detach().flatten()
    there = flat != 0
    return {"bitmap": pack(there.to(torch.uint8), bits=1), "values": flat[there]}


def from_bitmap(parts: Parts, shape: Sequence[int]) -> Tensor:
    """Decode the parts of ``to_bitmap`` into a tensor of this shape.

    Raises:
        CompressionError: parts are missing, have another size, or contradict each other.
    """
    values = checked_values(parts, shape, bitmap_layout)
    there = unpack(parts["bitmap"], bits=1, count=math.prod(shape), signed=False).bool()
    if there.sum() != len(values):
        raise DamagedFile(
            f"values must be as many as the bitmap marks, {int(there.sum())}, got {len(values)}; {AGAIN}"
        )
    return _scatter(values, there.nonzero().flatten(), shape)


def bitmap_layout(shape: Sequence[int], stored: int) -> Layout:
    """The dtype and the length of each index part of a tensor of this shape: one bit per value."""
    return {"bitmap": (torch.uint8, -(-math.prod(shape) // 8))}


# relative index


def to_relative_index(tensor: Tensor, *, bits: int = 4) -> dict[str, Tensor]:
    """Encode as ``gaps``, packed, the number of zeros before each of the ``values`` (stored,).

    2^bits zeros or more in a row are written with fillers: a gap of 2^bits - 1 and one of the zeros as the
    value. Zeros after the last nonzero need no filler.

    Args:
        tensor: any shape, read in row-major order. Not changed.
        bits: bits per gap, 1 to 8.

    Raises:
        BadSetting: bits out of range.

    >>> parts = to_relative_index(torch.tensor([0.0, 5.0, 0, 0, 0, 0, 0, 7.0]), bits=2)
    >>> parts["values"].tolist(), unpack(parts["gaps"], bits=2, count=3, signed=False).tolist()
    ([5.0, 0.0, 7.0], [1, 3, 1])
    """
    flat, reach = tensor.detach().flatten(), gap_reach(bits)
    indices, skipped = indices_and_gaps(flat)
    last = (skipped // reach + 1).cumsum(0) - 1  # index of each nonzero among the stored values
    stored = int(last[-1]) + 1 if len(last) else 0
    gaps, values = indices.new_full((stored,), reach - 1), flat.new_zeros(stored)  # all fillers at first
    gaps[last], values[last] = skipped % reach, flat[indices]
    return {"gaps": pack(gaps, bits=bits), "values": values}


def from_relative_index(parts: Parts, shape: Sequence[int], *, bits: int = 4) -> Tensor:
    """Decode the parts of ``to_relative_index`` into a tensor of this shape.

    Raises:
        CompressionError: parts are missing or have another size, or gaps lead beyond the end.
    """
    values = checked_values(parts, shape, functools.partial(relative_index_layout, bits=bits))
    gaps = unpack(parts["gaps"], bits=bits, count=len(values), signed=False)
    indices = (gaps.long() + 1).cumsum(0) - 1
    if len(indices) and indices[-1] >= math.prod(shape):
        raise DamagedFile(
            f"gaps must stay within the tensor's {math.prod(shape)} numbers, got one at "
            f"{int(indices[-1])}; {AGAIN}"
        )
    return _scatter(values, indices, shape)


def relative_index_layout(shape: Sequence[int], stored: int, *, bits: int) -> Layout:
    """The dtype and the length of each index part: ``bits`` bits per stored value, fillers included."""
    return {"gaps": (torch.uint8, -(-stored * bits // 8))}


def gap_reach(bits: int) -> int:
    """The most positions that one stored gap advances: 2^bits.

    Raises:
        BadSetting: bits out of range.
    """
    return 2 ** check_whole("bits", bits, most=8, hint="try 5: up to 31 zeros a gap")


def indices_and_gaps(flat: Tensor) -> tuple[Tensor, Tensor]:
    """The index of each nonzero of (n,) and the number of zeros right before it: (nonzeros,) int64 each."""
    indices = flat.nonzero().flatten()
    return indices, indices.diff(prepend=indices.new_full((1,), -1)) - 1


# compressed sparse rows


def to_csr(tensor: Tensor) -> dict[str, Tensor]:
    """Encode as ``row_pointers`` (rows + 1,), ``columns`` (nonzeros,) and ``values`` (nonzeros,).

    The values of row r are those from row_pointers[r] up to row_pointers[r + 1]. The tensor is read as a
    matrix: (out, …) has one row per output; a scalar or a vector is one row. Both indices use the smallest
    unsigned dtype that fits their largest possible value.

    >>> {name: part.tolist() for name, part in to_csr(torch.tensor([[0.0, 5.0], [0, 0], [7, 8]])).items()}
    {'row_pointers': [0, 1, 1, 3], 'columns': [1, 0, 1], 'values': [5.0, 7.0, 8.0]}
    """
    matrix = tensor.detach().reshape(_rows_and_columns(tensor.shape))
    there = matrix != 0
    ends = there.sum(1).cumsum(0)  # (rows,)
    found = {"row_pointers": torch.cat([ends.new_zeros(1), ends]), "columns": there.nonzero()[:, 1]}
    layout = csr_layout(tensor.shape, len(found["columns"]))
    return {name: part.to(layout[name][0]) for name, part in found.items()} | {"values": matrix[there]}


def from_csr(parts: Parts, shape: Sequence[int]) -> Tensor:
    """Decode the parts of ``to_csr`` into a tensor of this shape.

    Raises:
        DamagedFile: parts are missing or have another size, row pointers decrease or do not end at the
            last value, or columns are out of range or out of order.
    """
    values = checked_values(parts, shape, csr_layout)
    pointers, columns = parts["row_pointers"].long(), parts["columns"].long()
    rows, width = _rows_and_columns(shape)
    if pointers[0] != 0 or pointers[-1] != len(values) or (pointers.diff() < 0).any():
        raise DamagedFile(
            f"row_pointers must rise from 0 to the {len(values)} values, got {_few(pointers)}; {AGAIN}"
        )
    if (columns >= width).any():
        raise DamagedFile(
            f"columns must lie in 0 … {width - 1}, got {int(columns.max())} among them; {AGAIN}"
        )
    row = torch.arange(rows, device=columns.device).repeat_interleave(pointers.diff())
    indices = row * width + columns
    if (indices.diff() <= 0).any():
        raise DamagedFile(f"columns must rise within a row, got {_few(columns)}; {AGAIN}")
    return _scatter(values, indices, shape)


def csr_layout(shape: Sequence[int], stored: int) -> Layout:
    """The dtype and the length of each index part, in the smallest unsigned dtypes that suffice."""
    rows, width = _rows_and_columns(shape)
    return {
        "row_pointers": (_smallest_type(stored), rows + 1),
        "columns": (_smallest_type(width - 1), stored),
    }


def _rows_and_columns(shape: Sequence[int]) -> tuple[int, int]:
    rows = shape[0] if len(shape) > 1 else 1
    return rows, math.prod(shape) // max(rows, 1)


def _smallest_type(largest: int) -> torch.dtype:
    types = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
    return next(dtype for dtype in types if largest < 256**dtype.itemsize)


# shared by the formats


def checked_values(
    parts: Parts, shape: Sequence[int], layout: Callable[[Sequence[int], int], Layout]
) -> Tensor:
    """Return the values (stored,) after checking the dtype and the length of every index part.

    Raises:
        DamagedFile: a part is missing, or has another dtype or length.
    """
    missing = [name for name in ("values", *layout(shape, 0)) if name not in parts]
    if missing:
        raise DamagedFile(f"{missing[0]} must be among the tensor's parts, got {', '.join(parts)}; {AGAIN}")
    values = parts["values"]
    if values.dim() != 1:
        raise DamagedFile(f"values must have one dimension, got {tuple(values.shape)}; {AGAIN}")
    for name, (dtype, length) in layout(shape, len(values)).items():
        if (parts[name].shape, parts[name].dtype) != ((length,), dtype):
            raise DamagedFile(
                f"{name} must be ({length},) {dtype} for {len(values)} values in a tensor {tuple(shape)}, "
                f"got {tuple(parts[name].shape)} {parts[name].dtype}; {AGAIN}"
            )
    return values


def _scatter(values: Tensor, indices: Tensor, shape: Sequence[int]) -> Tensor:
    flat = values.new_zeros(math.prod(shape))
    flat[indices] = values
    return flat.reshape(tuple(shape))


def _few(integers: Tensor) -> str:
    return ", ".join(map(str, integers[:4].tolist())) + (", …" if len(integers) > 4 else "")


# the smallest format for each tensor


@dataclass(frozen=True, repr=False)
class Form:
    """A storage format of a tensor, which computes its size without writing.

    Attributes:
        name: for tables.
        number: identifies the format in a file.
        to_parts: encodes a tensor.
        from_parts: decodes parts and a shape.
        stored: the number of values written for a tensor, fillers included.
        layout: (shape, stored) → the dtype and the length of each index part.
    """

    name: str
    number: int
    to_parts: Callable[[Tensor], dict[str, Tensor]]
    from_parts: Callable[[Parts, Sequence[int]], Tensor]
    stored: Callable[[Tensor], int]
    layout: Callable[[Sequence[int], int], Layout]

    def __repr__(self) -> str:
        return f"Form({self.name!r})"

    def storage_bytes(self, tensor: Tensor) -> int:
        """Bytes of the tensor in this format, values and indices: computed, not written."""
        stored = self.stored(tensor)
        index = self.layout(tensor.shape, stored).values()
        return stored * tensor.element_size() + sum(dtype.itemsize * length for dtype, length in index)


def relative_index(*, bits: int) -> Form:
    """The relative-index format with gaps of ``bits`` bits, 1 to 8.

    Raises:
        CompressionError: bits out of range.
    """
    reach = gap_reach(bits)
    return Form(
        f"{bits}-bit gaps",
        bits,
        functools.partial(to_relative_index, bits=bits),
        functools.partial(from_relative_index, bits=bits),
        functools.partial(_gaps_stored, reach=reach),
        functools.partial(relative_index_layout, bits=bits),
    )


def _gaps_stored(tensor: Tensor, *, reach: int) -> int:
    _, skipped = indices_and_gaps(tensor.detach().flatten())
    return int((skipped // reach + 1).sum())


def _to_dense(tensor: Tensor) -> dict[str, Tensor]:
    return {"values": tensor.detach().flatten().clone()}


def _from_dense(parts: Parts, shape: Sequence[int]) -> Tensor:
    values, count = checked_values(parts, shape, _dense_layout), math.prod(shape)
    if len(values) != count:
        raise DamagedFile(f"values must be {count} in a dense tensor, got {len(values)}; {AGAIN}")
    return values.reshape(tuple(shape)).clone()


def _dense_layout(shape: Sequence[int], stored: int) -> Layout:
    return {}


def _nonzeros(tensor: Tensor) -> int:
    return int(tensor.detach().count_nonzero())


# stored in files, so these numbers must never change; gaps of b bits are format b
DENSE = Form("dense", 0, _to_dense, _from_dense, Tensor.numel, _dense_layout)
BITMAP = Form("bitmap", 16, to_bitmap, from_bitmap, _nonzeros, bitmap_layout)
CSR = Form("CSR", 17, to_csr, from_csr, _nonzeros, csr_layout)
FORMS = (DENSE, BITMAP, *(relative_index(bits=bits) for bits in range(4, 9)), CSR)
_BY_NUMBER = {form.number: form for form in (*FORMS, *(relative_index(bits=bits) for bits in (1, 2, 3)))}


def checked_forms(forms: Sequence[Form]) -> tuple[Form, ...]:
    """Return the formats as a tuple after checking that there is at least one and that each is a ``Form``.

    Raises:
        BadSetting: no format, or something that is not a ``Form``.
    """
    if not isinstance(forms, list | tuple) or not forms or not all(isinstance(form, Form) for form in forms):
        raise BadSetting(f"forms must be a list of forms, at least one, got {forms!r}; try [BITMAP]")
    return tuple(forms)


def sizes(tensor: Tensor, *, forms: Sequence[Form] = FORMS) -> dict[str, int]:
    """{format: bytes of the tensor in it, indices and values}: computed, nothing is written.

    >>> sizes(torch.eye(16), forms=[DENSE, BITMAP, relative_index(bits=4), CSR])
    {'dense': 1024, 'bitmap': 96, '4-bit gaps': 140, 'CSR': 97}
    """
    return {form.name: form.storage_bytes(tensor) for form in forms}


def to_smallest(tensor: Tensor, *, forms: Sequence[Form] = FORMS) -> dict[str, Tensor]:
    """Encode as ``positions``, uint8, and ``values``, in the smallest format; ties take the earlier format.

    Raises:
        BadSetting: no formats.
    """
    form = min(checked_forms(forms), key=lambda form: form.storage_bytes(tensor))
    parts = form.to_parts(tensor)
    values = parts.pop("values")
    number = torch.tensor([form.number], dtype=torch.uint8, device=tensor.device)
    index = [part.view(torch.uint8) for part in parts.values()]
    return {"positions": torch.cat([number, *index]), "values": values}


def from_smallest(parts: Parts, shape: Sequence[int]) -> Tensor:
    """Decode a tensor of this shape from the format in which ``to_smallest`` wrote it.

    Raises:
        DamagedFile: an unknown format, or parts that are damaged or belong to another shape.
    """
    if missing := {"positions", "values"} - parts.keys():
        came = ", ".join(parts) or "none"
        raise DamagedFile(f"{min(missing)} must be among the tensor's parts, got {came}; {AGAIN}")
    positions, values = parts["positions"], checked_values(parts, shape, _dense_layout)
    form = _form_of(positions)
    layout = form.layout(shape, len(values))
    lengths = [dtype.itemsize * length for dtype, length in layout.values()]
    if len(positions) != 1 + sum(lengths):
        raise DamagedFile(
            f"positions must be {1 + sum(lengths)} bytes ({form.name}) for {len(values)} values in a "
            f"tensor {tuple(shape)}, got {len(positions)}; {AGAIN}"
        )
    cut = zip(layout.items(), positions[1:].split(lengths), strict=True)
    # cloned, because a view as wider integers must start at a multiple of their size
    index = {name: part.clone().view(dtype) for (name, (dtype, _)), part in cut}
    return form.from_parts({**index, "values": values}, shape)


def _form_of(positions: Tensor) -> Form:
    """The format whose number is the first byte."""
    bytes_ = positions.dtype == torch.uint8 and positions.dim() == 1 and len(positions) > 0
    if not bytes_ or int(positions[0]) not in _BY_NUMBER:
        came = int(positions[0]) if bytes_ else f"{tuple(positions.shape)} {positions.dtype}"
        raise DamagedFile(
            f"positions must be bytes that begin with the number of a form, got {came}; {AGAIN}"
        )
    return _BY_NUMBER[int(positions[0])]
