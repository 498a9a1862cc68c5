"""An attention map: where in the image a layer is busy, whatever its channels say.

Source: Zagoruyko and Komodakis 2016, "Paying more attention to attention", arXiv:1612.03928.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compresslab.checks import expect
from compresslab.checks.exercise import Case, Exercise, Hint, Record, mistake

__all__ = ["EXERCISE"]


def cases(rng: torch.Generator) -> Iterator[Case]:
    def features(*shape: int) -> dict[str, Any]:
        return {"features": torch.randn(shape, generator=rng)}

    def size() -> int:
        return int(torch.randint(2, 6, (), generator=rng))

    yield "three images, any sizes", features(3, size(), size(), size())
    yield "one image", features(1, 4, 2, 3)
    yield (
        "images of one batch, faint and bright",
        {"features": features(3, 2, 3, 3)["features"] * torch.tensor([0.01, 1.0, 100.0]).view(-1, 1, 1, 1)},
    )
    silent = features(3, 2, 2, 2)["features"]
    silent[1] = 0.0
    yield "an image where the layer is silent", {"features": silent}
    yield "one channel", features(2, 1, 3, 2)
    yield "one place", features(2, 3, 1, 1)
    yield "channels last in memory", {"features": features(2, 3, 2, 4)["features"].permute(0, 3, 1, 2)}
    yield "float64", {"features": features(2, 3, 2, 3)["features"].double()}


def probe(case: dict[str, Any], attention_map: Callable[..., Any]) -> dict[str, Any]:
    return {"map": attention_map(case["features"])}


def judge(case: dict[str, Any], record: Record) -> None:
    """One row after the other in numpy, in float64."""
    images, _, height, width = case["features"].shape
    rows = expect.tensor(record["map"], shape=(images, height * width), what="the map (image, place)")
    energy = np.einsum("nchw,nchw->nhw", *[case["features"].double().numpy()] * 2)
    lengths = np.array([np.linalg.norm(image) for image in energy])
    wanted = [image.ravel() / (length or 1.0) for image, length in zip(energy, lengths, strict=True)]
    expect.close(rows, torch.from_numpy(np.stack(wanted)), what="the map (image, place)")


def by_normalize(features: Tensor) -> Tensor:
    energy = features.square().sum(dim=1)  # (n, h, w)
    return F.normalize(energy.flatten(1), dim=1)


def by_division(features: Tensor) -> Tensor:
    rows = (features**2).sum(dim=1).flatten(start_dim=1)  # (n, h · w)
    lengths = rows.norm(dim=1, keepdim=True)  # (n, 1)
    return rows / torch.where(lengths > 0, lengths, 1.0)


def by_loop(features: Tensor) -> Tensor:
    rows = []
    for image in features:
        row = torch.stack([channel.reshape(-1) ** 2 for channel in image]).mean(dim=0)  # a factor c cancels
        length = (row * row).sum().sqrt()
        rows.append(row / length if length > 0 else row)
    return torch.stack(rows)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.flatten(1), dim=1)


@mistake(
    "adds the raw values",
    says="at {where} the map is {wanted} and yours is {yours}: you add the channels without a square, so a "
    "strong -3 in one channel cancels a strong 3 in another; both are attention",
)
def raw_values(features):
    return _unit(features.sum(dim=1))


@mistake(
    "takes absolute values for squares",
    says="at {where} the map is {wanted} and yours is {yours}: you add |values|; square them, which lets the "
    "strong places stand out",
)
def absolute_values(features):
    return _unit(features.abs().sum(dim=1))


@mistake(
    "takes the root of the sum",
    says="at {where} the map is {wanted} and yours is {yours}, the length of each place's channels: the sum "
    "of squares stays as it is, the only root is in the norm of the whole row",
)
def rooted(features):
    return _unit(features.norm(dim=1))


@mistake(
    "takes the largest channel",
    says="at {where} the map is {wanted} and yours is {yours}: you keep the largest square of all channels; "
    "the map adds them, so that many busy channels count for more than one",
)
def largest_channel(features):
    return _unit(features.square().amax(dim=1))


@mistake(
    "sums over the places",
    says="your rows have an entry for each channel: you added up height and width; the map forgets the "
    "channels and keeps the places, so sum over dim=1",
)
def over_places(features):
    return _unit(features.square().sum(dim=(2, 3)))


@mistake(
    "keeps the map in two dimensions",
    says="your map is (n, h, w): its values may be right, but each image's places stand in one row, (n, h · "
    "w), so that maps can be compared like vectors; flatten(1) does it",
)
def two_dimensions(features):
    energy = features.square().sum(dim=1)
    return energy / energy.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1)


@mistake(
    "does not normalise",
    says="at {where} the map is {wanted} and yours is {yours}: your rows have any length, and a teacher "
    "with large activations would outweigh everything; divide each row by its norm",
)
def not_normalised(features):
    return features.square().sum(dim=1).flatten(1)


@mistake(
    "normalises over the batch",
    says="at {where} the map is {wanted} and yours is {yours}: you divide each place by its norm over the "
    "images, dim=0, so an image's map hangs on its neighbours; the norm runs along a row, dim=1",
)
def over_the_batch(features):
    return F.normalize(features.square().sum(dim=1).flatten(1), dim=0)


@mistake(
    "divides all rows by one norm",
    says="at {where} the map is {wanted} and yours is {yours}: norm() without a dim is one number for the "
    "whole batch; every row has its own: norm(dim=1, keepdim=True)",
)
def one_norm(features):
    rows = features.square().sum(dim=1).flatten(1)
    return rows / rows.norm().clamp(min=1e-12)


@mistake(
    "divides by the sum",
    says="at {where} the map is {wanted} and yours is {yours}: your row adds up to 1; wanted is length 1, "
    "so divide by the root of the sum of the squared entries",
)
def by_the_sum(features):
    return F.normalize(features.square().sum(dim=1).flatten(1), p=1, dim=1)


@mistake(
    "divides by the maximum",
    says="at {where} the map is {wanted} and yours is {yours}: your row's largest entry is 1; wanted is "
    "length 1, so divide by the norm of the row",
)
def by_the_maximum(features):
    return F.normalize(features.square().sum(dim=1).flatten(1), p=float("inf"), dim=1)


@mistake(
    "divides zero by zero",
    says="where the layer is silent the row and its norm are 0, and 0/0 is NaN, which spoils every loss that "
    "meets it: such a row stays zero",
)
def zero_by_zero(features):
    rows = features.square().sum(dim=1).flatten(1)
    return rows / rows.norm(dim=1, keepdim=True)


EXERCISE = Exercise(
    name="attention_map",
    points=2,
    minutes=8,
    difficulty=2,
    statement="attention_map(features) says for each place how busy the layer is there, in rows of length 1.",
    cases=cases,
    probe=probe,
    judge=judge,
    right=(by_division, by_normalize, by_loop),
    mistakes=(
        raw_values,
        absolute_values,
        rooted,
        largest_channel,
        over_places,
        two_dimensions,
        not_normalised,
        over_the_batch,
        one_norm,
        by_the_sum,
        by_the_maximum,
        zero_by_zero,
    ),
    hints=(
        Hint(
            "I do not know which axis to sum over",
            "Teacher and student have different channels and look at the same places. So the channels must "
            "go: which axis of (n, c, h, w) are they?",
        ),
        Hint(
            "the shape is right and the values are not",
            "energy = the sum over c of features², (n, h, w); row = energy.flatten(1), (n, h · w); each row "
            "is divided by its own norm, sqrt(Σ row²), kept as (n, 1) so that it lines up.",
        ),
        Hint(
            "right for most images, NaN where the layer is silent",
            "lengths = rows.norm(dim=1, keepdim=True); return rows / lengths.clamp(min=____)   # something "
            "tiny",
        ),
    ),
)
