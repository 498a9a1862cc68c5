"""What the tests share: one thread, so that they repeat; no deadline, so that a busy machine fails none.

A test that is marked ``alone`` measures or limits time, memory or processes, so it needs the machine for
itself: ``make test`` runs all others first, on both cores, and then these, one after the other.
"""

import os
from concurrent.futures import Executor, Future

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported; see jobs/openmp.py
os.environ.pop("COLUMNS", None)  # readline sets it for pytest's workers; a test says how wide a terminal is

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


class AtOnce(Executor):
    """Runs each task when it is handed in."""

    def submit(self, task, /, *args, **settings):
        future = Future()
        try:
            future.set_result(task(*args, **settings))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def at_once():
    """What runs long runs in the tests: here and now, without processes."""
    return AtOnce()
