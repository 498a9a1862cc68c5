"""The loss of distillation: the label's cross-entropy and, T² times, the divergence from the teacher.

Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Mostly float64, so that two ways to make the same mistake come to the same numbers."""

    def drawn(n: int, classes: int, *, dtype: torch.dtype = torch.float64, **given: Any) -> dict[str, Any]:
        z, v = 3 * torch.randn(2, n, classes, generator=rng, dtype=torch.float64)
        temperature, weight = torch.rand(2, generator=rng).tolist()
        return {
            "logits": z.to(dtype),
            "teacher_logits": v.to(dtype),
            "labels": torch.randint(0, classes, (n,), generator=rng),
            "temperature": 1.5 + 2.5 * temperature,
            "weight": 0.6 + 0.3 * weight,
        } | given

    n, classes = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    yield "several images", drawn(n, classes)
    yield "one image", drawn(1, classes)
    yield "temperature 1", drawn(n, classes, temperature=1.0)
    yield "weight 0: the labels alone", drawn(n, classes, weight=0.0)
    yield "weight 1: the teacher alone", drawn(n, classes, weight=1.0)
    alike = drawn(n, classes)
    yield "the student equals the teacher", alike | {"teacher_logits": alike["logits"].clone()}
    turned = drawn(2, n, labels=torch.randint(0, 2, (n,), generator=rng))
    transposed = {name: turned[name].T for name in ("logits", "teacher_logits")}
    yield "two classes, transposed tensors", turned | transposed
    apart = drawn(2, 3, dtype=torch.float32, temperature=2.0)
    far = torch.tensor([[150.0, -150.0, 0.0], [-150.0, 0.0, 150.0]])
    both = {"logits": apart["logits"] + far, "teacher_logits": apart["teacher_logits"] - far}
    yield "float32, logits of ±150, and no agreement", apart | both


def probe(case: dict[str, Any], kd_loss: Callable[..., Any]) -> dict[str, Any]:
    both = [case["logits"].requires_grad_(), case["teacher_logits"].requires_grad_()]
    loss = kd_loss(*both, case["labels"], temperature=case["temperature"], weight=case["weight"])
    gradients: Any = [None, None]
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        gradients = torch.autograd.grad(loss.sum(), both, allow_unused=True)
    student, teacher = (torch.zeros_like(z) if g is None else g for z, g in zip(both, gradients, strict=True))
    return {"loss": loss, "student": student, "teacher": teacher}


def judge(case: dict[str, Any], record: Record) -> None:
    """The oracle: PyTorch's distributions, and autograd through them, in float64."""
    z = case["logits"].double().clone().requires_grad_()
    loss = expect.tensor(record["loss"], shape=(), what="the loss")
    student = expect.tensor(record["student"], shape=z.shape, what="the gradient of logits")
    teacher = expect.tensor(record["teacher"], shape=z.shape, what="the gradient of teacher_logits")
    temperature, weight = case["temperature"], case["weight"]
    targets = Categorical(logits=case["teacher_logits"].double() / temperature)
    soft = kl_divergence(targets, Categorical(logits=z / temperature)).mean()
    hard = -Categorical(logits=z).log_prob(case["labels"]).mean()
    oracle = (1 - weight) * hard + weight * temperature**2 * soft
    oracle.backward()
    expect.close(loss, oracle.detach(), tolerance=1e-4, what="the loss")
    expect.close(teacher, torch.zeros_like(teacher), what="the gradient of teacher_logits")
    expect.close(student, z.grad, tolerance=1e-4, what="the gradient of logits")


def by_kl_div(logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, weight: float):
    log_p = torch.log_softmax(logits / temperature, dim=1)
    targets = torch.softmax(teacher_logits.detach() / temperature, dim=1)
    soft = F.kl_div(log_p, targets, reduction="batchmean") * temperature**2
    return (1 - weight) * F.cross_entropy(logits, labels) + weight * soft


def by_formula(logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, weight: float):
    student, teacher = (torch.log_softmax(z / temperature, dim=1) for z in (logits, teacher_logits.detach()))
    divergence = (teacher.exp() * (teacher - student)).sum(dim=1)  # (n,)
    chosen = torch.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]
    return (weight * temperature**2 * divergence - (1 - weight) * chosen).mean()


