"""One step of alternating least squares: two of a tensor's three factors stand still, the third is the best.

Sources: Carroll and Chang 1970 (CANDECOMP), Harshman 1970 (PARAFAC); for kernels: Lebedev et al. 2014,
arXiv:1412.6553.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Factors far from singular and from orthogonal, so that the inverse is felt.

    All in float64, and no rank above n or k, so that another spelling of a mistake agrees to rounding.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def drawn(m: int, n: int, k: int, rank: int) -> dict[str, Tensor]:
        while True:
            b, c = normal(n, rank), normal(k, rank)
            gram = (b.T @ b) * (c.T @ c)
            values = torch.linalg.eigvalsh(gram)
            if values[0] > 0.03 * values[-1] and (rank == 1 or gram.triu(1).abs().max() > 0.1 * values[-1]):
                return {"tensor": normal(m, n, k), "b": b, "c": c}

    yield "n equals k", drawn(3, 4, 4, 2)
    yield "all sizes different", drawn(2, 4, 3, 2)
    yield "all sizes equal", drawn(3, 3, 3, 3)
    yield "one component", drawn(3, 2, 4, 1)
    exact = drawn(4, 3, 5, 2)
    exact["tensor"] = torch.einsum("ir,jr,lr->ijl", normal(4, 2), exact["b"], exact["c"])
    yield "a tensor of just this rank", exact
    yield "one slice", drawn(1, 4, 3, 2)
    turned = drawn(4, 5, 3, 2)
    yield "a tensor that is not contiguous", turned | {"tensor": normal(3, 5, 4).permute(2, 1, 0)}
    yield "a tensor of zeros", drawn(2, 3, 3, 2) | {"tensor": torch.zeros(2, 3, 3, dtype=torch.float64)}


def probe(case: dict[str, Any], cp_step: Callable[..., Any]) -> dict[str, Any]:
    return {"a": cp_step(case["tensor"], case["b"], case["c"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """No Gram matrix: each component's slice is an outer product; the pseudo-inverse of them all fits."""
    tensor, b, c = (case[name].double() for name in ("tensor", "b", "c"))
    yours = expect.tensor(record["a"], shape=(len(tensor), b.shape[1]), what="the factor a")
    slices = torch.stack([torch.outer(*pair) for pair in zip(b.T, c.T, strict=True)])  # (r, n, k)
    fit = torch.linalg.pinv(slices.flatten(1))  # (n · k, r), from its singular values
    expect.close(yours, tensor.flatten(1) @ fit, tolerance=1e-4, what="the factor a")


def by_gram(tensor: Tensor, b: Tensor, c: Tensor) -> Tensor:
    products = (b[:, None] * c).flatten(0, 1)  # (n · k, r)
    gram = (b.T @ b) * (c.T @ c)  # (r, r)
    return tensor.flatten(1) @ products @ torch.linalg.inv(gram)


def by_solving(tensor: Tensor, b: Tensor, c: Tensor) -> Tensor:
    against = torch.einsum("ijl,jr,lr->ri", tensor, b, c)  # (r, m)
    gram = torch.einsum("jr,js,lr,ls->rs", b, b, c, c)
    return torch.linalg.solve(gram, against).T


def by_least_squares(tensor: Tensor, b: Tensor, c: Tensor) -> Tensor:
    columns = [torch.kron(b[:, r], c[:, r]) for r in range(b.shape[1])]
    return torch.linalg.lstsq(torch.stack(columns, dim=1), tensor.reshape(len(tensor), -1).T).solution.T


def _pairs(b: Tensor, c: Tensor) -> Tensor:
    return (b[:, None] * c).flatten(0, 1)


def _gram(b: Tensor, c: Tensor) -> Tensor:
    return (b.T @ b) * (c.T @ c)


def by_parts(
    tensor: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    unfold=lambda t: t.flatten(1),
    pairs=_pairs,
    gram=_gram,
    invert=torch.linalg.inv,
) -> Tensor:
    """Right as it stands; many a mistake is one of its parts replaced."""
    return unfold(tensor) @ pairs(b, c) @ invert(gram(b, c))


_HERE = "the factor a at {where} should be {wanted} and yours is {yours}: "

wrong_order = mistake(
    "pairs c with b for b with c",
    says=_HERE + "your products are in another order than the tensor's entries; in tensor.flatten(1) the "
    "last index runs fastest, so b's row stands still while c's runs: (j, l), b first",
)(partial(by_parts, pairs=lambda b, c: _pairs(c, b)))

other_unfolding = mistake(
    "unfolds with the last index before the second",
    says=_HERE + "your unfolding runs through a slice down its columns, and your products through it along "
    "its rows; tensor.flatten(1) without a permute has the order of b[:, None] * c",
)(partial(by_parts, unfold=lambda t: t.mT.flatten(1)))

wrong_unfolding = mistake(
    "reshapes to (n · k, m) and transposes",
    says=_HERE + "reshape keeps the order of the entries, and a row of yours is no slice of the tensor; "
    "tensor.flatten(1) is (m, n · k) with slice i in row i",
)(partial(by_parts, unfold=lambda t: t.reshape(-1, len(t)).T))

