"""Lab 01, "Fewer bits": number formats, the affine grid, calibration, integer arithmetic, rounding, codebooks."""

from compresslab.classroom.exercise import Lab

__all__ = ["LAB"]

LAB = Lab(
    name="01_quantization",
    title="Fewer bits",
    about="number formats, affine, per-channel, calibration, dynamic, static, QAT, codebooks, int4, mixed precision",
    objectives=(
        "turn a float tensor into integers and back: scale, zero point, per tensor and per channel, and know the error",
        "calibrate ranges, compute with integers alone, and deploy a network that is smaller and faster, both measured",
        "keep a network accurate at 4 and 2 bits: rounding that looks at the data, training, codebooks",
    ),
    prerequisites=("lab 00", "gradients in PyTorch"),
    exercises=(),
)
