"""Two students who teach one another: each learns from the labels and from what the other thinks.

Source: Zhang, Xiang, Hospedales and Lu 2017, "Deep mutual learning", arXiv:1706.00384.
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
    def drawn(batch: int, classes: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        logits = 2 * torch.randn(2, batch, classes, generator=rng, dtype=dtype)
        labels = torch.randint(0, classes, (batch,), generator=rng)
        return {"logits_a": logits[0], "logits_b": logits[1], "labels": labels}

    batch, classes = (int(size) for size in torch.randint(3, 6, (2,), generator=rng))
    yield "a batch of several", drawn(batch, classes)
    yield "one image", drawn(1, 4)
    yield "two classes, float64", drawn(5, 2, torch.float64)
    agreed = drawn(3, 4)
    yield "two students who agree", agreed | {"logits_b": agreed["logits_a"].clone()}
    turned = drawn(4, 3)
    yield "transposed logits", turned | {name: turned[name].T.clone().T for name in ("logits_a", "logits_b")}
    certain = torch.tensor([[120.0, -120.0, 0.0], [0.0, 120.0, -120.0]])
    yield "extreme logits", drawn(2, 3) | {"logits_a": certain, "logits_b": certain.flip(0)}
    level = torch.zeros(3, 5)
    yield "a student who knows nothing yet: all logits 0", drawn(3, 5) | {"logits_b": level}


def probe(case: dict[str, Any], mutual_losses: Callable[..., Any]) -> dict[str, Any]:
    logits = [case[name].requires_grad_() for name in ("logits_a", "logits_b")]
    losses = mutual_losses(*logits, case["labels"])
    record = {"losses": losses}
    for place, name in enumerate(("loss_a", "loss_b")):
        loss = losses[place] if isinstance(losses, tuple | list) and len(losses) > place else None
        slopes = [torch.zeros_like(z) for z in logits]
        if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
            slopes = [*torch.autograd.grad(loss.sum(), logits, retain_graph=True, materialize_grads=True)]
        record[f"{name} in logits_a"], record[f"{name} in logits_b"] = slopes
    return record


def judge(case: dict[str, Any], record: Record) -> None:
    """Values by torch.distributions; gradients by hand: (p - y) + (p - p_peer) for the own logits, else 0."""
    a, b = case["logits_a"].double(), case["logits_b"].double()
    losses = expect.parts(record["losses"], count=2, what="the answer, (loss_a, loss_b),")
    for place, name, own, peer in ((0, "loss_a", a, b), (1, "loss_b", b, a)):
        student = Categorical(logits=own)
        wanted = kl_divergence(Categorical(logits=peer), student) - student.log_prob(case["labels"])
        name = f"{name}, of two entries the {('first', 'second')[place]},"
        expect.close(expect.number(losses[place], what=name), wanted.mean(), what=name)
    y = torch.eye(a.shape[1], dtype=torch.float64)[case["labels"]]
    slope = {
        "loss_a in logits_a": 2 * a.softmax(1) - b.softmax(1) - y,
        "loss_b in logits_b": 2 * b.softmax(1) - a.softmax(1) - y,
        "loss_a in logits_b": torch.zeros_like(b),
        "loss_b in logits_a": torch.zeros_like(a),
    }
    for name, wanted in slope.items():
        yours = expect.tensor(record[name], shape=a.shape, what=f"the gradient of {name}")
        expect.close(yours, wanted / len(a), what=f"the gradient of {name}")


def by_kl_div(logits_a: Tensor, logits_b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        target = peer.detach().softmax(dim=1)  # a constant: the peer does not learn from this loss
        kl = nn.functional.kl_div(own.log_softmax(dim=1), target, reduction="batchmean")
        return nn.functional.cross_entropy(own, labels) + kl

    return loss(logits_a, logits_b), loss(logits_b, logits_a)


def by_sums(logits_a: Tensor, logits_b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_a, log_b = logits_a.log_softmax(1), logits_b.log_softmax(1)
    fixed_a, fixed_b = log_a.detach(), log_b.detach()
    rows = torch.arange(len(labels))
    kl_of_a = (fixed_b.exp() * (fixed_b - log_a)).sum(1)
    kl_of_b = (fixed_a.exp() * (fixed_a - log_b)).sum(1)
    return (kl_of_a - log_a[rows, labels]).mean(), (kl_of_b - log_b[rows, labels]).mean()


def by_loop(logits_a: Tensor, logits_b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    losses = []
    for own, peer in ((logits_a, logits_b), (logits_b, logits_a)):
        total = torch.zeros((), dtype=own.dtype)
        for z, other, label in zip(own, peer.detach(), labels, strict=True):
            log_q, log_p = z - z.logsumexp(0), other - other.logsumexp(0)
            total = total + (log_p.exp() * (log_p - log_q)).sum() - log_q[label]
        losses.append(total / len(labels))
    return losses[0], losses[1]


def _kl(peer: Tensor, own: Tensor, reduction: str = "batchmean") -> Tensor:
    """KL(peer ‖ own) of logits, with a gradient to both."""
    return F.kl_div(own.log_softmax(1), peer.log_softmax(1), reduction=reduction, log_target=True)


def _both(a: Tensor, b: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    return loss(a, b), loss(b, a)


@mistake(
    "updates each student through the other's loss",
    says="your losses are right, and the gradient of loss_a in logits_b at {where} should be {wanted} and is "
    "{yours}: b would also move towards a just to please a; inside loss_a, b is a teacher, so detach it",
)
def without_detach(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(peer, own))


@mistake(
    "detaches the learner",
    says="the gradient of loss_a in logits_a at {where} should be {wanted} and yours is {yours}: you "
    "detached the one who should learn, and b moves in its place; in loss_a the constant is b",
)
def wrong_side(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(peer, own.detach()))


@mistake(
    "detaches both sides",
    says="the gradient of loss_a in logits_a at {where} should be {wanted} and yours is {yours}, that of the "
    "cross-entropy alone: with both sides detached the KL is a number that teaches nobody; detach the peer",
)
def both_sides(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(peer, own).detach())


@mistake(
    "reverses the KL",
    says="loss_a should be {wanted} and yours is {yours}, with KL(p_a ‖ p_b): the teacher stands first and "
    "weighs the classes, Σ p_b · log(p_b / p_a)",
)
def reversed_kl(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(own, peer.detach()))


@mistake(
    "swaps the two losses",
    says="loss_a should be {wanted} and yours is {yours}, the loss of b: first comes the one that logits_a "
    "learns from",
)
def swapped(a, b, labels):
    return by_sums(b, a, labels)


@mistake(
    "lets b learn from the labels alone",
    says="loss_b should be {wanted} and yours is {yours}, its cross-entropy alone: that is a teacher and a "
    "student; here the lesson goes both ways",
)
def one_way(a, b, labels):
    return by_sums(a, b, labels)[0], F.cross_entropy(b, labels)


@mistake(
    "forgets the labels",
    says="loss_a should be {wanted} and yours is {yours}, the KL alone: two students who merely agree may "
    "both be wrong; add the cross-entropy with the labels",
)
def without_labels(a, b, labels):
    return _both(a, b, lambda own, peer: _kl(peer.detach(), own))


@mistake(
    "takes the mean over classes too",
    says="loss_a should be {wanted} and yours is {yours}: its KL is divided by batch · classes, as "
    'reduction="mean" does; sum over the classes, mean over the images: reduction="batchmean"',
)
def mean_of_classes(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(peer.detach(), own, "mean"))


@mistake(
    "sums over the batch",
    says="loss_a should be {wanted} and yours is {yours}: its KL is a sum over the images, and grows with "
    "the batch beside a cross-entropy that does not; take the mean over the batch",
)
def sum_of_batch(a, b, labels):
    return _both(a, b, lambda own, peer: F.cross_entropy(own, labels) + _kl(peer.detach(), own, "sum"))


@mistake(
    "learns from the average of both",
    says="loss_a should be {wanted} and yours is {yours}, with the mean of both students' probabilities as "
    "the target: half of that is what a thinks already; the target is p_b alone",
)
def average(a, b, labels):
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        target = ((own.softmax(1) + peer.softmax(1)) / 2).detach()
        return F.cross_entropy(own, labels) + _kl(target.log(), own)

    return _both(a, b, loss)


@mistake(
    "gives both students the sum of the two losses",
    says="loss_a should be {wanted} and yours is {yours}, both losses added up: return two, so that each "
    "student's optimizer gets its own",
)
def one_for_both(a, b, labels):
    total = sum(by_sums(a, b, labels))
    return total, total


@mistake(
    "leaves out Σ p log p",
    says="loss_a should be {wanted} and yours is {yours}, with -Σ p_b · log p_a for the KL: its gradient is "
    "the same, but it is not 0 when the two agree; KL is Σ p_b · (log p_b - log p_a)",
)
def cross_entropies(a, b, labels):
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        return F.cross_entropy(own, labels) + F.cross_entropy(own, peer.detach().softmax(1))

    return _both(a, b, loss)


@mistake(
    "hands probabilities to kl_div",
    says="loss_a should be {wanted} and yours is {yours}: kl_div(input, target) takes log-probabilities "
    "first and probabilities second, so its input is log_softmax, not softmax",
)
def without_log(a, b, labels):
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        kl = F.kl_div(own.softmax(1), peer.detach().softmax(1), reduction="batchmean")
        return F.cross_entropy(own, labels) + kl

    return _both(a, b, loss)


@mistake(
    "takes the logarithm of softmax",
    says="loss_a is NaN where the logits are far apart: there softmax underflows to 0 and its log is -inf; "
    "log_softmax computes the logarithm without the detour",
)
def log_of_softmax(a, b, labels):
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        p = peer.detach().softmax(1)
        return F.cross_entropy(own, labels) + (p * (p.log() - own.softmax(1).log())).sum(1).mean()

    return _both(a, b, loss)


@mistake(
    "returns plain numbers",
    says="your losses are right, but they are plain floats: .item() cuts the path back to the logits, the "
    "gradient at {where} is {yours} and not {wanted}; return the tensors",
)
def plain_numbers(a, b, labels):
    return tuple(loss.item() for loss in by_sums(a, b, labels))


EXERCISE = Exercise(
    name="mutual_losses",
    points=3,
    minutes=12,
    difficulty=3,
    statement="mutual_losses(logits_a, logits_b, labels) gives each of two students a loss of its own: the "
    "labels, and the other student as a fixed teacher.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_kl_div, by_sums, by_loop),
    mistakes=(
        without_detach,
        wrong_side,
        both_sides,
        reversed_kl,
        swapped,
        one_way,
        without_labels,
        mean_of_classes,
        sum_of_batch,
        average,
        one_for_both,
        cross_entropies,
        without_log,
        log_of_softmax,
        plain_numbers,
    ),
    hints=(
        Hint(
            "the losses are right and a gradient is not",
            "Ask of each loss whom it may move. loss_a is a's own lesson: in it b is a teacher, and a "
            "teacher is a constant. The other loss is where b learns.",
        ),
        Hint(
            "the loss is too small, or too large",
            "loss_a = mean over the batch of -log p_a[y] + Σ_c p_b[c] · (log p_b[c] - log p_a[c]). All are "
            "(batch, classes); sum over dim=1, then take the mean over the images. loss_b is the same with a "
            "and b exchanged.",
        ),
        Hint(
            "I do not know how to call kl_div",
            'nn.functional.kl_div(own.____(dim=1), peer.____().softmax(dim=1), reduction="____mean")',
        ),
    ),
)
