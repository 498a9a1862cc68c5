"""Writing a pruned network so that its file is really smaller: layers that leave their zeros out of it.

A pruned layer is an ordinary layer with zeros in its weight, and its file is as large as before. Here it
becomes a layer that computes just as it did, with the dense weight, and is written sparsely.

    file:  positions, values, bias          memory and arithmetic:  y = W x + b, zeros included

What it saves: bytes in the file; how many, and which form is the smallest at which sparsity, says the page
``storage.sparse``. What it costs: a name and a byte more a layer, and time to write and to read it. It saves
neither memory nor time when the network runs.

The weight remains an ordinary parameter, so training goes on and other techniques apply. The form is chosen
anew whenever the layer is written, and the file says which one it was: to load it, any network of the same
structure that went through ``store_sparsely`` will do, trained or not, pruned or not.

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
    """A convolution whose file leaves its zeros out; it computes as the given one does.

    Args:
        layer: the convolution. Its weight and bias are copied.
        forms: the forms to choose from, at least one; the smallest is written.
    """

    forms: tuple[Form, ...]

    def __init__(self, layer: nn.Conv2d, *, forms: Sequence[Form] = FORMS) -> None:
        super().__init__(**conv_settings(layer), device="meta")
        _take_over(self, layer, forms)

    def parts(self) -> dict[str, Tensor]:
        """What the file holds: ``positions`` and ``values`` of the weight, and the bias if there is one."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``parts`` gave, in whichever form."""
        _load_parts(self, tensors)


class SparseLinear(nn.Linear):
    """A linear layer whose file leaves its zeros out: as ``SparseConv2d``."""

    forms: tuple[Form, ...]

    def __init__(self, layer: nn.Linear, *, forms: Sequence[Form] = FORMS) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        _take_over(self, layer, forms)

    def parts(self) -> dict[str, Tensor]:
        """What the file holds: ``positions`` and ``values`` of the weight, and the bias if there is one."""
        return _parts(self)

    def load_parts(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``parts`` gave, in whichever form."""
        _load_parts(self, tensors)


Sparse = SparseConv2d | SparseLinear


def store_sparsely(model: nn.Module, *, forms: Sequence[Form] = FORMS) -> nn.Module:
    """A copy of the model whose Conv2d and Linear weights go to a file without their zeros.

    Each layer is written in that of the forms which takes the fewest bytes; one of those that are given by
    default is dense, so that a layer without zeros takes only a name and a byte more. A layer of another kind
    (integers, a codebook) stays as it is. The given model is left alone and nothing is shared with it.

    Args:
        model: with at least one Conv2d or Linear layer.
        forms: what to choose from, such as ``[BITMAP]`` or ``[relative_index(bits=4)]``.

    Raises:
        CompressionError: no such layer, or no forms.
    """
    weight_layers(model)  # raises if there is none
    return replace_modules(copy.deepcopy(model), lambda name, module: _sparse(module, forms))


def _sparse(layer: nn.Module, forms: Sequence[Form]) -> nn.Module | None:
    # the very types: a subclass may multiply with something other than its weight
    if type(layer) not in (nn.Conv2d, nn.Linear, SparseConv2d, SparseLinear):
        return None
    make = SparseConv2d if isinstance(layer, nn.Conv2d) else SparseLinear
    return make(layer, forms=forms).train(layer.training)  # type: ignore[arg-type]


@torch.no_grad()
def _take_over(new: Sparse, layer: Layer, forms: Sequence[Form]) -> None:
    # new was built on "meta": neither memory nor random numbers are spent on weights that are replaced here
    new.forms = checked_forms(forms)
    new.weight = nn.Parameter(layer.weight.clone(), layer.weight.requires_grad)
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.clone(), layer.bias.requires_grad)


def _parts(layer: Sparse) -> dict[str, Tensor]:
    held = to_smallest(layer.weight, forms=layer.forms)
    return held if layer.bias is None else held | {"bias": layer.bias}


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
