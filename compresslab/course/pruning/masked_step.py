"""Training what is left: one step of SGD after which dead weights are still dead.

Source: Han, Pool, Tran and Dally 2015, "Learning both weights and connections", arXiv:1506.02626.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Every number is well away from 0, where nothing else is said, so that each mistake shows."""

    def drawn(*shape: int) -> Tensor:
        size = 0.5 + torch.rand(shape, generator=rng, dtype=torch.float64)
        return size * (torch.randint(0, 2, shape, generator=rng) * 2 - 1)

    def rate(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng, dtype=torch.float64))

    def case(*shape: int, **fixed: Any) -> dict[str, Any]:
        """One weight at least is dead, and one alive; the dead have a value, as if they had just died."""
        mask = torch.rand(shape, generator=rng) < 0.5
        mask.view(-1)[[0, -1]] = torch.tensor([True, False])
        tensors = {name: drawn(*shape) for name in ("weight", "gradient", "velocity")}
        rates = {"learning_rate": rate(0.05, 0.3), "momentum": rate(0.5, 0.9), "weight_decay": rate(0.1, 0.4)}
        return tensors | {"mask": mask} | rates | fixed

    yield "some weights have just died", case(4, 5)
    long_dead = case(4, 6)
    yield "weights that died long ago", long_dead | _zero_where_dead(long_dead, "weight", "velocity")
    revived = case(3, 4)
    yield "only their velocity is left", revived | _zero_where_dead(revived, "weight")
    yield "without momentum", case(6, momentum=0.0)
    yield "without weight decay", case(2, 7, weight_decay=0.0)
    yield "the first step, no velocity yet", case(5, 3, velocity=torch.zeros(5, 3, dtype=torch.float64))
    yield "all alive", case(3, 3, mask=torch.ones(3, 3, dtype=torch.bool))
    yield "all dead", case(3, 2, mask=torch.zeros(3, 2, dtype=torch.bool))
    turned = case(5, 2)
    turned |= {name: tensor.T for name, tensor in turned.items() if isinstance(tensor, Tensor)}
    yield "transposed in memory", turned
    kernel = case(2, 3, 3, 3, learning_rate=0.25, momentum=0.5, weight_decay=0.125)
    eighths = {name: (kernel[name] * 8).round().float() / 8 for name in ("weight", "gradient", "velocity")}
    yield "a convolution, float32", kernel | eighths


def _zero_where_dead(case: dict[str, Any], *names: str) -> dict[str, Tensor]:
    return {name: case[name].where(case["mask"], 0.0) for name in names}


def probe(case: dict[str, Any], masked_step: Callable[..., Any]) -> dict[str, Any]:
    tensors = [case[name] for name in ("weight", "gradient", "velocity", "mask")]
    rates = {name: case[name] for name in ("learning_rate", "momentum", "weight_decay")}
    return {"both": masked_step(*tensors, **rates)}


def judge(case: dict[str, Any], record: Record) -> None:
    """The step of a network that never had the dead weights: its few weights, and zeros around them."""
    first, second = expect.parts(record["both"], count=2)
    shape, dtype = case["weight"].shape, case["weight"].dtype
    weight = expect.tensor(first, shape=shape, dtype=dtype, what="the weight, of two entries the first,")
    velocity = expect.tensor(second, shape=shape, dtype=dtype, what="the velocity, of two the second,")
    alive = [case[name][case["mask"]].double() for name in ("weight", "gradient", "velocity")]
    w, gradient, before = alive
    w = w.clone().requires_grad_()
    loss = gradient @ w + case["weight_decay"] / 2 * (w @ w)  # weight decay is the gradient of this penalty
    moved = torch.autograd.grad(loss, w)[0] + case["momentum"] * before
    wanted = torch.zeros(2, *shape, dtype=torch.float64)
    wanted[:, case["mask"]] = torch.stack([w.detach() - case["learning_rate"] * moved, moved])
    expect.close(weight, wanted[0], what="the weight")
    expect.close(velocity, wanted[1], what="the velocity")


def by_products(
    weight: Tensor,
    gradient: Tensor,
    velocity: Tensor,
    mask: Tensor,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor]:
    velocity = momentum * velocity + gradient + weight_decay * weight
    weight = weight - learning_rate * velocity
    return weight * mask, velocity * mask


