"""Activation memory: the numbers that a network must hold while it runs, beside its weights.

An activation lives from the operator that writes it to the last one that reads it; the peak is the most that
is alive at one operator. For a chain of linear layers

    peak = max over the layers (in + out) · bytes of a number.

This is the least that a run without recomputation can do with. PyTorch itself may hold more (a variable in a
``forward`` keeps its tensor), and so may an operator for its own scratch; both are left out, and parameters.
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
    """The most bytes of activations that are alive at once in an evaluation run on the first of ``inputs``.

    The input counts, parameters and buffers do not. Memory that views share counts once, and whole.
    """
    sample = one_at_a_time(inputs)
    with evaluating(model), _Lifetimes(sample) as lifetimes:
        outputs = model(sample)
    return lifetimes.peak(outputs)


class _Lifetimes(TorchDispatchMode):
    """Notes of each storage the operator that first wrote it and the last one that read it.

    A storage that is read before any operator wrote it is a parameter, a buffer or a constant: no activation.
    """

    def __init__(self, sample: Tensor) -> None:
        super().__init__()
        self.now = 0
        storage = sample.untyped_storage()
        self.born, self.last = {storage._cdata: 0}, {storage._cdata: 0}
        self.kept = {storage._cdata: storage}  # all are kept, so that no address is used twice
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
        """The most bytes alive at any operator, given what the model returned (which lives to the end)."""
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
