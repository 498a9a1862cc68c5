"""The functions that a judge is written with: readers of a record, and laws that it must fulfil.

A reader takes one ``Recorded`` value and returns plain Python or a tensor, or raises ``WrongAnswer``:
the order is type, shape, dtype, range. A law compares. What they raise carries ``where``, ``yours`` and
``wanted`` as details, so that a named mistake can point at the very place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from compresslab.checks.record import Recorded
from compresslab.errors import WrongAnswer

__all__ = ["came", "choice", "close", "equal", "number", "parts", "tensor", "true", "whole_number"]


def whole_number(value: Recorded, *, what: str = "the answer") -> int:
    """Return a Python int from an int, a numpy integer or an integer tensor with one value."""
    if (
        value.array is None
        or value.dtype == "bool"
        or value.array.dtype.kind not in "iu"
        or value.array.size != 1
    ):
        raise WrongAnswer(f"{what} is a whole number (int); yours is {came(value)}")
    return int(value.array.reshape(-1)[0])


def number(
    value: Recorded, *, what: str = "the answer", low: float = -math.inf, high: float = math.inf
) -> float:
    """Return a finite Python float in [low, high] from a number or a tensor with one value."""
    if (
        value.array is None
        or value.dtype == "bool"
        or value.array.dtype.kind not in "iuf"
        or value.array.size != 1
    ):
        raise WrongAnswer(f"{what} is one number (float); yours is {came(value)}")
    read = float(value.array.reshape(-1)[0])
    if not math.isfinite(read):
        raise WrongAnswer(
            f"{what} is {'NaN' if math.isnan(read) else 'infinite'}; look for a division by zero"
        )
    if not low <= read <= high:
        raise WrongAnswer(f"{what} lies between {low:g} and {high:g}; yours is {read:g}")
    return read


def tensor(
    value: Recorded, *, shape: Sequence[int], dtype: torch.dtype | None = None, what: str = "the answer"
) -> Tensor:
    """Return a tensor of this shape and, if one is given, this dtype, without NaN."""
    if value.type not in ("Tensor", "Parameter") or value.array is None:
        raise WrongAnswer(f"{what} is a torch tensor of shape {tuple(shape)}; yours is {came(value)}")
    if value.shape != tuple(shape):
        raise WrongAnswer(f"{what} has the shape {tuple(shape)}; yours has {value.shape}")
    if dtype is not None and value.dtype != str(dtype).removeprefix("torch."):
        raise WrongAnswer(f"{what} is {str(dtype).removeprefix('torch.')}; yours is {value.dtype}")
    if value.array.dtype.kind in "fc" and np.isnan(value.array).any():
        raise WrongAnswer(
            f"{what} has NaN in it, first at {_first(np.isnan(value.array))}; look for 0/0 or log of 0"
        )
    return torch.from_numpy(value.array.copy())


def choice(value: Recorded, *, among: Sequence[str], what: str = "the answer") -> str:
    """Return one of these words; case, spaces and a closing bracket do not matter."""
    words = ", ".join(repr(word) for word in among)
    if value.type != "str":
        raise WrongAnswer(f"{what} is one of {words} (a str); yours is {came(value)}")
    read = value.text.strip().rstrip(").").lower()
    if read not in [word.lower() for word in among]:
        raise WrongAnswer(f"{what} is one of {words}; yours is {value.text!r}")
    return next(word for word in among if word.lower() == read)


def parts(value: Recorded, *, count: int, what: str = "the answer") -> tuple[Recorded, ...]:
    """Return the entries of a tuple or list of this length."""
    if value.items is None or value.type not in ("tuple", "list"):
        raise WrongAnswer(f"{what} is a tuple of {count}; yours is {came(value)}")
    if len(value.items) != count:
        raise WrongAnswer(f"{what} is a tuple of {count}; yours has {len(value.items)} entries")
    return value.items


def true(law: bool, reason: str, **details: object) -> None:
    """Raise with this reason unless the law holds."""
    if not law:
        raise WrongAnswer(reason, "", **details)


def equal(yours: object, wanted: object, *, what: str = "the answer") -> None:
    """Raise unless two plain values are equal."""
    if yours != wanted:
        raise WrongAnswer(
            f"{what} is {_shown(wanted)}; yours is {_shown(yours)}",
            yours=_shown(yours),
            wanted=_shown(wanted),
        )


def close(
    yours: Tensor | float, wanted: Tensor | float, *, tolerance: float = 1e-5, what: str = "the answer"
) -> None:
    """Raise unless numbers, or tensors of one shape, agree to the tolerance (relative above 1)."""
    mine, theirs = (torch.as_tensor(value, dtype=torch.float64) for value in (yours, wanted))
    if theirs.dim() and mine.shape != theirs.shape:
        raise WrongAnswer(f"{what} has the shape {tuple(theirs.shape)}; yours has {tuple(mine.shape)}")
    theirs = theirs.expand_as(mine)
    near = (mine - theirs).abs() <= tolerance * theirs.abs().clamp(min=1.0)  # False for NaN
    apart = ~(near | (mine == theirs))
    if not apart.any():
        return
    where = _first(apart.numpy())
    came, want = f"{float(mine[where]):.6g}", f"{float(theirs[where]):.6g}"
    place = f" at {list(where)}" if where else ""
    raise WrongAnswer(f"{what}{place} is {want}; yours is {came}", where=where, yours=came, wanted=want)


def came(value: Recorded) -> str:
    """Describe a value for a sentence: ``a list``, ``a float (0.5)``, ``a Tensor of shape (3,)``."""
    if value.type == "NoneType":
        return "None (did you forget the return?)"
    if value.array is not None and value.array.size == 1:
        entry = value.array.reshape(-1)[0]
        return f"a {value.type} ({'NaN' if entry != entry else entry})"
    if value.array is not None:
        return f"a {value.type} of shape {value.shape}"
    return f"a {value.type}"


def _first(wrong: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
