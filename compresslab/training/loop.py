"""The training loop of all labs: seeded, resumable and reproducible, with a progress bar.

Stochastic gradient descent with momentum (0.9) and weight decay (5e-4, not on biases and norms) under a
one-cycle learning rate: a linear rise in the first fifth of the steps, then a cosine to zero. All randomness
in an epoch is seeded by (seed, epoch), so an interrupted and resumed run ends with the same weights, bit for
bit, as an uninterrupted one.

The loss of a method (distillation, sparsity, fake quantization) is passed in as a function of (model, images,
labels).

Source: Smith and Topin 2017, "Super-convergence", arXiv:1708.07120.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from compresslab.data.augmentation import augment
from compresslab.data.images import Images, normalize
from compresslab.errors import BadSetting, Diverged, check_seed, check_whole
from compresslab.measurement.measurement import right_answers
from compresslab.training.checkpoints import keep_checkpoint, resume_checkpoint

__all__ = ["BATCH_SIZE", "Epoch", "Loss", "Trained", "accuracy", "cross_entropy", "fast_precision", "fit"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
BATCH_SIZE = 128
_WARM_UP = 0.2  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch: mean training loss, and validation accuracy as a fraction."""

    loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Trained:
    """The network of the epoch with the best validation accuracy, and the history of all epochs."""

    model: nn.Module
    history: tuple[Epoch, ...]

    @property
    def best(self) -> Epoch:
        return max(self.history, key=lambda epoch: epoch.validation_accuracy)


def cross_entropy(
    model: nn.Module, images: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of the model's logits, in nats; the default loss of ``fit``."""
    return nn.functional.cross_entropy(model(images).float(), labels, label_smoothing=label_smoothing)


def fit(
    model: nn.Module,
    train: Images,
    validation: Images,
    *,
    epochs: int,
    learning_rate: float = 0.1,
    seed: int = 0,
    loss: Loss = cross_entropy,
    augmented: bool = True,
    after_step: Callable[[nn.Module], None] | None = None,
    precision: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
) -> Trained:
    """Train a copy of the model and return the epoch with the best validation accuracy.

    Args:
        model: images (n, 1, 28, 28) → logits (n, classes). Not changed.
        train: training images, in batches of 128.
        validation: images for the choice of the epoch.
        epochs: passes over ``train``, at least 1.
        learning_rate: the peak of the one-cycle schedule.
        seed: of the order of the images and of their augmentation.
        loss: (model, images, labels) → scalar to minimise.
        augmented: whether training images are shifted, mirrored and partly erased (see ``augment``).
        after_step: called with the model after every step, for example to apply a mask again.
        precision: float32, or bfloat16 for autocast on processors that multiply it faster.
        checkpoint: a file for the state after every epoch; if it exists, the run resumes from it.

    Raises:
        BadSetting: a setting is out of range.
        Diverged: the loss is no longer finite.
        DamagedFile: the checkpoint is damaged, or belongs to another run.
    """
    _check(train, validation, learning_rate, precision)
    epochs = check_whole("epochs", epochs, hint="5 suits a first look")
    seed = check_seed(seed)
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, learning_rate)
    settings: dict[str, object] = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    settings |= {"images": len(train), "augmented": augmented, "precision": str(precision)}
    history, best = _resume(checkpoint, model, optimizer, settings)
    steps = math.ceil(len(train) / BATCH_SIZE)  # per epoch
    every = epochs * steps
    bar = tqdm(total=every, initial=len(history) * steps, desc="training", unit="batch", leave=False)

    def done() -> None:
        if after_step is not None:
            after_step(model)
        bar.update()

    with bar:
        for epoch in range(len(history), epochs):
            batches = _shuffled(train, seed, epoch, augmented)
            rates = [learning_rate * _one_cycle((epoch * steps + step) / every) for step in range(steps)]
            mean = _finite(_descend(model, optimizer, batches, rates, loss, precision, done), epoch)
            reached = Epoch(mean, accuracy(model, validation, precision=precision))
            if not history or reached.validation_accuracy > max(e.validation_accuracy for e in history):
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            history.append(reached)
            bar.set_postfix(loss=f"{reached.loss:.3f}", validation=f"{reached.validation_accuracy:.2%}")
            if checkpoint is not None:
                past = [asdict(epoch) for epoch in history]
                keep_checkpoint(checkpoint, model, optimizer, best, history=past, settings=settings)
    model.load_state_dict(best)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Trained(model.eval(), tuple(history))


def _resume(checkpoint, model, optimizer, settings) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Restore model and optimizer from a checkpoint, if it exists; return its epochs and best weights."""
    if checkpoint is None or not checkpoint.exists():
        return [], {}
    history, best = resume_checkpoint(checkpoint, model, optimizer, settings=settings)
    return [Epoch(**epoch) for epoch in history], best


def _descend(model, optimizer, batches, rates, loss, precision, done) -> float:
    """Take one step per batch, each at its own learning rate, and return the mean loss."""
    model.train()
    total = torch.zeros(())
    for (images, labels), rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            value = loss(model, images, labels)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        done()
        total += value.detach()
    return float(total) / len(rates)


def accuracy(model: nn.Module, images: Images, *, precision: torch.dtype = torch.float32) -> float:
    """Return the share of images whose largest logit is their label, in evaluation mode."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        return int(right_answers(model, images).sum()) / len(images)


def fast_precision() -> torch.dtype:
    """Return bfloat16 if this processor multiplies it natively (training is twice as fast), else float32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else torch.float32


def _check(train: Images, validation: Images, learning_rate: float, precision: torch.dtype) -> None:
    if len(train) < 2 or len(validation) < 1:
        raise BadSetting(
            f"train must have at least 2 images and validation 1, got {len(train)} and "
            f"{len(validation)}; try fashion_mnist().train.first(1000)"
        )
    if not 0 < learning_rate < math.inf:
        raise BadSetting(
            f"learning_rate must be a positive number, got {learning_rate}; 0.1 suits a fresh network"
        )
    if precision not in (torch.float32, torch.bfloat16):
        raise BadSetting(
            f"precision must be torch.float32 or torch.bfloat16, got {precision}; try fast_precision()"
        )


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss is {loss} in epoch {epoch + 1}; it must stay finite: try a tenth of the learning rate"
        )
    return loss


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.SGD:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 5e-4},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)


def _one_cycle(progress: float) -> float:
    """The learning rate as a share of its peak: 0 → 1 in the first fifth of the run, then a cosine to 0.

    >>> [round(_one_cycle(p), 2) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def _shuffled(train: Images, seed: int, epoch: int, augmented: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over the epoch's batches: inputs (≤ 128, 1, 28, 28), labels (≤ 128,), seeded."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(train), generator=generator)
    for index in order.split(BATCH_SIZE):
        pixels = train.pixels[index]
        inputs = normalize(augment(pixels, generator) if augmented else pixels)
        # convolutions are a fifth faster in channels_last
        yield inputs.contiguous(memory_format=torch.channels_last), train.labels[index]
