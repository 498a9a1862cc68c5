"""Optimal brain damage: what a weight's removal costs at the bottom of a valley, where every slope is zero.

Source: LeCun, Denker and Solla 1990, "Optimal brain damage". Paper: the Hessian's diagonal by a second
backward pass; here: by the squares of the samples' own gradients (the empirical Fisher information), because
where the network's probabilities fit the data the two come close, and first derivatives are enough.
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

    def drawn(n: int, out: int, inputs: int, *, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=rng, dtype=torch.float64)

        w = normal(out, inputs)
        w = w + w.sign()  # no weight near zero, where every score is alike
        named = {"weight": 2 * w, "inputs": normal(n, inputs) + 0.5, "output_gradients": normal(n, out)}
        return {name: tensor.to(dtype) for name, tensor in named.items()}

    out, inputs = (int(size) for size in torch.randint(2, 5, (2,), generator=rng))
    yield "as many samples as outputs and inputs", drawn(4, 4, 4)
    yield "several samples", drawn(5, out, out + inputs)
    yield "one sample", drawn(1, out, inputs)
    opposed = drawn(2, out, inputs)
    opposed["inputs"][1], opposed["output_gradients"][1] = (
        opposed["inputs"][0],
        -opposed["output_gradients"][0],
    )
    yield "two samples that pull in opposite directions", opposed
    dead = drawn(4, out, inputs + 1)
    dead["inputs"][:, 1], dead["weight"][0] = 0, 0
    yield "an input that is always zero, and a row of zero weights", dead
    turned = {name: tensor.T for name, tensor in drawn(4, 4, 4).items()}
    yield "transposed tensors", turned
    yield "float32", drawn(7, out, inputs, dtype=torch.float32)


def probe(case: dict[str, Any], obd_score: Callable[..., Any]) -> dict[str, Any]:
    return {"scores": obd_score(case["weight"], case["inputs"], case["output_gradients"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """Autograd goes back through the layer, one sample at a time."""
    w = case["weight"].double().clone().requires_grad_()
    yours = expect.tensor(record["scores"], shape=w.shape, dtype=case["weight"].dtype, what="the answer")
    squares = torch.zeros_like(case["weight"], dtype=torch.float64)
    for x, error in zip(case["inputs"].double(), case["output_gradients"].double(), strict=True):
        (gradient,) = torch.autograd.grad(torch.nn.functional.linear(x, w), w, error)
        squares += gradient**2
    rise = squares / len(case["inputs"]) * w.detach() ** 2 / 2
    expect.close(yours, rise, what="the score")


def by_samples(weight: Tensor, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    gradients = output_gradients[:, :, None] * inputs[:, None, :]  # (samples, out, in)
    hessian = (gradients**2).mean(dim=0)  # its diagonal, (out, in)
    return hessian * weight**2 / 2


def by_loop(weight: Tensor, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    scores = torch.zeros_like(weight)
    for x, error in zip(inputs, output_gradients, strict=True):
        change = torch.outer(error, x) * weight  # of this sample's loss, to first order
        scores += change.square() / (2 * len(inputs))
    return scores


def by_squares(weight: Tensor, inputs: Tensor, output_gradients: Tensor) -> Tensor:
    return 0.5 * weight.square() * (output_gradients.square().T @ inputs.square()) / inputs.shape[0]


def _gradients(inputs: Tensor, output_gradients: Tensor) -> Tensor:
    return torch.einsum("so,si->soi", output_gradients, inputs)  # (samples, out, in)


@mistake(
    "squares the mean gradient",
    says="the score at {where} is {wanted}; yours is {yours}: you square the mean gradient, which is what "
    "backward() leaves; there the samples cancel, at a minimum down to zero: square each sample's own, then "
    "take the mean",
)
def square_of_mean(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).mean(dim=0).square() * weight.square() / 2


@mistake(
    "squares the sum of the gradients",
    says="the score at {where} is {wanted}; yours is {yours}: you add the samples' gradients up before you "
    "square, and they cancel; square each sample's own, then take the mean",
)
def square_of_sum(weight, inputs, output_gradients):
    return (output_gradients.T @ inputs).square() * weight.square() / 2


@mistake(
    "subtracts the mean gradient",
    says="the score at {where} is {wanted}; yours is {yours}: var() takes the mean gradient away before it "
    "squares; take the plain mean of the squares",
)
def variance(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).var(dim=0) * weight.square() / 2


@mistake(
    "does not square the gradients",
    says="the score at {where} is {wanted}; yours is {yours}: your h is the mean of g itself, a slope; the "
    "curvature is the mean of g²",
)
def slope(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).mean(dim=0) * weight.square() / 2


@mistake(
    "takes the gradients' magnitudes",
    says="the score at {where} is {wanted}; yours is {yours}: your h is the mean of |g|; the curvature is "
    "the mean of g²",
)
def magnitudes(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).abs().mean(dim=0) * weight.square() / 2


@mistake(
    "squares the curvature too",
    says="the score at {where} is {wanted}; yours is {yours}: h is a mean of squares already, and you square "
    "it once more; it is h · w² / 2, not h² · w² / 2",
)
def curvature_squared(weight, inputs, output_gradients):
    return (_gradients(inputs, output_gradients).square().mean(dim=0) * weight).square() / 2


@mistake(
    "does not square the weight",
    says="the score at {where} is {wanted}; yours is {yours}: your weight is not squared; removing it moves "
    "it by -w, and the second term of the series has that twice: w²",
)
def weight_once(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().mean(dim=0) * weight / 2


@mistake(
    "takes the weight's magnitude",
    says="the score at {where} is {wanted}; yours is {yours}, with |w| in it: that ranks large weights too "
    "low; the second term of the series has w²",
)
def weight_magnitude(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().mean(dim=0) * weight.abs() / 2


@mistake(
    "forgets the half",
    says="the score at {where} is {wanted}; yours is {yours}, twice as much: the second term of Taylor's "
    "series has a 1/2",
)
def without_half(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().mean(dim=0) * weight.square()


@mistake(
    "adds the samples up",
    says="the score at {where} is {wanted}; yours is {yours}: you add the squares up, so more samples make "
    "every weight more important; the loss is a mean over them: divide by their number",
)
def sums(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().sum(dim=0) * weight.square() / 2


@mistake(
    "takes the mean over the outputs",
    says="the score at {where} is {wanted}; yours is {yours}: the gradients are (samples, out, in), and the "
    "mean goes over dimension 0, the samples; yours goes over dimension 1",
)
def over_outputs(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().mean(dim=1) * weight.square() / 2


@mistake(
    "turns the curvature",
    says="the score at {where} is {wanted}; yours is {yours}: your curvature is (in, out) and the weight is "
    "(out, in); that goes unnoticed in a square layer; the outputs come first",
)
def turned_round(weight, inputs, output_gradients):
    return (inputs.square().T @ output_gradients.square()) / len(inputs) * weight.square() / 2


@mistake(
    "takes the mean over everything",
    says="the score at {where} is {wanted}; yours is {yours}: mean() without a dimension gives all weights "
    "the same curvature, and what is left is magnitude; take mean(dim=0)",
)
def one_curvature(weight, inputs, output_gradients):
    return _gradients(inputs, output_gradients).square().mean() * weight.square() / 2


@mistake(
    "takes the means apart",
    says="the score at {where} is {wanted}; yours is {yours}: you take the mean of the inputs' squares and "
    "of the output gradients' squares, and then multiply; each sample's input meets its own gradient: "
    "multiply first",
)
def means_apart(weight, inputs, output_gradients):
    curvature = torch.outer(output_gradients.square().mean(dim=0), inputs.square().mean(dim=0))
    return curvature * weight.square() / 2


@mistake(
    "looks at the inputs alone",
    says="the score at {where} is {wanted}; yours is {yours}: x² alone says how far the output moves, not "
    "whether the loss cares; the gradient of a weight is its input times its output's gradient",
)
def inputs_alone(weight, inputs, output_gradients):
    return inputs.square().mean(dim=0) * weight.square() / 2


@mistake(
    "gives the first-order score",
    says="the score at {where} is {wanted}; yours is {yours}, the square of w times the mean gradient: that "
    "is Taylor's first term, and at a minimum it is zero everywhere; here it is h · w² / 2",
)
def first_order(weight, inputs, output_gradients):
    return (_gradients(inputs, output_gradients).mean(dim=0) * weight).square()


@mistake(
    "divides by the curvature",
    says="the score at {where} is {wanted}; yours is {yours}: you divide by h, and a weight where the loss "
    "is steep would go first; optimal brain surgeon divides, but by an entry of the Hessian's inverse",
)
def divides(weight, inputs, output_gradients):
    return weight.square() / _gradients(inputs, output_gradients).square().mean(dim=0) / 2


EXERCISE = Exercise(
    name="obd_score",
    points=3,
    minutes=15,
    difficulty=3,
    bonus=True,
    statement="obd_score(weight, inputs, output_gradients) scores each weight by h · w² / 2.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_samples, by_loop, by_squares),
    mistakes=(
        square_of_mean,
        square_of_sum,
        variance,
        slope,
        magnitudes,
        curvature_squared,
        weight_once,
        weight_magnitude,
        without_half,
        sums,
        over_outputs,
        turned_round,
        one_curvature,
        means_apart,
        inputs_alone,
        first_order,
        divides,
    ),
    hints=(
        Hint(
            "it passes with one sample and fails with several",
            "Two samples that pull a weight in opposite directions have the mean gradient 0, and still both "
            "feel it go. What must happen to each sample's gradient before the mean is taken?",
        ),
        Hint(
            "I do not know the gradient of one sample",
            "outputs[i, o] = Σ_j weight[o, j] · inputs[i, j], so g[i, o, j] = output_gradients[i, o] · "
            "inputs[i, j]: (samples, out, 1) times (samples, 1, in). Its squares, averaged over i, are h "
            "(out, in); the score is h · w² / 2.",
        ),
        Hint(
            "only the shapes do not fit",
            "gradients = output_gradients[:, :, ____] * inputs[:, ____, :]      # (samples, out, in)",
        ),
    ),
)
