"""The gradient of distillation by hand: the student's probabilities minus the teacher's, T times.

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
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


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Mostly float64, so that two ways to make the same mistake come to the same numbers."""

    def drawn(n: int, classes: int, *, dtype: torch.dtype = torch.float64, **given: Any) -> dict[str, Any]:
        z, v = 3 * torch.randn(2, n, classes, generator=rng, dtype=torch.float64)
        temperature = 1.5 + 2.5 * float(torch.rand((), generator=rng))
        return {"logits": z.to(dtype), "teacher_logits": v.to(dtype), "temperature": temperature} | given

    n, classes = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    yield "several images", drawn(n, classes)
    yield "one image", drawn(1, classes)
    yield "two classes", drawn(n, 2)
    yield "temperature 1", drawn(n, classes, temperature=1.0)
    yield "temperature 20", drawn(n, classes, temperature=20.0)
    alike = drawn(n, classes)
    yield "the student equals the teacher", alike | {"teacher_logits": alike["logits"].clone()}
    shifted = {"teacher_logits": alike["logits"] - 7}
    yield "the teacher's logits all 7 lower, its probabilities the same", alike | shifted
    turned = drawn(classes, n)
    yield "transposed tensors", turned | {name: turned[name].T for name in ("logits", "teacher_logits")}
    apart = drawn(2, 3, dtype=torch.float32, temperature=2.0)
    far = torch.tensor([[250.0, -250.0, 0.0], [-250.0, 0.0, -250.0]])
    both = {"logits": apart["logits"] + far, "teacher_logits": apart["teacher_logits"] - far}
    yield "float32, logits of ±250, and no agreement", apart | both


def probe(case: dict[str, Any], kd_gradient: Callable[..., Any]) -> dict[str, Any]:
    with torch.no_grad():  # by hand: autograd is the oracle
        gradient = kd_gradient(case["logits"], case["teacher_logits"], temperature=case["temperature"])
    return {"gradient": gradient}


def judge(case: dict[str, Any], record: Record) -> None:
    """A law first: one number added to all logits of an image changes no probability."""
    z, v = case["logits"].double().clone().requires_grad_(), case["teacher_logits"].double()
    gradient = expect.tensor(
        record["gradient"], shape=z.shape, dtype=case["logits"].dtype, what="the gradient"
    ).double()
    image = int(gradient.sum(dim=1).abs().argmax())
    total = float(gradient[image].sum())
    expect.true(
        abs(total) < 1e-4,
        f"each image's gradients add up to 0; those of image {image} to {total:.6g}",
        image=image,
        total=f"{total:.6g}",
    )
    log_p, log_target = (F.log_softmax(each / case["temperature"], dim=1) for each in (z, v))
    loss = F.kl_div(log_p, log_target, reduction="batchmean", log_target=True) * case["temperature"] ** 2
    loss.backward()
    expect.close(gradient, z.grad, what="the gradient")


