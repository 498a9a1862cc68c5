"""One weight less, and the others make up for it: a step of the optimal brain surgeon on a linear layer.

Sources: Hassibi and Stork 1993, "Second order derivatives for network pruning: optimal brain surgeon"; one
layer at a time: Frantar and Alistarh 2023, "SparseGPT", arXiv:2301.00774.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]

Step = tuple[Tensor, int]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Rows in which the cheapest weight is so by far, and other rules would delete other ones."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def candidates(samples: int, size: int, rules: Sequence[int] = ()) -> Iterator[dict[str, Tensor]]:
        """Correlated inputs whose mean is not 0, many at once, as most are not told apart by every rule."""
        while True:
            mixing = torch.eye(size) + 0.4 * normal(100, size, size)
            inputs = normal(100, samples, size) @ mixing + 0.6 * normal(100, 1, size)
            weights = normal(100, size)
            for n in _clear(weights, inputs, rules).nonzero().flatten().tolist():
                yield {"weights": weights[n].clone(), "inputs": inputs[n].clone()}

    def drawn(samples: int, size: int, rules: Sequence[int] = ()) -> dict[str, Tensor]:
        return next(candidates(samples, size, rules))

    yield "as many samples as weights", drawn(4, 4)
    yield "more samples than weights", drawn(12, 6, rules=(1, 2, 3))
    yield "rounding leaves a rest", next(case for case in candidates(9, 6, (1, 2, 4)) if _leaves_a_rest(case))
    turned = drawn(12, 6, rules=(3, 4, 5))
    yield "inputs turned: not contiguous", turned | {"inputs": turned["inputs"].T.contiguous().T}
    single = drawn(16, 6, rules=(1, 2, 5))
    yield "float32", {name: value.float() for name, value in single.items()}
    given = drawn(12, 5)
    given["weights"][3] = 0.0
    yield "a weight that is 0 already", given
    apart = 2 * torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 2, 2]]
    yield "inputs that have nothing in common", {"weights": normal(3) + 3, "inputs": apart}
    yield "a single weight", {"weights": normal(1) + 2, "inputs": normal(5, 1)}


def _clear(weights: Tensor, inputs: Tensor, rules: Sequence[int]) -> Tensor:
    """Which of these rows (n, in), inputs (n, samples, in), tell the right rule from wrong ones: (n,) bools.

    The first two wrong rules never delete the same weight as it; ``rules`` do not either, nor as each other.
    """
    hessian = 2 * inputs.mT @ inputs
    inverse = torch.linalg.inv(hessian)
    own, steep = inverse.diagonal(dim1=1, dim2=2), hessian.diagonal(dim1=1, dim2=2)
    saliency = weights**2 / own
    wrong = (
        weights**2 / steep,
        weights**2 * steep,
        weights.abs(),
        weights.abs() / own,
        weights / own,
        -saliency,
    )
    picks = torch.stack([costs.argmin(dim=1) for costs in (saliency, *wrong)])
    best, every = picks[0], torch.arange(len(weights))
    clear = (picks[1] != best) & (picks[2] != best)
    for one, other in itertools.combinations((0, *(rule + 1 for rule in rules)), 2):
        clear &= picks[one] != picks[other]
    clear &= (
        hessian.flatten(1).norm(dim=1) * inverse.flatten(1).norm(dim=1) < 1000
    )  # a bound of the condition
    clear &= saliency.sort(dim=1).values[:, 1] > 1.1 * saliency.amin(dim=1)
    moves = inverse[every, :, best] * (weights / own)[every, best][:, None]
    moves[every, best] = 0
    return clear & (moves.abs().amax(dim=1) > 0.1) & (weights[every, best].abs() > 0.1)


def _leaves_a_rest(case: dict[str, Tensor]) -> bool:
    row, q = _step(case["weights"], case["inputs"])
    return row[q].item() != 0


def probe(case: dict[str, Any], obs_step: Callable[..., Any]) -> dict[str, Any]:
    both = obs_step(case["weights"], case["inputs"])
    if isinstance(both, tuple) and isinstance(both[-1], torch.Tensor) and both[-1].dim() == 0:
        both = (*both[:-1], both[-1].item())  # the index as argmin gives it
    return {"both": both}


def judge(case: dict[str, Any], record: Record) -> None:
    """No Hessian: for each weight in turn, the least squares fit of the others to the same outputs."""
    first, second = expect.parts(record["both"], count=2)
    yours = expect.tensor(first, shape=case["weights"].shape, what="the new row, of two entries the first,")
    index = expect.whole_number(second, what="the index, of two entries the second,")
    weights, inputs = case["weights"].double(), case["inputs"].double()
    rows = [_refitted(weights, inputs, q) for q in range(len(weights))]
    errors = [float((inputs @ (row - weights)).square().sum()) for row in rows]
    best = errors.index(min(errors))
    expect.equal(index, best, what="the index of the cheapest weight")
    expect.close(yours, rows[best], tolerance=1e-4, what="the new row")
    rest = f"{float(yours[best]):.3g}"
    expect.true(
        rest in ("0", "-0"), f"the deleted weight is exactly 0; yours is {rest}", rest=rest, where=best
    )


def _refitted(weights: Tensor, inputs: Tensor, q: int) -> Tensor:
    """The row without weight q whose outputs come nearest to those of the whole row."""
    others = [k for k in range(len(weights)) if k != q]
    row = torch.zeros_like(weights)
    row[others] = torch.linalg.pinv(inputs[:, others]) @ (inputs @ weights)
    return row


def by_inverse(weights: Tensor, inputs: Tensor) -> Step:
    inverse = torch.linalg.inv(2 * inputs.T @ inputs)  # (in, in)
    saliency = weights**2 / (2 * inverse.diagonal())  # (in,)
    q = int(saliency.argmin())
    row = weights - weights[q] / inverse[q, q] * inverse[:, q]
    row[q] = 0.0
    return row, q


def by_solving(weights: Tensor, inputs: Tensor) -> Step:
    size = len(weights)
    hessian = torch.einsum("ni,nj->ij", inputs, inputs)
    columns = [torch.linalg.solve(hessian, torch.eye(size, dtype=inputs.dtype)[q]) for q in range(size)]
    costs = [float(weights[q]) ** 2 / float(columns[q][q]) for q in range(size)]
    q = min(range(size), key=lambda q: costs[q])
    moved = [0.0 if k == q else weights[k] - weights[q] * columns[q][k] / columns[q][q] for k in range(size)]
    return torch.tensor(moved, dtype=weights.dtype), q


def by_restricting(weights: Tensor, inputs: Tensor) -> Step:
    """Every deletion tried: with H cut into its parts, the others solve H[r, r] · change = w_q · H[r, q]."""
    hessian = 2 * inputs.T @ inputs
    best, tried = float("inf"), (weights, -1)
    for q in range(len(weights)):
        rest = torch.arange(len(weights)) != q
        row = weights * rest
        row[rest] += weights[q] * torch.linalg.solve(hessian[rest][:, rest], hessian[rest, q])
        cost = float((row - weights) @ hessian @ (row - weights)) / 2
        if cost < best:
            best, tried = cost, (row, q)
    return tried


def _hessian(inputs: Tensor) -> Tensor:
    return 2 * inputs.T @ inputs


def _saliency(weights: Tensor, matrix: Tensor) -> Tensor:
    return weights**2 / (2 * matrix.diagonal())


def _step(
    weights: Tensor,
    inputs: Tensor,
    *,
    hessian: Callable[[Tensor], Tensor] = _hessian,
    invert: Callable[[Tensor], Tensor] = torch.linalg.inv,
    saliency: Callable[..., Tensor] = _saliency,
    move=lambda w, column, q: -w / column[q] * column,
) -> Step:
    """Right but for a rest of the deleted weight; many a mistake is one of its parts replaced."""
    inverse = invert(hessian(inputs))
    q = int(saliency(weights, inverse).argmin())
    return weights + move(weights[q], inverse[:, q], q), q


def _zeroed(weights: Tensor, inputs: Tensor, **parts: Any) -> Step:
    row, q = _step(weights, inputs, **parts)
    row[q] = 0.0
    return row, q


leaves_a_rest = mistake(
    "leaves a rest of the deleted weight",
    says="weight {where} is {rest} and not 0: w - (w / h) · h is zero on paper, and in floats only "
    "nearly; set it to 0, or a file of sparse weights will store it",
)(_step)

no_compensation = mistake(
    "deletes and does not make up for it",
    says="the new row at {where} should be {wanted} and yours is still {yours}: the surgeon moves the other "
    "weights too, by -w_q / H⁻¹[q, q] · H⁻¹[:, q], so that the outputs change least",
)(partial(_zeroed, move=lambda w, column, q: torch.zeros_like(column)))

wrong_side = mistake(
    "moves the others the wrong way",
    says="the new row at {where} should be {wanted} and yours is {yours}, as far off on the other side: the "
    "step is subtracted, which is what brings weight q to 0",
)(partial(_zeroed, move=lambda w, column, q: w / column[q] * column))

not_divided = mistake(
    "does not divide the step by H⁻¹[q, q]",
    says="the new row at {where} should be {wanted} and yours is {yours}: with -w_q · H⁻¹[:, q] the step has "
    "the wrong length; divided by H⁻¹[q, q] its entry q is just -w_q",
)(partial(_zeroed, move=lambda w, column, q: -w * column))

not_inverted = mistake(
    "uses H for its inverse",
    says="the cheapest weight is {wanted} and yours is {yours}: both formulas have the inverse of H, and "
    "you put H itself into them; torch.linalg.inv makes it",
)(partial(_zeroed, invert=lambda hessian: hessian))

every_entry = mistake(
    "inverts every entry of H",
    says="the cheapest weight is {wanted} and yours is {yours}: 1 / H turns over each number by itself; the "
    "inverse is the matrix that gives the identity with H, torch.linalg.inv(H)",
)(partial(_zeroed, invert=torch.reciprocal))


@mistake(
    "chooses as optimal brain damage does",
    says="the cheapest weight is {wanted} and yours is {yours}: w² · H[q, q] / 2 is the cost while all "
    "others stay where they are; they may move here, and then it is w² / (2 · H⁻¹[q, q])",
)
def brain_damage(weights, inputs):
    return _zeroed(weights, inputs, saliency=lambda w, _: w**2 * _hessian(inputs).diagonal() / 2)


smallest_weight = mistake(
    "deletes the smallest weight",
    says="the cheapest weight is {wanted} and yours is {yours}, the one of least magnitude: how much it "
    "costs also hangs on how large its input is, and on how well others can stand in for it",
)(partial(_zeroed, saliency=lambda w, _: w.abs()))

without_square = mistake(
    "forgets the square",
    says="the cheapest weight is {wanted} and yours is {yours}: w / (2 · H⁻¹[q, q]) is least for a large "
    "negative weight; the cost grows with w², whatever its sign",
)(partial(_zeroed, saliency=lambda w, inverse: w / (2 * inverse.diagonal())))

magnitude_for_square = mistake(
    "takes the magnitude for the square",
    says="the cheapest weight is {wanted} and yours is {yours}: |w| / (2 · H⁻¹[q, q]) is no error; the "
    "outputs move in proportion to w, and their squared error to w²",
)(partial(_zeroed, saliency=lambda w, inverse: w.abs() / (2 * inverse.diagonal())))

largest = mistake(
    "deletes the dearest weight",
    says="the cheapest weight is {wanted} and yours is {yours}, the one whose loss costs most: argmin, "
    "not argmax",
)(partial(_zeroed, saliency=lambda w, inverse: -_saliency(w, inverse)))

over_samples = mistake(
    "multiplies the inputs the wrong way round",
    says="where {wanted} is right you have {yours}: inputs · inputsᵀ compares samples with each other, and H "
    "compares inputs, (in, in); it is 2 · inputsᵀ · inputs",
)(partial(_zeroed, hessian=lambda inputs: _hessian(inputs.T)))

centred = mistake(
    "subtracts the mean of the inputs",
    says="where {wanted} is right you have {yours}: H holds the second moments, not the covariances; an "
    "input that is always 1 matters to the output as well",
)(
    partial(
        _zeroed,
        hessian=lambda inputs: _hessian(inputs - inputs.mean(dim=0)) + 1e-9 * torch.eye(inputs.shape[1]),
    )
)


EXERCISE = Exercise(
    name="obs_step",
    points=3,
    minutes=18,
    difficulty=4,
    bonus=True,
    statement="obs_step(weights, inputs) deletes the cheapest weight of a row and lets the others make up "
    "for it.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_inverse, by_solving, by_restricting),
    mistakes=(
        leaves_a_rest,
        no_compensation,
        wrong_side,
        not_divided,
        not_inverted,
        every_entry,
        brain_damage,
        smallest_weight,
        without_square,
        magnitude_for_square,
        largest,
        over_samples,
        centred,
    ),
    hints=(
        Hint(
            "I do not see why deleting one weight should move the others",
            "Two inputs that rise and fall together carry the same news. If one of them loses its weight, "
            "the other can say it too, with a weight that is a little larger. H⁻¹ knows by how much.",
        ),
        Hint(
            "the index is another one than wanted",
            "inputs is (samples, in), so H = 2 · inputsᵀ · inputs is (in, in), and so is its inverse. The "
            "cost of weight q is w_q² / (2 · H⁻¹[q, q]), q = 0 … in-1; the smallest is the one.",
        ),
        Hint(
            "the index is right and the row is not",
            "row = weights - weights[q] / inverse[q, q] * inverse[____]; and row[q] is set to 0 at the end.",
        ),
    ),
)
