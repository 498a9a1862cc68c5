"""How good is the clock on this machine? Run by name: ``python -m tests.benchmarks.clock``.

Three pairs whose answer is known: a stack of layers against itself (1), against a copy of itself (1), and
against the same stack twice (close to ½: twice the work, and nearly no more overhead).
"""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor, nn

from compresslab.measurement.timing import noise_floor, speedup


class Twice(nn.Module):
    """The same model run two times on the same inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        self.model(x)
        return self.model(x)


def main(rounds: int = 101) -> None:
    """Prints each pair's speed-up with its interval, beside the one that is known."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 28, 28)
    for name, depth in (("1 convolution", 1), ("8 convolutions", 8)):
        model = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth)))
        start = time.perf_counter()
        pairs = {
            "A/A, itself": (1.0, noise_floor(model, x, rounds=rounds)),
            "A/A, a copy": (1.0, speedup(model, copy.deepcopy(model), x, rounds=rounds)),
            "A/AA, twice": (0.5, speedup(model, Twice(model), x, rounds=rounds)),
        }
        print(f"{name}, batch 1, one thread, {rounds} rounds, {time.perf_counter() - start:.1f} s")
        for pair, (known, measured) in pairs.items():
            half = (measured.high - measured.low) / 2
            print(f"  {pair:<12} known {known:.2f}  measured {measured}  ± {half:.3f}  {measured.verdict}")


if __name__ == "__main__":
    main()
