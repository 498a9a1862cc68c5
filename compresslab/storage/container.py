"""Model files: a whole network, compressed or not, in one safetensors file with a checksum.

A model is stored as named tensors. A module with a smaller representation implements
``parts() -> {part: tensor}`` (packed values, indices, a codebook, scales) and ``load_parts(tensors)``, which
restores it; any other module is stored as its own parameters and buffers. Each tensor is called
``<module>/<part>``, and a tensor that two modules share is written once.

The file is a table of names, dtypes and shapes, followed by the raw bytes. It contains no code, so loading an
untrusted file executes none. A checksum in the file's metadata covers the table and the bytes, so a damaged
file raises an error instead of loading as a slightly different model.

>>> from torch import nn
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     print(save_model(nn.Linear(3, 2), Path(folder) / "tiny.safetensors").parts)
{'/weight': 24, '/bias': 8}
"""

from __future__ import annotations

import copy
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from compresslab.errors import DamagedFile, Unsupported
from compresslab.storage.atomic import write_tensors

__all__ = ["Ledger", "load_model", "read", "save_model", "write"]

Part = tuple[nn.Module, str, Tensor]  # its module, its name within that module, its values
NOTE = "compresslab"  # the key of our metadata in the safetensors table


@dataclass(frozen=True)
class Ledger:
    """The sizes of a file's parts: ``parts`` {name: bytes} in the given order, and ``header`` in bytes.

    The header is the table of names with its length field. Parts and header sum to the size of the file.
    """

    parts: Mapping[str, int]
    header: int

    @property
    def total(self) -> int:
        """Size of the whole file in bytes."""
        return sum(self.parts.values()) + self.header

    def of_module(self, name: str) -> int:
        """Bytes of the module's own tensors, without those of its children."""
        return sum(size for part, size in self.parts.items() if part.rpartition("/")[0] == name)


def save_model(model: nn.Module, path: str | Path) -> Ledger:
    """Save the model to one file, atomically, and return the sizes of its parts; the model is unchanged.

    Raises:
        Unsupported: a tensor is not plain and dense.
        NotAvailable: the path can't be written.
    """
    return write(path, {name: tensor for name, (_, _, tensor) in _layout(model).items()})


def load_model(path: str | Path, *, into: nn.Module) -> nn.Module:
    """Load a file into a copy of ``into``, which gives the structure and is not changed.

    Raises:
        DamagedFile: the file is missing or damaged, or contains a different model.
    """
    stored, _ = read(path)
    model = copy.deepcopy(into)
    layout = _layout(model)
    _check_names(path, stored, {name: tensor for name, (_, _, tensor) in layout.items()})
    packed: dict[nn.Module, dict[str, Tensor]] = {}
    for name, (module, part, tensor) in layout.items():
        if _has_parts(module):
            packed.setdefault(module, {})[part] = stored[name]
        else:
            _copy(path, name, tensor, stored[name])
    for module, tensors in packed.items():
        _load_parts(path, module, tensors)
    return model


def write(path: str | Path, parts: Mapping[str, Tensor], *, note: Mapping[str, Any] | None = None) -> Ledger:
    """Write named tensors and a note of JSON values to one file, atomically; shared tensors are written once.

    Raises:
        Unsupported: a tensor is not plain and dense.
        NotAvailable: the path can't be written.
    """
    place = Path(path)
    aliases = _aliases(parts)
    tensors = {name: _plain(name, tensor) for name, tensor in parts.items() if name not in aliases}
    entry = {"aliases": aliases, "note": dict(note or {})}
    text = json.dumps(entry | {"checksum": _checksum(tensors, entry)}, sort_keys=True)
    write_tensors(place, tensors, metadata={NOTE: text})
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    return Ledger(sizes, os.path.getsize(place) - sum(sizes.values()))


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the named tensors and the note of a file; names that shared a tensor share it again.

    Raises:
        DamagedFile: the file is missing, empty, truncated, damaged, or was not written by ``write``.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DamagedFile(f"{path} can't be read ({error.strerror}); expected {_EXPECTED}") from error
    try:
        tensors = load(content)  # checks the table: lengths, offsets, shapes
        entry = json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][NOTE]
        )
        checksum = entry.pop("checksum")
        if checksum != _checksum(tensors, entry):
            raise ValueError("its checksum does not fit: a part of it was changed")
        tensors |= {name: tensors[original] for name, original in entry["aliases"].items()}
        return tensors, entry["note"]
    except _DAMAGED as error:
        came = (
            f"holds {len(content):,} bytes that can't be understood ({_short(error)})"
            if content
            else "is empty"
        )
        raise DamagedFile(f"{path} {came}; expected {_EXPECTED}") from error


