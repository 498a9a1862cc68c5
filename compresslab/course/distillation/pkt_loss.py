"""Who is whose neighbour, as probabilities: the student learns the teacher's neighbourhoods.

Source: Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge transfer",
arXiv:1803.10837.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.special import xlogy

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Nearly opposite embeddings come only as exactly opposite ones: the last bit of a float decides."""

    def drawn(n: int, student: int, teacher: int, *, scale: float = 1.0) -> dict[str, Any]:
        return {
            "embeddings": torch.randn(n, student, generator=rng) + 0.5,
            "teacher_embeddings": scale * (torch.randn(n, teacher, generator=rng) + 0.5),
        }

    n = int(torch.randint(4, 7, (), generator=rng))
    positive = {name: value.relu() + 0.01 for name, value in drawn(n, 6, 9).items()}
    yield "embeddings of two sizes, none negative", positive
    yield "a narrower teacher, its embeddings 50 times as long", drawn(n, 9, 6, scale=50.0)
    turned = drawn(n, 6, 6)
    yield "the same directions, other lengths", turned | {"teacher_embeddings": turned["embeddings"] * 3}
    axes = 2.0**20 * torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    yield "opposite embeddings: probability 0", drawn(4, 3, 6) | {"embeddings": axes}
    silent = drawn(n, 6, 8)
    silent["teacher_embeddings"][1] = 0.0
    yield "a teacher's embedding of zeros", silent
    yield "one image: its own only neighbour", drawn(1, 5, 6)
    yield "float64", {name: value.double() for name, value in drawn(5, 7, 6).items()}
    yield "transposed tensors", {name: value.T for name, value in drawn(6, 6, 6).items()}


def probe(case: dict[str, Any], pkt_loss: Callable[..., Any]) -> dict[str, Any]:
    """The loss to six decimals, gradients of 10 times it to three: what rounding leaves alone."""
    both = [case["embeddings"].requires_grad_(), case["teacher_embeddings"].requires_grad_()]
    loss = pkt_loss(*both)
    gradients: Any = (None, None)
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        gradients = torch.autograd.grad(10 * loss.sum(), both, allow_unused=True)
        loss = loss.round(decimals=6)
    mine, teachers = (
        torch.zeros_like(x) if g is None else g.round(decimals=3)
        for x, g in zip(both, gradients, strict=True)
    )
    return {"loss": loss, "gradient": mine, "teacher_gradient": teachers}


def judge(case: dict[str, Any], record: Record) -> None:
    """Image by image in float64, from PyTorch's own cosine similarity."""
    x, teacher = case["embeddings"], case["teacher_embeddings"]
    loss = expect.tensor(record["loss"], shape=(), dtype=x.dtype, what="the loss")
    exact = x.double().clone().requires_grad_()

    def neighbours(points: Tensor, image: Tensor) -> Tensor:
        closeness = 1 + F.cosine_similarity(points, image[None])
        return closeness / closeness.sum()

    oracle = torch.zeros((), dtype=torch.float64)
    for mine, wanted in zip(exact, teacher.double(), strict=True):
        p, q = neighbours(teacher.double(), wanted), neighbours(exact, mine)
        oracle = oracle + (xlogy(p, p + 1e-7) - xlogy(p, q + 1e-7)).sum() / len(x) ** 2
    (10 * oracle).backward()
    expect.close(loss, oracle.detach(), tolerance=2e-6, what="the loss")
    gradient = expect.tensor(record["gradient"], shape=x.shape, what="the embeddings' gradient")
    above = expect.tensor(record["teacher_gradient"], shape=teacher.shape, what="the teacher's gradient")
    expect.close(above, 0.0, tolerance=1e-9, what="10 times the loss: the teacher's gradient")
    expect.close(gradient, exact.grad, tolerance=6e-4, what="10 times the loss: the embeddings' gradient")


