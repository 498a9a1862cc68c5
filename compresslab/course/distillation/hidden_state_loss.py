"""Layer by layer: a student's hidden states, projected, beside those of a teacher with more layers.

Source: Jiao et al. 2019, "TinyBERT: distilling BERT for natural language understanding", arXiv:1909.10351.
Paper: the embedding has a projection of its own; here one serves all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """In the first case all widths are equal, so that a slip in the projection is seen and does not raise."""

    def states(layers: int, size: tuple[int, int], width: int) -> list[Tensor]:
        return [torch.randn(*size, width, generator=rng) for _ in range(layers + 1)]

    def drawn(layers: tuple[int, int], size: tuple[int, int], widths: tuple[int, int]) -> dict[str, Any]:
        student, teacher = (states(n, size, width) for n, width in zip(layers, widths, strict=True))
        projection = torch.randn(*widths, generator=rng)
        return {"hidden": student, "teacher_hidden": teacher, "projection": projection}

    batch, tokens, width = (int(size) for size in torch.randint(2, 5, (3,), generator=rng))
    yield "2 layers learn from 4 of the same width", drawn((2, 4), (batch, tokens), (width, width))
    yield "2 narrow layers learn from 6 wide ones", drawn((2, 6), (batch, tokens), (3, 5))
    yield "as many layers as the teacher", drawn((3, 3), (2, 3), (4, 2))
    yield "1 layer, 1 image, 1 token", drawn((1, 3), (1, 1), (2, 3))
    exact = drawn((3, 6), (2, 2), (2, 4))
    lists = {name: [h.double() for h in exact[name]] for name in ("hidden", "teacher_hidden")}
    yield "float64", lists | {"projection": exact["projection"].double()}
    turned = drawn((2, 4), (3, 2), (4, 3))
    yield "a transposed projection", turned | {"projection": turned["projection"].T.clone().T}
    same = states(2, (2, 3), 3)
    copied = {"hidden": same, "teacher_hidden": [h.clone() for h in same], "projection": torch.eye(3)}
    yield "a copy of the teacher", copied
    yield "a projection of zeros", drawn((2, 4), (2, 3), (2, 2)) | {"projection": torch.zeros(2, 2)}


def probe(case: dict[str, Any], hidden_state_loss: Callable[..., Any]) -> dict[str, Any]:
    hidden, teacher = ([h.requires_grad_() for h in case[name]] for name in ("hidden", "teacher_hidden"))
    projection = case["projection"].requires_grad_()
    loss = hidden_state_loss(list(hidden), list(teacher), projection)
    inputs = [*hidden, projection, *teacher]
    slopes = [torch.zeros_like(x) for x in inputs]
    if isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1:
        slopes = list(torch.autograd.grad(loss.sum(), inputs, materialize_grads=True))
    return {"loss": loss, "gradients": slopes}


def judge(case: dict[str, Any], record: Record) -> None:
    """In float64: the mean of d², d = h P - t, has the slopes 2 d Pᵀ / n in h and 2 hᵀ d / n in P."""
    hidden, teacher = ([h.double() for h in case[name]] for name in ("hidden", "teacher_hidden"))
    projection, per_layer = case["projection"].double(), (len(teacher) - 1) // (len(hidden) - 1)
    apart = [h @ projection - t for h, t in zip(hidden, teacher[::per_layer], strict=True)]
    loss = sum(d.square().mean() for d in apart)
    expect.close(expect.number(record["loss"], what="the loss"), loss, what="the loss")
    expect.equal(record["loss"].shape, (), what="the shape of the loss")
    wanted = {f"hidden[{m}]": 2 * d @ projection.T / d.numel() for m, d in enumerate(apart)}
    steps = [2 * torch.einsum("btw,btv->wv", h, d) / d.numel() for h, d in zip(hidden, apart, strict=True)]
    wanted["projection"] = sum(steps)
    wanted |= {f"teacher_hidden[{n}]": torch.zeros_like(t) for n, t in enumerate(teacher)}
    gradients = expect.parts(record["gradients"], count=len(wanted))
    for (name, slope), yours in zip(wanted.items(), gradients, strict=True):
        what = f"the gradient of the loss in {name}"
        expect.close(expect.tensor(yours, shape=slope.shape, what=what), slope, what=what)


def by_layers(hidden: list[Tensor], teacher_hidden: list[Tensor], projection: Tensor) -> Tensor:
    per_layer = (len(teacher_hidden) - 1) // (len(hidden) - 1)  # N / M
    loss = projection.new_zeros(())
    for m, h in enumerate(hidden):
        target = teacher_hidden[m * per_layer].detach()
        loss = loss + nn.functional.mse_loss(h @ projection, target)
    return loss


def by_stacking(hidden: list[Tensor], teacher_hidden: list[Tensor], projection: Tensor) -> Tensor:
    chosen = torch.linspace(0, len(teacher_hidden) - 1, len(hidden)).round().long()
    targets = torch.stack([t.detach() for t in teacher_hidden])[chosen]  # (M + 1, batch, tokens, width)
    apart = torch.stack(list(hidden)) @ projection - targets
    return (apart**2).mean(dim=(1, 2, 3)).sum()


def by_linear(hidden: list[Tensor], teacher_hidden: list[Tensor], projection: Tensor) -> Tensor:
    layers, of_teacher = len(hidden) - 1, len(teacher_hidden) - 1
    with torch.no_grad():
        targets = [1.0 * teacher_hidden[m * of_teacher // layers] for m in range(layers + 1)]
    losses = []
    for h, target in zip(hidden, targets, strict=True):
        apart = nn.functional.linear(h, projection.t()) - target
        losses.append((apart * apart).sum() / target.numel())
    return torch.stack(losses).sum()


Pairs = list[tuple[Tensor, Tensor]]


def _pairs(hidden: list[Tensor], teacher: list[Tensor]) -> Pairs:
    """Each student's state and its detached target, by the right map."""
    per_layer = (len(teacher) - 1) // (len(hidden) - 1)
    return [(h, t.detach()) for h, t in zip(hidden, teacher[::per_layer], strict=True)]


