"""Training checkpoints: the state of a run after an epoch, in one safetensors file, which contains no code.

The file holds ``model/…`` (the current weights), ``best/…`` (the weights of the best epoch so far),
``momentum/…`` (the optimizer's buffers, by parameter index) and, as metadata, the run's settings and history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from compresslab.errors import DamagedFile
from compresslab.storage.atomic import write_tensors

__all__ = ["keep_checkpoint", "resume_checkpoint"]

_Weights = dict[str, Tensor]


def keep_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: _Weights,
    *,
    history: list[dict],
    settings: Mapping[str, object],
) -> None:
    """Save the run's state atomically: an interruption leaves the checkpoint of the epoch before."""
    state = [optimizer.state[parameter].get("momentum_buffer") for parameter in _parameters(optimizer)]
    tensors = {f"momentum/{index}": tensor for index, tensor in enumerate(state) if tensor is not None}
    tensors |= {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    run = {"run": json.dumps({"settings": settings, "history": history})}
    write_tensors(path, tensors, metadata=run, durable=True)


def resume_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, settings: Mapping[str, object]
) -> tuple[list[dict], _Weights]:
    """Restore the state of model and optimizer; return the history and the best weights so far.

    Raises:
        DamagedFile: the file is damaged, or belongs to other settings or another network.
    """
    try:
        with safe_open(path, "pt") as file:
            note = json.loads(file.metadata()["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        theirs, history = dict(note["settings"]), [dict(epoch) for epoch in note["history"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedFile(
            f"{path} can't be read ({error}); it keeps the state of an interrupted training run. "
            "Delete it to start afresh"
        ) from error
    if theirs != settings:
        raise _another_run(path, f"its settings are {theirs}, these are {dict(settings)}")
    try:
        model.load_state_dict(_part(tensors, "model"))
        for index, parameter in enumerate(_parameters(optimizer)):
            if f"momentum/{index}" in tensors:
                optimizer.state[parameter]["momentum_buffer"] = tensors[f"momentum/{index}"]
    except RuntimeError as error:
        raise _another_run(path, "its weights are not of this network") from error
    return history, _part(tensors, "best")


def _another_run(path: Path, why: str) -> DamagedFile:
    return DamagedFile(
        f"{path} is of another run ({why}); only the run that wrote it can go on from it. "
        "Delete it to start afresh, or name another file"
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _part(tensors: _Weights, kind: str) -> _Weights:
    start = kind + "/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
