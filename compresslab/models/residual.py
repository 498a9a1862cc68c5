"""Residual networks and the multilayer perceptron that the labs compress, with random weights.

``baseline`` is a residual network (He et al. 2015, arXiv:1512.03385) for 28 × 28 grey images: a stem, seven
blocks at four resolutions, global average pooling and one linear layer. ``student`` has the same structure
with two narrow blocks, ``teacher`` has more and wider blocks. Every activation is a separate module, so that
a hook can read each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["Mirrored", "ResidualBlock", "ResidualNetwork", "baseline", "mlp", "student", "teacher"]


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, and a shortcut: (n, in, h, w) → (n, out, h/stride, w/stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(branch)) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """Grey images (n, 1, 28, 28) → logits (n, 10).

    Args:
        stem_channels: channels after the first convolution.
        blocks: (channels, stride) of each residual block.
    """

    def __init__(self, stem_channels: int, blocks: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem_channels, 3, padding=1, bias=False), nn.BatchNorm2d(stem_channels), nn.ReLU()
        )
        widths = [stem_channels, *(channels for channels, _ in blocks)]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(before, after, stride=stride)
                for before, (after, stride) in zip(widths, blocks, strict=False)
            )
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.blocks(self.stem(x))))


class Mirrored(nn.Module):
    """Test-time augmentation: the mean of a network's logits for an image and for its mirror image.

    It doubles the MACs, which is acceptable for a network that runs once and whose logits are stored. The
    mirror image runs first, so hooks last see the layers' outputs for the image itself.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        mirrored = self.network(x.flip(-1))
        return (mirrored + self.network(x)) / 2


def baseline() -> ResidualNetwork:
    """The untrained network that the labs compress: seven residual blocks, 16 to 112 channels."""
    return ResidualNetwork(16, [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (112, 2), (112, 1)])


def teacher() -> Mirrored:
    """The untrained teacher for distillation: nine residual blocks, 16 to 192 channels, mirrored inputs."""
    blocks = [(16, 1), (32, 2), (32, 1), (32, 1), (96, 2), (96, 1), (96, 1), (192, 2), (192, 1)]
    return Mirrored(ResidualNetwork(16, blocks))


def student() -> ResidualNetwork:
    """The untrained small network: two residual blocks, for distillation and for quick experiments."""
    return ResidualNetwork(8, [(16, 2), (32, 2)])


def mlp() -> nn.Sequential:
    """The untrained multilayer perceptron, 784 → 1024 → 1024 → 1024 → 10: large linear layers only."""
    widths = [28 * 28, 1024, 1024, 1024]
    hidden = [(nn.Linear(before, after), nn.ReLU()) for before, after in itertools.pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *itertools.chain(*hidden), nn.Linear(widths[-1], 10))