def _total(pairs: Pairs, projection: Tensor) -> Tensor:
    return torch.stack([F.mse_loss(h @ projection, t) for h, t in pairs]).sum()


@mistake(
    "skips the embedding",
    says="the loss should be {wanted} and yours is {yours}, without the term of m = 0: what comes before the "
    "first layer is taught too, hidden[0] by teacher_hidden[0]",
)
def without_embedding(hidden, teacher_hidden, projection):
    return _total(_pairs(hidden, teacher_hidden)[1:], projection)


@mistake(
    "teaches the last layer alone",
    says="the loss should be {wanted} and yours is {yours}, the term of m = M alone: the layers on the way "
    "are the point, add the terms of m = 0 … M",
)
def last_alone(hidden, teacher_hidden, projection):
    return _total(_pairs(hidden, teacher_hidden)[-1:], projection)


@mistake(
    "is one layer too early",
    says="the loss should be {wanted} and yours is {yours}, with the teacher's state before the one you "
    "mean: the lists begin with the embedding, so what layer n returns is teacher_hidden[n], not [n - 1]",
)
def off_by_one(hidden, teacher_hidden, projection):
    per_layer = (len(teacher_hidden) - 1) // (len(hidden) - 1)
    chosen = [teacher_hidden[max(m * per_layer - 1, 0)].detach() for m in range(len(hidden))]
    return _total(list(zip(hidden, chosen, strict=True)), projection)


@mistake(
    "counts the embedding as a layer",
    says="the loss should be {wanted} and yours is {yours}, with N / M from the lengths of the lists: each "
    "holds one tensor more than there are layers, so N = len(teacher_hidden) - 1 and M = len(hidden) - 1",
)
def lengths(hidden, teacher_hidden, projection):
    step = len(teacher_hidden) // len(hidden)
    chosen = [teacher_hidden[m * step].detach() for m in range(len(hidden))]
    return _total(list(zip(hidden, chosen, strict=True)), projection)


@mistake(
    "takes the teacher's last layers",
    says="the loss should be {wanted} and yours is {yours}, with the last of the teacher's states as "
    "targets: spread the student over the whole teacher, layer m learns from layer m · N / M",
)
def last_layers(hidden, teacher_hidden, projection):
    chosen = [t.detach() for t in teacher_hidden[-len(hidden) :]]
    return _total(list(zip(hidden, chosen, strict=True)), projection)


@mistake(
    "takes the teacher's first layers",
    says="the loss should be {wanted} and yours is {yours}, with state m of the teacher beside state m of "
    "the student: the teacher has more layers, and its last ones would teach nobody; take m · N / M",
)
def first_layers(hidden, teacher_hidden, projection):
    return _total([(h, t.detach()) for h, t in zip(hidden, teacher_hidden, strict=False)], projection)


@mistake(
    "transposes the projection",
    says="the loss should be {wanted} and yours is {yours}, with hidden @ projection.T: the projection is "
    "(student's width, teacher's width), so hidden @ projection has the teacher's width, and .T would not "
    "fit where the widths differ",
)
def transposed(hidden, teacher_hidden, projection):
    return _total(_pairs(hidden, teacher_hidden), projection.T)


