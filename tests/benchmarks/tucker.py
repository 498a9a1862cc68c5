"""Tucker-2 against tensorly's, in error and in time. Run by name: ``python -m tests.benchmarks.tucker``.

Three 3×3 kernels of the baseline at half of both ranks, from the same start, as many HOOI sweeps, one thread,
in turns (A B B A). It prints, and writes to ``data/results/04_low_rank/tensorly.json``, the worst relative
difference of the two errors, and our seconds over theirs for the three kernels one after the other.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import tensorly
from tensorly.decomposition import partial_tucker
from torch import Tensor

import compresslab as cl
from compresslab.measurement.timing import speedup
from compresslab.techniques.low_rank.tucker import from_tucker, tucker2

LAYERS = ("blocks.4.conv2", "blocks.6.conv1", "blocks.6.conv2")
PLACE = Path(__file__).parents[2] / "data" / "results" / "04_low_rank" / "tensorly.json"

Parts = tuple[Tensor, Tensor, Tensor]  # core, u_out, u_in


def ours(weight: Tensor, sweeps: int) -> Parts:
    """This kit's Tucker-2 at half of both ranks."""
    return tucker2(weight, ranks=half(weight), sweeps=sweeps)


def theirs(weight: Tensor, sweeps: int) -> Parts:
    """The same by tensorly: singular vectors to start from, and no stop before the last sweep."""
    (core, (u_out, u_in)), _ = partial_tucker(
        weight, rank=list(half(weight)), modes=[0, 1], n_iter_max=sweeps, tol=0, init="svd"
    )
    return core, u_out, u_in


def half(weight: Tensor) -> tuple[int, int]:
    """Half of the output channels, and of the input channels."""
    return weight.shape[0] // 2, weight.shape[1] // 2


def missed(weight: Tensor, parts: Parts) -> float:
    """The relative error ‖W - rebuilt‖ / ‖W‖."""
    return float((weight - from_tucker(*parts)).norm() / weight.norm())


def compared(weights: dict[str, Tensor], *, sweeps: int, rounds: int) -> dict:
    """Both errors of every kernel, how far they differ at worst, and our seconds over theirs."""
    errors = {
        name: {
            "ours": missed(weight, ours(weight, sweeps)),
            "tensorly": missed(weight, theirs(weight, sweeps)),
        }
        for name, weight in weights.items()
    }
    ratio = speedup(  # the first's seconds over the second's: below 1 the first is faster
        lambda _: [ours(weight, sweeps) for weight in weights.values()],
        lambda _: [theirs(weight, sweeps) for weight in weights.values()],
        next(iter(weights.values())),
        rounds=rounds,
    )
    return {
        "error_difference": max(abs(e["ours"] / e["tensorly"] - 1) for e in errors.values()),
        "seconds_ratio": dataclasses.asdict(ratio),
        "sweeps": sweeps,
        "rounds": rounds,
        "tensorly": tensorly.__version__,
        "tensors": {name: {"shape": list(w.shape), "ranks": list(half(w))} for name, w in weights.items()},
        "errors": errors,
    }


def main(sweeps: int = 2, rounds: int = 51) -> None:
    """Compares, writes and prints."""
    tensorly.set_backend("pytorch")
    start, model = time.perf_counter(), cl.load_baseline()
    weights = {name: model.get_parameter(f"{name}.weight").detach() for name in LAYERS}
    found = compared(weights, sweeps=sweeps, rounds=rounds)
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    print(f"one thread, {time.perf_counter() - start:.1f} s, written to {PLACE.name}")


if __name__ == "__main__":
    main()
