"""ONNX Runtime runs the file: no Python in the loop, and kernels that multiply bytes.

Before the first image the engine rewrites the graph: it joins what can be done in one go, and where a
DequantizeLinear, an operation and a QuantizeLinear follow each other it takes the operation's integer kernel
(QLinearConv, QGemm, QLinearAdd). ``Deployed.node_kinds`` says what it really runs.

What it saves: most of the time, where the processor has the instructions (VNNI). What it costs: an engine
beside PyTorch. What is left out: other engines, graphics cards, more than one input. An ONNX file has no
checksum: a damaged weight in a file that is otherwise whole goes unseen.
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

from compresslab.errors import BadSetting, DamagedFile

if TYPE_CHECKING:  # a quarter of a second each: only who deploys waits for them
    import onnx
    import onnxruntime

__all__ = ["Deployed", "has_vnni", "load_deployed", "read_onnx"]


@dataclass(frozen=True)
class Deployed:
    """A network in ONNX Runtime: called with images (n, 1, 28, 28), it returns logits (n, classes), float32.

    Attributes:
        path: the file it was read from.
        storage_bytes: the size of that file.
        threads: processor threads that the engine uses.
        session: the engine's own handle.
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
        """How many nodes of each kind the engine runs once it has rewritten the graph, by name."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "rewritten.onnx"
            _session(self.path.read_bytes(), self.threads, rewritten=place)
            kinds = [node.op_type for node in read_onnx(place).graph.node]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def load_deployed(path: str | Path, *, threads: int = 1) -> Deployed:
    """The network of an ONNX file, ready to run on this processor.

    Such a file is data and not code; a hostile one may still ask for much memory or time.

    Raises:
        CompressionError: missing, damaged, no ONNX, or more than the engine can run; or not one thread.
    """
    if not isinstance(threads, int) or threads < 1:
        raise BadSetting(f"threads is a whole number from 1 up, got {threads}; 1 is the steadiest")
    place = Path(path)
    content = read_onnx(place).SerializeToString()
    try:
        session = _session(content, threads)
    except Exception as error:  # the engine's exceptions have no class of their own in common
        raise DamagedFile(f"{place} can't be run ({_short(error)}); expected {_EXPECTED}") from error
    if len(session.get_inputs()) != 1 or len(session.get_outputs()) != 1:
        raise DamagedFile(
            f"{place} has {len(session.get_inputs())} inputs and {len(session.get_outputs())} outputs, "
            f"not one of each; expected {_EXPECTED}"
        )
    return Deployed(place, os.path.getsize(place), threads, session)


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """The graph of an ONNX file, all of its weights inside; one that names other files is refused.

    Raises:
        CompressionError: missing, empty, damaged, or no such file at all.
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
    """Whether this processor multiplies bytes and sums the products in 32 bits in one instruction (VNNI).

    Other x86 processors sum pairs in 16 bits on the way, which overflow: quantize for those with
    ``reduce_range=True``. Where torch can't tell, the answer is False, the careful one.
    """
    supported = getattr(torch.cpu, "_is_vnni_supported", None)  # private, so it may go
    return supported is not None and bool(supported())


_EXPECTED = "an ONNX file by write_onnx. Write it again, or get it back from where it came"


def _session(content: bytes, threads: int, *, rewritten: Path | None = None) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what is wrong comes as an exception
    if rewritten is not None:
        options.optimized_model_filepath = str(rewritten)
    cpu = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, options, cpu, enable_fallback=0)  # it would print


def _all_parts(message) -> Iterator[object]:
    """A protobuf message and all messages inside it: graphs, nodes, tensors, at any depth."""
    yield message
    for description, value in message.ListFields():
        if description.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _all_parts(inner)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
