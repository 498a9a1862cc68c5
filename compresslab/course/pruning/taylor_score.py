"""A score for each output channel from one gradient: how far the loss would move, to first order, without it.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz 2019, "Importance estimation for neural network pruning",
arXiv:1906.10771; of its two scores for a group, the one that squares the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Mostly float64, so that two ways to make the same mistake come to the same numbers."""

    def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        both = torch.randn(2, *shape, generator=rng, dtype=torch.float64)
        return dict(zip(("weight", "gradient"), both.to(dtype), strict=True))

    out, inputs = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    yield "a square Linear", drawn(out, out)
    yield "Linear", drawn(out, inputs + 3)
    yield "Conv2d", drawn(out, 2, 3, 3)
    yield "Conv2d, float32", drawn(inputs, 3, 2, 2, dtype=torch.float32)
    turned = drawn(inputs + 3, out)
    yield "transposed tensors", {name: tensor.T for name, tensor in turned.items()}
    balanced = drawn(out, 4)
    balanced["gradient"][1] = torch.tensor([1.0, -1.0, 2.0, -2.0]) / balanced["weight"][1]
    yield "a channel whose weights cancel out", balanced
    dead = drawn(out, 2, 3, 3)
    dead["weight"][0], dead["gradient"][1] = 0, 0
    yield "a channel of zeros, and one without a gradient", dead
    yield "one channel of one weight", drawn(1, 1)


