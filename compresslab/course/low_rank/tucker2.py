"""A kernel in new coordinates: few mixtures of its inputs and outputs, and a small kernel between them.

Sources: Kim et al. 2016, "Compression of deep convolutional neural networks for fast and low power mobile
applications", arXiv:1511.06530 (Tucker-2); De Lathauwer, De Moor and Vandewalle 2000, "A multilinear singular
value decomposition" (HOSVD).
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

Ranks = tuple[int, int]
Three = tuple[Tensor, Tensor, Tensor]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """Singular values well apart in both unfoldings, so that the leading vectors are so beyond doubt."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def drawn(*shape: int, ranks: Ranks) -> dict[str, Any]:
        while True:
            fading = 0.6 ** torch.arange(shape[0])[:, None] * 0.7 ** torch.arange(shape[1])
            turns = [torch.linalg.qr(normal(size, size)).Q for size in shape[:2]]
            kernel = torch.einsum("oa,ib,abyx->oiyx", *turns, normal(*shape) * fading[:, :, None, None])
            if _clear(kernel, ranks):
                return {"kernel": kernel, "ranks": ranks}

    yield "as many inputs as outputs", drawn(4, 4, 3, 3, ranks=(2, 3))
    yield "fewer inputs than outputs", drawn(5, 3, 3, 3, ranks=(3, 1))
    yield "a kernel of 3 × 2", drawn(3, 5, 3, 2, ranks=(2, 3))
    yield "a kernel of 1 × 1", drawn(4, 4, 1, 1, ranks=(2, 3))
    yield "full ranks", drawn(3, 4, 2, 2, ranks=(3, 4))
    yield "one and one", drawn(4, 3, 2, 3, ranks=(1, 1))
    turned = drawn(4, 3, 2, 3, ranks=(2, 2))
    yield "turned: not contiguous", turned | {"kernel": turned["kernel"].transpose(2, 3)}
    single = torch.zeros(3, 3, 3, 3)
    single[[2, 0, 1], [0, 1, 2], [1, 0, 2], [0, 2, 1]] = torch.tensor([4.0, 2.0, 1.0])
    yield "zeros in most places, float32", {"kernel": single, "ranks": (2, 1)}


def _clear(kernel: Tensor, ranks: Ranks) -> bool:
    """No two singular values near each other, and the projected kernel's own directions visibly different."""
    flat = [kernel.flatten(1), kernel.transpose(0, 1).flatten(1)]
    values = [torch.linalg.svdvals(matrix) for matrix in flat]
    apart = all(bool((s[:-1] > 1.15 * s[1:]).all()) for s in values)
    once, again = (_split(kernel, ranks=ranks, sequential=then)[2] for then in (False, True))
    cut = ranks[0] < kernel.shape[0] and ranks[1] < kernel.shape[1] and kernel.shape[2:].numel() > 1
    return apart and (not cut or float((once @ once.T - again @ again.T).abs().max()) > 0.01)


def probe(case: dict[str, Any], tucker2: Callable[..., Any]) -> dict[str, Any]:
    """Signs are free: the largest entry of each column is made positive, and the core goes along."""
    kernel, (r_out, r_in) = case["kernel"], case["ranks"]
    three = tucker2(kernel, ranks=case["ranks"])
    shapes = [(r_out, r_in, *kernel.shape[2:]), (kernel.shape[0], r_out), (kernel.shape[1], r_in)]
    fits = isinstance(three, tuple | list) and [getattr(part, "shape", None) for part in three] == shapes
    if fits and all(isinstance(part, torch.Tensor) and part.is_floating_point() for part in three):
        core, *factors = three
        for axis, u in enumerate(factors):
            largest = u.gather(0, u.abs().argmax(dim=0, keepdim=True))
            signs = torch.where(largest < 0, -1, 1)  # (1, rank)
            factors[axis] = u * signs
            core = core * signs.view(*((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1)))
        three = (core, *factors)
    return {"three": three}


def judge(case: dict[str, Any], record: Record) -> None:
    """Each factor against eigenvectors of kernel times kernel, by their projectors; the core by its sum."""
    kernel, (r_out, r_in) = case["kernel"], case["ranks"]
    first, second, third = expect.parts(record["three"], count=3)
    shape = (r_out, r_in, *kernel.shape[2:])
    core = expect.tensor(first, shape=shape, dtype=kernel.dtype, what="core, of three entries the first,")
    given = (("u_out", second, r_out, "oiyx,piyx->op"), ("u_in", third, r_in, "oiyx,ojyx->ij"))
    kernel = kernel.double()
    factors: list[Tensor] = []
    for name, value, rank, product in given:
        shape = (kernel.shape[len(factors)], rank)
        u = expect.tensor(value, shape=shape, dtype=case["kernel"].dtype, what=name).double()
        longest = float(u.square().sum(dim=0).max())
        expect.true(
            longest < 1.01,
            f"a column of {name} has the length 1; one of yours has {longest**0.5:.4g}",
            name=name,
            length=f"{longest**0.5:.4g}",
        )
        leading = torch.linalg.eigh(torch.einsum(product, kernel, kernel)).eigenvectors[:, -rank:]
        what = f"{name} · {name}ᵀ, the projector on the space of its columns,"
        expect.close(u @ u.T, leading @ leading.T, tolerance=1e-4, what=what)
        factors.append(u)
    wanted = torch.einsum("oa,ib,oiyx->abyx", *factors, kernel)
    expect.close(core.double(), wanted, tolerance=1e-4, what="core, given your factors,")


