"""A hint: one step of training that makes the student's inner features, translated, resemble the teacher's.

Source: Romero et al. 2014, "FitNets: hints for thin deep nets", arXiv:1412.6550. Paper: half the squared
distance; here: the mean of the squares, so that the loss does not grow with the size of the features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake
from compresslab.checks.networks import build
from compresslab.checks.record import Recorded
from compresslab.errors import WrongAnswer

__all__ = ["EXERCISE"]

State = dict[str, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Two trunks of convolution, BatchNorm and ReLU, a 1×1 convolution between them, in training mode."""

    def near(middle: float, *shape: int) -> Tensor:
        return middle + 0.4 * torch.randn(shape, generator=rng)

    def conv(width: int, out: int, size: int, *, bias: bool) -> list[Any]:
        return ["Conv2d", {"in_channels": width, "out_channels": out, "kernel_size": size, "bias": bias}]

    def trunk(width: int) -> dict[str, Any]:
        layers = [conv(1, width, 3, bias=False), ["BatchNorm2d", {"num_features": width}], ["ReLU", {}]]
        state = {
            "0.weight": near(0, width, 1, 3, 3),
            "1.weight": near(0, width).exp(),
            "1.bias": near(0.3, width),
            "1.running_mean": near(0.5, width),
            "1.running_var": near(0, width).exp(),
            "1.num_batches_tracked": torch.tensor(7),
        }
        return {"layers": layers, "state": state}

    def drawn(width: int, out: int, images: int, *, earlier: float = 0.0) -> dict[str, Any]:
        state = {"0.weight": near(0.3, out, width, 1, 1), "0.bias": near(0, out)}
        return {
            "student": trunk(width),
            "teacher": trunk(out),
            "regressor": {"layers": [conv(width, out, 1, bias=True)], "state": state},
            "images": torch.randn(images, 1, 6, 6, generator=rng),
            "earlier": earlier,
            "learning_rate": 0.1 + 0.2 * float(torch.rand((), generator=rng)),
        }

    yield "a narrow student, a wider teacher", drawn(2, 3, 4)
    yield "one image; gradients of an earlier step are still there", drawn(2, 3, 1, earlier=0.7)
    turned = drawn(1, 3, 3)
    yield "a student of one channel, images turned", turned | {"images": turned["images"].transpose(2, 3)}
    yield "float64", _exact(drawn(3, 2, 2))


def _exact(value: Any) -> Any:
    """The same case with every float tensor in float64."""
    if isinstance(value, dict):
        return {name: _exact(entry) for name, entry in value.items()}
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def probe(case: dict[str, Any], hint_step: Any) -> dict[str, Any]:
    networks = {}
    for role in ("student", "regressor", "teacher"):
        networks[role] = build(case[role]["layers"]).to(case["images"].dtype).train()
        networks[role].load_state_dict(case[role]["state"])
    for w in [*networks["student"].parameters(), *networks["regressor"].parameters()]:
        w.grad = torch.full_like(w, case["earlier"])
    both = hint_step(*networks.values(), case["images"], learning_rate=case["learning_rate"])
    hint_step.changed = ""  # two of the networks are meant to change, and the judge looks at all three
    if isinstance(both, list | tuple):
        both = tuple(dict(entry) if isinstance(entry, dict) else entry for entry in both)
    return {
        "both": both,
        "reached": torch.tensor([w.grad is not None for w in networks["teacher"].parameters()]),
        "training": all(module.training for module in networks["student"].modules()),
        **{role: dict(network.state_dict()) for role, network in networks.items()},
    }


def judge(case: dict[str, Any], record: Record) -> None:
    """The teacher first, then the loss, then who moved where, and at last what is shipped."""
    first, second = expect.parts(record["both"], count=2)
    yours = expect.number(first, what="the loss, of two entries the first,")
    shipped = _state(second, what="the state dict, of two entries the second,")
    reached = expect.tensor(record["reached"], shape=(3,), what="the list of the teacher's gradients")
    expect.true(not reached.any(), "the teacher's weights have a .grad after your step; none is wanted")
    _same(_state(record["teacher"]), case["teacher"]["state"], what="the teacher")
    loss, student, regressor = _stepped(case)
    expect.close(yours, loss, what="the loss before the step")
    expect.equal(record["training"].text == "True", True, what="student.training after the step")
    _same(_state(record["student"]), student, what="the student after the step")
    _same(_state(record["regressor"]), regressor, what="the regressor after the step")
    _same(shipped, student, what="the state dict")


