"""Where a whole number is meant, NumPy's integers are as good as Python's, of whatever width; a bool is not.

``CALLS`` names every public function with such a setting; the walk finds one that is missing.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab import errors
from compresslab.deployment import load_deployed, write_onnx
from compresslab.measurement import measurement
from compresslab.storage import packing, sparse
from compresslab.techniques import distillation as d
from compresslab.techniques import low_rank as lr
from compresslab.techniques import pruning as p
from compresslab.techniques import quantization as q
from compresslab.techniques.quantization.integer_arithmetic import Integers

FRONTS = (
    "compresslab",
    "compresslab.deployment",
    "compresslab.techniques.quantization",
    "compresslab.techniques.distillation",
    "compresslab.techniques.pruning",
    "compresslab.techniques.low_rank",
)
ROOT = Path(cl.__file__).parents[1]
CHECKED = [
    "data",
    "storage",
    "models",
    "measurement",
    "deployment",
    "training",
    "analysis",
    "techniques",
    "experiments",
]
RESULTS = {  # values that functions return, made by them alone
    "LayerCost", "Measurement", "Group", "Member", "Decision", "Split", "Deployed", "Projection", "Regressor",
    "measurement",
}  # fmt: skip
UNLIMITED = {"seed", "zero_point", "mode", "index", "budget", "macs_per_sample", "step", "count", "shape"}
UNCHECKED = UNLIMITED | {
    "groups",
    "keep",
    "image_shape",
    "ranks",
    "costs",
    "weights",
    "choices",
    "power",
    "bits_of",
}

torch.manual_seed(0)
W, X = torch.randn(6, 8), torch.randn(20, 8)
GRAM, SCALE = X.T @ X, torch.full((6, 1), 0.05)
KERNEL = torch.randn(8, 4, 3, 3)
IMAGES = cl.Images(torch.randint(0, 255, (24, 1, 28, 28), dtype=torch.uint8), torch.arange(24) % 3)
BATCH = torch.rand(2, 1, 28, 28)
NETWORK = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
).eval()  # fmt: skip


def ticks() -> Callable[[], float]:
    """A clock that goes on by a second at each look."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def scores() -> dict[str, Tensor]:
    return {g.name: torch.arange(float(g.channels)) for g in p.dependency_groups(NETWORK).values()}


