"""The experiments of lab 01, quantization: its runs, and their stored results."""

from compresslab.experiments.quantization.plan import load_experiment, run_experiments

__all__ = ["load_experiment", "run_experiments"]
