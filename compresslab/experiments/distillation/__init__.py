"""The experiments of lab 02, distillation: its runs, and their stored results."""

from compresslab.experiments.distillation.methods import METHODS, Learned, Method, learn_alone, learn_together
from compresslab.experiments.distillation.plan import load_results, load_student
from compresslab.experiments.distillation.runs import STUDENTS, embed
from compresslab.experiments.distillation.setting import Setting, few_labels, of_classes
from compresslab.experiments.distillation.transformer import (
    deep_transformer,
    learn_inside,
    shallow_transformer,
)
from compresslab.experiments.results import values

__all__ = [
    "METHODS",
    "STUDENTS",
    "Learned",
    "Method",
    "Setting",
    "deep_transformer",
    "embed",
    "few_labels",
    "learn_alone",
    "learn_inside",
    "learn_together",
    "load_results",
    "load_student",
    "of_classes",
    "shallow_transformer",
    "values",
]
