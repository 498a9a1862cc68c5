"""Distances in a batch, each network's own measured by their mean: the student copies the shape of the cloud.

Source: Park, Kim, Lu and Cho 2019, "Relational knowledge distillation", arXiv:1904.05068.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Equal embeddings are whole numbers, so that every way of computing their distance gives exactly 0."""

    def drawn(n: int, student: int, teacher: int, *, scale: float = 1.0) -> dict[str, Any]:
        return {
            "embeddings": torch.randn(n, student, generator=rng),
            "teacher_embeddings": scale * torch.randn(n, teacher, generator=rng),
        }

    n = int(torch.randint(4, 7, (), generator=rng))
    yield "embeddings of two sizes", drawn(n, 3, 5)
    yield "a narrower teacher, its embeddings 40 times as long", drawn(n, 6, 4, scale=40.0)
    same_shape = drawn(n, 4, 4)
    yield "the same cloud, larger", same_shape | {"teacher_embeddings": 2.5 * same_shape["embeddings"]}
    far = drawn(5, 4, 6)
    far["embeddings"][2] += 30.0
    yield "one image far away from the others", far
    twice = torch.tensor([[0.0, 3, 1], [2, 0, -1], [2, 0, -1], [5, 4, 4]])
    yield "the same image twice", drawn(4, 3, 5) | {"embeddings": twice}
    yield "two images: their one distance is the mean", drawn(2, 3, 5)
    yield "float64", {name: value.double() for name, value in drawn(n, 5, 3).items()}
    yield "transposed tensors", {name: value.T for name, value in drawn(4, 5, 5, scale=3.0).items()}


def probe(case: dict[str, Any], rkd_distance: Callable[..., Any]) -> dict[str, Any]:
    """Gradients to three decimals: two ways to compute the same differ in the seventh."""
    both = [case["embeddings"].requires_grad_(), case["teacher_embeddings"].requires_grad_()]
    loss = rkd_distance(*both)
    gradients: Any = (None, None)
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        gradients = torch.autograd.grad(loss.sum(), both, allow_unused=True)
    mine, teachers = (
        torch.zeros_like(x) if g is None else g.round(decimals=3)
        for x, g in zip(both, gradients, strict=True)
    )
    return {"loss": loss, "gradient": mine, "teacher_gradient": teachers}


def judge(case: dict[str, Any], record: Record) -> None:
    """PyTorch's own list of the distances i < j, in float64; each counts twice, the diagonal adds nothing."""
    x, teacher = case["embeddings"], case["teacher_embeddings"]
    loss = expect.tensor(record["loss"], shape=(), dtype=x.dtype, what="the loss")
    exact = x.double().clone(memory_format=torch.contiguous_format).requires_grad_()
    mine, wanted = torch.pdist(exact), torch.pdist(teacher.double().contiguous())
    oracle = F.huber_loss(mine / mine.mean(), wanted / wanted.mean(), reduction="sum") * 2 / len(x) ** 2
    oracle.backward()
    expect.close(loss, oracle.detach(), tolerance=1e-6, what="the loss")
    gradient = expect.tensor(record["gradient"], shape=x.shape, what="the embeddings' gradient")
    above = expect.tensor(record["teacher_gradient"], shape=teacher.shape, what="the teacher's gradient")
    expect.close(above, 0.0, tolerance=1e-9, what="the teacher's gradient")
    expect.close(gradient, exact.grad, tolerance=6e-4, what="the embeddings' gradient")


