"""BatchNorm disappears: in evaluation it is a factor and a shift a channel, and a convolution can do both.

Sources: Ioffe and Szegedy 2015, arXiv:1502.03167 (BatchNorm); Jacob et al. 2018, arXiv:1712.05877 (folding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Folded = tuple[Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    def drawn(width: int, out: int, *kernel: int, bias: bool = True) -> dict[str, Any]:
        return {
            "weight": normal(out, width, *kernel),
            "bias": normal(out) + 0.5 if bias else None,
            "mean": normal(out),
            "variance": 0.3 + 2 * torch.rand(out, generator=rng),
            "gamma": 0.5 + torch.rand(out, generator=rng),
            "beta": normal(out),
            "eps": 1e-5,
            "x": normal(2, width, 5, 5),
        }

    def size() -> int:
        return int(torch.randint(2, 5, (), generator=rng))

    yield "as many inputs and columns as outputs", drawn(3, 3, 3, 3)
    tiny = torch.tensor([1e-3, 2e-3]) * (0.5 + torch.rand(2, generator=rng))
    yield "variances as small as eps", drawn(3, 2, 2, 2) | {"variance": tiny, "eps": 1e-3}
    yield "any sizes", drawn(size(), size(), size(), size())
    yield "a convolution without bias", drawn(size(), size(), 3, 3, bias=False)
    yield "a negative gamma", drawn(2, 3, 3, 3) | {"gamma": torch.tensor([1.5, -0.8, -1.0])}
    yield (
        "a dead channel: variance and gamma are 0",
        drawn(2, 2, 1, 1) | {"variance": torch.zeros(2), "gamma": torch.tensor([0.0, 0.1])},
    )
    exact = drawn(2, 3, 3, 3)
    yield (
        "float64",
        {name: value.double() if isinstance(value, Tensor) else value for name, value in exact.items()},
    )


def probe(case: dict[str, Any], fold_batch_norm: Callable[..., Any]) -> dict[str, Any]:
    given = [case[name] for name in ("weight", "bias", "mean", "variance", "gamma", "beta")]
    return {"both": fold_batch_norm(*given, eps=case["eps"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """The one convolution does what the two layers did, seen on random images, in float64."""
    first, second = expect.parts(record["both"], count=2)
    weight = expect.tensor(first, shape=case["weight"].shape, what="the weight, of two entries the first,")
    bias = expect.tensor(second, shape=case["beta"].shape, what="the bias, of two entries the second,")
    given = {name: value.double() for name, value in case.items() if isinstance(value, Tensor)}
    z = F.conv2d(given["x"], given["weight"], given.get("bias"))
    wanted = F.batch_norm(z, given["mean"], given["variance"], given["gamma"], given["beta"], eps=case["eps"])
    yours = F.conv2d(given["x"], weight.double(), bias.double())
    expect.close(yours, wanted, tolerance=1e-4, what="the output (image, channel, row, column)")


def by_factor(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
) -> Folded:
    factor = gamma / torch.sqrt(variance + eps)  # (out,)
    bias = torch.zeros_like(mean) if bias is None else bias
    folded_bias = (bias - mean) * factor + beta
    return weight * factor.view(-1, 1, 1, 1), folded_bias


def by_channel(
    weight: Tensor,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
) -> Folded:
    weights, biases = [], []
    for o in range(len(weight)):
        deviation = (variance[o] + eps) ** 0.5
        weights.append(gamma[o] * weight[o] / deviation)
        before = -mean[o] if bias is None else bias[o] - mean[o]
        biases.append(beta[o] + gamma[o] * before / deviation)
    return torch.stack(weights), torch.stack(biases)


def _folded(
    weight: Tensor, bias: Tensor | None, mean: Tensor, factor: Tensor, beta: Tensor, *axes: int
) -> Folded:
    """The two results from any factor (out,), which is laid along the given shape."""
    bias = torch.zeros_like(mean) if bias is None else bias
    return weight * factor.view(*(axes or (-1, 1, 1, 1))), (bias - mean) * factor + beta


@mistake(
    "forgets eps",
    says="at {where} the two layers give {wanted} and your convolution {yours}: BatchNorm divides by "
    "sqrt(variance + eps), and where the variance is small eps decides",
)
def without_eps(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, mean, gamma / variance.sqrt(), beta)


@mistake(
    "adds eps outside the root",
    says="at {where} the two layers give {wanted} and your convolution {yours}: eps is added to the "
    "variance, under the root, not to the deviation",
)
def eps_outside(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, mean, gamma / (variance.sqrt() + eps), beta)


@mistake(
    "divides by the variance",
    says="at {where} the two layers give {wanted} and your convolution {yours}: you divide by variance + "
    "eps; the deviation is its square root",
)
def without_root(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, mean, gamma / (variance + eps), beta)


@mistake(
    "scales along the kernel's columns",
    says="at {where} the two layers give {wanted} and your convolution {yours}: weight * factor lines the "
    "(out,) factors up with the last axis, the kernel's columns; give them the shape (out, 1, 1, 1)",
)
def along_columns(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, mean, gamma / (variance + eps).sqrt(), beta, -1)


@mistake(
    "scales the input channels",
    says="at {where} the two layers give {wanted} and your convolution {yours}: your factors lie along "
    "axis 1, the inputs; BatchNorm follows the convolution and scales its outputs, axis 0",
)
def along_inputs(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, mean, gamma / (variance + eps).sqrt(), beta, 1, -1, 1, 1)


@mistake(
    "leaves the old bias unscaled",
    says="at {where} the two layers give {wanted} and your convolution {yours}: the convolution's own bias "
    "passes through BatchNorm as well, so it is multiplied by the factor",
)
def unscaled_bias(weight, bias, mean, variance, gamma, beta, *, eps):
    factor = gamma / (variance + eps).sqrt()
    return weight * factor.view(-1, 1, 1, 1), beta - mean * factor + (0 if bias is None else bias)


@mistake(
    "drops the old bias",
    says="at {where} the two layers give {wanted} and your convolution {yours}: the bias that the "
    "convolution already had is gone; BatchNorm shifts what comes, it does not replace it",
)
def dropped_bias(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, None, mean, gamma / (variance + eps).sqrt(), beta)


@mistake(
    "adds the mean",
    says="at {where} the two layers give {wanted} and your convolution {yours}: BatchNorm subtracts the "
    "running mean",
)
def adds_mean(weight, bias, mean, variance, gamma, beta, *, eps):
    return _folded(weight, bias, -mean, gamma / (variance + eps).sqrt(), beta)


@mistake(
    "scales beta",
    says="at {where} the two layers give {wanted} and your convolution {yours}: beta is added at the very "
    "end, after the factor",
)
def scaled_beta(weight, bias, mean, variance, gamma, beta, *, eps):
    factor = gamma / (variance + eps).sqrt()
    return _folded(weight, bias, mean, factor, beta * factor)


EXERCISE = Exercise(
    name="fold_batch_norm",
    points=2,
    minutes=12,
    difficulty=2,
    bonus=True,
    statement="fold_batch_norm(…, eps=…) returns the one convolution that does what a convolution and its "
    "BatchNorm did.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_factor, by_channel),
    mistakes=(
        without_eps,
        eps_outside,
        without_root,
        along_columns,
        along_inputs,
        unscaled_bias,
        dropped_bias,
        adds_mean,
        scaled_beta,
    ),
    hints=(
        Hint(
            "I do not see how two layers become one",
            "In evaluation BatchNorm is y = a · z + c for each channel, with fixed a and c. "
            "Put z = w · x + b into it, and collect what multiplies x and what does not.",
        ),
        Hint(
            "the outputs are wrong by a factor",
            "f = gamma / sqrt(variance + eps), (out,). new weight (out, in, height, width) = weight · f "
            "with f along axis 0; new bias (out,) = (bias - mean) · f + beta.",
        ),
        Hint(
            "shapes do not fit, or the wrong axis is scaled",
            "weight * factor.view(____, 1, 1, 1)",
        ),
    ),
)
