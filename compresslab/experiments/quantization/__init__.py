"""The experiments of lab 01, quantization: its runs, and their stored results."""

from compresslab.experiments.quantization.plan import load_experiment, load_results

__all__ = ["load_experiment", "load_results"]
