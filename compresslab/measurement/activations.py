"""Peak activation memory of an evaluation run.

An activation is alive from the operator that writes it to the last operator that reads it. The peak is the
largest sum of live activations at any operator. For a chain of linear layers

    peak = max over the layers (in + out) · bytes per number.

This is a lower bound for a run without recomputation. Left out: memory that PyTorch holds longer (a variable
in a ``forward`` keeps its tensor), an operator's own workspace, and the parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compresslab.measurement.timing import one_at_a_time
from compresslab.models.surgery import evaluating

__all__ = ["peak_activation_bytes"]


def peak_activation_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Return the peak bytes of live activations in an evaluation run on the first sample of ``inputs``.

    The input counts; parameters and buffers do not. Memory shared by views counts once, with its full size.
    """
    sample = one_at_a_time(inputs)
    with evaluating(model), _Lifetimes(sample) as lifetimes:
        outputs = model(sample)
    return lifetimes.peak(outputs)


class _Lifetimes(TorchDispatchMode):
    """Record for each storage which operator first wrote it and which one last read it.

    A storage that is read before any operator has written it is a parameter, a buffer or a constant, and
    does not count.
    """

    def __init__(self, sample: Tensor) -> None:
        super().__init__()
        self.now = 0
        storage = sample.untyped_storage()
        self.born, self.last = {storage._cdata: 0}, {storage._cdata: 0}
        self.kept = {storage._cdata: storage}  # all are kept alive, so that no address is reused
        self.constant: set[int] = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.now += 1
        for storage in _storages((args, kwargs)):
            self.kept[storage._cdata] = storage
            if storage._cdata not in self.born:
                self.constant.add(storage._cdata)
            self.last[storage._cdata] = self.now
        for storage in _storages(result):
            self.kept[storage._cdata] = storage
            if storage._cdata not in self.constant:
                self.born.setdefault(storage._cdata, self.now)
                self.last[storage._cdata] = self.now
        return result

    def peak(self, outputs: object) -> int:
        """Return the peak of live bytes; ``outputs``, which the model returned, live until the end."""
        self.last |= {storage._cdata: self.now for storage in _storages(outputs)}
        change = dict.fromkeys(range(self.now + 2), 0)
        for key, start in self.born.items():
            change[start] += self.kept[key].nbytes()
            change[self.last[key] + 1] -= self.kept[key].nbytes()
        alive, most = 0, 0
        for step in sorted(change):
            alive += change[step]
            most = max(most, alive)
        return most


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
