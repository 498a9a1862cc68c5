"""Records: what a student's function returned, as arrays and plain text. A judge sees nothing else.

A value is described once, where the student's code ran, and from then on it is data: a ``Recorded`` knows
the name of the type, the dtype, the numbers. It has no methods of the student's, compares as numbers do,
and travels between processes as one ``.npz`` file without pickle.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compresslab.errors import BadSetting, DamagedFile

__all__ = ["MAXIMUM_BYTES", "Recorded", "describe", "from_bytes", "same", "to_bytes"]

MAXIMUM_VALUES = 4_000_000  # numbers in one recorded array
MAXIMUM_ITEMS = 1_000  # entries of one list, tuple or dict
MAXIMUM_DEPTH = 6
MAXIMUM_TEXT = 400  # characters
MAXIMUM_BYTES = 64_000_000  # one file of records
MAXIMUM_MEMBERS = 50_000  # arrays in one file
MAXIMUM_TREE = 4_000_000  # bytes of the words and brackets around them


@dataclass(frozen=True)
class Recorded:
    """One value: ``type`` always; ``array`` and ``dtype`` of a number or tensor; ``items`` of a container.

    ``text`` is the string itself for a ``str``, and how the value prints for anything else.
    """

    type: str
    text: str = ""
    dtype: str = ""
    array: np.ndarray | None = None
    items: tuple[Recorded, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.array is None else self.array.shape


def describe(value: object, depth: int = 0) -> Recorded:
    """Record any value; what can't be recorded as numbers is recorded by the name of its type.

    >>> describe((1, 0.5)).items[1].type
    'float'
    """
    try:
        return _describe(value, str(type(value).__name__)[:MAXIMUM_TEXT], depth)
    except Exception:  # an object may lie about its class, or a metaclass about its name
        return Recorded("object", text="something that can't be recorded")


def _describe(value: object, kind: str, depth: int) -> Recorded:
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value, kind)
    if isinstance(value, np.ndarray | np.generic):
        return _describe_array(np.asarray(value), kind)
    if type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
        return Recorded(kind, text=repr(value), dtype=kind, array=np.asarray(value))
    if type(value) is str:
        return Recorded(kind, text=value[:MAXIMUM_TEXT])
    if type(value) in (list, tuple, dict) and depth < MAXIMUM_DEPTH:
        entries: Any = value.items() if isinstance(value, dict) else value
        if len(entries) <= MAXIMUM_ITEMS:
            return Recorded(kind, items=tuple(describe(entry, depth + 1) for entry in entries))
    return Recorded(kind, text=_printed(value))


def _describe_tensor(value: torch.Tensor, kind: str) -> Recorded:
    plain = value.detach().as_subclass(torch.Tensor)
    if plain.layout != torch.strided or plain.numel() > MAXIMUM_VALUES:
        return Recorded(kind, text=f"a {plain.layout} tensor of shape {tuple(plain.shape)}")
    dtype = str(plain.dtype).removeprefix("torch.")
    if dtype == "bfloat16":  # numpy has no such type; float32 holds each of its values
        plain = plain.float()
    try:
        values = plain.resolve_conj().resolve_neg().cpu().numpy().copy()
    except Exception:  # float8, quantized, nested, or without data on the device "meta"
        return Recorded(kind, text=f"a {dtype} tensor that numpy can't hold")
    return Recorded(kind, dtype=dtype, array=values)


def _describe_array(value: np.ndarray, kind: str) -> Recorded:
    if value.dtype.kind not in "biufc" or value.size > MAXIMUM_VALUES:
        return Recorded(kind, text=f"an array of {value.dtype} with shape {value.shape}")
    return Recorded(kind, dtype=str(value.dtype), array=value.copy())


def _printed(value: object) -> str:
    try:
        return repr(value)[:MAXIMUM_TEXT]
    except Exception:  # a student's __repr__ may raise anything
        return "something that can't be printed"


def same(one: Recorded, other: Recorded) -> bool:
    """Whether two records are equal: types, shapes, dtypes, and numbers up to rounding (NaN equals NaN)."""
    if (one.type, one.dtype, one.shape) != (other.type, other.dtype, other.shape):
        return False
    if one.items is not None or other.items is not None:
        mine, theirs = one.items or (), other.items or ()
        return len(mine) == len(theirs) and all(map(same, mine, theirs))
    if one.array is None or other.array is None:
        return one.text == other.text
    if one.array.dtype.kind in "fc":
        return bool(np.allclose(one.array, other.array, rtol=1e-5, atol=1e-9, equal_nan=True))
    return bool(np.array_equal(one.array, other.array))


# One file without pickle: the tree as JSON, with each array or tensor replaced by its number.


def to_bytes(tree: object) -> bytes:
    """Return a tree of containers, numbers, strings, tensors, arrays and records as an ``.npz`` file."""
    arrays: dict[str, np.ndarray] = {}
    words = json.dumps(_flatten(tree, arrays))
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes, *, trusted: bool = True) -> Any:
    """Read the tree that ``to_bytes`` wrote.

    Every size is checked before anything is unpacked or allocated; nothing is unpickled.

    Args:
        content: the file.
        trusted: whether the grader has written it. A file from a student's process may hold records alone: a
            tensor's strides would decide how much memory it takes.

    Raises:
        DamagedFile: the content is not such a file, or is larger than a worker may leave.
    """
    try:
        if len(content) > MAXIMUM_BYTES:
            raise ValueError(f"{len(content):,} bytes, more than {MAXIMUM_BYTES:,}")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = _Members(archive, len(content), trusted)
            tree = arrays["tree"].tobytes()
            if not trusted and len(tree) > MAXIMUM_TREE:
                raise ValueError(f"{len(tree):,} bytes around the arrays, more than {MAXIMUM_TREE:,}")
            return _unflatten(json.loads(tree.decode()), arrays)
    except (
        Exception
    ) as error:  # hostile bytes may raise anything at all, somewhere in zip, json, numpy or torch
        raise DamagedFile(
            f"a record can't be read ({type(error).__name__}: {str(error)[:200]}); expected the .npz that a "
            "worker writes, uncompressed and without pickle; grade the submission again"
        ) from error


class _Members:
    """The arrays of an ``.npz``, each read at most once, if it is as small as it declares."""

    def __init__(self, archive: zipfile.ZipFile, size: int, trusted: bool) -> None:
        members = archive.infolist()
        if len(members) > MAXIMUM_MEMBERS:
            raise ValueError(f"{len(members):,} members, more than {MAXIMUM_MEMBERS:,}")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("a compressed member")  # np.savez compresses nothing: here a bomb can't hide
        if sum(member.file_size for member in members) > size:
            raise ValueError("members larger than the file")
        self.archive, self.trusted = archive, trusted
        self.unread = {member.filename for member in members}

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.remove(f"{name}.npy")  # asked for again and again, a small file would fill the memory
        return _array(self.archive.read(f"{name}.npy"))


_DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)


def _array(content: bytes) -> np.ndarray:
    """Read the array of one ``.npy`` file, if it holds what its shape and dtype declare."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    count = math.prod(shape)
    if (
        dtype.kind not in "biufc"
        or dtype.name not in _DTYPES
        or not dtype.isnative
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"an array of {dtype}, shape {shape}")
    if count * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"shape {shape} of {dtype} declared, {len(content) - file.tell():,} bytes held")
    values = np.frombuffer(content, dtype, count, file.tell())
    return values.reshape(shape, order="F" if fortran else "C").copy(order="K")