def measured(name: str = "x") -> cl.Measurement:
    return cl.measure(NETWORK, IMAGES, name=name, rounds=5, clock=ticks())


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "accuracy_drop": (lambda **k: cl.accuracy_drop(measured(), measured(), **k), {"seed": 3}),
    "compare": (
        lambda **k: cl.compare(measured(), measured("y"), clock=ticks(), **k).rows,
        {"rounds": 5, "seed": 3},
    ),
    "fit": (
        lambda **k: cl.fit(NETWORK, IMAGES, IMAGES, learning_rate=0.01, **k).model,
        {"epochs": 1, "seed": 3},
    ),
    "latency": (
        lambda **k: cl.latency(NETWORK, BATCH, clock=ticks(), **k),
        {"rounds": 5, "threads": 1, "seed": 3},
    ),
    "layer_costs": (
        lambda **k: cl.layer_costs(NETWORK, BATCH, clock=ticks(), **k),
        {"rounds": 5, "threads": 1},
    ),
    "measure": (
        lambda **k: cl.measure(NETWORK, IMAGES, name="x", clock=ticks(), **k).latency_ms,
        {"rounds": 5, "seed": 3},
    ),
    "paired_drop": (
        lambda **k: measurement.paired_drop(torch.arange(9) % 2 == 0, torch.arange(9) % 3 == 0, **k),
        {"seed": 3},
    ),
    "speedup": (
        lambda **k: cl.speedup(NETWORK, NETWORK, BATCH, clock=ticks(), **k),
        {"rounds": 5, "threads": 1, "seed": 3},
    ),
    "Codebook": (lambda **k: q.Codebook(torch.tensor([0.0, 1.0]), **k), {"bits": 1}),
    "WeightGrid": (
        lambda **k: q.WeightGrid(torch.ones(6, 2, 1), **k).parts(W),
        {"bits": 8, "group_size": 4},
    ),
    "adaround": (lambda **k: q.adaround(W, GRAM, SCALE, **k), {"bits": 4, "steps": 3}),
    "allocate_bits": (
        lambda **k: q.allocate_bits(torch.rand(2, 2, generator=noise()), torch.tensor([[4, 8], [4, 8]]), **k),
        {"budget": 12},
    ),
    "dequantize": (lambda **k: q.dequantize(torch.arange(9), 0.1, **k), {"zero_point": 3}),
    "entropy": (lambda **k: q.entropy(W, symmetric=True, **k), {"bits": 4, "bins": 100}),
    "fake_quantize": (
        lambda **k: q.fake_quantize(W, 0.1, signed=False, **k),
        {"zero_point": 100, "bits": 8},
    ),
    "fake_quantize_straight_through": (
        lambda **k: q.fake_quantize_straight_through(W, torch.tensor(0.1), signed=False, **k),
        {"zero_point": 100, "bits": 8},
    ),
    "from_groups": (
        lambda **k: q.from_groups(q.to_groups(W, size=4), shape=(k["shape"], 8)),
        {"shape": 6},
    ),
    "gptq": (lambda **k: q.gptq(W, GRAM, SCALE, **k), {"bits": 8}),
    "in_float32": (
        lambda **k: q.in_float32([Integers(torch.arange(9), torch.tensor(0.1), 0)], torch.tensor(0.2), **k),
        {"zero_point": 100},
    ),
    "integer_range": (lambda **k: q.integer_range(signed=False, **k), {"bits": 8}),
    "kmeans": (lambda **k: q.kmeans(W, torch.tensor([-1.0, 0, 1]), **k), {"steps": 3}),
    "least_squares": (
        lambda **k: q.least_squares(W, symmetric=False, **k),
        {"bits": 8, "candidates": 10},
    ),
    "prepare": (lambda **k: q.prepare(NETWORK, **k), {"bits": 8}),
    "quantize": (lambda **k: q.quantize(W, 0.1, signed=False, **k), {"zero_point": 100, "bits": 8}),
    "quantize_layer": (
        lambda **k: q.quantize_layer(nn.Linear(8, 6), **k).grid.scale.shape,
        {"bits": 8, "group_size": 4},
    ),
    "quantize_mixed": (
        lambda **k: q.quantize_mixed(NETWORK, bits=dict.fromkeys("026", k["bits"])),
        {"bits": 4},
    ),
    "quantize_weights": (
        lambda **k: q.quantize_weights(NETWORK, **k),
        {"bits": 8, "group_size": 4},
    ),
    "quantize_with_data": (lambda **k: q.quantize_with_data(NETWORK, BATCH, **k), {"bits": 8}),
    "requantize": (
        lambda **k: q.requantize(torch.arange(9, dtype=torch.int32), torch.tensor(0.01), **k),
        {"zero_point": 100},
    ),
    "scale_and_zero_point": (
        lambda **k: q.scale_and_zero_point(torch.tensor(-1.0), torch.tensor(4.0), symmetric=False, **k),
        {"bits": 8},
    ),
    "sensitivity": (
        lambda **k: q.sensitivity(NETWORK, BATCH, choices=[k["choices"], 8]),
        {"choices": 4},
    ),
    "share_weights": (lambda **k: q.share_weights(NETWORK, **k), {"bits": 8}),
    "to_groups": (lambda **k: q.to_groups(W, **k), {"size": 3}),
    "balanced_choice": (
        lambda **k: d.balanced_choice(X[:, :3], torch.arange(20) % 3, **k),
        {"per_class": 4},
    ),
    "born_again": (
        lambda **k: len(d.born_again(nn.Linear(2, 2), lambda _: nn.Linear(2, 2), **k)),
        {"generations": 2},
    ),
    "draw_views": (lambda **k: d.draw_views(IMAGES, **k).pixels, {"count": 2, "seed": 3}),
    "layer_map": (lambda **k: d.layer_map(**k), {"layers": 2, "teacher_layers": 4}),
    "one_shot_accuracy": (
        lambda **k: d.one_shot_accuracy(X, torch.arange(20) % 3, generator=noise(), **k),
        {"ways": 2, "episodes": 3},
    ),
    "warm_up": (lambda **k: d.warm_up(**k), {"step": 3, "steps": 100}),
    "cubic_sparsity": (
        lambda **k: p.cubic_sparsity(sparsity=0.5, **k),
        {"step": 3, "steps": 100},
    ),
    "delete_weight": (lambda **k: p.delete_weight(W[0], GRAM, **k), {"index": 3}),
    "geometric_sparsity": (
        lambda **k: p.geometric_sparsity(sparsity=0.5, **k),
        {"step": 3, "steps": 100},
    ),
    "keep_channels": (lambda **k: p.keep_channels(scores(), sparsity=0.5, **k), {"multiple": 2}),
    "keep_channels_within": (
        lambda **k: p.keep_channels_within(NETWORK, scores(), BATCH, **k),
        {"macs_per_sample": 300_000, "multiple": 2},
    ),
    "magnitude": (lambda **k: p.magnitude(W, **k), {"power": 2}),
    "n_of_m_mask": (lambda **k: p.n_of_m_mask(W, **k), {"n": 1, "m": 4}),
    "remove_channels": (
        lambda **k: p.remove_channels(NETWORK, {"0": [0, k["keep"]]}),
        {"keep": 3},
    ),
    "sparse_gpt": (lambda **k: p.sparse_gpt(W, GRAM, sparsity=0.5, **k), {"block": 4}),
    "sparsities_under_budget": (
        lambda **k: p.sparsities_under_budget(
            {"a": [0.0, 0.1]}, {"a": k["weights"]}, sparsities=[0.0, 0.5], budget=k["budget"]
        ),
        {"weights": 100, "budget": 60},
    ),
    "UpdatedLinear": (
        lambda **k: lr.UpdatedLinear(nn.Linear(8, 6), alpha=1.0, generator=noise(), **k).a,
        {"rank": 2},
    ),
    "add_updates": (lambda **k: lr.add_updates(NETWORK, generator=noise(), **k), {"rank": 2}),
    "break_even_rank": (lambda **k: lr.break_even_rank(**k), {"m": 100, "n": 120}),
    "channel_kernels": (lambda **k: lr.channel_kernels(KERNEL, **k), {"rank": 2, "groups": 2}),
    "channel_matrices": (lambda **k: lr.channel_matrices(KERNEL, **k), {"groups": 2}),
    "cp": (lambda **k: lr.cp(KERNEL, **k), {"rank": 2, "sweeps": 3, "seed": 3}),
    "cp_kernels": (lambda **k: lr.cp_kernels(KERNEL, **k), {"rank": 2, "groups": 2, "sweeps": 3}),
    "depthwise_kernels": (
        lambda **k: lr.depthwise_kernels(KERNEL[:, :1], **k),
        {"rank": 1, "groups": 8, "sweeps": 3},
    ),
    "fold": (lambda **k: lr.fold(W, shape=(6, 8), mode=k["mode"]), {"mode": 0, "shape": 6}),
    "from_channels": (
        lambda **k: lr.from_channels(*lr.channel_kernels(KERNEL, rank=2, groups=2), **k),
        {"groups": 2},
    ),
    "from_space": (
        lambda **k: lr.from_space(*lr.space_kernels(KERNEL, rank=2, groups=2), **k),
        {"groups": 2},
    ),
    "rank_for_weights": (
        lambda **k: lr.rank_for_weights(nn.Linear(8, 6), share=0.7, **k),
        {"multiple": 2},
    ),
    "ranks_for_weights": (lambda **k: lr.ranks_for_weights(NETWORK, share=0.7, **k), {"multiple": 2}),
    "ranks_under_budget": (
        lambda **k: lr.ranks_under_budget(
            NETWORK, BATCH, {"2": [1.0, 0.5]}, shares=[0.5, 0.8], **k
        ),
        {"macs_per_sample": 500_000, "multiple": 2},
    ),
    "scan_ranks": (
        lambda **k: lr.scan_ranks(NETWORK, lambda *_: 1.0, shares=[0.5, 0.8], **k),
        {"multiple": 2},
    ),
    "space_kernels": (lambda **k: lr.space_kernels(KERNEL, **k), {"rank": 2, "groups": 2}),
    "space_matrices": (lambda **k: lr.space_matrices(KERNEL, **k), {"groups": 2}),
    "spread_ranks": (
        lambda **k: lr.spread_ranks(
            [torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0])], [k["costs"], 1], budget=k["budget"]
        ),
        {"costs": 2, "budget": 5},
    ),
    "truncated_svd": (lambda **k: lr.truncated_svd(W, **k), {"rank": 2}),
    "tucker2": (
        lambda **k: lr.tucker2(KERNEL, ranks=(k["ranks"], 2), sweeps=k["sweeps"]),
        {"ranks": 3, "sweeps": 2},
    ),
    "tucker_kernels": (
        lambda **k: lr.tucker_kernels(KERNEL, ranks=(k.pop("ranks"), 2), **k),
        {"ranks": 3, "groups": 2, "sweeps": 2},
    ),
    "unfold": (lambda **k: lr.unfold(KERNEL, **k), {"mode": 1}),
    "whitened_channel_kernels": (
        lambda **k: lr.whitened_channel_kernels(KERNEL, torch.eye(36), **k),
        {"rank": 2},
    ),
    "whitened_svd": (lambda **k: lr.whitened_svd(W, GRAM, **k), {"rank": 2}),
    "load_deployed": (None, {"threads": 1}),
    "write_onnx": (None, {"image_shape": 28}),
    # below the fronts, and with checks of their own
    "pack": (lambda **k: packing.pack(torch.arange(100), **k), {"bits": 8}),
    "unpack": (
        lambda **k: packing.unpack(torch.arange(100, dtype=torch.uint8), signed=False, **k),
        {"bits": 8, "count": 100},
    ),
    "to_relative_index": (lambda **k: sparse.to_relative_index(W, **k), {"bits": 5}),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _deployed(tmp_path_factory):
    """Complete the calls that need a file."""
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(NETWORK, path)
    CALLS["load_deployed"] = (lambda **k: load_deployed(path, **k).threads, CALLS["load_deployed"][1])
    CALLS["write_onnx"] = (
        lambda **k: write_onnx(NETWORK, path, image_shape=(1, k["image_shape"], 28)),
        CALLS["write_onnx"][1],
    )