_EXPECTED = "a file written by save_model. Write it again, or get it back from where it came"
_DAMAGED = (
    SafetensorError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OSError,
)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def _has_parts(module: nn.Module) -> bool:
    # looked up on the class, because an instance may have a submodule called "parts"
    return callable(getattr(type(module), "parts", None)) and callable(
        getattr(type(module), "load_parts", None)
    )


def _layout(model: nn.Module) -> dict[str, Part]:
    """{"<module>/<part>": Part} in module order; a module used twice is listed once."""
    return {
        f"{name}/{part}": (module, part, tensor)
        for name, module in _modules(model, "", set())
        for part, tensor in _tensors(module).items()
    }


def _modules(module: nn.Module, name: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    yield name, module
    if not _has_parts(module):  # its parts include its children
        for child, inner in module.named_children():
            yield from _modules(inner, f"{name}.{child}" if name else child, seen)


def _tensors(module: Any) -> dict[str, Tensor]:
    """The tensors to store for a module: its parts, or its own entries in the state dict."""
    if _has_parts(module):
        return dict(module.parts())
    buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    return {name: tensor for name, tensor in (module._parameters | buffers).items() if tensor is not None}


def _aliases(parts: Mapping[str, Tensor]) -> dict[str, str]:
    """{name: earlier name} for every tensor that shares the memory of an earlier one."""
    first: dict[tuple, str] = {}
    earlier = {name: first.setdefault(_memory(name, tensor), name) for name, tensor in parts.items()}
    return {name: original for name, original in earlier.items() if name != original}


def _memory(name: str, tensor: Tensor) -> tuple:
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return (name,)  # an empty tensor has no memory to share
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _plain(name: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise Unsupported(
            f"{name} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}; "
            "a file holds plain dense tensors. "
            "Give its module parts() that returns values, indices or scales as tensors of their own"
        )
    return tensor.detach().cpu().contiguous().clone()


def _checksum(tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> int:
    """CRC-32 over the metadata, every name, dtype and shape, and all bytes."""
    value = zlib.crc32(json.dumps(entry, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        flat = tensor.reshape(-1)
        value = zlib.crc32(flat.view(torch.uint8).numpy().data if len(flat) else b"", value)
    return value


def _check_names(path: str | Path, stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    odd = sorted(stored.keys() ^ wanted.keys())
    if odd:
        where = "only in the file" if odd[0] in stored else "only in the model"
        raise DamagedFile(
            f"{path} holds another model: {odd[0]} is {where}. It has {len(stored)} tensors, the model "
            f"given as into= has {len(wanted)}; give a model with the structure of the one that was saved"
        )
    tied = _aliases(stored)
    if tied != _aliases(wanted):
        name = sorted(tied.items() ^ _aliases(wanted).items())[0][0]
        raise DamagedFile(
            f"{path} and the model given as into= do not share the same tensors: {name} differs; "
            "tie the weights of the model as they were when it was saved"
        )


def _copy(path: str | Path, name: str, target: Tensor, source: Tensor) -> None:
    if (target.shape, target.dtype) != (source.shape, source.dtype):
        raise DamagedFile(
            f"{path} has {name} as {tuple(source.shape)} {source.dtype}; the model given as into= wants "
            f"{tuple(target.shape)} {target.dtype}; give a model with the structure of the one that was saved"
        )
    with torch.no_grad():
        target.copy_(source)


def _load_parts(path: str | Path, module: Any, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_parts(tensors)
    except _DAMAGED as error:
        raise DamagedFile(
            f"{path}: {type(module).__name__} can't be rebuilt from {', '.join(tensors)} ({_short(error)}); "
            "give a model with the structure of the one that was saved"
        ) from error
