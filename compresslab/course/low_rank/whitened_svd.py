"""The matrix of a rank whose outputs come nearest, where the inputs are of unequal size and hang together.

Source: Wang, Zheng, Wan and Zhang 2024, "SVD-LLM: truncation-aware singular value decomposition for large
language model compression", arXiv:2403.07378.
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
    """Correlated inputs of very unequal size: the condition of their moments is 100 to 10,000."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def moments(size: int) -> Tensor:
        while True:
            sizes = torch.logspace(0, 1, size, dtype=torch.float64)[torch.randperm(size, generator=rng)]
            lower = sizes[:, None] * (torch.eye(size) + 0.5 * normal(size, size).tril(-1))
            values = torch.linalg.eigvalsh(lower @ lower.T)
            if 100 <= values[-1] / values[0] <= 10_000:
                return lower @ lower.T

    def drawn(outputs: int, inputs: int, rank: int) -> dict[str, Any]:
        return {"weight": normal(outputs, inputs), "moments": moments(inputs), "rank": rank}

    def more(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    yield "as many outputs as inputs", drawn(5, 5, 2)
    yield "more inputs than outputs", drawn(4, more(5, 7), more(1, 2))
    yield "more outputs than inputs", drawn(more(6, 9), 5, more(2, 3))
    yield "rank 1", drawn(6, 4, 1)
    turned = drawn(4, 6, 3)
    yield "transposed in memory", turned | {"weight": normal(6, 4).T}
    yield "the full rank", drawn(4, 6, 4)
    yield "one output", drawn(1, 4, 1)
    yield (
        "inputs of one size that have nothing in common",
        drawn(5, 6, 2) | {"moments": torch.eye(6).double()},
    )
    signs = torch.randint(0, 2, (3, 1), generator=rng) * 2.0 - 1
    weight = signs * torch.tensor([[4.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    apart = torch.diag(torch.tensor([1.0, 16.0, 256.0, 4.0]))
    yield "inputs of unequal size, float32", {"weight": weight, "moments": apart, "rank": 2}


def probe(case: dict[str, Any], whitened_svd: Callable[..., Any]) -> dict[str, Any]:
    return {"nearest": whitened_svd(case["weight"], case["moments"], rank=case["rank"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """No whitening: of the outputs' own moments W G Wᵀ the smallest eigenvalues add up to the least error."""
    weight, rank = case["weight"], case["rank"]
    nearest = expect.tensor(record["nearest"], shape=weight.shape, dtype=weight.dtype, what="the matrix")
    w, v, moments = weight.double(), nearest.double(), case["moments"].double()
    sizes = torch.linalg.eigvalsh(v.T @ v).clamp(min=0)
    found = int((sizes > 1e-10 * sizes[-1]).sum())
    expect.true(
        found <= rank,
        f"the matrix is of rank {rank} at most; yours is of rank {found}",
        yours=found,
        wanted=rank,
        where=f"rank {rank}",
    )
    energies = torch.linalg.eigvalsh(w @ moments @ w.T)  # of the outputs, the smallest first
    whole, least = float(energies.sum()), float(energies[: len(w) - rank].sum())
    error = float(((w - v) @ moments @ (w - v).T).trace())
    expect.true(
        error <= least + 1e-6 * whole,
        f"at rank {rank} the outputs can be as near as {least / whole:.3g} of their energy; yours are "
        f"{error / whole:.3g} away",
        yours=f"{error / whole:.3g}",
        wanted=f"{max(least, 0) / whole:.3g}",
        where=f"rank {rank}",
    )


def by_cholesky(weight: Tensor, moments: Tensor, *, rank: int) -> Tensor:
    lower = torch.linalg.cholesky(moments)  # (in, in)
    u, s, vt = torch.linalg.svd(weight @ lower, full_matrices=False)
    nearest = (u[:, :rank] * s[:rank]) @ vt[:rank]
    return torch.linalg.solve_triangular(lower, nearest, upper=False, left=False)


def by_symmetric_root(weight: Tensor, moments: Tensor, *, rank: int) -> Tensor:
    """Any root of the moments will do, G = R Rᵀ; this one is symmetric."""
    values, vectors = torch.linalg.eigh(moments)
    root = vectors * values.sqrt() @ vectors.T
    u, s, vt = torch.linalg.svd(weight @ root)
    pairs = (s[k] * torch.outer(u[:, k], vt[k]) for k in range(rank))
    return sum(pairs, torch.zeros_like(weight)) @ torch.linalg.inv(root)


def by_outputs(weight: Tensor, moments: Tensor, *, rank: int) -> Tensor:
    """The weight projected on the main directions of its outputs: no root, no inverse."""
    main = torch.linalg.eigh(weight @ moments @ weight.T)[1][:, -rank:]
    return main @ (main.T @ weight)


def _nearest(matrix, rank, *, kept=lambda s, rank: slice(rank)):
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    places = kept(s, rank)
    return (u[:, places] * s[places]) @ vt[places]


def _by_parts(
    weight,
    moments,
    *,
    rank,
    root=torch.linalg.cholesky,
    whiten=torch.matmul,
    undo=lambda matrix, root: matrix @ torch.linalg.inv(root),
    nearest=_nearest,
):
    """Right as it stands; many a mistake is one of its parts replaced."""
    factor = root(moments)
    return undo(nearest(whiten(weight, factor), rank), factor)


FAR = "at {where} the outputs can be as near as {wanted} of their energy and yours are {yours} away: "


@mistake(
    "forgets the moments",
    says=f"{FAR}that is the plain SVD, which takes every input for equally large; weight @ L is what it "
    "should cut",
)
def plain(weight, moments, *, rank):
    return _nearest(weight, rank)


not_undone = mistake(
    "does not undo the whitening",
    says=f"{FAR}you return [W L]_r, which expects whitened inputs; the layer gets its old ones, so L⁻¹ "
    "comes after it",
)(partial(_by_parts, undo=lambda matrix, root: matrix))

moments_for_root = mistake(
    "multiplies by G",
    says=f"{FAR}you multiplied by G and by its inverse: then inputs count by the square of their energy; L "
    "is a root of G, and torch.linalg.cholesky finds it",
)(partial(_by_parts, root=lambda moments: moments))

inverse_root = mistake(
    "whitens the wrong way round",
    says=f"{FAR}you cut W L⁻¹ and multiplied by L, so that weak inputs count most: the error is that of (W "
    "- V) L, so W L is cut and L⁻¹ comes after",
)(partial(_by_parts, root=lambda moments: torch.linalg.inv(torch.linalg.cholesky(moments))))

upper = mistake(
    "takes Lᵀ for L",
    says=f"{FAR}you used the upper factor: of G = L Lᵀ the error tr(D L Lᵀ Dᵀ) is ‖D L‖², with the lower "
    "one next to D",
)(partial(_by_parts, root=lambda moments: torch.linalg.cholesky(moments).T))

transposed_for_inverse = mistake(
    "undoes with Lᵀ",
    says=f"{FAR}you undid L by its transpose, as if it were a rotation; L is none, and it takes the inverse",
)(partial(_by_parts, undo=lambda matrix, root: matrix @ root.T))

multiplied_again = mistake(
    "undoes with L itself",
    says=f"{FAR}you multiplied by L a second time; what L has done, L⁻¹ undoes",
)(partial(_by_parts, undo=torch.matmul))

inverse_transposed = mistake(
    "undoes with the inverse of Lᵀ",
    says=f"{FAR}you multiplied by L⁻ᵀ: solve(L, Aᵀ)ᵀ is A L⁻ᵀ; for A L⁻¹ solve with Lᵀ, or say left=False",
)(partial(_by_parts, undo=lambda matrix, root: torch.linalg.solve(root, matrix.T).T))

inverse_of_moments = mistake(
    "undoes with the inverse of G",
    says=f"{FAR}W was multiplied by L and you undid it by G⁻¹, which undoes L twice; the inverse of L is "
    "enough",
)(partial(_by_parts, undo=lambda matrix, root: matrix @ torch.linalg.inv(root @ root.T)))

sizes_alone = mistake(
    "takes the diagonal of G alone",
    says=f"{FAR}you scaled every input by its size and left out that inputs rise and fall together; the "
    "Cholesky factor of the whole G holds both",
)(partial(_by_parts, root=lambda moments: moments.diagonal().sqrt().diag()))

diagonal_of_root = mistake(
    "takes the diagonal of L alone",
    says=f"{FAR}you used only the diagonal of L; below it stands what each input shares with the ones before",
)(partial(_by_parts, root=lambda moments: torch.linalg.cholesky(moments).diagonal().diag()))

squared_sizes = mistake(
    "scales by the diagonal of G without its root",
    says=f"{FAR}you scaled every input by E[x²]; a size is the root of that, and G also says how inputs go "
    "together",
)(partial(_by_parts, root=lambda moments: moments.diagonal().diag()))

outputs_side = mistake(
    "whitens the outputs",
    says=f"{FAR}you multiplied by L from the left, where the outputs are; G is of the inputs, the columns "
    "of weight, so L stands on the right",
)(
    partial(
        _by_parts,
        whiten=lambda weight, root: root @ weight,
        undo=lambda matrix, root: torch.linalg.inv(root) @ matrix,
    )
)

smallest = mistake(
    "keeps the smallest",
    says=f"{FAR}you kept the last singular values of W L; they are sorted from large to small, and the "
    "first ones stay",
)(partial(_by_parts, nearest=partial(_nearest, kept=lambda s, rank: slice(len(s) - rank, None))))

drops_rank = mistake(
    "drops as many as it should keep",
    says="your matrix is of rank {yours} and {wanted} was asked for: [:-rank] leaves out the last so many; "
    "[:rank] keeps the first",
)(partial(_by_parts, nearest=partial(_nearest, kept=lambda s, rank: slice(-rank))))

whole = mistake(
    "does not truncate",
    says="your matrix is the whole weight, of rank {yours}; multiplied by L and by L⁻¹ nothing has changed, "
    "and in between only {wanted} singular values should stay",
)(partial(_by_parts, nearest=lambda matrix, rank: matrix))


@mistake(
    "leaves S out",
    says=f"{FAR}your product is U @ Vᵀ without the singular values between them",
)
def without_s(weight, moments, *, rank):
    lower = torch.linalg.cholesky(moments)
    u, _, vt = torch.linalg.svd(weight @ lower, full_matrices=False)
    return u[:, :rank] @ vt[:rank] @ torch.linalg.inv(lower)


@mistake(
    "returns two layers",
    says="you return the two layers; here their product is wanted, one (out, in) matrix",
)
def two_layers(weight, moments, *, rank):
    lower = torch.linalg.cholesky(moments)
    u, s, vt = torch.linalg.svd(weight @ lower, full_matrices=False)
    return vt[:rank] @ torch.linalg.inv(lower), u[:, :rank] * s[:rank]


EXERCISE = Exercise(
    name="whitened_svd",
    points=3,
    minutes=14,
    difficulty=4,
    statement="whitened_svd(weight, moments, rank=…) is the matrix of that rank whose outputs come nearest.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_cholesky, by_symmetric_root, by_outputs),
    mistakes=(
        plain,
        not_undone,
        moments_for_root,
        inverse_root,
        upper,
        transposed_for_inverse,
        multiplied_again,
        inverse_transposed,
        inverse_of_moments,
        sizes_alone,
        diagonal_of_root,
        squared_sizes,
        outputs_side,
        smallest,
        drops_rank,
        whole,
        without_s,
        two_layers,
    ),
    hints=(
        Hint(
            "I do not see what L has to do with the error",
            "With G = L Lᵀ the error tr(D G Dᵀ) is tr(D L (D L)ᵀ): the sum of all squared entries of D L. "
            "And of matrices of a rank, which one comes nearest to W L in that sense?",
        ),
        Hint(
            "my outputs are worse than those of the plain SVD",
            "lower = torch.linalg.cholesky(moments) is (in, in) and stands on the right of weight: weight @ "
            "lower is (out, in). Its nearest matrix of the rank is still (out, in), for whitened inputs; "
            "times the inverse of lower, again on the right, it is for the old ones.",
        ),
        Hint(
            "only the last step is missing",
            "V = (u[:, :rank] * s[:rank]) @ vt[:rank] @ torch.linalg.inv(________)",
        ),
    ),
)
