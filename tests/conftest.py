"""Shared test configuration: one thread, so that results repeat; no deadlines, so that a busy machine passes.

A test marked ``alone`` measures or limits time, memory or processes and needs an otherwise idle machine:
``make test`` first runs all other tests on both cores, and then these, one after the other.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see jobs/openmp.py
os.environ.pop("COLUMNS", None)  # readline sets it in pytest's workers; tests set the terminal's width

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
