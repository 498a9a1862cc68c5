"""What passive waiting gains and what it costs. Run by name: ``python -m tests.benchmarks.waiting``.

A process trains the baseline with two threads, once with OpenMP's own way to wait and once with
``OMP_WAIT_POLICY=PASSIVE``, in turns A B B A. First one process at a time: the cost. Then two at the same
time, as with two notebooks open: the gain. Each times its own steps; the import of torch is left out. Where
the machine is busy with something else, the least seconds come next to those of a quiet one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.jobs.openmp import POLICY, passive
from compresslab.measurement.statistics import bootstrap, median
from compresslab.models.residual import baseline
from compresslab.training.loop import fit

IMAGES = 1_280  # 10 steps of 128
THREADS = 2
STEPS = "steps"  # what a process is told that is one of those measured


def main(rounds: int = 10) -> None:
    """Prints the seconds with each policy, and their ratio with its interval."""
    print(f"{IMAGES:,} images, {THREADS} threads a process, {os.cpu_count()} processors, {rounds} rounds")
    for processes, name in ((1, "one process"), (2, "two at the same time")):
        seconds = [measured(processes) for _ in range(rounds)]
        spinning, sleeping = (
            torch.tensor(times, dtype=torch.float64) for times in zip(*seconds, strict=True)
        )
        ratio = bootstrap(spinning / sleeping, median)
        print(f"  {name:<20} {said(spinning)}, passive {said(sleeping)}, ratio {ratio} ({ratio.verdict})")


def said(seconds: Tensor) -> str:
    return f"{float(median(seconds)):.2f} s (least {float(seconds.min()):.2f} s)"


def measured(processes: int) -> tuple[float, float]:
    """The mean seconds of a process with OpenMP's own policy and with the passive one, in turns A B B A."""
    bare = {name: value for name, value in os.environ.items() if name not in (POLICY, "OMP_NUM_THREADS")}
    first, second, third, fourth = (
        side_by_side(processes, environment) for environment in (bare, passive(bare), passive(bare), bare)
    )
    return (first + fourth) / 2, (second + third) / 2


def side_by_side(processes: int, environment: Mapping[str, str]) -> float:
    """The mean seconds of so many processes that train at the same time: none begins before all are ready."""
    command = [sys.executable, "-m", "tests.benchmarks.waiting", STEPS]
    team = [
        subprocess.Popen(
            command,
            env={**environment, "TQDM_DISABLE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in team:
        assert process.stdout.readline() == "ready\n"
    for process in team:
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = [process.communicate()[0] for process in team]
    if ended := [process.returncode for process in team if process.returncode]:
        raise RuntimeError(f"a process that trained ended with the exit status {ended[0]}; run again")
    return sum(map(float, seconds)) / processes


def train() -> None:
    """Trains in this very process: says when it is ready, waits for a word, prints the seconds."""
    torch.set_num_threads(THREADS)
    images = fashion_mnist().train.first(IMAGES)
    fit(baseline(), images.first(256), images.first(256), epochs=1)  # a warm-up
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    fit(baseline(), images, images.first(256), epochs=1)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    train() if sys.argv[1:] == [STEPS] else main()
