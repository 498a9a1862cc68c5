"""Transformer distillation: a small transformer imitates a large one's attention matrices and hidden states.

Layer m of a student with M layers is compared with layer g(m) of the teacher's N layers, evenly spaced. It
imitates the attention matrices of all heads and the hidden states (the embedding is the 0-th). The student's
states are narrower, so a learned matrix W maps them to the teacher's width; it is discarded after training.

    g(m) = m · N / M,        m = 0 … M
    L_attention = Σ_{m=1…M} 1/h · Σ_heads MSE(A_m, A'_g(m))
    L_hidden    = Σ_{m=0…M} MSE(H_m W, H'_g(m))                                 ' is the teacher's, detached

The attention matrices are the scores Q Kᵀ / √d *before* the softmax: the paper found that fitting them
converges faster and gives better results than fitting the probabilities.

What it saves: nothing itself; it makes a student with fewer and narrower layers usable. What it costs: a run
of the teacher in every step (tokens × tokens scores per head are too large to store), and W during training.
What is left out: the third term, which is ``response_loss``; a weight per layer (1 in the paper); and the
paper's two stages with their augmentation of text.

Source: Jiao et al. 2019, "TinyBERT: distilling BERT for natural language understanding", arXiv:1909.10351.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.errors import BadSetting, is_whole
from compresslab.techniques.distillation.response import full_precision

__all__ = ["Projection", "attention_matrix_loss", "hidden_state_loss", "layer_map"]


def layer_map(layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Return the teacher's layer g(m) for each layer of the student, m = 0 … layers; 0 is the embedding.

    Args:
        layers: number of the student's layers, at least 1.
        teacher_layers: a multiple of ``layers``.

    Raises:
        BadSetting: ``layers`` does not divide ``teacher_layers``.

    >>> layer_map(4, 12)
    (0, 3, 6, 9, 12)
    """
    given = (layers, teacher_layers)
    if not all(is_whole(each) for each in given) or teacher_layers % layers:
        raise BadSetting(f"layers must divide teacher_layers, got {layers} and {teacher_layers}; try 2 and 4")
    layers, teacher_layers = map(int, given)
    return tuple(m * teacher_layers // layers for m in range(layers + 1))


class Projection(nn.Module):
    """A linear map of the student's hidden states to the teacher's width, used only during training.

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
        """Map states (n, tokens, width), the embedding first, to as many (n, tokens, teacher_width)."""
        embedding, *rest = states
        return [self.embedding(embedding), *(self.blocks(state) for state in rest)]


def attention_matrix_loss(scores: Sequence[Tensor], teacher_scores: Sequence[Tensor]) -> Tensor:
    """Return the sum over the student's layers of the mean squared error to the teacher's scores g(m).

    The mean over all entries equals the paper's mean over heads. The teacher gets no gradient.

    Args:
        scores: one (n, heads, tokens, tokens) per block of the student, before the softmax.
        teacher_scores: the same of the teacher: as many heads and tokens, a multiple of the layers.

    Raises:
        BadSetting: the numbers of layers do not divide, or shapes differ.
    """
    layers = layer_map(len(scores), len(teacher_scores))[1:]
    return _distance(scores, [teacher_scores[layer - 1] for layer in layers], "attention scores")


def hidden_state_loss(states: Sequence[Tensor], teacher_states: Sequence[Tensor]) -> Tensor:
    """Return the sum over embedding and layers of the mean squared error to the teacher's states g(m).

    The teacher gets no gradient.

    Args:
        states: the embedding and one state per block, (n, tokens, teacher_width), from ``Projection``.
        teacher_states: the same of the teacher, a multiple of the blocks.

    Raises:
        BadSetting: the numbers of layers do not divide, or shapes differ.
    """
    layers = layer_map(len(states) - 1, len(teacher_states) - 1)
    return _distance(states, [teacher_states[layer] for layer in layers], "hidden states")


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor], name: str) -> Tensor:
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            raise BadSetting(
                f"{name} of student and teacher must have one shape, got {tuple(one.shape)} and "
                f"{tuple(other.shape)}; give both as many tokens and heads, and project the hidden states"
            )
    pairs = [(full_precision(a), full_precision(b).detach()) for a, b in zip(ours, theirs, strict=True)]
    return torch.stack([F.mse_loss(a, b) for a, b in pairs]).sum()
