"""A codebook for a layer's weights: k-means on a line.

Source: Han, Mao and Dally 2015, "Deep compression", arXiv:1510.00149; the rounds: Lloyd 1982, "Least squares
quantization in PCM".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    """No weight lies near the middle between two centroids, where the last bit of a float would decide."""

    def given(weights: Tensor, start: Tensor, steps: int) -> dict[str, Any]:
        return {"weights": weights, "start": start, "steps": steps}

    def drawn(n: int, k: int, steps: int) -> dict[str, Any]:
        """Still on the move: some weights change their centroid after the last round as well."""
        while True:
            weights = torch.randn(n, generator=rng)
            start = weights[torch.randperm(n, generator=rng)[:k]] + 0.01
            rounds = _rounds(weights, start, steps)
            moved = steps == 0 or bool((_owners(weights, rounds[-1]) != _owners(weights, rounds[-2])).any())
            if moved and all(_clear(weights, centroids) for centroids in rounds):
                return given(weights, start, steps)

    def near(*centres: float) -> Tensor:
        """Five weights near each of these."""
        return (torch.tensor(centres) + 0.2 * torch.rand(5, len(centres), generator=rng)).flatten()

    yield "one round, from a start in any order", drawn(30, 4, 1)
    yield "three rounds", drawn(60, 5, 3)
    yield "the larger centroid first", given(near(-1.5, 1.3), torch.tensor([2.0, -2.0]), 2)
    yield (
        "a centroid that is nearest to no weight",
        given(near(-1.2, 0.9), torch.tensor([-1.0, 40.0, 1.0]), 2),
    )
    yield "more centroids than weights", given(near(0.5)[:2], 1.5 * torch.arange(4) - 2, 3)
    yield "no round at all", drawn(9, 3, 0)
    exact = drawn(40, 4, 2)
    yield "float64", given(exact["weights"].double(), exact["start"].double(), 2)


def _rounds(weights: Tensor, start: Tensor, steps: int) -> list[np.ndarray]:
    """The centroids before each round and after the last, in float64."""
    w, centroids = weights.double().numpy(), [start.double().numpy()]
    for _ in range(steps):
        owner = _owners(weights, centroids[-1])
        means = [w[owner == k].mean() if (owner == k).any() else c for k, c in enumerate(centroids[-1])]
        centroids.append(np.array(means))
    return centroids


def _owners(weights: Tensor, centroids: np.ndarray) -> np.ndarray:
    """Which centroid owns each weight: the middles between the sorted ones part the line."""
    order = np.argsort(centroids)
    return order[np.searchsorted(_middles(centroids), weights.double().numpy())]


def _middles(centroids: np.ndarray) -> np.ndarray:
    rising = np.sort(centroids)
    return (rising[1:] + rising[:-1]) / 2


def _clear(weights: Tensor, centroids: np.ndarray) -> bool:
    return bool((np.abs(weights.double().numpy()[:, None] - _middles(centroids)) > 1e-4).all())


def probe(case: dict[str, Any], codebook: Callable[..., Any]) -> dict[str, Any]:
    return {"both": codebook(case["weights"], case["start"], steps=case["steps"])}


def judge(case: dict[str, Any], record: Record) -> None:
    first, second = expect.parts(record["both"], count=2)
    weights, start = case["weights"], case["start"]
    indices = expect.tensor(
        first, shape=weights.shape, dtype=torch.int64, what="indices, of two entries the first,"
    )
    centroids = expect.tensor(second, shape=start.shape, what="centroids, of two entries the second,")
    wanted = _rounds(weights, start, case["steps"])[-1]
    expect.close(centroids, torch.from_numpy(wanted), what="the centroid")
    expect.close(indices, torch.from_numpy(_owners(weights, wanted)), what="the index")


def by_distances(weights: Tensor, start: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    centroids = start.clone()
    for _ in range(steps):
        indices = (weights[:, None] - centroids).abs().argmin(dim=1)  # (n, k) -> (n,)
        for k in range(len(centroids)):
            if (indices == k).any():
                centroids[k] = weights[indices == k].mean()
    indices = (weights[:, None] - centroids).abs().argmin(dim=1)
    return indices, centroids


def by_counting(weights: Tensor, start: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    def nearest(centroids: Tensor) -> Tensor:
        return torch.cdist(weights[:, None], centroids[:, None]).argmin(dim=1)

    centroids = start
    for _ in range(steps):
        indices = nearest(centroids)
        counts = torch.bincount(indices, minlength=len(start))
        sums = torch.zeros_like(start).index_add(0, indices, weights)
        centroids = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
    return nearest(centroids), centroids


def _nearest(weights: Tensor, centroids: Tensor) -> Tensor:
    return (weights[:, None] - centroids).abs().argmin(dim=1)


def _round(
    weights: Tensor, centroids: Tensor, middle: Callable[..., Tensor] = torch.mean, empty: float | None = None
) -> Tensor:
    """The centroids after one round; an empty cluster keeps its own, unless told otherwise."""
    members = [weights[_nearest(weights, centroids) == k] for k in range(len(centroids))]
    spare = centroids if empty is None else torch.full_like(centroids, empty)
    return torch.stack([middle(own) if len(own) else spare[k] for k, own in enumerate(members)])


@mistake(
    "sorts the codebook afterwards",
    says="your indices do not fit your codebook: entry {where} should be {wanted} and is {yours}; "
    "whoever sorts the centroids must renumber the indices, and here centroid k comes from start[k]",
)
def sorts_at_the_end(weights, start, *, steps):
    indices, centroids = by_distances(weights, start, steps=steps)
    return indices, centroids.sort().values


@mistake(
    "turns an empty cluster into NaN",
    says="the mean of no weights is NaN (0/0): a centroid that is nearest to no weight keeps its value",
)
def empty_is_nan(weights, start, *, steps):
    for _ in range(steps):
        start = _round(weights, start, empty=float("nan"))
    return _nearest(weights, start), start


@mistake(
    "moves an empty cluster to zero",
    says="the centroid at {where} should be {wanted} and yours is {yours}: no weight is nearest to it, "
    "and a sum of nothing divided by a clamped count is 0; let it keep its value",
)
def empty_is_zero(weights, start, *, steps):
    for _ in range(steps):
        start = _round(weights, start, empty=0.0)
    return _nearest(weights, start), start


@mistake(
    "returns the indices from before the last update",
    says="the index at {where} should be {wanted} and yours is {yours}: the centroids moved after you "
    "chose it; choose once more, for the final ones",
)
def stale(weights, start, *, steps):
    indices = _nearest(weights, start)
    for _ in range(steps):
        indices, start = _nearest(weights, start), _round(weights, start)
    return indices, start


@mistake(
    "updates once more at the end",
    says="the centroid at {where} should be {wanted} and yours is {yours}, that of one round later: "
    "after the last round choose the indices and leave the centroids",
)
def one_more(weights, start, *, steps):
    for _ in range(steps):
        start = _round(weights, start)
    return _nearest(weights, start), _round(weights, start)


@mistake(
    "takes medians for means",
    says="the centroid at {where} should be {wanted} and yours is {yours}, a median: "
    "of all numbers it is the mean that has the smallest squared error",
)
def medians(weights, start, *, steps):
    for _ in range(steps):
        start = _round(weights, start, middle=torch.median)
    return _nearest(weights, start), start


@mistake(
    "forgets abs()",
    says="the entry at {where} should be {wanted} and yours is {yours}: the smallest of w - c, without "
    "abs(), belongs to the largest centroid, however far away it is",
)
def signed_distance(weights, start, *, steps):
    centroids = start.clone()
    for _ in range(steps):
        centroids[centroids.argmax()] = weights.mean()
    return (weights[:, None] - centroids).argmin(dim=1), centroids


@mistake(
    "does one round, whatever steps says",
    says="the centroid at {where} should be {wanted} and yours is {yours}, that of a single round: "
    "assign and average again, steps times",
)
def single_round(weights, start, *, steps):
    centroids = _round(weights, start)
    return _nearest(weights, centroids), centroids


@mistake(
    "returns the weights instead of their indices",
    says="your first entry holds the rebuilt weights, centroids[indices]: the file keeps the indices, "
    "whole numbers of few bits",
)
def rebuilt(weights, start, *, steps):
    indices, centroids = by_distances(weights, start, steps=steps)
    return centroids[indices], centroids


EXERCISE = Exercise(
    name="codebook",
    points=3,
    minutes=15,
    difficulty=3,
    statement="codebook(weights, start, steps=…) gathers the weights around a few shared values: k-means.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_distances, by_counting),
    mistakes=(
        sorts_at_the_end,
        empty_is_nan,
        empty_is_zero,
        stale,
        one_more,
        medians,
        signed_distance,
        single_round,
        rebuilt,
    ),
    hints=(
        Hint(
            "I do not know where to begin",
            "A round has two halves: with the centroids fixed every weight picks the nearest one, "
            "with the picks fixed every centroid moves to the mean of those that picked it.",
        ),
        Hint(
            "I have no table of distances to take argmin of",
            "weights[:, None] - centroids is (n, k): row i holds w_i minus every centroid. abs(), then "
            "argmin along dim=1 gives (n,) indices; weights[indices == k] are the members of cluster k, "
            "sometimes none.",
        ),
        Hint(
            "the centroids are right and some indices are not",
            "after the loop: indices = (weights[:, None] - ______).abs().argmin(dim=1)",
        ),
    ),
)