def by_entries(weight, gradient, velocity, mask, *, learning_rate, momentum, weight_decay):
    after, speed = torch.zeros_like(weight), torch.zeros_like(velocity)
    for place in mask.nonzero().tolist():
        i = tuple(place)
        speed[i] = momentum * velocity[i] + (gradient[i] + weight_decay * weight[i])
        after[i] = weight[i] - learning_rate * speed[i]
    return after, speed


def by_filling(weight, gradient, velocity, mask, *, learning_rate, momentum, weight_decay):
    total = torch.add(gradient, weight, alpha=weight_decay)
    velocity = velocity.mul(momentum).add(total).masked_fill(~mask, 0.0)
    return torch.where(mask, weight.sub(velocity, alpha=learning_rate), 0.0), velocity


def _step(weight, gradient, velocity, *, learning_rate, momentum, weight_decay):
    """Plain SGD, as if nothing had been pruned."""
    velocity = momentum * velocity + gradient + weight_decay * weight
    return weight - learning_rate * velocity, velocity


@mistake(
    "forgets the mask",
    says="the weight at {where} should be {wanted} and yours is {yours}: this one is dead, and a plain step "
    "of SGD moves it like all the others; set it to 0 again after the step",
)
def without_mask(weight, gradient, velocity, mask, **rates):
    return _step(weight, gradient, velocity, **rates)


@mistake(
    "masks the gradient alone",
    says="the weight at {where} should be {wanted} and yours is {yours}: its gradient is 0, but momentum and "
    "weight decay still move a dead weight; mask what comes out of the step, not what goes in",
)
def gradient_alone(weight, gradient, velocity, mask, **rates):
    return _step(weight, gradient * mask, velocity, **rates)


@mistake(
    "masks gradient and weight decay alone",
    says="the weight at {where} should be {wanted} and yours is {yours}: nothing new pushes a dead weight, "
    "and its old velocity does; mask what comes out of the step",
)
def gradient_and_decay(weight, gradient, velocity, mask, *, weight_decay, **rates):
    gradient = (gradient + weight_decay * weight) * mask
    return _step(weight, gradient, velocity, weight_decay=0.0, **rates)


@mistake(
    "masks before the step",
    says="the weight at {where} should be {wanted} and yours is {yours}: it was 0 for a moment, then the "
    "step moved it and brought it back to life; the mask comes after the step",
)
def mask_first(weight, gradient, velocity, mask, **rates):
    return _step(weight * mask, gradient, velocity, **rates)


@mistake(
    "masks weight and gradient before the step",
    says="the weight at {where} should be {wanted} and yours is {yours}: weight and gradient were 0, and the "
    "velocity was not: momentum carries a dead weight on; mask after the step",
)
def momentum_revives(weight, gradient, velocity, mask, **rates):
    return _step(weight * mask, gradient * mask, velocity, **rates)


@mistake(
    "masks the velocity alone",
    says="the weight at {where} should be {wanted} and yours is {yours}: this weight no longer moves, and "
    "it stays at the value that it died with; a dead weight is 0",
)
def velocity_alone(weight, gradient, velocity, mask, *, learning_rate, **rates):
    _, velocity = _step(weight, gradient, velocity, learning_rate=learning_rate, **rates)
    velocity = velocity * mask
    return weight - learning_rate * velocity, velocity


@mistake(
    "remembers the velocity of dead weights",
    says="the velocity at {where} should be {wanted} and yours is {yours}: the weight is 0, but what carried "
    "it goes on, and would move it at the next step; mask the velocity as well",
)
def remembers(weight, gradient, velocity, mask, **rates):
    weight, velocity = _step(weight, gradient, velocity, **rates)
    return weight * mask, velocity


@mistake(
    "empties the velocity before the step alone",
    says="the velocity at {where} should be {wanted} and yours is {yours}: it was 0 before the step, and the "
    "step put this gradient in; mask it afterwards",
)
def emptied_before(weight, gradient, velocity, mask, **rates):
    weight, velocity = _step(weight, gradient, velocity * mask, **rates)
    return weight * mask, velocity


