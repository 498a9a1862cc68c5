"""What the tests share: one thread, so that they repeat; no deadline, so that a busy machine fails none."""

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
