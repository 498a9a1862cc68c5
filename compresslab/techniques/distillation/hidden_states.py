"""Attention and hidden states: a small transformer learns what happens inside a large one, layer by layer.

A student of M layers is held against M of the teacher's N: layer m against layer g(m), evenly spaced. There
it imitates what the tokens look at (the attention matrices of all heads) and what they have become (the
hidden states; the embedding is the 0-th). A student's state is narrower: a learned matrix W takes it to the
teacher's width, and is thrown away after training.

    g(m) = m · N / M,        m = 0 … M
    L_attention = Σ_{m=1…M} 1/h · Σ_heads MSE(A_m, A'_g(m))
    L_hidden    = Σ_{m=0…M} MSE(H_m W, H'_g(m))                                 ' is the teacher's, held fixed

The attention matrices are the scores Q Kᵀ / √d *before* the softmax: the paper found that fitting them
converges faster and gives better results than fitting the probabilities.

What it saves: nothing itself; it makes a student of fewer and narrower layers usable. What it costs: the
teacher's run in every step (tokens × tokens scores for each head are large to store), and W while training.
What is left out: the third term, which is ``response_loss``; a weight for each layer (1 in the paper); and
the paper's two stages with their augmentation of text.

Source: Jiao et al. 2019, "TinyBERT: distilling BERT for natural language understanding", arXiv:1909.10351.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting
from compresslab.techniques.distillation.response import full_precision

__all__ = ["Projection", "attention_matrix_loss", "hidden_state_loss", "layer_map"]


def layer_map(layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's layer g(m) for each of the student's, m = 0 … layers; 0 is the embedding.

    Args:
        layers: the student's, from 1 up.
        teacher_layers: a multiple of them.

    Raises:
        CompressionError: layers that don't divide the teacher's.

    >>> layer_map(4, 12)
    (0, 3, 6, 9, 12)
    """
    if layers < 1 or teacher_layers < 1 or teacher_layers % layers:
        raise BadSetting(
            f"the student's layers divide the teacher's, got {layers} and {teacher_layers}; try 2 and 4"
        )
    return tuple(m * teacher_layers // layers for m in range(layers + 1))


class Projection(nn.Module):
    """The student's hidden states in the teacher's width: for training alone, never shipped.

    As in the paper, one matrix for the embedding and one for the states of all blocks.

    Args:
        width: of the student's states.
        teacher_width: of the teacher's.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(width, teacher_width, bias=False)
        self.blocks = nn.Linear(width, teacher_width, bias=False)

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        """States (n, tokens, width), the embedding first → as many (n, tokens, teacher_width)."""
        embedding, *rest = states
        return [self.embedding(embedding), *(self.blocks(state) for state in rest)]


def attention_matrix_loss(scores: Sequence[Tensor], teacher_scores: Sequence[Tensor]) -> Tensor:
    """Σ over the student's layers of the mean squared distance to the teacher's scores in layer g(m).

    The mean over all entries is the paper's mean over heads of each head's. The teacher gets no gradient.

    Args:
        scores: one (n, heads, tokens, tokens) a block of the student, before the softmax.
        teacher_scores: the same of the teacher: as many heads and tokens, a multiple of the layers.

    Raises:
        CompressionError: layers that don't divide, or other shapes.
    """
    layers = layer_map(len(scores), len(teacher_scores))[1:]
    return _distance(scores, [teacher_scores[layer - 1] for layer in layers], "attention scores")


def hidden_state_loss(states: Sequence[Tensor], teacher_states: Sequence[Tensor]) -> Tensor:
    """Σ over the embedding and the student's layers of the mean squared distance to the teacher's state g(m).

    The teacher gets no gradient.

    Args:
        states: the embedding and one a block, (n, tokens, teacher_width), as ``Projection`` returns them.
        teacher_states: the same of the teacher, a multiple of the blocks.

    Raises:
        CompressionError: layers that don't divide, or other shapes.
    """
    layers = layer_map(len(states) - 1, len(teacher_states) - 1)
    return _distance(states, [teacher_states[layer] for layer in layers], "hidden states")


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], name: str) -> Tensor:
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            raise BadSetting(
                f"{name} of student and teacher have one shape, got {tuple(one.shape)} and "
                f"{tuple(other.shape)}; give both as many tokens and heads, and project the hidden states"
            )
    pairs = [(full_precision(a), full_precision(b).detach()) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack([F.mse_loss(a, b) for a, b in pairs]).sum()