@mistake(
    "keeps the dead and kills the living",
    says="the weight at {where} should be {wanted} and yours is {yours}: True in the mask is a weight that "
    "stays; you multiplied by the opposite",
)
def inverted(weight, gradient, velocity, mask, **rates):
    return by_products(weight, gradient, velocity, ~mask, **rates)


@mistake(
    "forgets weight decay",
    says="the weight at {where} should be {wanted} and yours is {yours}: weight_decay · weight is added to "
    "the gradient",
)
def without_decay(weight, gradient, velocity, mask, *, weight_decay, **rates):
    return by_products(weight, gradient, velocity, mask, weight_decay=0.0, **rates)


@mistake(
    "takes weight decay past the velocity",
    says="the velocity at {where} should be {wanted} and yours is {yours}: you took the decay off the weight "
    "directly, as AdamW does; here it is a part of the gradient, and the velocity remembers it",
)
def decoupled(weight, gradient, velocity, mask, *, learning_rate, momentum, weight_decay):
    velocity = momentum * velocity + gradient
    return (weight - learning_rate * (velocity + weight_decay * weight)) * mask, velocity * mask


@mistake(
    "averages the gradients",
    says="the weight at {where} should be {wanted} and yours is {yours}: you multiplied the gradient by "
    "1 - momentum, as Adam's averages do; SGD adds all of it to momentum · velocity",
)
def averages(weight, gradient, velocity, mask, *, momentum, weight_decay, **rates):
    gradient = (1 - momentum) * (gradient + weight_decay * weight)
    return by_products(weight, gradient, velocity, mask, momentum=momentum, weight_decay=0.0, **rates)


@mistake(
    "puts the learning rate into the velocity",
    says="the weight at {where} should be {wanted} and yours is {yours}: the velocity sums gradients; the "
    "learning rate multiplies it only where the weight moves",
)
def rate_in_velocity(weight, gradient, velocity, mask, *, learning_rate, momentum, weight_decay):
    velocity = momentum * velocity + learning_rate * (gradient + weight_decay * weight)
    return (weight - velocity) * mask, velocity * mask


@mistake(
    "steps uphill",
    says="the weight at {where} should be {wanted} and yours is {yours}, as far off on the other side: the "
    "velocity points to where the loss grows; subtract it",
)
def uphill(weight, gradient, velocity, mask, *, learning_rate, **rates):
    return by_products(weight, gradient, velocity, mask, learning_rate=-learning_rate, **rates)


@mistake(
    "moves with the old velocity",
    says="the weight at {where} should be {wanted} and yours is {yours}: you moved it before the velocity "
    "had taken in this gradient; first the velocity, then the weight",
)
def old_velocity(weight, gradient, velocity, mask, *, learning_rate, **rates):
    _, after = _step(weight, gradient, velocity, learning_rate=learning_rate, **rates)
    return (weight - learning_rate * velocity) * mask, after * mask


@mistake(
    "returns the velocity first",
    says="your first entry holds {yours} at {where}, and the weight there is {wanted}: you swapped the two; "
    "return weight, velocity",
)
def swapped(*tensors, **rates):
    weight, velocity = by_products(*tensors, **rates)
    return velocity, weight


EXERCISE = Exercise(
    name="masked_step",
    points=3,
    minutes=12,
    difficulty=3,
    statement="masked_step(…) takes one step of SGD; dead weights stay dead, and forget their velocity.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_products, by_entries, by_filling),
    mistakes=(
        without_mask,
        gradient_alone,
        gradient_and_decay,
        mask_first,
        momentum_revives,
        velocity_alone,
        remembers,
        emptied_before,
        inverted,
        without_decay,
        decoupled,
        averages,
        rate_in_velocity,
        uphill,
        old_velocity,
        swapped,
    ),
    hints=(
        Hint(
            "a dead weight comes back to life",
            "Three things move a weight: its gradient, its decay, its velocity. Whoever masks one of them "
            "has two left. What is masked after the step can't be undone by it.",
        ),
        Hint(
            "the dead are dead, and a living weight is wrong",
            "All four tensors have one shape. velocity ← momentum · velocity + gradient + weight_decay · "
            "weight, with the weight from before the step; then weight ← weight - learning_rate · velocity.",
        ),
        Hint(
            "the weight is right and the velocity is not",
            "return weight * mask, velocity * ____",
        ),
    ),
)
