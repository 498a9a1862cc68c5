"""What a student's function returned, as arrays and plain words: the only thing that a judge ever sees.

A value is described once, where the student's code ran, and from then on it is data: a ``Recorded`` knows
the name of the type, the dtype, the numbers. It has no methods of the student's, compares as numbers do,
and travels between processes as one ``.npz`` file without pickle.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compresslab.errors import CompressionError

__all__ = ["Recorded", "describe", "from_bytes", "same", "to_bytes"]

MAXIMUM_VALUES = 4_000_000  # numbers in one recorded array
MAXIMUM_ITEMS = 1_000  # entries of one list, tuple or dict
MAXIMUM_DEPTH = 6
MAXIMUM_TEXT = 400  # characters


@dataclass(frozen=True)
class Recorded:
    """One value: ``type`` always; ``array`` and ``dtype`` of a number or tensor; ``items`` of a list, tuple or dict.

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
    """The record of any value; what can't be recorded as numbers is recorded by the name of its type.

    >>> describe((1, 0.5)).items[1].type
    'float'
    """
    kind = type(value).__name__[:MAXIMUM_TEXT]
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value, kind)
    if isinstance(value, np.ndarray | np.generic):
        return _describe_array(np.asarray(value), kind)
    if type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
        return Recorded(kind, text=repr(value), dtype=kind, array=np.asarray(value))
    if type(value) is str:
        return Recorded(kind, text=value[:MAXIMUM_TEXT])
    if type(value) in (list, tuple, dict) and len(value) <= MAXIMUM_ITEMS and depth < MAXIMUM_DEPTH:  # type: ignore[arg-type]
        entries = value.items() if isinstance(value, dict) else value  # type: ignore[attr-defined]
        return Recorded(kind, items=tuple(describe(entry, depth + 1) for entry in entries))
    return Recorded(kind, text=_printed(value))


def _describe_tensor(value: torch.Tensor, kind: str) -> Recorded:
    plain = value.detach().as_subclass(torch.Tensor)
    if plain.layout != torch.strided or plain.numel() > MAXIMUM_VALUES:
        return Recorded(kind, text=f"a {plain.layout} tensor of shape {tuple(plain.shape)}")
    dtype = str(plain.dtype).removeprefix("torch.")
    if dtype == "bfloat16":  # numpy has no such type; float32 holds each of its values
        plain = plain.float()
    return Recorded(kind, dtype=dtype, array=plain.resolve_conj().resolve_neg().cpu().numpy().copy())


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


# One file, no pickle: the tree as JSON, with each array or tensor replaced by its number.


def to_bytes(tree: object) -> bytes:
    """A tree of dicts, lists, tuples, numbers, strings, tensors, arrays and records, as one ``.npz`` file."""
    arrays: dict[str, np.ndarray] = {}
    words = json.dumps(_flatten(tree, arrays))
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(words.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes) -> Any:
    """The tree that ``to_bytes`` wrote.

    Raises:
        CompressionError: the content is not such a file; it is never unpickled and never trusted.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return _unflatten(json.loads(arrays["tree"].tobytes().decode()), arrays)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
    ) as error:
        raise CompressionError(
            f"a record can't be read ({error}); expected the .npz that a worker writes"
        ) from error


def _flatten(node: object, arrays: dict[str, np.ndarray]) -> object:
    def keep(array: np.ndarray) -> str:
        arrays[f"array_{len(arrays)}"] = array
        return f"array_{len(arrays) - 1}"

    if isinstance(node, torch.Tensor):
        record = _describe_tensor(node, "Tensor")
        return {"tensor": keep(record.array), "dtype": record.dtype}  # type: ignore[arg-type]
    if isinstance(node, np.ndarray):
        return {"array": keep(node)}
    if isinstance(node, Recorded):
        fields = {"type": node.type, "text": node.text, "dtype": node.dtype}
        items = None if node.items is None else [_flatten(item, arrays) for item in node.items]
        return {"record": fields, "values": None if node.array is None else keep(node.array), "items": items}
    if isinstance(node, dict):
        return {"dict": [[key, _flatten(value, arrays)] for key, value in node.items()]}
    if isinstance(node, tuple):
        return {"tuple": [_flatten(value, arrays) for value in node]}
    if isinstance(node, list):
        return [_flatten(value, arrays) for value in node]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise CompressionError(f"a case or record holds numbers, strings and tensors, got {type(node).__name__}")


def _unflatten(node: Any, arrays: Any) -> Any:
    if isinstance(node, list):
        return [_unflatten(value, arrays) for value in node]
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return torch.from_numpy(arrays[node["tensor"]].copy()).to(getattr(torch, node["dtype"]))
    if "array" in node:
        return arrays[node["array"]]
    if "record" in node:
        items = None if node["items"] is None else tuple(_unflatten(item, arrays) for item in node["items"])
        values = None if node["values"] is None else arrays[node["values"]]
        return Recorded(**{k: str(v) for k, v in node["record"].items()}, array=values, items=items)
    if "tuple" in node:
        return tuple(_unflatten(value, arrays) for value in node["tuple"])
    return {key: _unflatten(value, arrays) for key, value in node["dict"]}
