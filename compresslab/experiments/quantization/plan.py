"""Plan of lab 01's experiments: ``compresslab train 01``; about 10 minutes on two cores.

Each run compresses the pretrained baseline by one method. Nothing is chosen by the results, so each run reads
the test images once, at its end.
"""

from __future__ import annotations

from compresslab.experiments.experiment import Experiment, Run
from compresslab.experiments.quantization.runs import (
    cluster,
    mix_precisions,
    round_to_nearest,
    round_with_data,
    structure,
    train_aware,
)

__all__ = ["EXPERIMENT", "load_experiment", "load_results"]


def _run(name: str, function: str, **settings: float) -> Run:
    return Run(name, function, settings, network=name)


EXPERIMENT = Experiment(
    lab="01_quantization",
    plan=(
        _run("w4_nearest", "round_to_nearest", bits=4),
        _run("w4_rounded", "round_with_data", bits=4, images=500),
        _run("w2_nearest", "round_to_nearest", bits=2),
        _run("w2_rounded", "round_with_data", bits=2, images=500),
        _run("mixed", "mix_precisions", images=500, uniform_bits=4),
        _run("w2_aware", "train_aware", bits=2, epochs=6, learning_rate=0.01),
        _run("codebook_4bit", "cluster", bits=4, epochs=2, learning_rate=0.003),
        _run("codebook_2bit", "cluster", bits=2, epochs=4, learning_rate=0.01),
    ),
    functions={
        function.__name__: function
        for function in (round_to_nearest, round_with_data, train_aware, cluster, mix_precisions)
    },
    structure=structure,
    summary=("", "drop", "file_ratio"),
)
load_results, load_experiment = EXPERIMENT.load_results, EXPERIMENT.load_network