def by_image(logits, teacher_logits, labels, *, temperature, weight):
    total = torch.zeros((), dtype=logits.dtype)
    for z, v, label in zip(logits, teacher_logits.detach(), labels.tolist(), strict=True):
        hard = z.logsumexp(0) - z[label]
        z, v = z / temperature, v / temperature
        # Σ p (log p_t - log p_s), where the two logsumexp are the same for all classes
        soft = (v.softmax(0) * (v - z)).sum() - v.logsumexp(0) + z.logsumexp(0)
        total = total + (1 - weight) * hard + weight * temperature**2 * soft
    return total / len(labels)


def _kl(target: Tensor, log_p: Tensor) -> Tensor:
    """Σ over the classes of target · (log target - log p), for each image: (n,)."""
    return (torch.xlogy(target, target) - target * log_p).sum(dim=1)


def _soft(z: Tensor, v: Tensor, temperature: float) -> Tensor:
    """KL for each image, (n,)."""
    log_p = torch.log_softmax(z / temperature, dim=1)
    return _kl(torch.softmax(v.detach() / temperature, dim=1), log_p)


def _mixed(weight: float, hard: Tensor, soft: Tensor) -> Tensor:
    return (1 - weight) * hard + weight * soft


@mistake(
    "turns the divergence round",
    says="the loss is {wanted}; yours is {yours}, with KL(student ‖ teacher): the teacher's probabilities "
    "weigh, Σ p_t · (log p_t - log p_s); F.kl_div takes the student's logarithms first, the teacher second",
)
def reversed_kl(logits, teacher_logits, labels, *, temperature, weight):
    log_p = torch.log_softmax(logits / temperature, dim=1)
    soft = _kl(log_p.exp(), torch.log_softmax(teacher_logits.detach() / temperature, dim=1)).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), temperature**2 * soft)


@mistake(
    "forgets T²",
    says="the loss is {wanted}; yours is {yours}, without T²: a softer teacher gives smaller gradients, "
    "about 1 / T² of them, so the soft part is multiplied by temperature**2",
)
def without_square(logits, teacher_logits, labels, *, temperature, weight):
    soft = _soft(logits, teacher_logits, temperature).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "multiplies by T instead of T²",
    says="the loss is {wanted}; yours is {yours}, with T where T² belongs: the gradients lose one T as the "
    "logits are divided, and another one as the two softmaxes move closer together",
)
def single_temperature(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature * _soft(logits, teacher_logits, temperature).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "gives probabilities where logarithms belong",
    says="the loss is {wanted}; yours is {yours}: F.kl_div wants log-probabilities as its first argument, "
    "and takes plain ones without a word; log_softmax for the student",
)
def no_logarithm(logits, teacher_logits, labels, *, temperature, weight):
    p = torch.softmax(logits / temperature, dim=1)
    soft = _kl(torch.softmax(teacher_logits.detach() / temperature, dim=1), p).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), temperature**2 * soft)


@mistake(
    "softens probabilities instead of logits",
    says="the loss is {wanted}; yours is {yours}: you take a softmax of a softmax; both models hand you "
    "logits, divide these by T, and one softmax is enough",
)
def softmax_twice(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits.softmax(dim=1), teacher_logits.softmax(dim=1), temperature).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "divides by the classes too",
    says="the loss is {wanted}; yours is {yours}: the divergence is a sum over the classes and a mean over "
    "the images; with F.kl_div that is reduction='batchmean', while 'mean' divides by the classes as well",
)
def mean_over_classes(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits, teacher_logits, temperature).mean() / logits.shape[1]
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "adds the images up",
    says="the loss is {wanted}; yours is {yours}: you add the divergences of all images, so a larger batch "
    "makes a larger loss; take their mean, as the cross-entropy does",
)
def summed(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits, teacher_logits, temperature).sum()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "swaps the weights",
    says="the loss is {wanted}; yours is {yours}: here weight is the teacher's share, and the labels get "
    "1 - weight; papers differ, so read which one theirs is",
)
def swapped(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits, teacher_logits, temperature).mean()
    return _mixed(1 - weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "gives the labels their full weight",
    says="the loss is {wanted}; yours is {yours}: you add the whole cross-entropy; its share is 1 - weight",
)
def full_labels(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits, teacher_logits, temperature).mean()
    return F.cross_entropy(logits, labels) + weight * soft


