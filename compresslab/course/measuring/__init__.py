"""Lab 00, "What does a model cost?": parameters, bytes, MACs, memory, and an honest clock."""

from compresslab.checks.exercise import Lab
from compresslab.course.measuring import (
    conv_macs,
    count_parameters,
    model_bytes,
    network_macs,
    paired_speedup,
    peak_activation_bytes,
    read_interval,
    why_zeros_cost,
)

__all__ = ["LAB"]

LAB = Lab(
    name="00_measuring",
    title="What does a model cost?",
    about="parameters, bytes, MACs, memory, an honest clock, predict-then-measure",
    objectives=(
        "count a network's parameters, bytes, MACs and activation memory, and know what each leaves out",
        "time two variants fairly on a noisy machine, and read the interval",
        "predict what a compression does to file and speed, and be surprised by a measurement",
    ),
    prerequisites=("Python", "what a convolution and a linear layer compute", "a first PyTorch tutorial"),
    exercises=(
        count_parameters.EXERCISE,
        model_bytes.EXERCISE,
        conv_macs.EXERCISE,
        network_macs.EXERCISE,
        peak_activation_bytes.EXERCISE,
        paired_speedup.EXERCISE,
        read_interval.EXERCISE,
        why_zeros_cost.EXERCISE,
    ),
    answers=(
        "compresslab.measurement",
        "compresslab.storage.container",
    ),
)