def _stepped(case: dict[str, Any]) -> tuple[float, State, State]:
    """The loss, and both states after the step, in float64, as a function of the states."""
    networks = {role: build(case[role]["layers"]).double() for role in ("student", "regressor", "teacher")}
    states = {role: {n: t.clone() for n, t in _exact(case[role]["state"]).items()} for role in networks}
    weights = [(r, name) for r in ("student", "regressor") for name, _ in networks[r].named_parameters()]
    leaves = [states[role][name].requires_grad_() for role, name in weights]
    networks["student"].train()
    out = {"images": case["images"].double()}
    for role, given in (("student", "images"), ("regressor", "student"), ("teacher", "images")):
        out[role] = functional_call(networks[role], states[role], (out[given],))
    loss = (out["regressor"] - out["teacher"]).square().sum() / out["teacher"].numel()
    gradients = torch.autograd.grad(loss, leaves)
    with torch.no_grad():
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.sub_(case["learning_rate"] * gradient)
    return loss.item(), states["student"], states["regressor"]


def _state(value: Recorded, *, what: str = "a state dict") -> dict[str, Recorded]:
    expect.true(value.type == "dict", f"{what} is a dict, name → tensor; yours is {expect.came(value)}")
    pairs = [expect.parts(entry, count=2, what=f"an entry of {what}") for entry in value.items or ()]
    return {name.text: entry for name, entry in pairs}


def _same(found: dict[str, Recorded], wanted: State, *, what: str) -> None:
    """Just these tensors; what it raises names the first that differs."""
    names = f"{what} holds {', '.join(wanted)}; yours holds {', '.join(found) or 'nothing'}"
    extra = ", ".join(sorted(found.keys() - wanted.keys()))
    expect.true(found.keys() == wanted.keys(), names, extra=extra)
    for name, tensor in wanted.items():
        yours = expect.tensor(found[name], shape=tensor.shape, what=f"{what}: {name}")
        try:
            expect.close(yours, tensor.detach(), what=f"{what}: {name}")
        except WrongAnswer as wrong:
            raise WrongAnswer(wrong.reason, wrong.hint, **wrong.details, name=name) from None


def by_gradients(
    student: nn.Module, regressor: nn.Module, teacher: nn.Module, images: Tensor, *, learning_rate: float
) -> tuple[float, State]:
    teacher.eval()
    with torch.no_grad():
        wanted = teacher(images)  # (n, teacher's channels, h, w)
    loss = ((regressor(student(images)) - wanted) ** 2).mean()
    weights: list[Tensor] = [*student.parameters(), *regressor.parameters()]
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for w, gradient in zip(weights, gradients, strict=True):
            w -= learning_rate * gradient
    return loss.item(), student.state_dict()


def by_sequence(student, regressor, teacher, images, *, learning_rate):
    both = nn.Sequential(student, regressor)
    loss = torch.mean((teacher.eval()(images).detach() - both(images)).pow(2))
    weights = dict(both.named_parameters())
    for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
        weights[name].data = weights[name].data - learning_rate * gradient
    return float(loss), student.state_dict()