def by_cdist(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    def relative(x: Tensor) -> Tensor:
        distances = torch.cdist(x, x)  # (n, n), zeros on the diagonal
        return distances * len(x) * (len(x) - 1) / distances.sum()

    return F.smooth_l1_loss(relative(embeddings), relative(teacher_embeddings.detach()))


def by_products(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """As the authors compute it: |a - b|² = |a|² + |b|² - 2ab."""
    elsewhere = ~torch.eye(len(embeddings), dtype=torch.bool)

    def relative(x: Tensor) -> Tensor:
        products = x @ x.T
        squares = products.diagonal()
        distances = (squares[:, None] + squares - 2 * products).clamp(min=1e-12).sqrt()
        return distances / distances[elsewhere].mean() * elsewhere

    return F.huber_loss(relative(embeddings), relative(teacher_embeddings).detach())


def by_pairs(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    n = len(embeddings)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    both = [
        torch.stack([(x[i] - x[j]).norm() for i, j in pairs])
        for x in (embeddings, teacher_embeddings.detach())
    ]
    apart = (both[0] / both[0].mean() - both[1] / both[1].mean()).abs()
    return torch.where(apart < 1, apart**2 / 2, apart - 0.5).sum() * 2 / n**2


def _mean(distances: Tensor) -> Tensor:
    return distances.sum() / (len(distances) * (len(distances) - 1))


def _loss(x: Tensor, teacher: Tensor, *, unit: Any = _mean, measure: Any = torch.cdist, compare: Any = None):
    """The loss with one thing changed: what the distances are divided by, what they are, how they compare."""
    teacher = teacher.detach()
    mine, wanted = measure(x, x), measure(teacher, teacher)
    return (compare or F.smooth_l1_loss)(mine / unit(mine), wanted / unit(wanted))


@mistake(
    "does not normalise",
    says="the loss should be {wanted} and yours is {yours}: lengths differ from network to network and mean "
    "nothing; divide each network's distances by their own mean, then only the shape counts",
)
def not_normalised(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=lambda distances: 1.0)


@mistake(
    "divides by the largest distance",
    says="the loss should be {wanted} and yours is {yours}, as with distances divided by their maximum: one "
    "image far away would then set the scale of all; divide by the mean",
)
def by_largest(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=torch.max)


@mistake(
    "divides by the sum",
    says="the loss should be {wanted} and yours is {yours}, as with distances divided by their sum: the "
    "larger the batch, the less would be left of them; divide by the mean over the pairs",
)
def by_sum(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=torch.sum)


@mistake(
    "takes the mean over the diagonal too",
    says="the loss should be {wanted} and yours is {yours}, as with the mean of all n² entries: an image and "
    "itself are no pair, mask the diagonal; there are n(n - 1) pairs",
)
def with_diagonal(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=torch.mean)


@mistake(
    "leaves pairs of equal images out of the mean",
    says="the loss should be {wanted} and yours is {yours}: distances > 0 are not all the pairs i ≠ j, for "
    "two images may be equal, and their distance 0 counts in the mean; mask the diagonal by its place",
)
def positive_only(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=lambda distances: distances[distances > 0].mean())


@mistake(
    "divides both by the teacher's mean",
    says="the loss should be {wanted} and yours is {yours}: the student's distances are divided by the "
    "teacher's mean; each network is measured by its own",
)
def teachers_mean(embeddings, teacher_embeddings):
    unit = _mean(torch.cdist(teacher_embeddings, teacher_embeddings)).detach()
    return _loss(embeddings, teacher_embeddings, unit=lambda distances: unit)


@mistake(
    "leaves the distances squared",
    says="the loss should be {wanted} and yours is {yours}, as with squared distances: the root is missing",
)
def squared(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, measure=lambda a, b: torch.cdist(a, b) ** 2)


@mistake(
    "forgets Huber: squares",
    says="the loss should be {wanted} and yours is {yours}, as with mse_loss: Huber is half the square up to "
    "a difference of 1, and a straight line beyond",
)
def mean_square(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, compare=F.mse_loss)


@mistake(
    "leaves a step in Huber at 1",
    says="the loss should be {wanted} and yours is {yours}: a difference above 1 adds |difference| - 1/2, "
    "which goes on where half the square ends; yours leaps from 1/2 to 1",
)
def with_a_step(embeddings, teacher_embeddings):
    def stepped(mine: Tensor, wanted: Tensor) -> Tensor:
        apart = (mine - wanted).abs()
        return torch.where(apart < 1, apart**2 / 2, apart).mean()

    return _loss(embeddings, teacher_embeddings, compare=stepped)


@mistake(
    "forgets Huber: absolute differences",
    says="the loss should be {wanted} and yours is {yours}, as with l1_loss: Huber is round at the bottom, "
    "half the square up to a difference of 1",
)
def absolute(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, compare=F.l1_loss)


@mistake(
    "compares the embeddings themselves, cut to one size",
    says="the loss should be {wanted} and yours is {yours}, as if entry 0 meant the same in both networks: "
    "it doesn't; compare the (n, n) distances, whose size depends on the images alone",
)
def cut_columns(embeddings, teacher_embeddings):
    size = min(embeddings.shape[1], teacher_embeddings.shape[1])
    return F.smooth_l1_loss(embeddings[:, :size], teacher_embeddings[:, :size].detach())


@mistake(
    "lets the root of 0 spoil the gradient",
    says="the loss is right and its gradient is NaN: √ is infinitely steep at 0, and the diagonal is 0, "
    "times a gradient of 0; clamp(min=1e-12) before the root, or torch.cdist, which takes care of it",
)
def steep_root(embeddings, teacher_embeddings):
    return _loss(
        embeddings, teacher_embeddings, measure=lambda a, b: ((a[:, None] - b) ** 2).sum(dim=2).sqrt()
    )


@mistake(
    "holds the student's mean fixed",
    says="the gradient at {where} should be {wanted} and yours is {yours}: the mean hangs on the embeddings "
    "as well, so only the teacher's is detached",
)
def fixed_mean(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, unit=lambda distances: _mean(distances).detach())


@mistake(
    "sends a gradient to the teacher",
    says="the teacher's gradient at {where} should be 0 and yours is {yours}: it is the target and stands "
    "still; detach() its embeddings",
)
def teacher_learns(embeddings, teacher_embeddings):
    mine, wanted = (torch.cdist(x, x) for x in (embeddings, teacher_embeddings))
    return F.smooth_l1_loss(mine / _mean(mine), wanted / _mean(wanted))


EXERCISE = Exercise(
    name="rkd_distance",
    points=3,
    minutes=15,
    difficulty=3,
    statement="rkd_distance(embeddings, teacher_embeddings) compares how far apart the images lie.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_cdist, by_products, by_pairs),
    mistakes=(
        not_normalised,
        by_largest,
        by_sum,
        with_diagonal,
        positive_only,
        teachers_mean,
        squared,
        mean_square,
        with_a_step,
        absolute,
        cut_columns,
        steep_root,
        fixed_mean,
        teacher_learns,
    ),
    hints=(
        Hint(
            "the two embeddings do not have the same size",
            "They need not: how far apart two images lie is one number in either network. Compare these.",
        ),
        Hint(
            "my loss is a little too large or too small",
            "torch.cdist(x, x) is (n, n) with zeros on the diagonal. Its mean over the pairs is its sum "
            "divided by n(n - 1), a mean for each network. Then one smooth_l1_loss over all n² entries.",
        ),
        Hint(
            "I divide by the wrong thing",
            "relative = distances * n * (n - 1) / ____    # and the same for the teacher's",
        ),
    ),
)
