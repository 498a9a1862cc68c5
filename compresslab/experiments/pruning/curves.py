"""Curves of lab 03 from its stored runs: test accuracy by sparsity for criteria and granularities.

A point is a mean over seeds with its interval, or the accuracy of a single run. Accuracies are fractions:
before training on the first 4,000 test images, after training on all.
"""

from __future__ import annotations

from collections.abc import Sequence

from compresslab.experiments.pruning.plan import SPARSITIES, TUNED
from compresslab.experiments.results import values
from compresslab.measurement.statistics import Interval, mean_over_seeds

__all__ = ["masked_curve", "surgeon_curves", "tuned_accuracies", "tuned_curve"]

Points = list[tuple[float, Interval | float]]  # (sparsity, test accuracy)


def masked_curve(results: dict, criterion: str, granularity: str) -> Points:
    """Return test accuracy at each sparsity with masks only, before any training.

    Args:
        results: of ``load_results``.
        criterion: a name in CRITERIA.
        granularity: a name in GRANULARITIES.

    Raises:
        CompressionError: no such runs.
    """
    return _points(SPARSITIES, values(results, "masks", criterion, granularity, key="test_accuracies"))


def tuned_accuracies(results: dict, criterion: str, granularity: str, sparsity: float) -> list[float]:
    """Return test accuracies after one pass of training under the masks, one per seed.

    Raises:
        CompressionError: no such runs.
    """
    return values(results, "tuned", criterion, granularity, f"{sparsity:g}")


def tuned_curve(results: dict, granularity: str) -> Points:
    """Return test accuracy at each sparsity after one pass of training, for magnitude.

    Raises:
        CompressionError: no such runs.
    """
    reached = (tuned_accuracies(results, "magnitude", granularity, sparsity) for sparsity in TUNED)
    return [(sparsity, mean_over_seeds(runs)) for sparsity, runs in zip(TUNED, reached, strict=True)]


def surgeon_curves(results: dict) -> dict[str, Points]:
    """Return test accuracy before any training: magnitude's masks, these compensated, and SparseGPT.

    Raises:
        CompressionError: no such runs.
    """
    names = ("magnitude", "compensated", "sparse_gpt")
    return {name: _points(SPARSITIES, values(results, "surgeon", key=name)) for name in names}


def _points(sparsities: Sequence[float], runs: Sequence) -> Points:
    """One point per sparsity, from one list of accuracies per seed."""
    reached = zip(*runs, strict=True)
    return [(s, _mean(found)) for s, found in zip(sparsities, reached, strict=True)]


def _mean(reached: Sequence[float]) -> Interval | float:
    return mean_over_seeds(reached) if len(reached) > 1 else reached[0]