def by_difference(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    student = torch.softmax(logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    return temperature * (student - teacher) / len(logits)


def by_jacobian(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    gradient = torch.zeros_like(logits)
    for i, (z, v) in enumerate(zip(logits, teacher_logits, strict=True)):
        p, target = (z / temperature).softmax(0), (v / temperature).softmax(0)
        jacobian = torch.eye(len(z), dtype=z.dtype) - p  # of log p: row k, column c
        gradient[i] = -(target @ jacobian) * temperature / len(logits)
    return gradient


def by_stacking(logits, teacher_logits, *, temperature):
    both = torch.stack([teacher_logits, logits])  # (2, n, classes)
    (difference,) = torch.softmax(both / temperature, dim=2).diff(dim=0)
    return difference.mul(temperature).div(logits.shape[0])


def _both(logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return torch.softmax(logits / temperature, dim=1), torch.softmax(teacher_logits / temperature, dim=1)


@mistake(
    "turns the sign round",
    says="the gradient at {where} is {wanted}; yours is {yours}, the opposite: where the student is surer "
    "than its teacher the loss grows with the logit, so it is p_s - p_t",
)
def turned_round(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return temperature * (teacher - student) / len(logits)


@mistake(
    "forgets the mean over the batch",
    says="the gradient at {where} is {wanted}; yours is {yours}, n times as much: the loss is a mean over n "
    "images, so each image's part is divided by n",
)
def without_mean(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return temperature * (student - teacher)


@mistake(
    "forgets T",
    says="the gradient at {where} is {wanted}; yours is {yours}, which lacks a factor T: T² from the loss, "
    "times 1 / T from dividing the logits, leaves one T",
)
def without_temperature(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return (student - teacher) / len(logits)


@mistake(
    "leaves T² as it is",
    says="the gradient at {where} is {wanted}; yours is {yours}, T times as much: the chain rule goes "
    "through logits / T as well, and brings a 1 / T",
)
def square_left(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return temperature**2 * (student - teacher) / len(logits)


@mistake(
    "leaves T² out of the loss",
    says="the gradient at {where} is {wanted}; yours is {yours}, 1 / T² of it: this is the gradient of the "
    "divergence alone; the loss is T² times that",
)
def divergence_alone(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return (student - teacher) / temperature / len(logits)


@mistake(
    "takes the probabilities at temperature 1",
    says="the gradient at {where} is {wanted}; yours is {yours}: your probabilities are not softened; divide "
    "both logits by T before the softmax",
)
def not_softened(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, 1.0)
    return temperature * (student - teacher) / len(logits)


@mistake(
    "subtracts log-probabilities",
    says="your gradients of image {image} add up to {total}, and they should to 0: you subtract logarithms; "
    "the gradient is a difference of probabilities, softmax, not log_softmax",
)
def logarithms(logits, teacher_logits, *, temperature):
    student, teacher = (torch.log_softmax(z / temperature, dim=1) for z in (logits, teacher_logits))
    return temperature * (student - teacher) / len(logits)


@mistake(
    "stops at the logarithm",
    says="your gradients of image {image} add up to {total}, and they should to 0: -p_t is the gradient of "
    "the loss by log p_s; each log p_s hangs on all logits through the sum in the softmax, which adds p_s",
)
def stops_early(logits, teacher_logits, *, temperature):
    return -temperature * torch.softmax(teacher_logits / temperature, dim=1) / len(logits)


@mistake(
    "takes the softmax over the batch",
    says="your gradients of image {image} add up to {total}, and they should to 0: your images compete for "
    "each class; the softmax runs along the classes, dim=1",
)
def over_the_batch(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits.T, teacher_logits.T, temperature)
    return temperature * (student - teacher).T / len(logits)


@mistake(
    "divides by the classes too",
    says="the gradient at {where} is {wanted}; yours is {yours}: the divergence is a sum over the classes "
    "and a mean over the images alone; divide by the number of images",
)
def mean_over_classes(logits, teacher_logits, *, temperature):
    student, teacher = _both(logits, teacher_logits, temperature)
    return temperature * (student - teacher) / logits.numel()


@mistake(
    "takes the teacher's best class alone",
    says="the gradient at {where} is {wanted}; yours is {yours}: this is the gradient towards the teacher's "
    "best class; the soft targets are all its probabilities at T",
)
def best_class(logits, teacher_logits, *, temperature):
    hard = torch.zeros_like(logits).scatter(1, teacher_logits.argmax(dim=1, keepdim=True), 1.0)
    return temperature * (torch.softmax(logits / temperature, dim=1) - hard) / len(logits)


@mistake(
    "takes the limit of a high temperature",
    says="the gradient at {where} is {wanted}; yours is {yours}: the difference of the centred logits, "
    "divided by n and the classes, is what the gradient becomes when T grows without end; at this T it "
    "takes two softmaxes",
)
def high_temperature(logits, teacher_logits, *, temperature):
    difference = logits - teacher_logits
    return (difference - difference.mean(dim=1, keepdim=True)) / logits.numel()


@mistake(
    "overflows",
    says="some of your gradients are NaN: exp() of a large number is infinite, and inf / inf is NaN; "
    "torch.softmax subtracts each image's largest logit first",
)
def overflows(logits, teacher_logits, *, temperature):
    powers = [torch.exp(z / temperature) for z in (logits, teacher_logits)]
    student, teacher = (each / each.sum(dim=1, keepdim=True) for each in powers)
    return temperature * (student - teacher) / len(logits)


EXERCISE = Exercise(
    name="kd_gradient",
    points=2,
    minutes=10,
    difficulty=3,
    bonus=True,
    statement="kd_gradient(logits, teacher_logits, temperature=…) is the soft loss's gradient, by hand.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_difference, by_jacobian, by_stacking),
    mistakes=(
        turned_round,
        without_mean,
        without_temperature,
        square_left,
        divergence_alone,
        not_softened,
        logarithms,
        stops_early,
        over_the_batch,
        mean_over_classes,
        best_class,
        high_temperature,
        overflows,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "Take one image and T = 1. Only -Σ_k p_t[k] · log p_s[k] hangs on the student, and "
            "log p_s[k] = z[k] - log Σ_j exp(z[j]). What is its derivative by z[c], for k = c and for k ≠ c? "
            "The p_t add up to 1.",
        ),
        Hint(
            "the gradient has the right pattern and the wrong size",
            "Three factors meet: T² stands before the divergence, the chain rule through z / T brings 1 / T, "
            "the mean over n images 1 / n. The rest is a difference of two (batch, classes) softmaxes at T.",
        ),
        Hint(
            "I derived it, and do not know how to write it",
            "return ______ * (torch.softmax(logits / temperature, dim=1) - ______) / len(logits)",
        ),
    ),
)
