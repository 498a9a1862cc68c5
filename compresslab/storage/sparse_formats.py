"""Choice of the smallest sparse format per tensor, from sizes computed without writing.

No format is the smallest at every sparsity (see ``storage.sparse``), and the layers of a network are not
equally sparse. So the bytes of each format are counted and the smallest is taken, layer by layer. The first
byte written is the number of the format, so a reader needs only the shape.

    positions = [number of the format] [its index parts as bytes, one after the other],      values

What it costs: that one byte.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compresslab.errors import BadSetting, DamagedFile
from compresslab.storage.sparse import (
    AGAIN,
    Layout,
    Parts,
    bitmap_layout,
    checked_values,
    csr_layout,
    from_bitmap,
    from_csr,
    from_relative_index,
    gap_reach,
    indices_and_gaps,
    relative_index_layout,
    to_bitmap,
    to_csr,
    to_relative_index,
)

__all__ = [
    "BITMAP",
    "CSR",
    "DENSE",
    "FORMS",
    "Form",
    "checked_forms",
    "from_smallest",
    "relative_index",
    "sizes",
    "to_smallest",
]


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
