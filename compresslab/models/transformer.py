"""A small vision transformer that returns its hidden states and attention scores.

An image is divided into square patches. Each patch becomes a *token*, a vector of ``width`` numbers, plus a
learned vector for its position. In each block, attention mixes all tokens and a small perceptron then
transforms each token separately; both read the normalised tokens (pre-norm) and add their result to them.

    A = Q Kᵀ / √d                         the attention matrix of one head: scores (tokens, tokens)
    attention(x) = W · concat over heads (softmax(A) V)

The linear head reads the mean over the tokens of the last block. Attention is written as matrix products and
a softmax, not with torch's fused operator, so that its scores can be returned and its MACs counted
(``compresslab.measurement.costs``). Left out: dropout, a class token (the mean replaces it) and masks.

Source: Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762; Dosovitskiy et al. 2020, "An image
is worth 16 × 16 words", arXiv:2010.11929, for patches as tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compresslab.errors import BadSetting

__all__ = ["Attention", "PatchTransformer", "TransformerBlock"]

_SIDE = 28  # height and width of an image in pixels


class Attention(nn.Module):
    """Self-attention: tokens (n, tokens, width) → the same shape, and the scores (n, heads, tokens, tokens).

    The scores are the inputs of the softmax: unnormalised, already divided by √d.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, tokens, width = x.shape
        stacked = self.queries_keys_values(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = stacked.permute(2, 0, 3, 1, 4)  # each (n, heads, tokens, d)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (n, heads, tokens, tokens)
        taken = scores.softmax(dim=-1) @ v  # (n, heads, tokens, d)
        return self.join(taken.transpose(1, 2).reshape(n, tokens, width)), scores


class TransformerBlock(nn.Module):
    """Attention, then a perceptron four times as wide, each added to its input; shapes as ``Attention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        taken, scores = self.attention(self.norm1(x))
        x = x + taken
        return x + self.perceptron(self.norm2(x)), scores


class PatchTransformer(nn.Module):
    """Grey images (n, 1, 28, 28) → logits (n, 10).

    Args:
        patch: height and width of a patch in pixels, a divisor of 28: 7 gives 16 tokens, 4 gives 49.
        width: numbers per token.
        heads: attention matrices per block, a divisor of ``width``.
        blocks: number of blocks, at least 1.

    Raises:
        CompressionError: a setting does not divide as stated, or is not positive.
    """

    def __init__(self, *, patch: int = 7, width: int = 32, heads: int = 2, blocks: int = 2) -> None:
        super().__init__()
        _check(patch, width, heads, blocks)
        self.embed = nn.Conv2d(1, width, patch, stride=patch)  # the same linear map for every patch
        self.positions = nn.Parameter(0.02 * torch.randn(1, (_SIDE // patch) ** 2, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def outputs(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return logits, hidden states and attention scores.

        Returns:
            logits: (n, 10).
            states: blocks + 1 tensors (n, tokens, width): the embedding, then the output of each block.
            scores: one (n, heads, tokens, tokens) per block, before the softmax.
        """
        states = [self.embed(images).flatten(2).transpose(1, 2) + self.positions]
        matrices = []
        for block in self.blocks:
            state, scores = block(states[-1])
            states.append(state)
            matrices.append(scores)
        return self.head(self.norm(states[-1]).mean(dim=1)), states, matrices

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(images)[0]


def _check(patch: int, width: int, heads: int, blocks: int) -> None:
    if patch < 1 or _SIDE % patch:
        raise BadSetting(f"patch must be a divisor of {_SIDE}, got {patch}; 7 makes 16 tokens, 4 makes 49")
    if min(width, heads) < 1 or width % heads:
        raise BadSetting(
            f"heads must be a divisor of width, got {heads} heads for a width of {width}; try "
            "width=32, heads=2"
        )
    if blocks < 1:
        raise BadSetting(f"blocks must be a whole number from 1 up, got {blocks}; 2 make a small student")
