"""Shared test configuration: one thread, so that results repeat; no deadlines, so that a busy machine passes.

A test marked ``alone`` measures or limits time, memory or processes and needs an otherwise idle machine:
``make test`` first runs all other tests on both cores, and then these, one after the other.
"""

import os
from concurrent.futures import Executor, Future

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see jobs/openmp.py
os.environ.pop("COLUMNS", None)  # readline sets it in pytest's workers; tests set the terminal's width

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


class AtOnce(Executor):
    """An executor that runs each task when it is submitted."""

    def submit(self, task, /, *args, **settings):
        future = Future()
        try:
            future.set_result(task(*args, **settings))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def at_once():
    """An executor that runs experiments immediately, in this process."""
    return AtOnce()
