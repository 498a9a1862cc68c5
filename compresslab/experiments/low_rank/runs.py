"""Run functions of lab 04, each from a ``Context`` and JSON values to results.

A network is factorized by a split and ranks, which are JSON values, and trained; the networks of the lab are
stored. The other runs compare: how much a short training recovers, whether a network can be factorized before
training, what a low-rank update learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.analysis.layer_inputs import gram_matrices
from compresslab.analysis.sensitivity import output_sensitivity
from compresslab.data.images import Images
from compresslab.errors import Diverged
from compresslab.experiments.experiment import Context
from compresslab.measurement.costs import count_macs
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import mlp
from compresslab.techniques.low_rank.factorization import factorize, thin_like
from compresslab.techniques.low_rank.layer_splits import CHANNELS, SPLITS, TUCKER, Rank, Split, whitened
from compresslab.techniques.low_rank.lora import add_updates, merge_updates
from compresslab.techniques.low_rank.rank_selection import scan_ranks
from compresslab.training.loop import accuracy, fast_precision, fit

__all__ = [
    "LOOKED_AT", "SCAN_IMAGES", "as_ranks", "make_thin", "random_directions", "scan",
    "structure", "study_adapting", "study_beginning", "study_tuning",
]  # fmt: skip

LOOKED_AT = 1000  # training images for the Gram matrices
SCAN_IMAGES = 500  # of validation


def random_directions(seed: int) -> Split:
    """Return TUCKER with random instead of optimal directions, the control for the decomposition.

    Linear layers are factorized as in TUCKER, grouped convolutions stay whole. Layers of one shape get the
    same directions.

    Args:
        seed: of the directions.
    """

    def kernels(name: str, layer: nn.Conv2d, ranks: tuple[int, int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        w = layer.weight.detach()
        drawn = (
            torch.randn(side, rank, generator=generator) for side, rank in zip(w.shape, ranks, strict=False)
        )
        u_out, u_in = (torch.linalg.qr(columns).Q for columns in drawn)
        core = torch.einsum("oihw,op,iq->pqhw", w, u_out, u_in)
        return [u_in.T[:, :, None, None], core, u_out[:, :, None, None]]

    def refuses(layer: nn.Conv2d) -> str:
        return TUCKER.refuses(layer) or ("in groups" if layer.groups != 1 else "")

    return Split("random directions", refuses, TUCKER.full, TUCKER.looks, kernels, TUCKER.matrices)


def _split(context: Context, model: nn.Module, way: str, seed: int) -> Split:
    """Return the split of this name: one of SPLITS, "whitened" with training images, or "random"."""
    if way == "whitened":
        return whitened(gram_matrices(model, context.sample(LOOKED_AT, seed).batches()))
    return random_directions(seed) if way == "random" else SPLITS[way]


def as_ranks(ranks: Mapping[str, Any]) -> dict[str, Rank]:
    """Convert ranks from JSON: {layer's name: a number, or a list of two} → numbers and pairs."""
    return {name: rank if isinstance(rank, int) else (rank[0], rank[1]) for name, rank in ranks.items()}


def structure(name: str, record: Mapping[str, Any]) -> nn.Module:
    """Return a network of a stored one's structure, to load its weights into."""
    split = SPLITS.get(record["way"], CHANNELS)  # whitened layers look like plain ones
    return thin_like(load_baseline(record["network"]), as_ranks(record["ranks"]), split=split)


def scan(context: Context, *, way: str, shares: list[float], multiple: int, images: int) -> dict:
    """Scan the sensitivity: factorize each layer alone and return the divergence in nats, one per share."""
    model = load_baseline()
    moved = output_sensitivity(model, context.data.validation.first(images).inputs())
    split = _split(context, model, way, 0)
    return {"damages": scan_ranks(model, moved, shares=shares, split=split, multiple=multiple)}


def make_thin(
    context: Context, *, network: str, way: str, ranks: dict[str, Any], epochs: int,
    learning_rate: float, augmented: bool, seed: int,
) -> dict:  # fmt: skip
    """Factorize a trained network and fine-tune it; a tuning run reads no test image and stores nothing."""
    model, data = load_baseline(network), context.data
    thin = factorize(model, as_ranks(ranks), split=_split(context, model, way, seed))
    settings = context.training(epochs=epochs, learning_rate=learning_rate, seed=seed)
    settings |= {"augmented": augmented, "checkpoint": context.checkpoint}
    trained = fit(thin, data.train, data.validation, **settings)
    found = {
        "macs_per_sample": count_macs(thin, data.train.first(1).inputs()),
        "thin_accuracy": accuracy(thin, data.validation),
        "validation_accuracy": accuracy(trained.model, data.validation),
        "history": [epoch.validation_accuracy for epoch in trained.history],
    }
    if not context.is_tuning:
        found["test_accuracy"] = accuracy(trained.model, data.test)
        found["thin_test_accuracy"] = accuracy(thin, data.test)
    context.save_network(trained.model)
    return found


def study_tuning(
    context: Context, *, way: str, ranks: dict[str, Any], images: int, learning_rate: float, seed: int
) -> dict:
    """Measure the factorized baseline before and after one pass; a tuning run reads no test image."""
    model = load_baseline()
    thin = factorize(model, as_ranks(ranks), split=_split(context, model, way, seed))
    few = context.data.validation.first(500)  # with one epoch there is nothing to choose
    settings = context.training(epochs=1, learning_rate=learning_rate, seed=seed)
    trained = fit(thin, context.sample(images, seed), few, augmented=True, **settings).model
    if context.is_tuning:
        return {"validation_accuracy": accuracy(trained, context.data.validation, precision=fast_precision())}
    return {
        "macs_per_sample": count_macs(thin, few.inputs()),
        "thin_accuracy": accuracy(thin, context.data.test, precision=fast_precision()),
        "test_accuracy": accuracy(trained, context.data.test, precision=fast_precision()),
    }


def study_beginning(
    context: Context, *, ranks: dict[str, Any], epochs: int, more: int, learning_rate: float, seed: int
) -> dict:
    """Return test accuracies of the perceptron at these ranks, factorized after or before training.

    The dense network is trained, and trained further. Factorized networks come from it and are fine-tuned, or
    come from its initial weights and are trained as long as the dense one, without or with the fine-tuning.
    """
    torch.manual_seed(seed)
    start, data = mlp(), context.data
    sizes = as_ranks(ranks)

    def learned(network: nn.Module, passes: int) -> nn.Module:
        settings = context.training(epochs=passes, learning_rate=learning_rate, seed=seed)
        return fit(network, data.train, data.validation, augmented=False, **settings).model

    dense = learned(start, epochs)
    thin = factorize(dense, sizes)
    first = factorize(start, sizes)  # "spectral initialisation": nearest to the usual initial weights
    networks = {
        "dense": dense,
        "dense_longer": learned(dense, more),
        "thin": thin,
        "fine_tuned": learned(thin, more),
        "from_the_start": learned(first, epochs),
        "from_the_start_longer": learned(first, epochs + more),
    }
    return {name: accuracy(network, data.test) for name, network in networks.items()}


def study_adapting(
    context: Context,
    *,
    way: str,
    rank: int,
    images: int,
    epochs: int,
    learning_rates: list[float],
    seed: int,
) -> dict:
    """Adapt the trained perceptron to images rotated by 90°: all weights, the head, or low-rank updates.

    The learning rate is chosen by validation. A network with merged updates has its original structure.
    """
    model = load_baseline("mlp")
    train, validation, test = (
        _turned(part) for part in (context.sample(images, seed), context.data.validation, context.data.test)
    )
    start = _adaptable(model, way, rank, seed)
    tried = {}
    for rate in learning_rates:
        settings = context.training(epochs=epochs, learning_rate=rate, seed=seed)
        try:
            tried[rate] = fit(start, train, validation, augmented=False, **settings)
        except Diverged:
            if rate == min(learning_rates):  # a rate that diverges is no choice, but one has to be left
                raise
    rate, best = max(tried.items(), key=lambda pair: pair[1].best.validation_accuracy)
    found = {
        "before": accuracy(model, test),
        "test_accuracy": accuracy(best.model, test),
        "learning_rate": rate,
        "trained": sum(p.numel() for p in start.parameters() if p.requires_grad),
    }
    if way == "update":
        found["merged_accuracy"] = accuracy(merge_updates(best.model), test)
    return found


def _adaptable(model: nn.Module, way: str, rank: int, seed: int) -> nn.Module:
    """Return the network with trainable weights: "all", its last layer ("head"), or updates ("update")."""
    if way == "update":
        return add_updates(model, rank=rank, alpha=rank, generator=torch.Generator().manual_seed(seed))
    if way == "head":
        model.requires_grad_(False)
        list(model.children())[-1].requires_grad_(True)
    return model


def _turned(images: Images) -> Images:
    return Images(images.pixels.rot90(1, (2, 3)).contiguous(), images.labels)
