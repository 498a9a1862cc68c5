"""Channels really removed: a convolution's outputs, their BatchNorm, and the inputs of the next convolution.

Source: Li et al. 2016, "Pruning filters for efficient ConvNets", arXiv:1608.08710.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.record import Recorded
from compresslab.errors import WrongAnswer

__all__ = ["EXERCISE"]

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_GIVEN = ("weight", "gamma", "beta", "mean", "variance", "next_weight", "keep")


def cases(rng: torch.Generator) -> Iterator[Case]:
    """As many inputs as outputs, so that a cut along the wrong axis finds something to cut."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def drawn(out: int, kept: int, *, kernel: int = 3) -> dict[str, Any]:
        """Channel 0 goes, unless all stay; the gammas rise and fall from channel to channel."""
        keep = torch.zeros(out, dtype=torch.bool)
        keep[out - 1 - torch.randperm(out - 1, generator=rng)[:kept]] = True
        gamma = torch.where(keep.cumsum(0) % 2 == 0, 0.5, 1.5) + 0.4 * normal(out).sigmoid()
        return {
            "weight": normal(out, out, kernel, kernel),
            "gamma": gamma,
            "beta": normal(out) + 0.5,
            "mean": normal(out),
            "variance": 0.3 + normal(out).exp(),
            "next_weight": normal(out, out, kernel, kernel),
            "keep": keep,
            "x": normal(2, out, 5, 5),
        }

    yield "half of six channels", drawn(6, 3)
    yield "one channel goes", drawn(5, 4)
    yield "one channel stays", drawn(4, 1)
    yield "all stay", drawn(4, 3) | {"keep": torch.ones(4, dtype=torch.bool)}
    yield "1 × 1 kernels, float32", _single(drawn(4, 2, kernel=1))
    negative = drawn(5, 3)
    yield "negative gammas, float32", _single(negative | {"gamma": -negative["gamma"]})
    last = drawn(4, 2)
    turned = {name: last[name].transpose(2, 3) for name in ("weight", "next_weight")}
    yield "kernels turned: not contiguous", last | turned
    out = int(torch.randint(4, 8, (), generator=rng))
    yield "any width", drawn(out, out // 2)


def _single(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value.float() if value.is_floating_point() else value for name, value in case.items()}


def probe(case: dict[str, Any], remove_channels: Callable[..., Any]) -> dict[str, Any]:
    names = ("weight", "gamma", "beta", "mean", "variance", "next_weight", "keep")
    smaller = remove_channels(*[case[name] for name in names])
    return {"smaller": tuple(smaller) if isinstance(smaller, list) else smaller}


def judge(case: dict[str, Any], record: Record) -> None:
    """Shapes first; then both networks run in float64: the smaller one, and the masked one."""
    found = expect.parts(record["smaller"], count=6, what="the answer")
    keep, kept = case["keep"], int(case["keep"].sum())
    given = {name: case[name].double() for name in _GIVEN[:-1]}
    yours = {}
    for name, value in zip(_GIVEN[:-1], found, strict=True):
        shape = list(given[name].shape)
        shape[1 if name == "next_weight" else 0] = kept
        yours[name] = _read(value, tuple(shape), name)
    z, y = _outputs(given, case["x"].double(), keep)
    your_z, your_y = _outputs(yours, case["x"].double())
    expect.close(your_z, z[:, keep], what="BatchNorm's output (image, channel, row, column)")
    expect.close(your_y, y, what="the second convolution's output (image, channel, row, column)")


def _read(value: Recorded, shape: tuple[int, ...], name: str) -> Tensor:
    """The tensor, in float64; what it raises names it."""
    try:
        return expect.tensor(value, shape=shape, what=f"the smaller {name}").double()
    except WrongAnswer as wrong:
        raise WrongAnswer(wrong.reason, wrong.hint, name=name, wanted=shape, yours=value.shape) from None


def _outputs(part: dict[str, Tensor], x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What BatchNorm gives, and the second convolution, which sees zeros where the mask is False."""
    z = F.conv2d(x, part["weight"], padding=1)
    z = F.batch_norm(z, part["mean"], part["variance"], part["gamma"], part["beta"])
    a = F.relu(z) if mask is None else F.relu(z) * mask.view(-1, 1, 1)
    return z, F.conv2d(a, part["next_weight"], padding=1)


def by_mask(
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    next_weight: Tensor,
    keep: Tensor,
) -> Six:
    return weight[keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight[:, keep]


def by_places(weight, gamma, beta, mean, variance, next_weight, keep):
    places = keep.nonzero().flatten()
    writing = tuple(t.index_select(0, places) for t in (weight, gamma, beta, mean, variance))
    return (*writing, next_weight.index_select(1, places))


def by_loop(weight, gamma, beta, mean, variance, next_weight, keep):
    kept = [channel for channel in range(len(keep)) if keep[channel]]
    smaller = [torch.stack([t[c] for c in kept]) for t in (weight, gamma, beta, mean, variance)]
    return (*smaller, torch.stack([next_weight[:, c] for c in kept], dim=1))


@mistake(
    "leaves BatchNorm behind",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: BatchNorm has a gamma, "
    "a beta, a mean and a variance for each channel that comes, and now fewer come; cut all four",
)
def norm_left(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[keep], gamma, beta, mean, variance, next_weight[:, keep]


@mistake(
    "cuts gamma alone",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: gamma is cut, and the "
    "other three numbers of each BatchNorm channel, beta, mean and variance, are still as many as before",
)
def gamma_alone(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[keep], gamma[keep], beta, mean, variance, next_weight[:, keep]


@mistake(
    "leaves the running statistics behind",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: what BatchNorm learned, "
    "gamma and beta, is cut; what it counted, mean and variance, belongs to the same channels",
)
def statistics_left(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[keep], gamma[keep], beta[keep], mean, variance, next_weight[:, keep]


@mistake(
    "leaves the next convolution as it is",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: the next convolution "
    "still waits for the channels that are gone; remove its inputs, axis 1",
)
def next_left(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight


@mistake(
    "cuts the next convolution along its outputs",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: a weight is (out, in, "
    "height, width), and what it loses here is what it reads, axis 1: next_weight[:, keep]",
)
def next_along_outputs(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight[keep]


@mistake(
    "cuts the first convolution along its inputs",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: a weight is (out, in, "
    "height, width), and what it loses here is what it writes, axis 0: weight[keep]",
)
def first_along_inputs(weight, gamma, beta, mean, variance, next_weight, keep):
    return weight[:, keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight[:, keep]


@mistake(
    "keeps the channels that should go",
    says="at {where} BatchNorm should give {wanted} and yours gives {yours}: True means that a channel "
    "stays, and you keep those that are False; take keep, not ~keep",
)
def inverted(weight, gamma, beta, mean, variance, next_weight, keep):
    return by_mask(weight, gamma, beta, mean, variance, next_weight, ~keep)


@mistake(
    "keeps the first channels, as many as stay",
    says="at {where} BatchNorm should give {wanted} and yours gives {yours}: the number of channels is "
    "right, and they are the first ones; keep says which, not only how many",
)
def first_ones(weight, gamma, beta, mean, variance, next_weight, keep):
    n = int(keep.sum())
    return weight[:n], gamma[:n], beta[:n], mean[:n], variance[:n], next_weight[:, :n]


@mistake(
    "gives BatchNorm its first entries",
    says="at {where} BatchNorm should give {wanted} and yours gives {yours}: the right filters meet the "
    "gamma, beta, mean and variance of other channels; cut those with the same keep",
)
def first_entries(weight, gamma, beta, mean, variance, next_weight, keep):
    n = int(keep.sum())
    return weight[keep], gamma[:n], beta[:n], mean[:n], variance[:n], next_weight[:, keep]


@mistake(
    "starts with a new BatchNorm",
    says="at {where} BatchNorm should give {wanted} and yours gives {yours}: a new BatchNorm of the right "
    "size knows nothing, gamma 1, beta 0, mean 0, variance 1; keep what the old one knew",
)
def new_norm(weight, gamma, beta, mean, variance, next_weight, keep):
    one, zero = torch.ones_like(gamma[keep]), torch.zeros_like(gamma[keep])
    return weight[keep], one, zero, zero, one, next_weight[:, keep]


@mistake(
    "sorts the channels",
    says="at {where} BatchNorm should give {wanted} and yours gives {yours}: you keep the right channels, "
    "in the order of gamma; a shortcut that adds to them would not know: leave them in their old order",
)
def sorted_by_gamma(weight, gamma, beta, mean, variance, next_weight, keep):
    order = gamma.abs().masked_fill(~keep, -1).argsort(descending=True)[: int(keep.sum())]
    return by_mask(weight, gamma, beta, mean, variance, next_weight, order)


@mistake(
    "takes the next convolution's first inputs",
    says="at {where} the second convolution should give {wanted} and yours gives {yours}: it reads the right "
    "number of channels with the weights of other ones; cut it with the same keep",
)
def next_first_inputs(weight, gamma, beta, mean, variance, next_weight, keep):
    six = by_mask(weight, gamma, beta, mean, variance, next_weight, keep)
    return (*six[:5], next_weight[:, : int(keep.sum())])


@mistake(
    "writes zeros and removes nothing",
    says="the smaller {name} should have the shape {wanted} and yours has {yours}: zeros take as many bytes "
    "and as much time as other numbers; index with keep, do not multiply by it",
)
def zeros(weight, gamma, beta, mean, variance, next_weight, keep):
    along = keep.view(-1, 1, 1, 1)
    return (
        weight * along,
        gamma * keep,
        beta * keep,
        mean * keep,
        variance,
        next_weight * along.transpose(0, 1),
    )


EXERCISE = Exercise(
    name="remove_channels",
    points=3,
    minutes=12,
    difficulty=2,
    statement="remove_channels(…, keep) makes two convolutions and the BatchNorm between them really "
    "smaller.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_mask, by_places, by_loop),
    mistakes=(
        norm_left,
        gamma_alone,
        statistics_left,
        next_left,
        next_along_outputs,
        first_along_inputs,
        inverted,
        first_ones,
        first_entries,
        new_norm,
        sorted_by_gamma,
        next_first_inputs,
        zeros,
    ),
    hints=(
        Hint(
            "I do not know what all has to get smaller",
            "Follow one channel: a filter writes it, BatchNorm scales and shifts it with four numbers of its "
            "own, and each filter of the next convolution reads it with one slice of its kernel.",
        ),
        Hint(
            "sizes do not fit",
            "weight is (out, in, height, width): its channel c is weight[c]. gamma, beta, mean and variance "
            "are (out,). next_weight is (next_out, out, height, width): what it reads is axis 1, so its "
            "channel c is next_weight[:, c]. A mask of bools picks several at once: gamma[keep].",
        ),
        Hint(
            "only the last of the six is wrong",
            "weight[keep], gamma[keep], beta[keep], mean[keep], variance[keep], next_weight[____, keep]",
        ),
    ),
)
