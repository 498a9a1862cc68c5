"""The experiments of lab 03, pruning: its runs, and their stored results."""

from compresslab.experiments.pruning.curves import masked_curve, surgeon_curves, tuned_accuracies, tuned_curve
from compresslab.experiments.pruning.methods import CRITERIA, GRANULARITIES
from compresslab.experiments.pruning.plan import load_network, load_results
from compresslab.experiments.results import values

__all__ = [
    "CRITERIA",
    "GRANULARITIES",
    "load_network",
    "load_results",
    "masked_curve",
    "surgeon_curves",
    "tuned_accuracies",
    "tuned_curve",
    "values",
]