projects = mistake(
    "projects and does not solve",
    says=_HERE + "tensor.flatten(1) · products says how much each component overlaps with the tensor; as the "
    "components overlap with each other too, this has to be taken apart by the inverse of their Gram matrix",
)(partial(by_parts, invert=lambda gram: torch.eye(len(gram), dtype=gram.dtype)))

not_inverted = mistake(
    "multiplies by the Gram matrix",
    says=_HERE + "you multiply by the Gram matrix, and need its inverse: torch.linalg.inv, or solve",
)(partial(by_parts, invert=lambda gram: gram))

diagonal = mistake(
    "inverts the diagonal alone",
    says=_HERE + "you divide each column by the squared length of its component; that is enough where the "
    "components are orthogonal, and these overlap: the whole (r, r) matrix is to be inverted",
)(partial(by_parts, invert=lambda gram: torch.diag(1 / gram.diagonal())))

every_entry = mistake(
    "inverts every entry",
    says=_HERE + "1 / G turns over each number by itself; the inverse is the matrix that gives the identity "
    "with G, torch.linalg.inv(G)",
)(partial(by_parts, invert=torch.reciprocal))

sum_of_grams = mistake(
    "adds the two Gram matrices",
    says=_HERE + "you inverted bᵀb + cᵀc; the overlap of two components is the overlap in b times the "
    "overlap in c, so the two matrices are multiplied, entry by entry",
)(partial(by_parts, gram=lambda b, c: b.T @ b + c.T @ c))

matrix_product = mistake(
    "multiplies the Gram matrices as matrices",
    says=_HERE + "you inverted the matrix product bᵀb @ cᵀc; here it is entry by entry: bᵀb * cᵀc",
)(partial(by_parts, gram=lambda b, c: (b.T @ b) @ (c.T @ c)))

only_b = mistake(
    "forgets c in the Gram matrix",
    says=_HERE + "you inverted bᵀb alone; c has its part in the overlap of two components: bᵀb * cᵀc",
)(partial(by_parts, gram=lambda b, c: b.T @ b))

only_c = mistake(
    "forgets b in the Gram matrix",
    says=_HERE + "you inverted cᵀc alone; b has its part in the overlap of two components: bᵀb * cᵀc",
)(partial(by_parts, gram=lambda b, c: c.T @ c))


@mistake(
    "multiplies the two inverses",
    says=_HERE + "you inverted bᵀb and cᵀc and multiplied then; the inverse of a product entry by entry is "
    "not the product of the inverses: multiply first",
)
def two_inverses(tensor, b, c):
    return tensor.flatten(1) @ _pairs(b, c) @ (torch.linalg.inv(b.T @ b) * torch.linalg.inv(c.T @ c))


@mistake(
    "scales the columns to length 1",
    says=_HERE + "the columns of a have length 1 with you; some programs keep the lengths apart, as weights "
    "of the components, but here they have no other place: leave them in a",
)
def scaled(tensor, b, c):
    return torch.nn.functional.normalize(by_gram(tensor, b, c), dim=0)


@mistake(
    "takes every pair of columns",
    says="torch.kron(b, c) has r · r columns, each of b's with each of c's; a component is column r of b "
    "with column r of c, so there are r products, (n · k, r)",
)
def kronecker(tensor, b, c):
    return tensor.flatten(1) @ torch.linalg.pinv(torch.kron(b, c)).T


@mistake(
    "returns a transposed",
    says="your answer is aᵀ, (r, m): solve and lstsq give the unknowns as rows; a has a row for each slice "
    "of the tensor and a column for each component",
)
def transposed(tensor, b, c):
    return by_gram(tensor, b, c).T


EXERCISE = Exercise(
    name="cp_step",
    points=2,
    minutes=12,
    difficulty=4,
    bonus=True,
    statement="cp_step(tensor, b, c) is the factor a that comes nearest to the tensor while b and c stand "
    "still.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_gram, by_solving, by_least_squares),
    mistakes=(
        wrong_order,
        other_unfolding,
        wrong_unfolding,
        projects,
        not_inverted,
        diagonal,
        every_entry,
        sum_of_grams,
        matrix_product,
        only_b,
        only_c,
        two_inverses,
        scaled,
        kronecker,
        transposed,
    ),
    hints=(
        Hint(
            "I do not see a least squares problem in it",
            "Lay slice i of the tensor out as one long row. With b and c given, this row is a mixture of r "
            "known rows, and a[i] says how much of each: a straight fit, as with any linear regression.",
        ),
        Hint(
            "the shape is right and the numbers are not",
            "products[j · k + l, r] = b[j, r] · c[l, r] is (n · k, r), G = (bᵀb) * (cᵀc) is (r, r), entry by "
            "entry, and a = tensor.flatten(1) · products · G⁻¹: (m, n · k) · (n · k, r) · (r, r).",
        ),
        Hint(
            "I do not know how to pair the columns in the right order",
            "products = (b[:, None] * ________).flatten(0, 1)",
        ),
    ),
)