@mistake(
    "projects the teacher",
    says="the loss should be {wanted} and yours is {yours}: you bring the teacher down to the student's "
    "width, and with a projection of zeros nothing would be left to learn; use hidden[m] @ projection",
)
def on_the_teacher(hidden, teacher_hidden, projection):
    return sum(F.mse_loss(h, t @ projection.T) for h, t in _pairs(hidden, teacher_hidden))


@mistake(
    "leaves the embedding unprojected",
    says="the loss should be {wanted} and yours is {yours}, with hidden[0] as it is beside "
    "teacher_hidden[0]: the embedding has the student's width as well, so project it like the others",
)
def raw_embedding(hidden, teacher_hidden, projection):
    first, *rest = _pairs(hidden, teacher_hidden)
    return (first[0] - first[1]).square().mean() + _total(rest, projection)


@mistake(
    "takes the mean over the layers",
    says="the loss should be {wanted} and yours is {yours}, divided by the number of states: inside a state "
    "take the mean, over m = 0 … M the sum",
)
def mean_of_layers(hidden, teacher_hidden, projection):
    return _total(_pairs(hidden, teacher_hidden), projection) / len(hidden)


@mistake(
    "sums the squares",
    says="the loss should be {wanted} and yours is {yours}, where the squares are added up: a larger batch "
    "or a wider teacher would weigh more; inside a state take the mean over all its numbers",
)
def sum_of_squares(hidden, teacher_hidden, projection):
    return sum((h @ projection - t).square().sum() for h, t in _pairs(hidden, teacher_hidden))


@mistake(
    "sums over the width",
    says="the loss should be {wanted} and yours is {yours}, the squared length of a token's difference: the "
    "mean goes over the width as well as over images and tokens",
)
def sum_of_width(hidden, teacher_hidden, projection):
    return sum((h @ projection - t).square().sum(-1).mean() for h, t in _pairs(hidden, teacher_hidden))


@mistake(
    "lets the teacher learn",
    says="your loss is right, and the gradient at {where} of one of the teacher's states should be {wanted} "
    "and is {yours}: a teacher that moves towards its student teaches nothing; detach its states",
)
def moving_teacher(hidden, teacher_hidden, projection):
    per_layer = (len(teacher_hidden) - 1) // (len(hidden) - 1)
    return _total(list(zip(hidden, teacher_hidden[::per_layer], strict=True)), projection)


@mistake(
    "detaches the projection",
    says="your loss is right, and its gradient in the projection at {where} should be {wanted} and is "
    "{yours}: nobody knows the projection beforehand, it learns with the student; detach the teacher alone",
)
def fixed_projection(hidden, teacher_hidden, projection):
    return _total(_pairs(hidden, teacher_hidden), projection.detach())


@mistake(
    "detaches the student",
    says="your loss is right, and its gradient in hidden[0] at {where} should be {wanted} and is {yours}: "
    "only the projection learns in yours, and it is thrown away afterwards; detach the teacher",
)
def fixed_student(hidden, teacher_hidden, projection):
    return _total([(h.detach(), t) for h, t in _pairs(hidden, teacher_hidden)], projection)


EXERCISE = Exercise(
    name="hidden_state_loss",
    points=3,
    minutes=15,
    difficulty=4,
    bonus=True,
    statement="hidden_state_loss(hidden, teacher_hidden, projection) says how far a student's layers are "
    "from those of a deeper, wider teacher.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_layers, by_stacking, by_linear),
    mistakes=(
        without_embedding,
        last_alone,
        off_by_one,
        lengths,
        last_layers,
        first_layers,
        transposed,
        on_the_teacher,
        raw_embedding,
        mean_of_layers,
        sum_of_squares,
        sum_of_width,
        moving_teacher,
        fixed_projection,
        fixed_student,
    ),
    hints=(
        Hint(
            "I do not know which layer teaches which",
            "Write down the indices for a student of 2 layers and a teacher of 6: embedding to embedding, "
            "last to last, and what is left goes evenly in between.",
        ),
        Hint(
            "two states do not fit, or the loss differs by a factor",
            "hidden[m] (batch, tokens, s) @ projection (s, t) -> (batch, tokens, t), as teacher_hidden[g] "
            "is. Squares of the difference, mean over all three dimensions; then the sum over m = 0 … M.",
        ),
        Hint(
            "my index is off by one",
            "target = teacher_hidden[m * (len(teacher_hidden) - ____) // (len(hidden) - ____)].____()",
        ),
    ),
)
