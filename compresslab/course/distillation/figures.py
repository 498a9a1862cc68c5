"""Figures of lab 02: a teacher's knowledge as soft targets, as attention maps and as relations.

Plain functions from tensors to a figure, and a widget for the settings of the first. The student's gains are
drawn by ``course.figures.gains``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from compresslab.course.figures.sliders import explore
from compresslab.data.fashion_mnist import CLASSES
from compresslab.errors import BadSetting
from compresslab.measurement.tables import new_figure
from compresslab.techniques.distillation.feature import unit_length
from compresslab.techniques.distillation.response import soften

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "draw_attention",
    "draw_relations",
    "draw_soft_targets",
    "draw_soft_targets_at",
    "explore_soft_targets",
]

TINT = (0.45, 0.68, 0.85)  # of a bar


def draw_soft_targets(image: Tensor, logits: Tensor, *, temperature: float = 4.0) -> Figure:
    """Draw an image and a network's probabilities for it at a temperature; outlined: at T = 1.

    Args:
        image: (1, 28, 28), of any range.
        logits: (10,), the network's for this image.
        temperature: above 0.
    """
    return draw_soft_targets_at(image, logits, temperatures=(temperature,))


def draw_soft_targets_at(
    image: Tensor, logits: Tensor, *, temperatures: Sequence[float] = (1, 4, 16)
) -> Figure:
    """``draw_soft_targets`` at several temperatures, side by side.

    Raises:
        BadSetting: there is not one logit per class, or a temperature is not above 0.
    """
    if logits.shape != (len(CLASSES),):
        raise BadSetting(
            f"logits are one image's, of shape ({len(CLASSES)},), got {tuple(logits.shape)}; "
            "take one row of a batch, as in logits[0]"
        )
    wide = len(temperatures) == 1
    figure = new_figure(7 if wide else 3.1 + 2.3 * len(temperatures), 2.9)
    left, *panels = figure.subplots(
        1, 1 + len(temperatures), width_ratios=[1, *[1.9 if wide else 1] * len(temperatures)]
    )
    _show(left, image, title=f"the network says\n{CLASSES[int(logits.argmax())]}")
    for index, (axes, temperature) in enumerate(zip(panels, temperatures, strict=True)):
        _draw_probabilities(axes, logits, temperature)
        axes.set_yticks(range(len(CLASSES)), CLASSES if index == 0 else [""] * len(CLASSES), fontsize=8)
        axes.invert_yaxis()
    return figure


def _draw_probabilities(axes: Axes, logits: Tensor, temperature: float) -> None:
    """Draw bars of softmax(z / T) with their values and, as outlines behind them, softmax(z)."""
    shares, plain = (soften(logits.detach(), temperature=t).tolist() for t in (temperature, 1.0))
    axes.barh(range(len(shares)), shares, 0.8, color=TINT, edgecolor="black", linewidth=0.5)
    axes.barh(range(len(plain)), plain, 0.8, fill=False, edgecolor="black", linestyle="--", linewidth=1)
    for row, (share, sharp) in enumerate(zip(shares, plain, strict=True)):
        axes.annotate(f" {share:.3f}", (max(share, sharp), row), va="center", fontsize=7)
    axes.set(xlim=(0, 1.22), xticks=(0, 0.5, 1), xlabel="probability")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"T = {temperature:g}" + ("" if temperature == 1 else "   (dashed: T = 1)"), fontsize=10)


def explore_soft_targets(images: Tensor, logits: Tensor) -> ipywidgets.VBox:
    """``draw_soft_targets`` under two sliders: the image, and the temperature from 1 to 20.

    Args:
        images: (n, 1, 28, 28).
        logits: (n, 10), the network's for these images.

    Raises:
        BadSetting: there is not one row of logits per image.
    """
    import ipywidgets

    if len(images) != len(logits) or len(images) == 0:
        raise BadSetting(
            f"each image has its row of logits, got {len(images)} images and {len(logits)} rows; "
            "give the logits of these images, in their order"
        )
    return explore(
        lambda image, temperature: draw_soft_targets(images[image], logits[image], temperature=temperature),
        image=ipywidgets.IntSlider(
            value=0, min=0, max=len(images) - 1, description="image", continuous_update=False
        ),
        temperature=ipywidgets.FloatSlider(
            value=4, min=1, max=20, step=0.5, description="temperature", continuous_update=False
        ),
    )


def draw_attention(image: Tensor, maps: Mapping[str, Tensor]) -> Figure:
    """Draw an image and each network's attention map, enlarged, with the image's outline on it.

    Maps of different sizes share one scale, on which a uniform map is 1 everywhere.

    Args:
        image: (1, 28, 28), of any range.
        maps: network → attention map (side · side,), row by row; its norm does not matter.

    Raises:
        BadSetting: a map is not square.
    """
    squares = {name: _square(name, map) for name, map in maps.items()}
    top = max(float(square.max()) for square in squares.values())
    figure = new_figure(1.2 + 2.1 * (1 + len(maps)), 2.5)
    left, *panels = figure.subplots(1, 1 + len(maps))
    _show(left, image, title="image")
    size, pixels = image.shape[-1], image[0].float()
    outline = float(0.8 * pixels.min() + 0.2 * pixels.max())
    for axes, (name, square) in zip(panels, squares.items(), strict=True):
        shown = axes.imshow(
            square.numpy(), cmap="viridis", vmin=0, vmax=top, extent=(-0.5, size - 0.5, size - 0.5, -0.5)
        )
        axes.contour(pixels.numpy(), levels=[outline], colors="white", linewidths=1.2)
        axes.set_title(f"{name} ({len(square)} × {len(square)})", fontsize=10)
        axes.axis("off")
    figure.colorbar(shown, ax=panels, label="attention\n(1: spread evenly)", shrink=0.9)
    return figure


def _square(name: str, map: Tensor) -> Tensor:
    """Return a map (side · side,) as (side, side), scaled so that a uniform map is 1 everywhere."""
    side = math.isqrt(map.numel())
    if map.dim() != 1 or side == 0 or side * side != len(map):
        raise BadSetting(
            f"a map is (side · side,), such as (49,), got {tuple(map.shape)} for {name!r}; "
            "take one row of attention_map(features)"
        )
    return side * unit_length(map.detach().float(), dim=0).view(side, side)


def _show(axes: Axes, image: Tensor, *, title: str) -> None:
    axes.imshow(image[0].numpy(), cmap="gray_r")
    axes.set_title(title, fontsize=10)
    axes.axis("off")


def draw_relations(embeddings: Mapping[str, Tensor], labels: Tensor) -> Figure:
    """Draw each network's cosine similarities between the embeddings of images, sorted by class.

    Args:
        embeddings: network → (n, d) for the same n images; d may differ between networks.
        labels: (n,) integers, indices into ``CLASSES``.

    Raises:
        BadSetting: a network does not have one embedding per label.
    """
    order = labels.argsort(stable=True)
    present, counts = labels.unique(return_counts=True)
    ends = counts.cumsum(0) - 0.5  # lines between pixels
    names, middles = [CLASSES[label] for label in present.tolist()], ends - counts / 2
    similarities = {name: _similarities(name, z, labels)[order][:, order] for name, z in embeddings.items()}
    least = min(float(matrix.min()) for matrix in similarities.values())
    figure = new_figure(1.6 + 2.9 * len(similarities), 3.6)
    panels = figure.subplots(1, len(similarities), squeeze=False)[0]
    for axes, (name, matrix) in zip(panels, similarities.items(), strict=True):
        shown = axes.imshow(matrix.numpy(), cmap="viridis", vmin=least, vmax=1)
        for end in ends[:-1].tolist():
            axes.axhline(end, color="white", linewidth=0.7)
            axes.axvline(end, color="white", linewidth=0.7)
        axes.set_xticks(middles.tolist(), names, rotation=90, fontsize=7)
        axes.set_yticks(middles.tolist(), names if axes is panels[0] else [""] * len(names), fontsize=7)
        axes.tick_params(length=2)
        axes.set_title(name, fontsize=10)
    figure.colorbar(shown, ax=list(panels), label="cosine similarity", shrink=0.8)
    return figure


def _similarities(name: str, embedding: Tensor, labels: Tensor) -> Tensor:
    if embedding.dim() != 2 or len(embedding) != len(labels):
        raise BadSetting(
            f"embeddings are (images, numbers) with a label each, got {tuple(embedding.shape)} for {name!r} "
            f"and {len(labels)} labels; flatten all but the first dimension, and take the same images"
        )
    z = unit_length(embedding.detach().float(), dim=1)
    return z @ z.T
