"""Sparse storage of pruned layers: layers that compute densely and are written to the file without zeros.

A pruned layer is an ordinary layer with zeros in its weight, and its file is as large as before. Here it
becomes a layer that computes as before, with the dense weight, but is stored sparsely.

    file:  positions, values, bias          memory and arithmetic:  y = W x + b, zeros included

What it saves: bytes in the file; ``storage.sparse`` describes how many, and which format is the smallest at
which sparsity. What it costs: a name and a byte per layer, and time to write and read. What is left out:
memory and time of a run, which do not change.

The weight remains an ordinary parameter, so it can be trained and other techniques apply. The format is
chosen whenever the layer is written, and the file records it. A file can be loaded into any network of the
same structure made by ``store_sparsely``, trained or not, pruned or not.

Source: Han, Mao and Dally 2015, "Deep compression", arXiv:1510.00149.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compresslab.errors import DamagedFile
from compresslab.models.surgery import Layer, conv_settings, replace_modules, weight_layers
from compresslab.storage.sparse import FORMS, Form, checked_forms, from_smallest, to_smallest

__all__ = ["SparseConv2d", "SparseLinear", "store_sparsely"]


class SparseConv2d(nn.Conv2d):
    """A convolution that is stored without its zeros; its outputs are those of the given one.

    Args:
        layer: the convolution. Its weight and bias are copied.
        forms: the formats to choose from, at least one; the smallest is written.
    """

    forms: tuple[Form, ...]

    def __init__(self, layer: nn.Conv2d, *, forms: Sequence[Form] = FORMS) -> None:
        super().__init__(**conv_settings(layer), device="meta")
        _take_over(self, layer, forms)

    def parts(self) -> dict[str, Tensor]:
        """Return the stored form: ``positions`` and ``values`` of the weight, and the bias, if any."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``parts`` returned, in any format."""
        _load_parts(self, tensors)


class SparseLinear(nn.Linear):
    """A linear layer that is stored without its zeros: as ``SparseConv2d``."""

    forms: tuple[Form, ...]

    def __init__(self, layer: nn.Linear, *, forms: Sequence[Form] = FORMS) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        _take_over(self, layer, forms)

    def parts(self) -> dict[str, Tensor]:
        """Return the stored form: ``positions`` and ``values`` of the weight, and the bias, if any."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Load what ``parts`` returned, in any format."""
        _load_parts(self, tensors)


Sparse = SparseConv2d | SparseLinear


def store_sparsely(model: nn.Module, *, forms: Sequence[Form] = FORMS) -> nn.Module:
    """Return a copy whose Conv2d and Linear weights are stored without their zeros.

    Each layer is written in its smallest format. The default formats include the dense one, so a layer
    without zeros takes only a name and a byte more. Layers of other kinds (integers, a codebook) stay as they
    are. The given model is not changed and shares nothing with the copy.

    Args:
        model: with at least one Conv2d or Linear layer.
        forms: the formats to choose from, such as ``[BITMAP]`` or ``[relative_index(bits=4)]``.

    Raises:
        CompressionError: the model has no such layer, or there are no formats.
    """
    weight_layers(model)  # raises if there is none
    return replace_modules(copy.deepcopy(model), lambda name, module: _sparse(module, forms))


def _sparse(layer: nn.Module, forms: Sequence[Form]) -> nn.Module | None:
    # exactly these types: a subclass may multiply by something other than its weight
    if type(layer) not in (nn.Conv2d, nn.Linear, SparseConv2d, SparseLinear):
        return None
    make = SparseConv2d if isinstance(layer, nn.Conv2d) else SparseLinear
    return make(layer, forms=forms).train(layer.training)  # type: ignore[arg-type]


@torch.no_grad()
def _take_over(new: Sparse, layer: Layer, forms: Sequence[Form]) -> None:
    # new was built on "meta", so no memory and no random numbers are spent on weights that are replaced here
    new.forms = checked_forms(forms)
    new.weight = nn.Parameter(layer.weight.clone(), layer.weight.requires_grad)
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.clone(), layer.bias.requires_grad)


def _parts(layer: Sparse) -> dict[str, Tensor]:
    stored = to_smallest(layer.weight, forms=layer.forms)
    return stored if layer.bias is None else stored | {"bias": layer.bias}


@torch.no_grad()
def _load_parts(layer: Sparse, tensors: Mapping[str, Tensor]) -> None:
    stored = {"weight": from_smallest(tensors, layer.weight.shape)}
    if layer.bias is not None:
        stored["bias"] = tensors["bias"]
    for name, tensor in stored.items():
        mine = getattr(layer, name)
        if (tensor.shape, tensor.dtype) != (mine.shape, mine.dtype):
            raise DamagedFile(
                f"{name} must be {tuple(mine.shape)} {mine.dtype}, got {tuple(tensor.shape)} "
                f"{tensor.dtype}; load into a network of the structure and the dtype of the one that was "
                "saved"
            )
    for name, tensor in stored.items():
        getattr(layer, name).copy_(tensor)