def with_whole_numbers() -> Iterator[tuple[str, set[str]]]:
    """Yield each public function, with its settings that are annotated as int."""
    for front in map(importlib.import_module, FRONTS):
        for name in front.__all__:
            made = getattr(front, name)
            error = isinstance(made, type) and issubclass(made, Exception)
            if callable(made) and not error and name not in RESULTS:
                parameters = inspect.signature(made).parameters.values()
                whole = {each.name for each in parameters if re.search(r"\bint\b", str(each.annotation))}
                if whole:
                    yield name, whole


def test_every_public_setting_that_is_a_whole_number_is_tried():
    found = dict(with_whole_numbers())
    assert len(found) > 60
    assert {name: set(CALLS[name][1]) if name in CALLS else None for name in found} == found


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, of the same types, with the same tensors."""
    if isinstance(one, nn.Module):
        return same(one.state_dict(), other.state_dict()) and repr(one) == repr(other)
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def kinds(value: int) -> list[Any]:
    """Return a number in NumPy's narrowest and widest integers that hold it."""
    narrow = [kind for kind in (np.int8, np.uint8, np.int16) if np.iinfo(kind).max >= value]
    return [kind(value) for kind in (*narrow[:2], np.int64, np.uint64)]


@pytest.mark.parametrize("name", CALLS)
def test_numpys_integers_are_taken_as_pythons_are(name):
    call, settings = CALLS[name]
    torch.manual_seed(0)
    wanted = call(**settings)
    for setting, value in settings.items():
        for number in kinds(value):
            torch.manual_seed(0)
            assert same(call(**settings | {setting: number}), wanted), f"{setting}={number!r}"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bad", [True, np.True_, 2.5, "3"], ids=repr)
def test_what_is_no_whole_number_is_refused_where_a_setting_is_checked(name, bad):
    call, settings = CALLS[name]
    for setting in set(settings) - UNCHECKED:
        with pytest.raises((errors.CompressionError, TypeError)) as told:
            call(**settings | {setting: bad})
        assert not isinstance(told.value, TypeError), f"{name} says {told.value} of {setting}={bad!r}"


def test_no_module_has_a_check_of_its_own():
    own = re.compile(r"not isinstance\(\w+, int\)|isinstance\(\w+, int\) and")
    for file in sorted((ROOT / "compresslab").rglob("*.py")):
        if file.relative_to(ROOT).parts[1] in CHECKED:
            assert not own.search(file.read_text(encoding="utf-8")), f"{file.name}: use errors.check_whole"
