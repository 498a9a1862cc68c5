"""Which weights matter? A criterion gives every weight a score; the lowest scores go first.

Magnitude: a weight near zero changes the output little, so its score is its absolute value.

    score = |w|

What it costs: one pass over the weights, no data, no gradient. What it leaves out: how large the layer's
input is, and that the loss may be flat or steep in a weight; criteria that look at data or gradients score
those as well.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections", arXiv:1506.02626.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["magnitude"]


def magnitude(weight: Tensor) -> Tensor:
    """The absolute value of every weight, in the weight's shape and dtype: a high score is a weight to keep.

    >>> import torch
    >>> magnitude(torch.tensor([-3.0, 0.5]))
    tensor([3.0000, 0.5000])
    """
    return weight.detach().abs()
