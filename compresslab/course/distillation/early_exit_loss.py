"""A network that teaches itself: its last exit is the teacher of those on the way.

Source: Zhang, Song, Gao, Chen, Bao and Ma 2019, "Be your own teacher", arXiv:1905.08094. The paper's third
term, which brings the features of the exits together, is left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(exits: int, batch: int, classes: int, temperature: float, weight: float) -> dict[str, Any]:
        logits = [2 * torch.randn(batch, classes, generator=rng) for _ in range(exits)]
        labels = torch.randint(0, classes, (batch,), generator=rng)
        return {"logits": logits, "labels": labels, "temperature": temperature, "weight": weight}

    batch, classes = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    weight = 0.2 + 0.5 * float(torch.rand((), generator=rng))
    yield "three exits", drawn(3, batch, classes, 3.0, weight)
    yield "one exit: an ordinary network", drawn(1, 4, 3, 2.0, 0.5)
    yield "one image, temperature 1", drawn(2, 1, 5, 1.0, 0.3)
    yield "weight 0: labels alone", drawn(3, 3, 4, 2.0, 0.0)
    yield "weight 1: shallow exits without labels", drawn(3, 3, 4, 2.0, 1.0)
    exact = drawn(4, 3, 2, 5.0, 0.6)
    yield "four exits, two classes, float64", exact | {"logits": [z.double() for z in exact["logits"]]}
    turned = drawn(2, 5, 3, 4.0, 0.9)
    yield "transposed logits", turned | {"logits": [z.T.clone().T for z in turned["logits"]]}
    certain = torch.tensor([[150.0, -150.0, 0.0], [0.0, 150.0, -150.0]])
    yield "extreme logits", drawn(2, 2, 3, 2.0, 0.5) | {"logits": [certain, certain.flip(0)]}


def probe(case: dict[str, Any], early_exit_loss: Callable[..., Any]) -> dict[str, Any]:
    logits = [z.requires_grad_() for z in case["logits"]]
    settings = {"temperature": case["temperature"], "weight": case["weight"]}
    loss = early_exit_loss(list(logits), case["labels"], **settings)
    slopes = [torch.zeros_like(z) for z in logits]
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        slopes = list(torch.autograd.grad(loss.sum(), logits, materialize_grads=True))
    return {"loss": loss, "gradients": slopes}


def judge(case: dict[str, Any], record: Record) -> None:
    """Values by torch.distributions, gradients by hand: T² · KL has the slope T · (p - p_deepest)."""
    temperature, weight = case["temperature"], case["weight"]
    logits = [z.double() for z in case["logits"]]
    y = torch.eye(logits[0].shape[1], dtype=torch.float64)[case["labels"]]
    teacher = Categorical(logits=logits[-1] / temperature)
    loss, slopes = 0.0, []
    for z in logits:
        share = 0.0 if z is logits[-1] else weight
        exit_ = Categorical(logits=z / temperature)
        lesson = share * temperature**2 * kl_divergence(teacher, exit_)
        loss = loss + (lesson - (1 - share) * Categorical(logits=z).log_prob(case["labels"])).mean()
        slope = share * temperature * (exit_.probs - teacher.probs) + (1 - share) * (z.softmax(1) - y)
        slopes.append(slope / len(y))
    expect.close(expect.number(record["loss"], what="the loss"), loss, what="the loss")
    expect.equal(record["loss"].shape, (), what="the shape of the loss")
    gradients = expect.parts(record["gradients"], count=len(slopes))
    for depth, wanted in enumerate(slopes):
        what = f"the gradient of the loss in logits[{depth}]"
        expect.close(expect.tensor(gradients[depth], shape=wanted.shape, what=what), wanted, what=what)


def by_kl_div(logits: list[Tensor], labels: Tensor, *, temperature: float, weight: float) -> Tensor:
    deepest = logits[-1]
    target = (deepest.detach() / temperature).softmax(dim=1)  # a constant
    loss = nn.functional.cross_entropy(deepest, labels)
    for z in logits[:-1]:
        log_q = (z / temperature).log_softmax(dim=1)
        kl = nn.functional.kl_div(log_q, target, reduction="batchmean")
        loss = loss + (1 - weight) * nn.functional.cross_entropy(z, labels) + weight * temperature**2 * kl
    return loss


def by_stacking(logits: list[Tensor], labels: Tensor, *, temperature: float, weight: float) -> Tensor:
    every = torch.stack(list(logits))  # (exits, batch, classes)
    rows = torch.arange(len(labels))
    ce = -every.log_softmax(2)[:, rows, labels].mean(1)  # (exits,)
    log_p = (every / temperature).log_softmax(2)
    log_t = log_p[-1].detach()
    kl = (log_t.exp() * (log_t - log_p[:-1])).sum(2).mean(1)  # (exits - 1,)
    return ce[-1] + ((1 - weight) * ce[:-1] + weight * temperature * temperature * kl).sum()


def by_loop(logits: list[Tensor], labels: Tensor, *, temperature: float, weight: float) -> Tensor:
    total = torch.zeros((), dtype=logits[0].dtype)
    for image, label in enumerate(labels):
        final = logits[-1][image]
        fixed = final.detach() / temperature
        fixed = fixed - torch.logsumexp(fixed, 0)
        total = total + torch.logsumexp(final, 0) - final[label]
        for early in [z[image] for z in logits[:-1]]:
            soft = early / temperature - torch.logsumexp(early / temperature, 0)
            total = total + (1 - weight) * (torch.logsumexp(early, 0) - early[label])
            total = total + weight * temperature**2 * torch.sum(torch.exp(fixed) * (fixed - soft))
    return total / len(labels)


def _kl(teacher: Tensor, student: Tensor, temperature: float, reduction: str = "batchmean") -> Tensor:
    """KL(teacher ‖ student) of softened logits, with a gradient to both; no T²."""
    log_p, log_q = ((z / temperature).log_softmax(1) for z in (teacher, student))
    return F.kl_div(log_q, log_p, reduction=reduction, log_target=True)


def _total(
    logits: list[Tensor],
    labels: Tensor,
    temperature: float,
    weight: float,
    kl: Callable[..., Tensor] = _kl,
    *,
    factor: float | None = None,
    shares: tuple[float, float] | None = None,
) -> Tensor:
    """The right loss, with another KL, another factor than T², or other (CE, KL) weights."""
    hard, soft = shares or (1 - weight, weight)
    soft = soft * (temperature**2 if factor is None else factor)
    deepest = logits[-1].detach()
    early = [hard * F.cross_entropy(z, labels) + soft * kl(deepest, z, temperature) for z in logits[:-1]]
    return F.cross_entropy(logits[-1], labels) + sum(early)


@mistake(
    "lets the shallow exits teach the deepest",
    says="your loss is right, and its gradient in the deepest logits at {where} should be {wanted} and is "
    "{yours}: the deepest exit would move towards the shallow ones to please them; detach the teacher",
)
def without_detach(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, lambda _, z, t: _kl(logits[-1], z, t))


@mistake(
    "takes the first exit for the deepest",
    says="the loss should be {wanted} and yours is {yours}, with logits[0] as the teacher: the list goes "
    "from shallow to deep, so the deepest is logits[-1]",
)
def first_is_deepest(logits, labels, *, temperature, weight):
    return _total(logits[::-1], labels, temperature, weight)


@mistake(
    "distils the deepest exit against itself",
    says="the loss should be {wanted} and yours is {yours}: the deepest exit's KL to itself is 0, and so "
    "(1 - weight) · CE is all that it learned from; it has the labels alone, with the whole of its CE",
)
def against_itself(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight) - weight * F.cross_entropy(logits[-1], labels)


@mistake(
    "leaves the deepest exit out",
    says="the loss should be {wanted} and yours is {yours}, that of the shallow exits alone: the deepest is "
    "a constant as their teacher, and still has to learn from the labels; add its cross-entropy",
)
def without_deepest(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight) - F.cross_entropy(logits[-1], labels)


@mistake(
    "forgets T²",
    says="the loss should be {wanted} and yours is {yours}: the gradient of the softened KL shrinks like "
    "1 / T², so multiply it by T², or the weight means something else at each temperature",
)
def without_t2(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, factor=1.0)


@mistake(
    "multiplies by T, not by T²",
    says="the loss should be {wanted} and yours is {yours}, with T for T²: one 1 / T comes from dividing the "
    "logits, the other from the probabilities growing alike",
)
def t_alone(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, factor=temperature)


@mistake(
    "reverses the KL",
    says="the loss should be {wanted} and yours is {yours}, with KL(exit ‖ deepest): the teacher stands "
    "first and weighs the classes, Σ p_deepest · log(p_deepest / p_exit)",
)
def reversed_kl(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, lambda deepest, z, t: _kl(z, deepest, t))


@mistake(
    "takes the mean over the exits",
    says="the loss should be {wanted} and yours is {yours}, divided by the number of exits: each exit brings "
    "its own loss, add them up",
)
def mean_of_exits(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight) / len(logits)


@mistake(
    "has each exit taught by the next one",
    says="the loss should be {wanted} and yours is {yours}: in yours exit i learns from exit i + 1, who "
    "knows little more; all of them learn from the deepest, logits[-1]",
)
def by_successor(logits, labels, *, temperature, weight):
    following = iter(logits[1:])
    return _total(logits, labels, temperature, weight, lambda _, z, t: _kl(next(following).detach(), z, t))


@mistake(
    "swaps weight and 1 - weight",
    says="the loss should be {wanted} and yours is {yours}: weight belongs to the KL, 1 - weight to the "
    "cross-entropy",
)
def swapped(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, shares=(weight, 1 - weight))


@mistake(
    "gives the cross-entropy its full weight",
    says="the loss should be {wanted} and yours is {yours}: a shallow exit shares its attention, "
    "(1 - weight) · CE + weight · T² · KL, and yours has the whole CE; only the deepest exit does",
)
def full_labels(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, shares=(1.0, weight))


@mistake(
    "takes the mean over classes too",
    says="the loss should be {wanted} and yours is {yours}: its KL is divided by batch · classes, as "
    'reduction="mean" does; sum over the classes, mean over the images: reduction="batchmean"',
)
def mean_of_classes(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, lambda deepest, z, t: _kl(deepest, z, t, "mean"))


@mistake(
    "softens the teacher alone",
    says="the loss should be {wanted} and yours is {yours}, where the temperature divides the deepest "
    "logits and not the exit's: then even an exit with the same logits has something to learn; divide both",
)
def teacher_alone(logits, labels, *, temperature, weight):
    return _total(logits, labels, temperature, weight, lambda deepest, z, t: _kl(deepest / t, z, 1.0))


@mistake(
    "takes the logarithm of softmax",
    says="your loss is NaN where the logits are far apart: there softmax underflows to 0, and its log is "
    "-inf; log_softmax computes the logarithm without the detour",
)
def log_of_softmax(logits, labels, *, temperature, weight):
    def kl(deepest: Tensor, z: Tensor, t: float) -> Tensor:
        p = (deepest / t).softmax(1)
        return (p * (p.log() - (z / t).softmax(1).log())).sum(1).mean()

    return _total(logits, labels, temperature, weight, kl)


EXERCISE = Exercise(
    name="early_exit_loss",
    points=3,
    minutes=12,
    difficulty=3,
    bonus=True,
    statement="early_exit_loss(logits, labels, temperature=…, weight=…) lets a network's deepest exit teach "
    "the shallow ones.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_kl_div, by_stacking, by_loop),
    mistakes=(
        without_detach,
        first_is_deepest,
        against_itself,
        without_deepest,
        without_t2,
        t_alone,
        reversed_kl,
        mean_of_exits,
        by_successor,
        swapped,
        full_labels,
        mean_of_classes,
        teacher_alone,
        log_of_softmax,
    ),
    hints=(
        Hint(
            "with one exit alone it is wrong already",
            "Who teaches the deepest exit? Only the labels do, at full weight. It teaches the others, and in "
            "their terms it is a constant.",
        ),
        Hint(
            "my loss differs by a factor, or more with each exit",
            "loss = CE(logits[-1], y) + Σ over logits[:-1] of ((1 - weight) · CE(z, y) + weight · T² · "
            "KL(p ‖ q)), with p = softmax(logits[-1] / T) detached and q = softmax(z / T), both "
            "(batch, classes). KL: sum over the classes, mean over the images.",
        ),
        Hint(
            "the loss is right and a gradient is not",
            "target = (logits[____].____() / temperature).softmax(dim=1)        # before the loop",
        ),
    ),
)
