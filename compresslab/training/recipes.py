"""Training recipes of the pretrained networks, and the run that writes weights and model card.

``compresslab train NAME`` repeats a run. The epoch is chosen by validation; test is read once, at the end.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from compresslab.data.images import Splits
from compresslab.data.location import DATA
from compresslab.errors import BadSetting
from compresslab.models.pretrained import ARCHITECTURES
from compresslab.models.residual import Mirrored
from compresslab.storage.atomic import write_json, write_tensors
from compresslab.training.loop import accuracy, cross_entropy, fast_precision, fit

__all__ = ["RECIPES", "Recipe", "train_baseline"]


@dataclass(frozen=True)
class Recipe:
    """Settings of ``fit``: passes over the data, peak learning rate, label smoothing, seed, augmentation."""

    epochs: int
    learning_rate: float = 0.1
    label_smoothing: float = 0.05
    seed: int = 0
    augmented: bool = True


RECIPES = {
    "baseline": Recipe(epochs=60),
    "teacher": Recipe(epochs=66),
    "student": Recipe(epochs=30),
    "mlp": Recipe(epochs=12, learning_rate=0.03, augmented=False),
}


def train_baseline(
    name: str, data: Splits, *, folder: Path = DATA / "baselines", recipe: Recipe | None = None
) -> dict[str, object]:
    """Train a network by its recipe, write ``folder/name.safetensors`` and its model card; return the card.

    The state after every epoch is saved in ``folder/name.checkpoint.safetensors``, from which an interrupted
    run resumes; the file is removed at the end.

    Raises:
        BadSetting: there is no recipe for ``name``.
    """
    if name not in RECIPES:
        raise BadSetting(f"name must be one of {', '.join(RECIPES)}, got {name!r}; try 'baseline'")
    recipe = recipe or RECIPES[name]
    checkpoint = folder / f"{name}.checkpoint.safetensors"
    torch.manual_seed(recipe.seed)  # the first weights
    model = ARCHITECTURES[name]()
    trained = fit(
        model.network if isinstance(model, Mirrored) else model,
        data.train,
        data.validation,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        loss=functools.partial(cross_entropy, label_smoothing=recipe.label_smoothing),
        augmented=recipe.augmented,
        precision=fast_precision(),
        checkpoint=checkpoint,
    )
    if isinstance(model, Mirrored):
        model.network = trained.model  # trained without the mirror image, which is used from now on
    else:
        model = trained.model
    card = {
        "name": name,
        "recipe": asdict(recipe),
        "precision": str(fast_precision()).removeprefix("torch."),
        "best_epoch": trained.history.index(trained.best) + 1,
        "validation_accuracy": accuracy(model, data.validation),
        "test_accuracy": accuracy(model, data.test),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "history": [asdict(epoch) for epoch in trained.history],
    }
    write_tensors(folder / f"{name}.safetensors", model.state_dict(), durable=True)
    write_json(folder / f"{name}.json", card, durable=True)
    checkpoint.unlink(missing_ok=True)
    return card
