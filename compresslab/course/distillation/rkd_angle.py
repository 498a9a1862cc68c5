"""Angles in a batch: at each image, the angle between the directions to two others, whatever their distance.

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
    """The student's embeddings are equal only where the teacher's are: elsewhere no direction is defined."""

    def drawn(n: int, student: int, teacher: int, *, scale: float = 1.0) -> dict[str, Any]:
        return {
            "embeddings": torch.randn(n, student, generator=rng),
            "teacher_embeddings": scale * torch.randn(n, teacher, generator=rng),
        }

    n = int(torch.randint(3, 5, (), generator=rng))
    yield "embeddings of two sizes", drawn(n, 3, 5)
    yield "a narrower teacher, its embeddings 20 times as long", drawn(n, 6, 4, scale=20.0)
    corner = torch.tensor([[1.0, 1], [2, 1], [1, 2]])
    in_line = torch.tensor([[1.0, 2, 0], [0, 2, 0], [3, 2, 0]])
    yield "a corner and a line", {"embeddings": corner, "teacher_embeddings": in_line}
    folded = torch.tensor([[1.0, 1], [6, 2], [6, 0], [5, 1]])
    opened = torch.tensor([[1.0, 1], [6, 1], [-4, 2], [-3, 4]])
    yield "directions that the teacher folds open", {"embeddings": folded, "teacher_embeddings": opened}
    turned = drawn(n, 4, 4)
    moved = torch.stack([-turned["embeddings"][:, k] for k in (2, 0, 3, 1)], dim=1) * 3 + 5
    yield "the same cloud, turned, moved and larger", turned | {"teacher_embeddings": moved}
    twice = {name: value[[0, 1, 1, 2]] for name, value in drawn(3, 4, 3).items()}
    yield "the same image twice", twice
    yield "two images: no angle between others", drawn(2, 3, 5)
    yield "one image", drawn(1, 3, 5)
    yield "float64", {name: value.double() for name, value in drawn(3, 5, 3).items()}
    yield "transposed tensors", {name: value.T for name, value in drawn(5, 4, 4).items()}


def probe(case: dict[str, Any], rkd_angle: Callable[..., Any]) -> dict[str, Any]:
    """Gradients to three decimals: two ways to compute the same differ in the seventh."""
    both = [case["embeddings"].requires_grad_(), case["teacher_embeddings"].requires_grad_()]
    loss = rkd_angle(*both)
    gradients: Any = (None, None)
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        gradients = torch.autograd.grad(loss.sum(), both, allow_unused=True)
    mine, teachers = (
        torch.zeros_like(x) if g is None else g.round(decimals=3)
        for x, g in zip(both, gradients, strict=True)
    )
    return {"loss": loss, "gradient": mine, "teacher_gradient": teachers}


def judge(case: dict[str, Any], record: Record) -> None:
    """PyTorch's own cosine of two vectors (0 where one is 0), in float64, vertex by vertex."""
    x, teacher = case["embeddings"], case["teacher_embeddings"]
    loss = expect.tensor(record["loss"], shape=(), dtype=x.dtype, what="the loss")
    exact = x.double().clone().requires_grad_()

    def cosines(points: Tensor) -> Tensor:
        arms = [points - vertex for vertex in points]
        return torch.stack([F.cosine_similarity(a[:, None], a[None], dim=-1) for a in arms])

    oracle = F.huber_loss(cosines(exact), cosines(teacher.double()))
    oracle.backward()
    expect.close(loss, oracle.detach(), tolerance=1e-6, what="the loss")
    gradient = expect.tensor(record["gradient"], shape=x.shape, what="the embeddings' gradient")
    above = expect.tensor(record["teacher_gradient"], shape=teacher.shape, what="the teacher's gradient")
    expect.close(above, 0.0, tolerance=1e-9, what="the teacher's gradient")
    expect.close(gradient, exact.grad, tolerance=6e-4, what="the embeddings' gradient")


