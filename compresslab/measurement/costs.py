"""Costs of a network, in total and per layer: parameters, file size and MACs.

*MACs* (one multiplication and one addition each) are half of the operations that torch's ``FlopCounterMode``
counts: matrix products and convolutions. By convention, element-wise operations, normalisation, pooling and
softmax cost nothing. The counter silently counts 0 for every operator that it does not know. So every
operator is checked here, and one that is neither counted nor listed below as free raises an error. Not
detected: a product written as an element-wise multiplication and a sum, and work outside torch.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from compresslab.errors import Unsupported, check_whole
from compresslab.measurement.timing import WARM_UP, Clock, one_at_a_time, pinned
from compresslab.models.surgery import evaluating
from compresslab.storage import Ledger, save_model

__all__ = [
    "LayerCost",
    "count_macs",
    "count_parameters",
    "layer_costs",
    "storage_bytes",
]

# The aten operators that cost no MACs by convention. An in-place variant has the same name plus "_".
FREE = frozenset(
    word
    for line in (
        # view, move or allocate memory, draw random numbers
        "alias as_strided detach diagonal expand lift_fresh narrow permute select slice split",
        "split_with_sizes squeeze t transpose unbind unfold unsqueeze unsafe_split unsafe_chunk view",
        "_unsafe_view _reshape_alias _to_copy cat stack clone copy contiguous flip roll repeat",
        "constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d",
        "pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im tril triu arange empty empty_like",
        "empty_strided eye fill full full_like linspace new_empty new_empty_strided new_full new_ones",
        "new_zeros ones ones_like scalar_tensor zero zeros zeros_like bernoulli normal uniform rand",
        "rand_like randn randn_like randint randperm native_dropout",
        # look up
        "embedding gather index index_put index_select masked_fill masked_scatter masked_select nonzero",
        "scatter scatter_add take where sort topk argsort _local_scalar_dense bucketize searchsorted",
        # element by element
        "abs add addcdiv addcmul bitwise_and bitwise_left_shift bitwise_not bitwise_or",
        "bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min cos div erf exp floor",
        "floor_divide fmod lerp log log2 maximum minimum mul neg pow reciprocal remainder round rsqrt",
        "rsub sign sin sqrt square sub trunc __and__ __or__ __lshift__ __rshift__ eq ge gt le lt ne",
        "isfinite isinf isnan logical_and logical_not logical_or celu elu gelu hardsigmoid hardswish",
        "hardtanh leaky_relu log_sigmoid_forward mish _prelu_kernel relu sigmoid silu softplus threshold",
        "tanh glu",
        # reduce, normalise, pool, resample
        "all amax amin aminmax any argmax argmin cumsum linalg_vector_norm logsumexp max mean min norm",
        "prod std sum var var_mean _log_softmax _softmax _safe_softmax native_batch_norm",
        "_native_batch_norm_legit_no_training native_group_norm native_layer_norm _fused_rms_norm",
        "_adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d max_pool2d_with_indices upsample_bilinear2d",
        "upsample_nearest1d upsample_nearest2d",
        # simulate quantization
        "fake_quantize_per_tensor_affine_cachemask fake_quantize_per_channel_affine_cachemask",
    )
    for word in line.split()
)


@dataclass(frozen=True)
class LayerCost:
    """The costs of one layer per sample; the layers' parameters and MACs sum to those of the model.

    Attributes:
        name: path of the module in the model.
        kind: name of its class.
        output_shape: without the batch dimension; () if the layer did not run.
        parameters: numbers in its own parameters.
        storage_bytes: size of its tensors in the file; the file's header belongs to no layer.
        macs: multiply-accumulates.
        output_bytes: size of the tensors that it returns.
        latency_ms: median of a few timed runs, without its children.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    storage_bytes: int
    macs: int
    output_bytes: int
    latency_ms: float


def count_parameters(model: nn.Module) -> int:
    """Return the number of learned values; a parameter shared by two modules counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def storage_bytes(model: nn.Module) -> int:
    """Return the size of the model's file in bytes: ``storage`` writes it to a temporary folder."""
    return _ledger(model).total


def count_macs(model: nn.Module, inputs: Tensor) -> int:
    """Return the MACs of one evaluation run on the first sample of ``inputs``: ``FlopCounterMode / 2``.

    Raises:
        Unsupported: an operator may multiply and the counter does not know it; the text names it and
            the alternatives.
    """
    sample = one_at_a_time(inputs)
    with evaluating(model), _counting() as macs:
        model(sample)
        return macs()


