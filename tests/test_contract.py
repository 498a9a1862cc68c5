"""The contract that every compression method keeps: a model goes in, a new one with its manners comes out.

A new method adds one line to METHODS: its name, the method with honest settings, and calls that must be
refused. That methods also take what others made: test_stacking.py.
"""

import copy
import functools
import os
import re

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import gram_matrices
from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.measurement import measure
from compresslab.models.residual import student
from compresslab.storage import load_model, save_model
from compresslab.techniques.low_rank import SPLITS, factorize, ranks_for_weights, whitened
from compresslab.techniques.low_rank.lora import add_updates, merge_updates
from compresslab.techniques.pruning import prune_by_magnitude
from compresslab.techniques.pruning.channel_groups import dependency_groups
from compresslab.techniques.pruning.channel_removal import recalibrate_batch_norm, remove_channels
from compresslab.techniques.pruning.granularity import channel, local_masks, magnitudes
from compresslab.techniques.pruning.masks import masked
from compresslab.techniques.pruning.optimal_brain_surgeon import compensated, prune_with_sparse_gpt
from compresslab.techniques.pruning.sparse_layers import store_sparsely
from compresslab.techniques.quantization import quantize_dynamic, quantize_weights, store_as
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm
from compresslab.techniques.quantization.codebook import share_weights
from compresslab.techniques.quantization.data_aware_rounding import adaround, quantize_with_data
from compresslab.techniques.quantization.mixed_precision import quantize_mixed
from compresslab.techniques.quantization.qat import convert, prepare
from compresslab.techniques.quantization.static import quantize_static