def probe(case: dict[str, Any], taylor_score: Callable[..., Any]) -> dict[str, Any]:
    return {"scores": taylor_score(case["weight"], case["gradient"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Where the loss is the straight line that the gradient draws, a channel is really taken out."""
    w, g = case["weight"].double(), case["gradient"].double()
    yours = expect.tensor(record["scores"], shape=w.shape[:1], dtype=case["weight"].dtype, what="the answer")
    without = torch.stack([w.index_fill(0, torch.tensor([channel]), 0) for channel in range(len(w))])
    moved = torch.tensordot(without - w, g, dims=g.dim())  # (out,): the loss after, less the loss before
    expect.close(yours, moved.square(), what="the score")


def by_rows(weight: Tensor, gradient: Tensor) -> Tensor:
    return (weight * gradient).flatten(1).sum(dim=1) ** 2


def by_loop(weight: Tensor, gradient: Tensor) -> Tensor:
    scores = torch.zeros(weight.shape[0], dtype=weight.dtype)
    for channel in range(weight.shape[0]):
        scores[channel] = torch.sum(weight[channel] * gradient[channel]).square()
    return scores


def by_product(weight: Tensor, gradient: Tensor) -> Tensor:
    w, g = (tensor.reshape(len(tensor), -1) for tensor in (weight, gradient))
    return torch.einsum("oi,oi->o", w, g).pow(2)


@mistake(
    "sums the squares",
    says="the score at {where} is {wanted}; yours is {yours}: you square each w · g and then add, as if the "
    "weights of a channel went one by one; they go together, and what one adds another may take back: sum "
    "first, then square",
)
def sum_of_squares(weight, gradient):
    return (weight * gradient).square().flatten(1).sum(dim=1)


@mistake(
    "adds up the magnitudes",
    says="the score at {where} is {wanted}; yours is {yours}: you take |w · g| before the sum, and nothing "
    "can cancel any more; within a channel the signs count, and the square comes last",
)
def sum_of_magnitudes(weight, gradient):
    return (weight * gradient).abs().flatten(1).sum(dim=1).square()


@mistake(
    "adds up magnitudes and squares nothing",
    says="the score at {where} is {wanted}; yours is {yours}, the sum of |w · g|: add w · g with their "
    "signs, and square the sum",
)
def plain_magnitudes(weight, gradient):
    return (weight * gradient).abs().flatten(1).sum(dim=1)


@mistake(
    "takes the mean for the sum",
    says="the score at {where} is {wanted}; yours is {yours}: you take the mean over the channel; in one "
    "layer that ranks alike, and between layers it favours small filters; take the sum",
)
def mean_over_channel(weight, gradient):
    return (weight * gradient).flatten(1).mean(dim=1).square()


@mistake(
    "scores input channels",
    says="the score at {where} is {wanted}; yours is {yours}: you score inputs; the weight is (out, in, …), "
    "and a filter is weight[c], one entry of dimension 0: sum over all the other dimensions",
)
def of_inputs(weight, gradient):
    return (weight * gradient).transpose(0, 1).flatten(1).sum(dim=1).square()


@mistake(
    "sums over dimension 1 alone",
    says="your scores do not have the shape (out,) for a convolution: its weight (out, in, kernel_height, "
    "kernel_width) leaves three dimensions to sum over; flatten(1) makes them one",
)
def one_dimension(weight, gradient):
    return (weight * gradient).sum(dim=1).square()


@mistake(
    "scores each weight",
    says="you have a score for each weight, not for each channel: add up w · g over the filter first, then "
    "square",
)
def each_weight(weight, gradient):
    return (weight * gradient).square()


@mistake(
    "gives the whole layer one score",
    says="you have one number for the whole layer: sum() adds up everything; name the dimensions, so that "
    "dimension 0, the output channels, is left",
)
def whole_layer(weight, gradient):
    return (weight * gradient).sum().square()


@mistake(
    "forgets the square",
    says="the score at {where} is {wanted}; yours is {yours}: without the square a channel whose removal "
    "would move the loss far down ranks below one that does nothing; square the sum",
)
def not_squared(weight, gradient):
    return (weight * gradient).flatten(1).sum(dim=1)


@mistake(
    "takes the magnitude for the square",
    says="the score at {where} is {wanted}; yours is {yours}, its square root: |Σ w · g| puts the channels "
    "in the same order, but this score is the square",
)
def magnitude(weight, gradient):
    return (weight * gradient).flatten(1).sum(dim=1).abs()


@mistake(
    "takes the gradient alone",
    says="the score at {where} is {wanted}; yours is {yours}: your score has no weight in it; a gradient "
    "says how steep the loss is, and w how far removing would go: multiply them",
)
def gradient_alone(weight, gradient):
    return gradient.flatten(1).sum(dim=1).square()


@mistake(
    "squares the gradients alone",
    says="the score at {where} is {wanted}; yours is {yours}, the sum of g²: a small gradient alone does not "
    "mean unimportant; score the products w · g, summed, and then squared",
)
def squared_gradients(weight, gradient):
    return gradient.square().flatten(1).sum(dim=1)


@mistake(
    "takes the weight alone",
    says="the score at {where} is {wanted}; yours is {yours}, the sum of w²: that is magnitude, and your "
    "score would be the same on any data; multiply by the gradient",
)
def weight_alone(weight, gradient):
    return weight.square().flatten(1).sum(dim=1)


@mistake(
    "sums before it multiplies",
    says="the score at {where} is {wanted}; yours is {yours}: you add up the weights and the gradients "
    "apart; each weight meets its own gradient: multiply first, then sum",
)
def sums_first(weight, gradient):
    return (weight.flatten(1).sum(dim=1) * gradient.flatten(1).sum(dim=1)).square()


EXERCISE = Exercise(
    name="taylor_score",
    points=2,
    minutes=8,
    difficulty=2,
    statement="taylor_score(weight, gradient) is the square of Σ w · g, one score an output channel.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_rows, by_loop, by_product),
    mistakes=(
        sum_of_squares,
        sum_of_magnitudes,
        plain_magnitudes,
        mean_over_channel,
        of_inputs,
        one_dimension,
        each_weight,
        whole_layer,
        not_squared,
        magnitude,
        gradient_alone,
        squared_gradients,
        weight_alone,
        sums_first,
    ),
    hints=(
        Hint(
            "my scores are too large, and never zero",
            "A channel goes as a whole. If one of its weights would move the loss up by 2 and another down "
            "by 2, nothing happens: their score is 0. What must come first, the sum or the square?",
        ),
        Hint(
            "it passes a Linear and fails on a convolution",
            "w · g is (out, in, kernel_height, kernel_width), and the sum leaves (out,): add up dimensions "
            "1, 2 and 3. flatten(1) makes every weight (out, weights of a channel), a Linear's as well.",
        ),
        Hint(
            "I know the formula and do not know how to write it",
            "return (weight * gradient).flatten(1).________(dim=1) ** 2",
        ),
    ),
)