@mistake(
    "lets the teacher learn",
    says="the loss is right, but teacher_logits at {where} get the gradient {yours}: the teacher would move "
    "towards its student; it is to be imitated, so detach() its logits",
)
def teacher_learns(logits, teacher_logits, labels, *, temperature, weight):
    log_p = torch.log_softmax(logits / temperature, dim=1)
    soft = _kl(torch.softmax(teacher_logits / temperature, dim=1), log_p).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), temperature**2 * soft)


@mistake(
    "detaches the student as well",
    says="the loss is right, but logits at {where} should get the gradient {wanted} and get {yours}: no "
    "gradient comes through the soft part; detach the teacher's logits, and not the student's",
)
def student_detached(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits.detach(), teacher_logits, temperature).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "takes the labels' part at the temperature",
    says="the loss is {wanted}; yours is {yours}: the cross-entropy with the labels is at temperature 1, "
    "for that is how the student will be used; only the soft part is softened",
)
def softened_labels(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits, teacher_logits, temperature).mean()
    return _mixed(weight, F.cross_entropy(logits / temperature, labels), soft)


@mistake(
    "softens the teacher alone",
    says="the loss is {wanted}; yours is {yours}: the teacher is softened and the student is not, so a "
    "perfect copy would not have the divergence 0; divide both logits by T",
)
def teacher_alone(logits, teacher_logits, labels, *, temperature, weight):
    soft = temperature**2 * _soft(logits * temperature, teacher_logits, temperature).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "takes a cross-entropy for the divergence",
    says="the loss is {wanted}; yours is {yours}: -Σ p_t · log p_s has the right gradient, but it is not 0 "
    "where the student equals its teacher; the divergence has + Σ p_t · log p_t as well",
)
def soft_cross_entropy(logits, teacher_logits, labels, *, temperature, weight):
    targets = torch.softmax(teacher_logits.detach() / temperature, dim=1)
    soft = temperature**2 * F.cross_entropy(logits / temperature, targets)
    return _mixed(weight, F.cross_entropy(logits, labels), soft)


@mistake(
    "takes the logarithm of a softmax",
    says="your loss is right for small logits and no number for large ones: where a probability is rounded "
    "to 0, its logarithm is -infinity; torch.log_softmax does both in one, and never meets the 0",
)
def logarithm_of_softmax(logits, teacher_logits, labels, *, temperature, weight):
    log_p = torch.softmax(logits / temperature, dim=1).log()
    soft = _kl(torch.softmax(teacher_logits.detach() / temperature, dim=1), log_p).mean()
    return _mixed(weight, F.cross_entropy(logits, labels), temperature**2 * soft)


EXERCISE = Exercise(
    name="kd_loss",
    points=3,
    minutes=12,
    difficulty=2,
    statement="kd_loss(…) mixes the labels' cross-entropy with T² times the divergence from the teacher.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_kl_div, by_formula, by_image),
    mistakes=(
        reversed_kl,
        without_square,
        single_temperature,
        no_logarithm,
        softmax_twice,
        mean_over_classes,
        summed,
        swapped,
        full_labels,
        teacher_learns,
        student_detached,
        softened_labels,
        teacher_alone,
        soft_cross_entropy,
        logarithm_of_softmax,
    ),
    hints=(
        Hint(
            "I do not know which of the two distributions comes first",
            "The teacher knows what counts: a class that it finds likely should weigh much. Whose "
            "probabilities stand in front of the bracket, then? And who of the two must get no gradient?",
        ),
        Hint(
            "the loss is wrong by a factor",
            "log p_s and log p_t are (batch, classes), both log_softmax of logits / T; Σ over the classes of "
            "p_t · (log p_t - log p_s) is (batch,); its mean over the batch, times T², is the soft part. The "
            "labels' part has no T.",
        ),
        Hint(
            "the loss is right, and the teacher gets a gradient",
            "F = nn.functional; soft = F.kl_div(log_p, torch.softmax(teacher_logits.______() / temperature, "
            'dim=1), reduction="______")',
        ),
    ),
)
