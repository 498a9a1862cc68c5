"""LoRA: low-rank adaptation, which freezes a network and trains low-rank updates of its linear layers.

Factorization assumes that trained *weights* have low rank. LoRA assumes that their *change* for a new task
has an even lower rank: the layer W is frozen, and two small matrices are trained beside it,

    y = W x + (α / r) B A x,        A (r, n) random,   B (m, r) zero at first

so that at first nothing changes. Afterwards the update is merged, W ← W + (α / r) B A, and the network has
the same structure and cost as before.

What it saves: numbers trained and stored per task, r (m + n) per layer instead of m n, and the optimizer's
memory for them. What it costs: nothing at run time, once merged. What is left out: convolutions (as in the
paper, linear layers are adapted), and dropout on the update's input. It does not make the network smaller.

Source: Hu et al. 2021, "LoRA: Low-rank adaptation of large language models", arXiv:2106.09685.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, Unsupported, check_whole
from compresslab.models.surgery import replace_modules

__all__ = ["UpdatedLinear", "add_updates", "merge_updates"]


class UpdatedLinear(nn.Module):
    """A frozen linear layer and a low-rank update beside it: (…, n) → (…, m).

    Args:
        layer: nn.Linear, which is used as it is and frozen.
        rank: of the update.
        alpha: the update's scale is alpha / rank, so that the learning rate does not depend on the rank.
        generator: for the initial A; B starts at zero.
    """

    def __init__(self, layer: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rank = check_whole("rank", rank, hint="LoRA often takes 4 or 8")
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        bound = 1 / math.sqrt(layer.in_features)
        first = torch.rand(rank, layer.in_features, generator=generator, dtype=layer.weight.dtype)
        self.a = nn.Parameter(bound * (2 * first - 1))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, dtype=layer.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * (x @ self.a.T) @ self.b.T

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the equivalent linear layer, with all weights trainable."""
        whole = copy.deepcopy(self.layer)
        whole.weight += self.scale * self.b @ self.a
        return whole.requires_grad_(True)


def add_updates(model: nn.Module, *, rank: int, generator: torch.Generator, alpha: float = 1.0) -> nn.Module:
    """Return a frozen copy of the model with a trainable low-rank update at each Linear layer.

    Its outputs are at first those of the model. The given model is not changed and shares nothing with the
    copy.

    Args:
        model: with at least one Linear layer.
        rank: of every update, at least 1; a layer that is smaller gets an update of its full rank.
        generator: for the initial A of each update.
        alpha: the update's scale is alpha / rank.

    Raises:
        BadSetting: rank or alpha is out of range.
        Unsupported: no Linear layer.
    """
    rank = check_whole("rank", rank, hint="LoRA often takes 4 or 8")
    if not 0 < alpha < math.inf:
        raise BadSetting(f"alpha must be a positive number, got {alpha}; the same as rank makes a scale of 1")

    def update(name: str, layer: nn.Module) -> nn.Module | None:
        if type(layer) is not nn.Linear:
            return None
        most = min(rank, *layer.weight.shape)  # the scale stays that of the given rank
        updated = UpdatedLinear(layer, rank=most, alpha=alpha * most / rank, generator=generator)
        return updated.train(layer.training)

    _require(nn.Linear, model, "a Linear layer to adapt")
    return replace_modules(copy.deepcopy(model).requires_grad_(False), update)


def merge_updates(model: nn.Module) -> nn.Module:
    """Return a copy of the model with each update added to its layer: the same outputs, ordinary layers.

    Raises:
        Unsupported: the model has no update.
    """

    def merge(name: str, layer: nn.Module) -> nn.Module | None:
        return layer.merged() if isinstance(layer, UpdatedLinear) else None

    _require(UpdatedLinear, model, "updates to merge, as add_updates makes them")
    return replace_modules(copy.deepcopy(model), merge).requires_grad_(True)


def _require(kind: type[nn.Module], model: nn.Module, wanted: str) -> None:
    if not any(type(module) is kind for module in model.modules()):
        raise Unsupported(
            f"model must have {wanted}, got {type(model).__name__} without any; give the whole network"
        )