def layer_names(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def halves(model):
    return local_masks(magnitudes(model), sparsity=0.5)


def remove_half_of_a_group(model):
    name, group = next(iter(dependency_groups(model).items()))
    return remove_channels(model, {name: range((group.channels + 1) // 2)})


def thinned(model, *, split):
    return factorize(model, ranks_for_weights(model, share=0.5, split=split), split=split)


def updated(model, *, rank=2):
    return add_updates(model, rank=rank, generator=torch.Generator().manual_seed(0))


METHODS = [
    (
        "prune_by_magnitude",
        lambda model: prune_by_magnitude(model, sparsity=0.5),
        {
            "sparsity must be a fraction in [0, 1), got 50; did you mean 0.5?": lambda m: prune_by_magnitude(
                m, sparsity=50
            ),
            "sparsity must be a fraction in [0, 1), got -1; try 0.5": lambda m: prune_by_magnitude(
                m, sparsity=-1
            ),
        },
    ),
    (
        "prune_by_magnitude, channel by channel",
        lambda model: prune_by_magnitude(model, sparsity=0.5, granularity=channel),
        {},
    ),
    (
        "masked",
        lambda model: masked(model, halves(model)),
        {
            "the mask of head must be torch.bool (10, 32) as its weight, got torch.bool (2,); "
            "compute it from scores in the weight's shape": lambda m: masked(m, {"head": torch.ones(2) > 0}),
        },
    ),
    ("compensated", lambda model: compensated(model, halves(model), BATCHES), {}),
    (
        "prune_with_sparse_gpt",
        lambda model: prune_with_sparse_gpt(model, BATCHES, sparsity=0.5),
        {
            "sparsity must be a fraction in [0, 1), got 2; did you mean 0.02?": lambda m: (
                prune_with_sparse_gpt(m, BATCHES, sparsity=2)
            ),
        },
    ),
    (
        "remove_channels",
        remove_half_of_a_group,
        {
            "keep must leave group stem.0 at least one of its 8 channels, got none; nothing would pass": (
                lambda m: remove_channels(m, {"stem.0": []})
            ),
        },
    ),
    (
        "recalibrate_batch_norm",
        lambda model: recalibrate_batch_norm(model, BATCHES),
        {
            "batches must have at least one batch of images, got none; try train.batches(500)": (
                lambda m: recalibrate_batch_norm(m, [])
            ),
        },
    ),
    (
        "store_sparsely",
        lambda model: store_sparsely(prune_by_magnitude(model, sparsity=0.8)),
        {
            "forms must be a list of forms, at least one, got []; try [BITMAP]": (
                lambda m: store_sparsely(m, forms=[])
            ),
        },
    ),
    ("fold_batch_norm", fold_batch_norm, {}),
    (
        "quantize_static",
        lambda model: quantize_static(model, X),
        {
            "inputs must be images to calibrate with, got none; try "
            "fashion_mnist().train.first(500).inputs()": (lambda m: quantize_static(m, X[:0])),
        },
    ),
    (
        "quantize_weights",
        lambda model: quantize_weights(model, bits=4, group_size=32),
        {
            "bits must be a whole number from 2 to 8, got 1; try 8, or 4: two in a byte": lambda m: (
                quantize_weights(m, bits=1)
            ),
            "size must be a whole number of at least 2 weights per group, got 1; "
            "try 128, or None: one per channel": lambda m: quantize_weights(m, bits=4, group_size=1),
        },
    ),
    (
        "store_as",
        lambda model: store_as(model, dtype=torch.float16),
        {
            "dtype must be one of torch.float16, torch.bfloat16, got torch.float64; try "
            "torch.float16": lambda m: store_as(m, dtype=torch.float64),
        },
    ),
    ("quantize_dynamic", quantize_dynamic, {}),
    (
        "quantize_with_data",
        lambda model: quantize_with_data(model, X, bits=4),
        {
            "inputs must have at least one image, got none; try train.first(500).inputs()": (
                lambda m: quantize_with_data(m, X[:0], bits=4)
            ),
        },
    ),
    (
        "adaround",
        lambda model: quantize_with_data(model, X, bits=3, rounding=functools.partial(adaround, steps=2)),
        {},
    ),
    ("prepare and convert", lambda model: convert(prepare(model, bits=3)), {}),
    (
        "share_weights",
        lambda model: share_weights(model, bits=3),
        {
            "bits must be a whole number from 1 to 8, got 16; try 4: sixteen values a layer": (
                lambda m: share_weights(m, bits=16)
            ),
        },
    ),
    ("quantize_mixed", lambda model: quantize_mixed(model, bits=dict.fromkeys(layer_names(model), 3)), {}),
    *[(f"factorize by {s.name}", functools.partial(thinned, split=s), {}) for s in SPLITS.values()],
    (
        "factorize by whitened outputs",
        lambda model: thinned(model, split=whitened(gram_matrices(model, BATCHES))),
        {
            "rank must be a whole number from 1 to 10 for whitened of this Linear, got 11; "
            "ranks_for_weights(model, share=0.5) finds ranks that save": lambda m: factorize(
                m, {"head": 11}, split=whitened({})
            ),
            "ranks must name layers with a Gram matrix (none), got 'head'; leave it out": lambda m: factorize(
                m, {"head": 3}, split=whitened({})
            ),
        },
    ),
    (
        "add_updates",
        updated,
        {
            "rank must be a whole number from 1 up, got 0; LoRA often takes 4 or 8": lambda m: updated(
                m, rank=0
            ),
        },
    ),
    (
        "merge_updates",
        lambda model: merge_updates(updated(model)),
        {
            "model must have updates to merge, as add_updates makes them, got ResidualNetwork without any; "
            "give the whole network": merge_updates,
        },
    ),
]

X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
BATCHES = [(X, torch.arange(3))]
every_method = pytest.mark.parametrize(
    "compress", [pytest.param(method, id=name) for name, method, _ in METHODS]
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return student().eval()


def tensors(model):
    return [*model.parameters(), *model.buffers()]


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_the_given_model_is_left_alone(compress, model, training):
    model.train(training)
    before, settings = copy.deepcopy(model.state_dict()), [(m, m.training) for m in model.modules()]
    trainable = [p.requires_grad for p in model.parameters()]
    compress(model)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [(m, m.training) for m in model.modules()] == settings
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert all(p.grad is None for p in model.parameters())


@every_method
def test_the_result_is_another_model_and_shares_no_tensor_with_the_given_one(compress, model):
    result = compress(model)
    assert result is not model
    ours = {tensor.untyped_storage().data_ptr() for tensor in tensors(model)}
    assert not ours & {tensor.untyped_storage().data_ptr() for tensor in tensors(result)}
    assert not {id(module) for module in model.modules()} & {id(module) for module in result.modules()}


@every_method
def test_the_result_is_called_like_the_original_and_its_outputs_are_finite(compress, model):
    with torch.no_grad():
        logits = compress(model)(X)
    assert logits.shape == model(X).shape
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@every_method
def test_the_same_input_gives_the_same_result(compress, model):
    with torch.no_grad():
        assert torch.equal(compress(model)(X), compress(model)(X))


@every_method
def test_the_result_goes_to_a_file_and_comes_back_with_the_same_outputs(compress, model, tmp_path):
    result = compress(model)
    ledger = save_model(result, tmp_path / "model.safetensors")
    assert ledger.total == os.path.getsize(tmp_path / "model.safetensors")
    torch.manual_seed(1)
    empty = compress(student().eval())  # the same structure, other values
    back = load_model(tmp_path / "model.safetensors", into=empty)
    with torch.no_grad():
        assert torch.equal(back(X), result(X))
        assert not torch.equal(empty(X), result(X))


@every_method
def test_the_result_can_be_measured(compress, model):
    data = Images(torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8), torch.arange(8))
    measured = measure(compress(model), data, name="compressed", rounds=5)
    assert measured.storage_bytes > 0
    assert measured.macs_per_sample > 0


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        pytest.param(says, call, id=f"{name}: {says}")
        for name, _, bad in METHODS
        for says, call in bad.items()
    ],
)
def test_a_bad_setting_is_refused_with_its_text_and_the_model_is_left_alone(says, refused, model):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CompressionError, match=f"^{re.escape(says)}$"):
        refused(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