def layer_costs(
    model: nn.Module, inputs: Tensor, *, rounds: int = 7, threads: int = 1, clock: Clock = time.perf_counter
) -> tuple[LayerCost, ...]:
    """Return each layer's costs on the first sample of ``inputs``, in the order in which layers first run.

    A layer is a module without children; a module with children is listed only if it has parameters or MACs
    of its own. Layers with parameters that did not run come last. For a layer that ran twice, the MACs and
    times of both runs are added.

    Raises:
        CompressionError: as ``count_macs``.
    """
    sample, names = one_at_a_time(inputs), {module: name for name, module in model.named_modules()}
    rounds = check_whole("rounds", rounds, hint="7 suits a first look")
    with evaluating(model), pinned(threads):
        with _counting() as macs:
            counted, outputs = _run_with_counter(model, sample, macs)
        for _ in range(WARM_UP):
            model(sample)
        timed = [_run_with_counter(model, sample, clock)[0] for _ in range(rounds)]
    ledger, parameters = _ledger(model), _own_parameters(model)
    shown = [
        module for module in outputs if not _has_children(module) or counted[module] or parameters[module]
    ]
    unused = [module for module in names if module not in outputs and parameters[module]]
    return tuple(
        LayerCost(
            name=names[module],
            kind=type(module).__name__,
            output_shape=tuple(outputs[module][0].shape[1:]) if outputs.get(module) else (),
            parameters=parameters[module],
            storage_bytes=ledger.of_module(names[module]),
            macs=int(counted.get(module, 0)),
            output_bytes=sum(tensor.nbytes for tensor in outputs.get(module, [])),
            latency_ms=1000 * statistics.median(run.get(module, 0.0) for run in timed),
        )
        for module in [*shown, *unused]
    )


def _ledger(model: nn.Module) -> Ledger:
    with tempfile.TemporaryDirectory() as folder:
        return save_model(model, Path(folder) / "model.safetensors")


def _own_parameters(model: nn.Module) -> dict[nn.Module, int]:
    """The number of values in each module's own parameters; shared ones count for the first module."""
    seen: set[nn.Parameter] = set()
    counts = {}
    for module in model.modules():
        own = set(module.parameters(recurse=False)) - seen
        counts[module] = sum(parameter.numel() for parameter in own)
        seen |= own
    return counts


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


class _Watch(TorchDispatchMode):
    """Raise for every operator that is neither counted nor free."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        free = operator.namespace == "aten" and (name in FREE or name.removesuffix("_") in FREE)
        counted = operator.overloadpacket in flop_registry
        dense = all(t.layout == torch.strided for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        if not (free or (counted and dense)):
            raise Unsupported(
                f"the MACs of {operator}{' on a sparse tensor' if counted else ''} are not known: "
                f"FlopCounterMode counts {'it as if it were dense' if counted else '0'}. "
                "Countable are dense matrix products (addmm, mm, bmm) and convolutions. Write the layer with "
                "those (attention: inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), count it by hand "
                "from its shapes, or, if by convention it costs none, add it to "
                "compresslab.measurement.costs.FREE"
            )
        return operator(*args, **(kwargs or {}))


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the MACs done inside the block so far."""
    with FlopCounterMode(display=False) as counter, _Watch():
        yield lambda: counter.get_total_flops() // 2


def _run_with_counter(
    model: nn.Module, sample: Tensor, counter: Callable[[], float]
) -> tuple[dict[nn.Module, float], dict[nn.Module, list[Tensor]]]:
    """Return the increase of a counter (MACs or seconds) in each module, and each module's outputs.

    The increase in a module's children is subtracted. The hooks are torch's global ones, so the model itself
    is not changed.
    """
    gained: dict[nn.Module, float] = {}
    outputs: dict[nn.Module, list[Tensor]] = {}
    known = set(model.modules())  # a module created during the run counts for its creator
    # for each running module: the counter at its start, and the increase in its children
    open_calls = [[0.0, 0.0]]

    def enter(module, args):
        if module not in known:
            return
        outputs.setdefault(module, [])  # here, so that modules are ordered by their start
        open_calls.append([counter(), 0.0])

    def leave(module, args, result):
        if module not in known:
            return
        start, inside = open_calls.pop()
        gain = counter() - start
        open_calls[-1][1] += gain
        gained[module] = gained.get(module, 0) + gain - inside
        outputs[module] = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        model(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return gained, outputs