def by_parts(
    student,
    regressor,
    teacher,
    images,
    *,
    learning_rate,
    distance=F.mse_loss,
    begin=nn.Module.zero_grad,
    run=nn.Module.__call__,
    ask=lambda teacher, x: teacher.eval()(x).detach(),
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    both = nn.ModuleList([student, regressor])
    begin(both)
    loss = distance(regressor(run(student, images)), ask(teacher, images))
    loss.backward()
    for w in both.parameters():
        if w.grad is not None:
            w.data.sub_(learning_rate * w.grad)
    return loss.item(), {name: tensor.clone() for name, tensor in student.state_dict().items()}


teacher_in_training = mistake(
    "leaves the teacher in training mode",
    says="the teacher's {name} was {wanted} and is {yours} after your step: in training mode BatchNorm takes "
    "this batch's mean and moves its own, with or without gradients; teacher.eval() first",
)(partial(by_parts, ask=lambda teacher, x: teacher(x).detach()))

teacher_reached = mistake(
    "lets the gradient reach the teacher",
    says="the teacher's weights have a .grad after your step: eval() changes how layers compute, not whether "
    "gradients flow; call the teacher under torch.no_grad(), or detach() what it returns",
)(partial(by_parts, ask=lambda teacher, x: teacher.eval()(x)))

regressor_stays = mistake(
    "does not train the regressor",
    says="the regressor's {name} should be {wanted} after the step and still is {yours}: it begins as a "
    "random translation and must learn along; step its weights too",
)(lambda student, other, *given, **rate: by_gradients(student, copy.deepcopy(other), *given, **rate))

student_stays = mistake(
    "does not train the student",
    says="the student's {name} should be {wanted} after the step and still is {yours}: the loss does not "
    "reach it, and the regressor learns alone; detach the teacher's features, not the student's",
)(partial(by_parts, run=lambda student, x: student(x).detach()))

trains_a_copy = mistake(
    "trains a copy of the student",
    says="the student that you were given still has a {name} of {yours}, not {wanted}: step its own weights, "
    "in place, so that the next call goes on from there",
)(lambda student, *given, **rate: by_gradients(copy.deepcopy(student), *given, **rate))

sums = mistake(
    "sums the squares",
    says="the loss should be {wanted} and yours is {yours}, the sum of all squares: it grows with the images "
    "and channels, and the step with it; take the mean over all entries",
)(partial(by_parts, distance=nn.MSELoss(reduction="sum")))

halves = mistake(
    "halves the loss",
    says="the loss should be {wanted} and yours is {yours}: the paper writes ½ before its squares; here the "
    "loss is their plain mean",
)(partial(by_parts, distance=lambda yours, wanted: F.mse_loss(yours, wanted) / 2))

uphill = mistake(
    "steps uphill",
    says="the student's {name} should be {wanted} after the step and is {yours}, as far off on the other "
    "side: the gradient points to where the loss grows; subtract it",
)(lambda *given, learning_rate: by_gradients(*given, learning_rate=-learning_rate))

accumulates = mistake(
    "adds to the gradients of an earlier step",
    says="the student's {name} should be {wanted} after the step and is {yours}: backward() adds to what "
    "stands in .grad already, here an earlier step's; set the gradients to zero before",
)(partial(by_parts, begin=lambda both: None))

student_in_evaluation = mistake(
    "runs the student in evaluation mode",
    says="the loss should be {wanted} and yours is {yours}: after student.eval() BatchNorm computes with its "
    "stored statistics and never moves them; that is for the teacher, the student is learning",
)(partial(by_parts, run=lambda student, x: student.eval()(x)))

evaluation_at_the_end = mistake(
    "leaves the student in evaluation mode",
    says="student.training should be {wanted} after the step and is {yours}: your step is right, and the "
    "next will do without batch statistics; leave the student in training mode",
)(lambda student, *given, **rate: (by_gradients(student, *given, **rate), student.eval())[0])


@mistake(
    "returns the loss after the step",
    says="the loss should be {wanted} and yours is {yours}: you measured it again after the step; return the "
    "one that the gradients came from",
)
def loss_afterwards(student, regressor, teacher, images, *, learning_rate):
    _, state = by_gradients(student, regressor, teacher, images, learning_rate=learning_rate)
    with torch.no_grad():
        loss = F.mse_loss(regressor(student.eval()(images)), teacher(images))
    student.train()
    return loss.item(), state


@mistake(
    "ships the regressor",
    says="what you ship holds {extra}: the regressor translates while we train, and nobody needs it "
    "afterwards; ship student.state_dict() alone",
)
def ships_regressor(student, regressor, *given, **rate):
    loss, state = by_gradients(student, regressor, *given, **rate)
    return loss, state | {f"regressor.{name}": tensor for name, tensor in regressor.state_dict().items()}


EXERCISE = Exercise(
    name="hint_step",
    points=3,
    minutes=15,
    difficulty=3,
    statement="hint_step(…) moves student and regressor one step towards the teacher's features, and ships "
    "the student.",
    cases=cases,
    probe=probe,
    judge=judge,
    seconds=30,  # torch.optim takes its time to load, once
    right=(by_gradients, by_sequence, by_parts),
    mistakes=(
        teacher_in_training,
        teacher_reached,
        regressor_stays,
        student_stays,
        trains_a_copy,
        sums,
        halves,
        uphill,
        accumulates,
        student_in_evaluation,
        evaluation_at_the_end,
        loss_afterwards,
        ships_regressor,
    ),
    hints=(
        Hint(
            "something happens to the teacher, and I do not know what",
            "Two things protect it: eval() keeps its BatchNorm from moving, no_grad() or detach() keeps "
            "gradients away. Neither does the other's work.",
        ),
        Hint(
            "the loss is right, and the weights after the step are not",
            "regressor(student(images)) is (n, t, h, w), like teacher(images); the loss is the mean of their "
            "squared differences. torch.autograd.grad(loss, weights) gives a gradient for each weight; then, "
            "under torch.no_grad(), w -= learning_rate * gradient.",
        ),
        Hint(
            "one of the two networks stays where it was",
            "weights = [*student.parameters(), *________.parameters()]",
        ),
    ),
)
