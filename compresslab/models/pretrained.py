"""Pretrained networks: architectures by name, trained weights and model cards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from compresslab.data.location import DATA, way_back
from compresslab.errors import BadSetting, DamagedFile
from compresslab.models.residual import baseline, mlp, student, teacher

__all__ = ["ARCHITECTURES", "load_baseline", "read_card"]

ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "baseline": baseline,
    "teacher": teacher,
    "student": student,
    "mlp": mlp,
}


def load_baseline(name: str = "baseline", *, folder: Path = DATA / "baselines") -> nn.Module:
    """Load a trained network, in evaluation mode, from ``folder/name.safetensors``.

    Raises:
        BadSetting: the name is unknown.
        DamagedFile: the file is missing, damaged or of another architecture.
    """
    if name not in ARCHITECTURES:
        raise BadSetting(f"name must be one of {', '.join(ARCHITECTURES)}, got {name!r}; try 'baseline'")
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise DamagedFile(f"{path} is missing; expected the weights of {name!r}. {_way_back(name)}")
    model = ARCHITECTURES[name]()
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DamagedFile(
            f"{path} can't be loaded ({str(error).splitlines()[0]}); expected the weights of {name!r}. "
            f"{_way_back(name)}"
        ) from error
    return model.eval()


def read_card(name: str, *, folder: Path = DATA / "baselines") -> dict:
    """Read a network's model card: recipe, accuracy on validation and test, date, torch version."""
    path = folder / f"{name}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedFile(
            f"{path} can't be read ({error}); it is the card that says how {name!r} was trained. "
            f"{_way_back(name)}"
        ) from error


def _way_back(name: str) -> str:
    return way_back("data/baselines", otherwise=f", or train it: compresslab train {name}")
