"""compresslab: write the core of every classic compression method, see it work, measure it honestly.

The workbench: data and networks, ``measure`` and ``compare``, an honest clock, honest bytes, a training loop.
Methods are in ``compresslab.techniques``, the teaching in ``compresslab.notebook``; neither is imported.
"""

__version__ = "0.2.0"

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Images, Splits
from compresslab.errors import CompressionError
from compresslab.measurement.activations import peak_activation_bytes
from compresslab.measurement.costs import LayerCost, count_macs, count_parameters, layer_costs, storage_bytes
from compresslab.measurement.layer_profile import draw_layers, layer_table
from compresslab.measurement.measurement import (
    Measurement,
    accuracy_drop,
    measure,
    paired_drop,
    right_answers,
)
from compresslab.measurement.report import Report, compare
from compresslab.measurement.statistics import (
    Interval,
    gain_over_seeds,
    interval_of_one_more,
    mean_over_seeds,
)
from compresslab.measurement.timing import latency, noise_floor, speedup
from compresslab.models.pretrained import load_baseline, read_card
from compresslab.models.residual import baseline, mlp, student, teacher
from compresslab.storage import load_model, save_model
from compresslab.training.loop import Trained, accuracy, fast_precision, fit

__all__ = [
    "CompressionError",
    "Images",
    "Interval",
    "LayerCost",
    "Measurement",
    "Report",
    "Splits",
    "Trained",
    "accuracy",
    "accuracy_drop",
    "baseline",
    "compare",
    "count_macs",
    "count_parameters",
    "draw_layers",
    "fashion_mnist",
    "fast_precision",
    "fit",
    "gain_over_seeds",
    "interval_of_one_more",
    "latency",
    "layer_costs",
    "layer_table",
    "load_baseline",
    "load_model",
    "mean_over_seeds",
    "measure",
    "mlp",
    "noise_floor",
    "paired_drop",
    "peak_activation_bytes",
    "read_card",
    "right_answers",
    "save_model",
    "speedup",
    "storage_bytes",
    "student",
    "teacher",
]
