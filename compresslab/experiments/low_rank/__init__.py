"""The experiments of lab 04, low rank: its runs, and their stored results."""

from compresslab.experiments.low_rank.plan import (
    load_against_tensorly,
    load_network,
    load_results,
    network_ranks,
)
from compresslab.experiments.low_rank.runs import as_ranks, random_directions
from compresslab.experiments.results import values

__all__ = [
    "as_ranks",
    "load_against_tensorly",
    "load_network",
    "load_results",
    "network_ranks",
    "random_directions",
    "values",
]