def _flatten(node: object, arrays: dict[str, np.ndarray]) -> object:
    """The node as JSON values; its arrays go to ``arrays``, and their names stand for them."""
    match node:
        case torch.Tensor() | np.ndarray() | Recorded():
            return _flatten_values(node, arrays)
        case dict():
            return {"dict": [[key, _flatten(value, arrays)] for key, value in node.items()]}
        case tuple():
            return {"tuple": [_flatten(value, arrays) for value in node]}
        case list():
            return [_flatten(value, arrays) for value in node]
        case None | bool() | int() | float() | str():
            return node
    raise BadSetting(f"a case or record holds numbers, strings and tensors, got {type(node).__name__}")


def _flatten_values(node: torch.Tensor | np.ndarray | Recorded, arrays: dict[str, np.ndarray]) -> object:
    def keep(array: np.ndarray) -> str:
        arrays[f"array_{len(arrays)}"] = array
        return f"array_{len(arrays) - 1}"

    if isinstance(node, torch.Tensor):
        record = _describe_tensor(node, "Tensor")
        return {"tensor": keep(record.array), "dtype": record.dtype, "strides": node.stride()}  # type: ignore[arg-type]
    if isinstance(node, np.ndarray):
        return {"array": keep(node)}
    fields = {"type": node.type, "text": node.text, "dtype": node.dtype}
    items = None if node.items is None else [_flatten(item, arrays) for item in node.items]
    plain = node.dtype in _PLAIN and node.array is not None and node.array.ndim == 0
    values = None if node.array is None else node.array.item() if plain else keep(node.array)
    return {"record": fields, "values": values, "items": items}