def by_svd(kernel: Tensor, *, ranks: Ranks) -> Three:
    u_out = torch.linalg.svd(kernel.flatten(1), full_matrices=False).U[:, : ranks[0]]
    u_in = torch.linalg.svd(kernel.transpose(0, 1).flatten(1), full_matrices=False).U[:, : ranks[1]]
    return torch.einsum("oa,ib,oiyx->abyx", u_out, u_in, kernel), u_out, u_in


def by_gram(kernel: Tensor, *, ranks: Ranks) -> Three:
    """The left singular vectors of M are the eigenvectors of M Mᵀ, which come smallest first."""
    factors = []
    for mode in range(2):
        matrix = kernel.movedim(mode, 0).reshape(kernel.shape[mode], -1)
        factors.append(torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)[:, : ranks[mode]])
    core = torch.tensordot(factors[1].T, kernel, dims=([1], [1])).transpose(0, 1)  # (out, r_in, kh, kw)
    return torch.tensordot(factors[0].T, core, dims=1), *factors


def by_positions(kernel: Tensor, *, ranks: Ranks) -> Three:
    """The kernel as kh · kw matrices (out, in), side by side and on top of each other."""
    pictures = [kernel[:, :, y, x] for y in range(kernel.shape[2]) for x in range(kernel.shape[3])]
    u_out = torch.linalg.svd(torch.cat(pictures, dim=1))[0][:, : ranks[0]]
    u_in = torch.linalg.svd(torch.cat(pictures, dim=0))[2][: ranks[1]].T
    small = torch.stack([u_out.T @ picture @ u_in for picture in pictures], dim=2)
    return small.view(*ranks, *kernel.shape[2:]), u_out, u_in


def _vectors(matrix: Tensor, rank: int) -> Tensor:
    return torch.linalg.svd(matrix, full_matrices=False).U[:, :rank]


def _outputs(kernel: Tensor) -> Tensor:
    return kernel.flatten(1)


def _inputs(kernel: Tensor) -> Tensor:
    return kernel.transpose(0, 1).flatten(1)


def _split(
    kernel,
    *,
    ranks,
    outputs=_outputs,
    inputs=_inputs,
    vectors=_vectors,
    sequential=False,
    project=lambda kernel, u_out, u_in: torch.einsum("oa,ib,oiyx->abyx", u_out, u_in, kernel),
) -> Three:
    """Right as it stands; many a mistake is one of its parts replaced."""
    u_out = vectors(outputs(kernel), ranks[0])
    seen = torch.einsum("oa,oiyx->aiyx", u_out, kernel) if sequential else kernel
    u_in = vectors(inputs(seen), ranks[1])
    return project(kernel, u_out, u_in), u_out, u_in


_U_OUT = "u_out · u_outᵀ at {where} should be {wanted} and yours is {yours}: "
_U_IN = "u_in · u_inᵀ at {where} should be {wanted} and yours is {yours}: "

same_unfolding = mistake(
    "takes u_in from the unfolding along the outputs",
    says=_U_IN + "your u_in comes from the matrix "
    "whose rows are outputs; unfold the kernel along its inputs for it",
)(partial(_split, inputs=_outputs))

not_moved = mistake(
    "reshapes to (in, …) and does not move the axis",
    says=_U_IN + "reshape(in, -1) cuts the numbers "
    "as they lie, and a row of it belongs to no input; axis 1 must come to the front first",
)(partial(_split, inputs=lambda kernel: kernel.reshape(kernel.shape[1], -1)))

inputs_first = mistake(
    "takes the kernel for (in, out, kh, kw)",
    says=_U_OUT + "you took axis 0 for the inputs; a convolution's weight is (out, in, kh, kw)",
)(
    lambda kernel, *, ranks: _split(
        kernel,
        ranks=ranks,
        outputs=_inputs,
        inputs=_outputs,
        project=lambda kernel, u_out, u_in: torch.einsum("oa,ib,ioyx->abyx", u_out, u_in, kernel),
    )
)

right_vectors = mistake(
    "takes the right singular vectors",
    says="the right singular vectors, rows of Vh, are as long as the matrix is wide, in · kh · kw; the "
    "factors are (out, r_out) and (in, r_in), made of columns of U",
)(partial(_split, vectors=lambda matrix, rank: torch.linalg.svd(matrix, full_matrices=False).Vh[:rank].T))

rows_of_u = mistake(
    "takes rows of U",
    says=_U_OUT + "the singular vectors are the "
    "columns of U, U[:, :rank]; U[:rank] are rows, and turning them over does not make them columns",
)(partial(_split, vectors=lambda matrix, rank: torch.linalg.svd(matrix).U[:rank].T))

