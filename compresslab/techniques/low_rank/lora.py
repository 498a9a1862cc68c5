"""LoRA, the cousin: the network stays as it is, and what it learns anew is low-rank.

A factorisation says that trained *weights* need few directions. LoRA bets that a *change* of them, for a new
task, needs even fewer: the layer W is frozen, and beside it learn two thin ones,

    y = W x + (α / r) B A x,        A (r, n) random,   B (m, r) zero at first

so at first nothing changes. Afterwards the update is merged, W ← W + (α / r) B A, and the network looks and
costs as before, but for what it says.

What it saves: what is trained, stored and sent for each task, r (m + n) numbers a layer instead of m n; the
optimizer's memory with it. What it costs: nothing when it runs, once merged. What is left out: convolutions
(as in the paper, linear layers are adapted), dropout on the update's input. It does not make the network
itself smaller.

Source: Hu et al. 2021, "LoRA: Low-rank adaptation of large language models", arXiv:2106.09685.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting, Unsupported
from compresslab.models.surgery import replace_modules
from compresslab.techniques.low_rank.svd import is_whole

__all__ = ["UpdatedLinear", "add_updates", "merge_updates"]


class UpdatedLinear(nn.Module):
    """A frozen linear layer and a low-rank update beside it: (…, n) → (…, m).

    Args:
        layer: nn.Linear, which it takes over and freezes.
        rank: of the update.
        alpha: its scale is alpha / rank, so that another rank needs no other learning rate.
        generator: of the first A; B begins at zero.
    """

    def __init__(self, layer: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
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
        """The linear layer that does the same, all of it trainable again."""
        whole = copy.deepcopy(self.layer)
        whole.weight += self.scale * self.b @ self.a
        return whole.requires_grad_(True)


def add_updates(model: nn.Module, *, rank: int, generator: torch.Generator, alpha: float = 1.0) -> nn.Module:
    """A copy of the model that is frozen but for a low-rank update at each Linear layer; it answers alike.

    The given model is left alone and nothing is shared with it.

    Args:
        model: with at least one Linear layer.
        rank: of every update, at least 1; a layer that is smaller gets an update of its full rank.
        generator: of the first A of each.
        alpha: the update's scale is alpha / rank.

    Raises:
        BadSetting: rank or alpha out of range.
        Unsupported: no Linear layer.
    """
    if not is_whole(rank, 1, math.inf):
        raise BadSetting(f"rank must be a whole number from 1 up, got {rank}; LoRA often takes 4 or 8")
    if not 0 < alpha < math.inf:
        raise BadSetting(f"alpha must be a positive number, got {alpha}; the same as rank makes a scale of 1")

    def update(name: str, layer: nn.Module) -> nn.Module | None:
        if type(layer) is not nn.Linear:
            return None
        most = min(rank, *layer.weight.shape)  # the scale stays that of the rank asked for
        updated = UpdatedLinear(layer, rank=most, alpha=alpha * most / rank, generator=generator)
        return updated.train(layer.training)

    _refuse_without(nn.Linear, model, "a Linear layer to adapt")
    return replace_modules(copy.deepcopy(model).requires_grad_(False), update)


def merge_updates(model: nn.Module) -> nn.Module:
    """A copy of the model with each update added to its layer: the same answers, ordinary layers.

    Raises:
        Unsupported: no update in it.
    """

    def merge(name: str, layer: nn.Module) -> nn.Module | None:
        return layer.merged() if isinstance(layer, UpdatedLinear) else None

    _refuse_without(UpdatedLinear, model, "updates to merge, as add_updates makes them")
    return replace_modules(copy.deepcopy(model), merge).requires_grad_(True)


def _refuse_without(kind: type[nn.Module], model: nn.Module, wanted: str) -> None:
    if not any(type(module) is kind for module in model.modules()):
        raise Unsupported(
            f"model must have {wanted}, got {type(model).__name__} without any; give the whole network"
        )