def _unflatten(node: Any, arrays: _Members) -> Any:
    """What ``_flatten`` wrote, from JSON values and the arrays that they name."""
    match node:
        case list():
            return [_unflatten(value, arrays) for value in node]
        case {"tuple": values}:
            return tuple(_unflatten(value, arrays) for value in values)
        case {"dict": pairs}:
            return {key: _unflatten(value, arrays) for key, value in pairs}
        case dict():
            return _unflatten_values(node, arrays)
    return node


def _unflatten_values(node: dict, arrays: _Members) -> torch.Tensor | np.ndarray | Recorded:
    if "tensor" in node:
        if not arrays.trusted:
            raise ValueError("a tensor where a record belongs")
        return _tensor(arrays[node["tensor"]], node["dtype"], node["strides"])
    if "array" in node:
        return arrays[node["array"]]
    items = None if node["items"] is None else tuple(_unflatten(item, arrays) for item in node["items"])
    values = arrays[node["values"]] if isinstance(node["values"], str) else node["values"]
    return _checked(node["record"], values, items)


def _tensor(values: np.ndarray, dtype: str, strides: list[int]) -> torch.Tensor:
    """Return the tensor with the strides that it had, so that a transposed input arrives transposed."""
    plain = torch.from_numpy(values).to(getattr(torch, dtype))
    span = 1 + sum((size - 1) * step for size, step in zip(values.shape, strides, strict=True))
    if plain.numel() == 0 or min(strides, default=1) < 1 or span > MAXIMUM_VALUES:
        return plain
    return torch.empty_strided(plain.shape, strides, dtype=plain.dtype).copy_(plain)


_PLAIN = ("bool", "int", "float")  # Python's own numbers: written as JSON, one array each would be slow


def _checked(fields: Any, values: Any, items: tuple[Recorded, ...] | None) -> Recorded:
    """Return the record if its texts fit its numbers, so that a judge can rely on that."""
    kind, text, dtype = (str(fields[name])[:MAXIMUM_TEXT] for name in ("type", "text", "dtype"))
    if not all(isinstance(item, Recorded) for item in items or ()):
        raise TypeError("a record's items are records")
    array = None if values is None else np.asarray(values)
    held = {"bool": "bool", "int": "int64", "float": "float64", "bfloat16": "float32"}.get(dtype, dtype)
    if array is not None and (array.dtype.kind not in "biufc" or str(array.dtype) != held):
        raise TypeError(f"a record says {dtype} and holds {array.dtype}")
    if array is not None and array.size > MAXIMUM_VALUES:
        raise ValueError(f"a record of {array.size:,} numbers")
    return Recorded(kind, text, dtype, array, items)
