"""Pruning: fewer weights. A criterion scores them, a granularity says what goes together."""

from compresslab.techniques.pruning.criteria import magnitude
from compresslab.techniques.pruning.granularity import fine_grained_mask, prune_by_magnitude

__all__ = ["fine_grained_mask", "magnitude", "prune_by_magnitude"]
