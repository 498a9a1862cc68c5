"""Soft targets: what a teacher thinks of all classes, not of the best one alone.

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Mostly float64, so that two ways to make the same mistake come to the same numbers."""

    def drawn(n: int, classes: int, *, dtype: torch.dtype = torch.float64, **given: Any) -> dict[str, Any]:
        logits = 3 * torch.randn(n, classes, generator=rng, dtype=torch.float64)
        temperature = 1.5 + 2.5 * float(torch.rand((), generator=rng))
        return {"logits": logits.to(dtype), "temperature": temperature} | given

    n, classes = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    yield "several images", drawn(n, classes)
    yield "one image", drawn(1, classes)
    yield "two classes", drawn(n, 2)
    yield "temperature 1", drawn(n, classes, temperature=1.0)
    yield "temperature 1/2: sharper, not softer", drawn(n, classes, temperature=0.5)
    turned = drawn(classes, n)
    yield "a transposed tensor", turned | {"logits": turned["logits"].T}
    yield "all logits equal", drawn(2, classes, logits=torch.full((2, classes), -1.7).double())
    apart = drawn(3, classes, dtype=torch.float32, temperature=2.0)
    far = torch.tensor([[600.0], [-600.0], [0.0]])
    yield "float32, logits near 600, -600 and 0", apart | {"logits": apart["logits"] + far}


def probe(case: dict[str, Any], soft_targets: Callable[..., Any]) -> dict[str, Any]:
    return {"p": soft_targets(case["logits"], temperature=case["temperature"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """The oracle is p_c = 1 / Σ_k exp((z_k - z_c) / T), which needs no maximum: 1 / infinity is 0."""
    z, temperature = case["logits"], case["temperature"]
    p = expect.tensor(record["p"], shape=z.shape, dtype=z.dtype, what="p").double()
    image = int((p.sum(dim=1) - 1).abs().argmax())
    total = float(p[image].sum())
    expect.true(
        abs(total - 1) < 1e-4,
        f"each image's probabilities add up to 1; those of image {image} add up to {total:.6g}",
        image=image,
        total=f"{total:.6g}",
    )
    differences = z.double()[:, None, :] - z.double()[:, :, None]  # (n, classes c, classes k)
    expect.close(p, 1 / (differences / temperature).exp().sum(dim=2), tolerance=1e-4, what="p")


def by_softmax(logits: Tensor, *, temperature: float) -> Tensor:
    return torch.softmax(logits / temperature, dim=1)


def by_logarithm(logits: Tensor, *, temperature: float) -> Tensor:
    z = logits / temperature
    return (z - torch.logsumexp(z, dim=1, keepdim=True)).exp()


def by_numbers(logits: Tensor, *, temperature: float) -> Tensor:
    p = torch.zeros_like(logits)
    for i, row in enumerate(logits.tolist()):
        powers = [math.exp((z - max(row)) / temperature) for z in row]
        p[i] = torch.tensor(powers, dtype=torch.float64) / sum(powers)
    return p


@mistake(
    "multiplies by T",
    says="p at {where} should be {wanted} and yours is {yours}: you multiply the logits by T, which makes "
    "the targets harder; divide, and the classes move closer together",
)
def multiplies(logits, *, temperature):
    return torch.softmax(logits * temperature, dim=1)


@mistake(
    "takes the softmax over the batch",
    says="the probabilities of image {image} add up to {total}, and they should to 1: in yours the "
    "images compete for a class, but it is the classes that compete for an image: dim=1",
)
def over_the_batch(logits, *, temperature):
    return torch.softmax(logits / temperature, dim=0)


@mistake(
    "softens probabilities instead of logits",
    says="p at {where} should be {wanted} and yours is {yours}: you take a softmax of a softmax; what is "
    "divided by T is the logits, before the only softmax",
)
def softmax_twice(logits, *, temperature):
    return torch.softmax(torch.softmax(logits, dim=1) / temperature, dim=1)


@mistake(
    "divides the probabilities by T",
    says="the probabilities of image {image} add up to {total}, which is 1 / T: you divide after the "
    "softmax, and that softens nothing; divide the logits",
)
def divides_probabilities(logits, *, temperature):
    return torch.softmax(logits, dim=1) / temperature


@mistake(
    "overflows",
    says="some p are NaN: exp() of a large number is infinite, of a very negative one 0, and inf / inf or "
    "0 / 0 is NaN; subtract each image's largest logit first, or call torch.softmax, which does",
)
def overflows(logits, *, temperature):
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


@mistake(
    "subtracts the largest logit of the whole batch",
    says="some p are NaN: you subtract one maximum from all images, so every exp() of an image far below it "
    "is 0, and 0 / 0 is NaN; each image has a maximum of its own: dim=1, keepdim=True",
)
def one_maximum(logits, *, temperature):
    powers = torch.exp((logits - logits.max()) / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


@mistake(
    "returns log-probabilities",
    says="the probabilities of image {image} add up to {total}: yours are their logarithms; "
    "softmax, not log_softmax",
)
def logarithms(logits, *, temperature):
    return torch.log_softmax(logits / temperature, dim=1)


@mistake(
    "ignores T",
    says="p at {where} should be {wanted} and yours is {yours}: this is the softmax at temperature 1; divide "
    "the logits by T",
)
def ignores_temperature(logits, *, temperature):
    return torch.softmax(logits, dim=1)


@mistake(
    "returns the best class alone",
    says="p at {where} should be {wanted} and yours is {yours}: a 1 for the best class says nothing about "
    "the others, and that is what a student should learn from; no argmax here",
)
def one_hot(logits, *, temperature):
    return torch.zeros_like(logits).scatter(1, logits.argmax(dim=1, keepdim=True), 1.0)


EXERCISE = Exercise(
    name="soft_targets",
    points=2,
    minutes=6,
    difficulty=1,
    statement="soft_targets(logits, temperature=…) gives each image's probabilities at a temperature.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_softmax, by_logarithm, by_numbers),
    mistakes=(
        multiplies,
        over_the_batch,
        softmax_twice,
        divides_probabilities,
        overflows,
        one_maximum,
        logarithms,
        ignores_temperature,
        one_hot,
    ),
    hints=(
        Hint(
            "my targets get harder when T grows",
            "What makes two logits more alike: to multiply both by 4, or to divide both by 4? Softer means "
            "more alike.",
        ),
        Hint(
            "an image's probabilities do not add up to 1",
            "logits (batch, classes); p[i, c] = exp(z[i, c] / T) / Σ_k exp(z[i, k] / T). The sum runs along "
            "a row, over the classes, and T stands inside exp().",
        ),
        Hint(
            "I get NaN for large logits, or do not know how to write it",
            "return torch.softmax(______ / temperature, dim=__)",
        ),
    ),
)
