"""Inference with ONNX Runtime: no Python per operation, and integer kernels for quantized networks.

Before the first image the engine optimizes the graph: it fuses operations, and it replaces each sequence of
DequantizeLinear, an operation and QuantizeLinear by the operation's integer kernel (QLinearConv, QGemm,
QLinearAdd). ``Deployed.node_kinds`` lists the operations that it runs.

What it saves: most of the time, on a processor with VNNI instructions. What it costs: an engine in addition
to PyTorch. What is left out: other engines, graphics cards, more than one input. An ONNX file has no
checksum, so a damaged weight in an otherwise intact file is not detected.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compresslab.errors import BadSetting, DamagedFile, check_whole

if TYPE_CHECKING:  # each takes a quarter of a second to import
    import onnx
    import onnxruntime

__all__ = ["Deployed", "has_vnni", "load_deployed", "read_onnx"]


@dataclass(frozen=True)
class Deployed:
    """A network in ONNX Runtime: images (n, 1, 28, 28) → logits (n, classes), float32.

    Attributes:
        path: the ONNX file.
        storage_bytes: the size of that file.
        threads: processor threads that the engine uses.
        session: the engine's session.
    """

    path: Path
    storage_bytes: int
    threads: int
    session: onnxruntime.InferenceSession = field(repr=False, compare=False)

    def __call__(self, x: Tensor) -> Tensor:
        (entry,) = self.session.get_inputs()
        try:
            (logits,) = self.session.run(None, {entry.name: x.detach().contiguous().numpy()})
        except Exception as error:  # the engine's exceptions have no class of their own in common
            raise BadSetting(
                f"{self.path.name} can't run on {tuple(x.shape)} {x.dtype}; it takes float32 images "
                f"{tuple(entry.shape)}: try images.inputs() ({_short(error)})"
            ) from error
        return torch.from_numpy(logits)

    def node_kinds(self) -> dict[str, int]:
        """Return the number of nodes of each kind in the graph as optimized by the engine."""
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            _session(self.path.read_bytes(), self.threads, optimized=optimized)
            kinds = [node.op_type for node in read_onnx(optimized).graph.node]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def load_deployed(path: str | Path, *, threads: int = 1) -> Deployed:
    """Load an ONNX file into ONNX Runtime on the CPU.

    The file contains data and no code, but a malicious one may still use much memory or time.

    Raises:
        CompressionError: the file is missing, damaged, no ONNX file or beyond the engine's abilities, or
            ``threads`` is not positive.
    """
    threads = check_whole("threads", threads, hint="1 is the steadiest")
    path = Path(path)
    content = read_onnx(path).SerializeToString()
    try:
        session = _session(content, threads)
    except Exception as error:  # the engine's exceptions have no class of their own in common
        raise DamagedFile(f"{path} can't be run ({_short(error)}); expected {_EXPECTED}") from error
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise DamagedFile(
            f"{path} has {len(session.get_inputs())} inputs and {len(session.get_outputs())} outputs, "
            f"not one of each; expected {_EXPECTED}"
        )
    return Deployed(path, os.path.getsize(path), threads, session)


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Read the graph of an ONNX file; a file that refers to other files for its weights is refused.

    Raises:
        DamagedFile: the file is missing, empty, damaged or no ONNX file, or has external weights.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        content = Path(path).read_bytes()
        model = onnx.load_from_string(content)
    except OSError as error:
        raise DamagedFile(f"{path} can't be read ({error.strerror}); expected {_EXPECTED}") from error
    except (DecodeError, ValueError, RuntimeError) as error:
        came = f"holds {len(content):,} bytes that are no ONNX graph ({_short(error)})"
        raise DamagedFile(f"{path} {came}; expected {_EXPECTED}") from error
    if not model.graph.node:
        raise DamagedFile(f"{path} holds {len(content):,} bytes without a graph; expected {_EXPECTED}")
    if any(isinstance(part, onnx.TensorProto) and part.external_data for part in _all_parts(model)):
        raise DamagedFile(f"{path} keeps its weights in other files; expected {_EXPECTED}")
    return model


def has_vnni() -> bool:
    """Return whether this processor multiplies bytes and adds the products in 32 bits (VNNI).

    Other x86 processors first add pairs of products in 16 bits, which can overflow: quantize for those with
    ``reduce_range=True``. If torch can't detect it, the result is False, the safe choice.
    """
    supported = getattr(torch.cpu, "_is_vnni_supported", None)  # private, so it may disappear
    return supported is not None and bool(supported())


_EXPECTED = "an ONNX file by write_onnx. Write it again, or get it back from where it came"


def _session(content: bytes, threads: int, *, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # fatal only: errors arrive as exceptions
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    cpu = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, options, cpu, enable_fallback=0)  # a fallback prints


def _all_parts(message) -> Iterator[object]:
    """Iterate over a protobuf message and all messages inside it, at any depth: graphs, nodes, tensors."""
    yield message
    for description, value in message.ListFields():
        if description.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _all_parts(inner)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
