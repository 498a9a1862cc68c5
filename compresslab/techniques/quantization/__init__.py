"""Quantization: fewer bits per number, from weight-only to static, mixed-precision and trained."""

from compresslab.techniques.quantization.affine import (
    channel_range,
    dequantize,
    fake_quantize,
    from_groups,
    integer_range,
    quantize,
    scale_and_zero_point,
    to_groups,
)
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm
from compresslab.techniques.quantization.calibration import (
    entropy,
    least_squares,
    min_max,
    moving_average,
    percentile,
)
from compresslab.techniques.quantization.codebook import Codebook, follow_centroids, kmeans, share_weights
from compresslab.techniques.quantization.data_aware_rounding import (
    adaround,
    bias_correction,
    correct_biases,
    gptq,
    quantize_with_data,
)
from compresslab.techniques.quantization.dynamic import QuantizedInput, quantize_dynamic
from compresslab.techniques.quantization.integer_arithmetic import in_float32, requantize, run_in_integers
from compresslab.techniques.quantization.mixed_precision import allocate_bits, quantize_mixed, sensitivity
from compresslab.techniques.quantization.number_formats import FloatGrid, format_values, round_to, store_as
from compresslab.techniques.quantization.qat import convert, fake_quantize_straight_through, prepare
from compresslab.techniques.quantization.static import quantize_static
from compresslab.techniques.quantization.weight_only import (
    QuantizedConv2d,
    QuantizedLinear,
    WeightGrid,
    on_grid,
    quantize_layer,
    quantize_weights,
    replace_layers,
)

__all__ = [
    "Codebook",
    "FloatGrid",
    "QuantizedConv2d",
    "QuantizedInput",
    "QuantizedLinear",
    "WeightGrid",
    "adaround",
    "allocate_bits",
    "bias_correction",
    "channel_range",
    "convert",
    "correct_biases",
    "dequantize",
    "entropy",
    "fake_quantize",
    "fake_quantize_straight_through",
    "fold_batch_norm",
    "follow_centroids",
    "format_values",
    "from_groups",
    "gptq",
    "in_float32",
    "integer_range",
    "kmeans",
    "least_squares",
    "min_max",
    "moving_average",
    "on_grid",
    "percentile",
    "prepare",
    "quantize",
    "quantize_dynamic",
    "quantize_layer",
    "quantize_mixed",
    "quantize_static",
    "quantize_weights",
    "quantize_with_data",
    "replace_layers",
    "requantize",
    "round_to",
    "run_in_integers",
    "scale_and_zero_point",
    "sensitivity",
    "share_weights",
    "store_as",
    "to_groups",
]