smallest = mistake(
    "keeps the smallest",
    says=_U_OUT + "you kept the directions in which "
    "the kernel does least; an svd begins with the largest singular value",
)(partial(_split, vectors=lambda matrix, rank: torch.linalg.svd(matrix, full_matrices=False).U[:, -rank:]))

scaled = mistake(
    "multiplies the factors by the singular values",
    says="a column of {name} has the length 1, one of yours has {length}: U alone is the factor, and what "
    "the singular values say is in the core",
)(partial(_split, vectors=lambda matrix, rank: _vectors(matrix, rank) * torch.linalg.svdvals(matrix)[:rank]))

rooted = mistake(
    "multiplies the factors by roots of the singular values",
    says="a column of {name} has the length 1, one of yours has {length}: the roots belong to an SVD in two "
    "layers; here U alone is the factor, and the core carries the size",
)(
    partial(
        _split,
        vectors=lambda matrix, rank: _vectors(matrix, rank) * torch.linalg.svdvals(matrix)[:rank].sqrt(),
    )
)

summed = mistake(
    "adds up the positions of the kernel first",
    says=_U_OUT + "in a sum over kh and kw weights "
    "of opposite sign cancel; unfold the kernel, all of its positions side by side",
)(partial(_split, outputs=lambda kernel: kernel.sum((2, 3)), inputs=lambda kernel: kernel.sum((2, 3)).T))

sequential = mistake(
    "takes u_in from the kernel that is already projected",
    says=_U_IN + "yours fits the kernel after its "
    "projection on u_out, a sound way too, but another one; unfold the whole kernel both times",
)(partial(_split, sequential=True))

ranks_swapped = mistake(
    "exchanges the two ranks",
    says="the first of the ranks is for the outputs, ranks = (r_out, r_in), and you took it for the inputs",
)(lambda kernel, *, ranks: _split(kernel, ranks=ranks[::-1]))

outputs_only = mistake(
    "projects on the outputs only",
    says="your core still has all the inputs: (r_out, in, kh, kw); project them as well, to r_in",
)(partial(_split, project=lambda kernel, u_out, u_in: torch.einsum("oa,oiyx->aiyx", u_out, kernel)))

turned_core = mistake(
    "exchanges height and width in the core",
    says="core at {where} should be {wanted} and yours is {yours}: its rows and columns are exchanged; what "
    "follows -> in einsum is the order of the result",
)(partial(_split, project=lambda kernel, u_out, u_in: torch.einsum("oa,ib,oiyx->abxy", u_out, u_in, kernel)))

core_inputs_first = mistake(
    "puts the inputs first in the core",
    says="your core is (r_in, r_out, kh, kw); like the weight of a convolution it has the outputs first",
)(partial(_split, project=lambda kernel, u_out, u_in: torch.einsum("oa,ib,oiyx->bayx", u_out, u_in, kernel)))

sliced = mistake(
    "cuts the core out of the kernel",
    says="core at {where} should be {wanted} and yours is {yours}: kernel[:r_out, :r_in] is the first few "
    "channels; the core's channels are mixtures of all of them, weighted by the factors",
)(partial(_split, project=lambda kernel, u_out, u_in: kernel[: u_out.shape[1], : u_in.shape[1]].clone()))


@mistake(
    "returns the factors transposed",
    says="your factors are (rank, channels) and should be (out, r_out) and (in, r_in): a column each",
)
def transposed(kernel, *, ranks):
    core, u_out, u_in = _split(kernel, ranks=ranks)
    return core, u_out.T, u_in.T


@mistake("returns the core last", says="your core is the last of the three; return core, u_out, u_in")
def core_last(kernel, *, ranks):
    core, u_out, u_in = _split(kernel, ranks=ranks)
    return u_out, u_in, core


EXERCISE = Exercise(
    name="tucker2",
    points=3,
    minutes=15,
    difficulty=3,
    statement="tucker2(kernel, ranks=…) returns a small core and two factors, the leading directions of "
    "outputs and inputs.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_svd, by_gram, by_positions),
    mistakes=(
        same_unfolding,
        not_moved,
        inputs_first,
        right_vectors,
        rows_of_u,
        smallest,
        scaled,
        rooted,
        summed,
        sequential,
        ranks_swapped,
        outputs_only,
        turned_core,
        core_inputs_first,
        sliced,
        transposed,
        core_last,
    ),
    hints=(
        Hint(
            "u_out is right and u_in is not",
            "Both factors ask the same question of two matrices: one has a row for each output, the other a "
            "row for each input. Does a row of yours hold all that belongs to one input, and nothing else?",
        ),
        Hint(
            "the factors are right and I can't get the core",
            "Unfolded: (out, in·kh·kw) and, with axes 0 and 1 exchanged first, (in, out·kh·kw). U[:, :r] of "
            "each is (out, r_out) and (in, r_in). The core (r_out, r_in, kh, kw) sums over o and i and "
            "keeps a, b and the two positions: three tensors, one einsum.",
        ),
        Hint("only the core is missing", 'torch.einsum("oa,ib,oiyx->____", u_out, u_in, kernel)'),
    ),
)