def by_rows(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    def probabilities(x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=1)
        closeness = (unit @ unit.T + 1) / 2  # (n, n), in [0, 1]
        return closeness / closeness.sum(dim=1, keepdim=True)

    p, q = probabilities(teacher_embeddings.detach()), probabilities(embeddings)
    return (p * ((p + 1e-7) / (q + 1e-7)).log()).mean()


def by_columns(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Closeness is mutual, its matrix symmetric: columns do as well as rows."""
    with torch.no_grad():
        unit = teacher_embeddings / (teacher_embeddings.norm(dim=1, keepdim=True) + 1e-12)
        p = F.normalize(unit @ unit.T + 1, p=1, dim=0)
    unit = embeddings / embeddings.norm(dim=1, keepdim=True).clamp(min=1e-12)
    q = F.normalize(unit @ unit.T + 1, p=1, dim=0)
    return (p * (p + 1e-7).log() - p * (q + 1e-7).log()).mean()


def by_pairs(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    def closeness(x: Tensor, i: int) -> list[Tensor]:
        return [(1 + F.cosine_similarity(x[i], other, dim=0)) / 2 for other in x]

    n, loss = len(embeddings), embeddings.new_zeros(())
    for i in range(n):
        mine, wanted = closeness(embeddings, i), closeness(teacher_embeddings.detach(), i)
        for j in range(n):
            p, q = wanted[j] / sum(wanted), mine[j] / sum(mine)
            loss = loss + p * torch.log((p + 1e-7) / (q + 1e-7))
    return loss / n**2


def _closeness(x: Tensor) -> Tensor:
    unit = F.normalize(x, dim=1)
    return (unit @ unit.T + 1) / 2


def _shares(closeness: Tensor) -> Tensor:
    return closeness / closeness.sum(dim=1, keepdim=True)


def _probabilities(x: Tensor) -> Tensor:
    return _shares(_closeness(x))


def _terms(p: Tensor, q: Tensor) -> Tensor:
    return p * ((p + 1e-7) / (q + 1e-7)).log()


def _loss(x: Tensor, teacher: Tensor, probabilities: Any) -> Tensor:
    return _terms(probabilities(teacher.detach()), probabilities(x)).mean()


@mistake(
    "turns the divergence round",
    says="the loss should be {wanted} and yours is {yours}: yours is KL(student ‖ teacher), Σ q log(q / p); "
    "the teacher's probabilities weigh, Σ p log(p / q)",
)
def turned_round(embeddings, teacher_embeddings):
    return _terms(_probabilities(embeddings), _probabilities(teacher_embeddings.detach())).mean()


@mistake(
    "does not shift the cosines",
    says="the loss should be {wanted} and yours is {yours}, as without (s + 1) / 2: a cosine can be "
    "negative, a probability cannot",
)
def not_shifted(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, lambda x: _shares(2 * _closeness(x) - 1))


@mistake(
    "uses softmax",
    says="the loss should be {wanted} and yours is {yours}, as with softmax along the rows: here a row is "
    "divided by its sum, for the shifted cosines are not negative already",
)
def with_softmax(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, lambda x: _closeness(x).softmax(dim=1))


@mistake(
    "does not bring the embeddings to unit length",
    says="the loss should be {wanted} and yours is {yours}, as with plain products: long embeddings would be "
    "everybody's neighbours; divide each by its length first, the product is then the cosine",
)
def not_unit(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, lambda x: _shares((x @ x.T + 1) / 2))


@mistake(
    "returns the cross-entropy",
    says="the loss should be {wanted} and yours is {yours}, with Σ -p log q: that is not 0 even for a "
    "perfect student; take off what the teacher's own p log p weighs",
)
def cross_entropy(embeddings, teacher_embeddings):
    p, q = _probabilities(teacher_embeddings.detach()), _probabilities(embeddings)
    return -(p * (q + 1e-7).log()).mean()


@mistake(
    "divides by the sum of the whole matrix",
    says="the loss should be {wanted} and yours is {yours}, as with all n² numbers adding up to 1: each "
    "image has neighbours of its own, so each row adds up to 1",
)
def whole_matrix(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, lambda x: _closeness(x) / _closeness(x).sum())


@mistake(
    "does not make probabilities of them",
    says="the loss should be {wanted} and yours is {yours}, as with the shifted cosines themselves: a "
    "divergence compares probabilities; divide each row by its sum",
)
def not_probabilities(embeddings, teacher_embeddings):
    return _loss(embeddings, teacher_embeddings, _closeness)


@mistake(
    "leaves out the image itself",
    says="the loss should be {wanted} and yours is {yours}, as with 0 on the diagonal: in this loss an image "
    "is a neighbour of itself, with the cosine 1",
)
def without_itself(embeddings, teacher_embeddings):
    def probabilities(x: Tensor) -> Tensor:
        closeness = _closeness(x) * (1 - torch.eye(len(x), dtype=x.dtype))
        return closeness / closeness.sum(dim=1, keepdim=True).clamp(min=1e-7)

    return _loss(embeddings, teacher_embeddings, probabilities)


@mistake(
    "sums where it should take the mean",
    says="the loss should be {wanted} and yours is {yours}: the sum over all n² pairs; divide it by n²",
)
def summed(embeddings, teacher_embeddings):
    return _terms(_probabilities(teacher_embeddings.detach()), _probabilities(embeddings)).sum()


@mistake(
    "divides by the number of images",
    says="the loss should be {wanted} and yours is {yours}, n times as much, as with kl_div's batchmean: "
    "this loss is the mean over all n² pairs",
)
def mean_over_images(embeddings, teacher_embeddings):
    p, q = _probabilities(teacher_embeddings.detach()), _probabilities(embeddings)
    return _terms(p, q).sum(dim=1).mean()


@mistake(
    "takes the logarithm of 0",
    says="your loss is infinite where the student has two opposite embeddings: their q is 0; add 1e-7 to p "
    "and to q inside the logarithm",
)
def log_of_zero(embeddings, teacher_embeddings):
    p, q = _probabilities(teacher_embeddings.detach()), _probabilities(embeddings)
    return (p * (p / q).log()).mean()


@mistake(
    "divides a zero embedding by its length 0",
    says="your loss is NaN for an image whose embedding is all zeros, as a ReLU can leave it: 0 / 0; use "
    "F.normalize, or a length that is at least 1e-12, and the row stays zeros",
)
def zero_by_zero(embeddings, teacher_embeddings):
    def probabilities(x: Tensor) -> Tensor:
        unit = x / x.norm(dim=1, keepdim=True)
        return _shares((unit @ unit.T + 1) / 2)

    return _loss(embeddings, teacher_embeddings, probabilities)


@mistake(
    "detaches the student's probabilities",
    says="the gradient at {where} should be {wanted} and yours is {yours}: you detach the side that learns; "
    "only the teacher's embeddings stand still",
)
def student_detached(embeddings, teacher_embeddings):
    return _loss(embeddings.detach(), teacher_embeddings, _probabilities)


@mistake(
    "sends a gradient to the teacher",
    says="the teacher's gradient at {where} should be 0 and yours is {yours}: it is the target and stands "
    "still; detach() its embeddings",
)
def teacher_learns(embeddings, teacher_embeddings):
    return _terms(_probabilities(teacher_embeddings), _probabilities(embeddings)).mean()


EXERCISE = Exercise(
    name="pkt_loss",
    points=3,
    minutes=12,
    difficulty=3,
    bonus=True,
    statement="pkt_loss(embeddings, teacher_embeddings) compares who is whose neighbour in the batch.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_rows, by_columns, by_pairs),
    mistakes=(
        turned_round,
        not_shifted,
        with_softmax,
        not_unit,
        cross_entropy,
        whole_matrix,
        not_probabilities,
        without_itself,
        summed,
        mean_over_images,
        log_of_zero,
        zero_by_zero,
        student_detached,
        teacher_learns,
    ),
    hints=(
        Hint(
            "I do not see what is a probability here",
            "Take one image and ask how likely each image of the batch is to be picked as its neighbour: the "
            "closer, the likelier, and together 1. A row of n numbers for each image, in either network.",
        ),
        Hint(
            "my loss is NaN, or off by a factor",
            "unit = rows of length 1, (n, d); (unit @ unit.T + 1) / 2 is (n, n) and in [0, 1]; each row "
            "divided by its sum. Then p · log((p + 1e-7) / (q + 1e-7)), p the teacher's, and the mean of n².",
        ),
        Hint(
            "the rows do not add up to 1",
            "probabilities = closeness / closeness.sum(dim=____, keepdim=____)",
        ),
    ),
)
