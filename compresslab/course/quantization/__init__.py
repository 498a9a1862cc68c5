"""Lab 01, "Fewer bits": the affine grid, calibration, integer arithmetic, int4, codebooks."""

from compresslab.checks.exercise import Lab
from compresslab.course.quantization import (
    allocate_bits,
    channel_scales,
    codebook,
    entropy_range,
    fold_batch_norm,
    integer_linear,
    least_squares_range,
    quantize,
    scale_and_zero_point,
    straight_through,
    unpack_int4,
    why_dynamic_is_slow,
)
from compresslab.experiments.quantization.plan import EXPERIMENT

__all__ = ["LAB"]

LAB = Lab(
    name=EXPERIMENT.lab,
    title="Fewer bits",
    about="formats, affine, per-channel, calibration, dynamic, static, QAT, codebooks, int4, mixed precision",
    objectives=(
        "turn floats into integers and back, with one scale or one for each channel, and know the error",
        "calibrate ranges, compute with integers alone, deploy a network measurably smaller and faster",
        "keep a network accurate at four and two bits: rounding that looks at the data, training, codebooks",
    ),
    prerequisites=("lab 00", "gradients in PyTorch"),
    exercises=(
        scale_and_zero_point.EXERCISE,
        quantize.EXERCISE,
        channel_scales.EXERCISE,
        least_squares_range.EXERCISE,
        entropy_range.EXERCISE,
        integer_linear.EXERCISE,
        fold_batch_norm.EXERCISE,
        why_dynamic_is_slow.EXERCISE,
        unpack_int4.EXERCISE,
        allocate_bits.EXERCISE,
        straight_through.EXERCISE,
        codebook.EXERCISE,
    ),
    answers=(
        "compresslab.analysis.allocation",
        "compresslab.models.graph",
        "compresslab.storage.packing",
        "compresslab.techniques.quantization",
    ),
)
