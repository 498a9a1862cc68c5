"""One training loop for every lab: seeded, with a progress bar, interruptible, repeatable.

Stochastic gradient descent with momentum (0.9) and weight decay (5e-4, not on biases and norms) under a
one-cycle learning rate: up in the first fifth of the steps, then down to zero along a cosine. All that is
random in an epoch comes from (seed, epoch), so a run that was interrupted and resumed ends with the same
weights, bit for bit, as one that was not.

Source: Smith and Topin 2017, "Super-convergence", arXiv:1708.07120. The loss of a method (distillation,
sparsity, fake quantization) is a function of (model, images, labels), so this loop need not know it.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from compresslab.data import Images, normalize
from compresslab.errors import CompressionError

__all__ = ["Epoch", "Trained", "accuracy", "augment", "cross_entropy", "fast_precision", "fit"]

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
BATCH_SIZE = 128
WARM_UP = 0.2  # share of the steps in which the learning rate rises


@dataclass(frozen=True)
class Epoch:
    """What one epoch reached: the mean training loss, and the share of validation images it gets right."""

    loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Trained:
    """The network of the best epoch (by validation), and the whole history."""

    model: nn.Module
    history: tuple[Epoch, ...]

    @property
    def best(self) -> Epoch:
        return max(self.history, key=lambda epoch: epoch.validation_accuracy)


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """The mean cross-entropy of the model's logits, in nats; the default loss of ``fit``."""
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
    """A trained copy of the model, chosen by validation accuracy; the given model is left alone.

    Args:
        model: images (n, 1, 28, 28) → logits (n, classes).
        train: images to learn from, in batches of 128.
        validation: images to choose the epoch by.
        epochs: passes over ``train``, at least 1.
        learning_rate: the peak of the one-cycle schedule.
        seed: of the order of the images and of their augmentation.
        loss: (model, images, labels) → scalar to minimise.
        augmented: crops, flips and erased rectangles (see ``augment``) on the training images.
        after_step: called with the model after every step, to keep a property such as a mask.
        precision: float32, or bfloat16 to autocast where the processor multiplies it faster.
        checkpoint: a file that keeps the state after every epoch; a run that finds it goes on from there.

    Raises:
        CompressionError: a setting out of range, a loss that is no longer finite, or a checkpoint of another run.
    """
    _check(train, epochs, learning_rate)
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # convolutions run a fifth faster so
    optimizer = _optimizer(model, learning_rate)
    settings = dict(epochs=epochs, learning_rate=learning_rate, seed=seed, images=len(train), augmented=augmented)
    history, best = _resume(checkpoint, model, optimizer, settings)
    steps = math.ceil(len(train) / BATCH_SIZE)
    bar = tqdm(total=epochs * steps, initial=len(history) * steps, desc="training", unit="batch", leave=False)
    for epoch in range(len(history), epochs):
        model.train()
        total = torch.zeros(())
        for step, (images, labels) in enumerate(_shuffled(train, seed, epoch, augmented)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * _one_cycle((epoch * steps + step) / (epochs * steps))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                value = loss(model, images, labels)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if after_step is not None:
                after_step(model)
            total += value.detach()
            bar.update()
        reached = Epoch(_finite(float(total) / steps, epoch), accuracy(model, validation, precision=precision))
        if not history or reached.validation_accuracy > max(e.validation_accuracy for e in history):
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        history.append(reached)
        bar.set_postfix(loss=f"{reached.loss:.3f}", validation=f"{reached.validation_accuracy:.2%}")
        _keep(checkpoint, model, optimizer, best, history, settings)
    bar.close()
    model.load_state_dict(best)
    return Trained(model.to(memory_format=torch.contiguous_format).eval(), tuple(history))


@torch.no_grad()
def accuracy(model: nn.Module, images: Images, *, precision: torch.dtype = torch.float32) -> float:
    """The share of images whose largest logit is their label; the model is run in evaluation mode."""
    was_training = model.training
    model.eval()
    right = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        for inputs, labels in images.batches():
            right += int((model(inputs).argmax(dim=1) == labels).sum())
    model.train(was_training)
    return right / len(images)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels (n, 1, 28, 28) uint8 shifted by up to two, half of them mirrored, half with a rectangle erased.

    Random erasing: Zhong et al. 2017, arXiv:1708.04896; here the rectangle, 4 to 14 pixels a side, is filled
    with noise.
    """
    n, _, height, width = pixels.shape

    def draw(low: int, high: int) -> Tensor:  # one whole number an image, low ≤ value < high
        return torch.randint(low, high, (n, 1), generator=generator)

    padded = nn.functional.pad(pixels, (2, 2, 2, 2))
    rows = draw(0, 5) + torch.arange(height)  # (n, height)
    columns = draw(0, 5) + torch.arange(width)
    columns = torch.where(draw(0, 2) == 1, columns.flip(1), columns)
    moved = padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    tall, wide, top, left = draw(4, 15), draw(4, 15), draw(0, height - 3), draw(0, width - 3)
    inside_rows = (torch.arange(height) >= top) & (torch.arange(height) < top + tall)
    inside_columns = (torch.arange(width) >= left) & (torch.arange(width) < left + wide)
    erased = inside_rows[:, :, None] & inside_columns[:, None, :] & (draw(0, 2) == 1)[:, :, None]
    noise = torch.randint(0, 256, moved.shape, generator=generator, dtype=torch.uint8)
    return torch.where(erased, noise, moved).unsqueeze(1)


def fast_precision() -> torch.dtype:
    """bfloat16 where this processor multiplies it natively (then training is two to three times as fast), else float32."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else torch.float32


def _check(train: Images, epochs: int, learning_rate: float) -> None:
    if len(train) < 2:
        raise CompressionError(f"train needs at least 2 images, got {len(train)}")
    if epochs < 1:
        raise CompressionError(f"epochs is a whole number from 1 up, got {epochs}")
    if not 0 < learning_rate < math.inf:
        raise CompressionError(f"learning_rate is a positive number, got {learning_rate}; 0.1 suits a fresh network")


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise CompressionError(f"the loss is {loss} in epoch {epoch + 1}; try a tenth of the learning rate")
    return loss


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.SGD:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": 5e-4},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9, nesterov=True)


def _one_cycle(progress: float) -> float:
    """Share of the peak learning rate at a share of the run: 0 → 1 in the first fifth, then a cosine to 0.

    >>> [round(_one_cycle(p), 2) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def _shuffled(train: Images, seed: int, epoch: int, augmented: bool):
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(train), generator=generator)
    for index in order.split(BATCH_SIZE):
        pixels = train.pixels[index]
        inputs = normalize(augment(pixels, generator) if augmented else pixels)
        yield inputs.contiguous(memory_format=torch.channels_last), train.labels[index]


# A checkpoint is one safetensors file: model/…, best/…, momentum/<number>, and a JSON note of the run.


def _keep(checkpoint, model, optimizer, best, history, settings) -> None:
    if checkpoint is None:
        return
    momentum = {
        f"momentum/{number}": optimizer.state[parameter]["momentum_buffer"]
        for number, parameter in enumerate(_parameters(optimizer))
        if "momentum_buffer" in optimizer.state[parameter]
    }
    tensors = momentum | {f"model/{k}": v for k, v in model.state_dict().items()} | {f"best/{k}": v for k, v in best.items()}
    note = json.dumps({"settings": settings, "history": [asdict(epoch) for epoch in history]})
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    unfinished = checkpoint.with_name(checkpoint.name + ".part")
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, unfinished, metadata={"run": note})
    os.replace(unfinished, checkpoint)


def _resume(checkpoint, model, optimizer, settings) -> tuple[list[Epoch], dict[str, Tensor]]:
    """Puts the checkpoint's state, where there is one, into model and optimizer; the history and best weights so far."""
    if checkpoint is None or not checkpoint.exists():
        return [], {}
    try:
        with safe_open(checkpoint, "pt") as file:
            note = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if note["settings"] != settings:
            raise CompressionError(
                f"{checkpoint} is of another run ({note['settings']}), this one is {settings}; delete it to start afresh"
            )
        model.load_state_dict(_part(tensors, "model"))
        for number, parameter in enumerate(_parameters(optimizer)):
            if f"momentum/{number}" in tensors:
                optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum/{number}"]
        return [Epoch(**epoch) for epoch in note["history"]], _part(tensors, "best")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CompressionError):
            raise
        raise CompressionError(f"{checkpoint} can't be read ({error}); delete it to start afresh") from error


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind + "/"): tensor for name, tensor in tensors.items() if name.startswith(kind + "/")}