def by_directions(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    def cosines(x: Tensor) -> Tensor:
        directions = F.normalize(x - x[:, None], dim=2)  # (n, n, d): entry [j, i] leads from j to i
        return directions @ directions.transpose(1, 2)  # (n, n, n): the vertex, then the two others

    return F.smooth_l1_loss(cosines(embeddings), cosines(teacher_embeddings.detach()))


def by_triples(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    def cosine(x: Tensor, i: int, j: int, k: int) -> Tensor:
        one, other = x[i] - x[j], x[k] - x[j]
        lengths = one.norm() * other.norm()
        return one @ other / lengths if lengths > 0 else one @ other

    n = len(embeddings)
    triples = [(i, j, k) for i in range(n) for j in range(n) for k in range(n)]
    mine, wanted = (
        torch.stack([cosine(x, *triple) for triple in triples])
        for x in (embeddings, teacher_embeddings.detach())
    )
    return F.huber_loss(mine, wanted)


def by_law_of_cosines(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """c² = a² + b² - 2ab cos, from the three sides of each triangle."""

    def cosines(x: Tensor) -> Tensor:
        sides = torch.cdist(x, x)
        a, b, c = sides[:, :, None], sides[:, None, :], sides[None]
        arms = 2 * a * b
        return torch.where(arms > 0, (a**2 + b**2 - c**2) / torch.where(arms > 0, arms, 1.0), 0.0)

    apart = (cosines(embeddings) - cosines(teacher_embeddings).detach()).abs()
    return torch.where(apart < 1, apart**2 / 2, apart - 0.5).mean()


def _loss(x: Tensor, teacher: Tensor, *, angles: Any, compare: Any = F.smooth_l1_loss) -> Tensor:
    return compare(angles(x), angles(teacher.detach()))


def _arms(x: Tensor) -> Tensor:
    return x - x[:, None]  # (n, n, d)


def _cosines(x: Tensor) -> Tensor:
    directions = F.normalize(_arms(x), dim=2)
    return directions @ directions.mT


@mistake(
    "measures the angle at the origin, the wrong vertex",
    says="the loss should be {wanted} and yours is {yours}, as with the angles between the embeddings "
    "themselves: their vertex is the origin, which no image lies at; subtract the embedding of image j first",
)
def at_origin(embeddings, teacher_embeddings):
    def angles(x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) @ F.normalize(x, dim=1).T

    return _loss(embeddings, teacher_embeddings, angles=angles)


@mistake(
    "compares directions that start at different images",
    says="the loss should be {wanted} and yours is {yours}, as with the cosines of all n² directions with "
    "all n²: an angle has both its arms at one vertex, so multiply each image's (n, d) with its transpose",
)
def any_two(embeddings, teacher_embeddings):
    def angles(x: Tensor) -> Tensor:
        directions = F.normalize(_arms(x), dim=2).flatten(0, 1)
        return directions @ directions.T

    return _loss(embeddings, teacher_embeddings, angles=angles)


@mistake(
    "does not bring the differences to unit length",
    says="the loss should be {wanted} and yours is {yours}, as with products of whole differences: these mix "
    "the angle with two lengths; divide each difference by its length first",
)
def not_unit(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, angles=lambda x: _arms(x) @ _arms(x).mT)


@mistake(
    "normalises along the wrong dimension",
    says="the loss should be {wanted} and yours is {yours}, as with F.normalize along dim=1, its default: of "
    "the differences (n, n, d) that is another image; a direction is a row of d numbers, dim=2",
)
def wrong_dimension(embeddings, teacher_embeddings):
    def angles(x: Tensor) -> Tensor:
        directions = F.normalize(_arms(x))
        return directions @ directions.mT

    return _loss(embeddings, teacher_embeddings, angles=angles)


@mistake(
    "takes the angle itself",
    says="the loss should be {wanted} and yours is {yours}, as with arccos: compare the cosines; the slope "
    "of arccos is infinite at ±1, where every angle with i = k lies",
)
def in_radians(embeddings, teacher_embeddings):
    def angles(x: Tensor) -> Tensor:
        return _cosines(x).clamp(-1 + 1e-6, 1 - 1e-6).arccos()

    return _loss(embeddings, teacher_embeddings, angles=angles)


@mistake(
    "divides 0 by 0 where i = j",
    says="your loss is NaN: from image j to itself the difference is 0 and so is its length; its direction "
    "counts as 0, which F.normalize gives, or a length that is at least 1e-12",
)
def zero_by_zero(embeddings, teacher_embeddings):
    def angles(x: Tensor) -> Tensor:
        directions = _arms(x) / _arms(x).norm(dim=2, keepdim=True)
        return directions @ directions.mT

    return _loss(embeddings, teacher_embeddings, angles=angles)


@mistake(
    "leaves out the triples in which an image comes twice",
    says="the loss should be {wanted} and yours is {yours}, as with the mean over three different images: "
    "the mean goes over all n³ triples; those with an image twice add 0",
)
def different_only(embeddings, teacher_embeddings):
    other = ~torch.eye(len(embeddings), dtype=torch.bool)
    kept = other[:, :, None] & other[:, None, :] & other[None]
    total = _loss(embeddings, teacher_embeddings, angles=lambda x: _cosines(x) * kept, compare=_huber_sum)
    return total / max(int(kept.sum()), 1)


def _huber_sum(mine: Tensor, wanted: Tensor) -> Tensor:
    return F.huber_loss(mine, wanted, reduction="sum")


@mistake(
    "sums where it should take the mean",
    says="the loss should be {wanted} and yours is {yours}: a sum of n³ terms grows with the batch; divide "
    "it by n³",
)
def summed(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, angles=_cosines, compare=_huber_sum)


@mistake(
    "forgets Huber: squares",
    says="the loss should be {wanted} and yours is {yours}, as with mse_loss: Huber is half the square up to "
    "a difference of 1, and a straight line beyond",
)
def mean_square(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, angles=_cosines, compare=F.mse_loss)


@mistake(
    "leaves a step in Huber at 1",
    says="the loss should be {wanted} and yours is {yours}: a difference above 1 adds |difference| - 1/2, "
    "which goes on where half the square ends; yours leaps from 1/2 to 1",
)
def with_a_step(embeddings, teacher_embeddings):
    def stepped(mine: Tensor, wanted: Tensor) -> Tensor:
        apart = (mine - wanted).abs()
        return torch.where(apart < 1, apart**2 / 2, apart).mean()

    return _loss(embeddings, teacher_embeddings, angles=_cosines, compare=stepped)


@mistake(
    "detaches the student's cosines",
    says="the gradient at {where} should be {wanted} and yours is {yours}: you detach the side that learns; "
    "only the teacher's embeddings stand still",
)
def student_detached(embeddings, teacher_embeddings):
    return F.smooth_l1_loss(_cosines(embeddings.detach()), _cosines(teacher_embeddings.detach()))


@mistake(
    "sends a gradient to the teacher",
    says="the teacher's gradient at {where} should be 0 and yours is {yours}: it is the target and stands "
    "still; detach() its embeddings",
)
def teacher_learns(embeddings, teacher_embeddings):
    return F.smooth_l1_loss(_cosines(embeddings), _cosines(teacher_embeddings))


EXERCISE = Exercise(
    name="rkd_angle",
    points=3,
    minutes=15,
    difficulty=4,
    bonus=True,
    statement="rkd_angle(embeddings, teacher_embeddings) compares the angles between images.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_directions, by_triples, by_law_of_cosines),
    mistakes=(
        at_origin,
        any_two,
        not_unit,
        wrong_dimension,
        in_radians,
        zero_by_zero,
        different_only,
        summed,
        mean_square,
        with_a_step,
        student_detached,
        teacher_learns,
    ),
    hints=(
        Hint(
            "I do not know what an angle between images is",
            "Stand at image j and look at image i, then at image k: two directions, two unit vectors. Their "
            "product is the cosine of the angle that you turned by.",
        ),
        Hint(
            "n³ cosines, and I have only loops",
            "arms = x - x[:, None] is (n, n, d): arms[j, i] leads from j to i. Unit length along dim=2, then "
            "a matrix product with the transpose of its last two dimensions: (n, n, n), the vertex first.",
        ),
        Hint(
            "the loss is NaN",
            "directions = F.________(arms, dim=2)    # of torch.nn.functional; leaves zeros zero",
        ),
    ),
)
