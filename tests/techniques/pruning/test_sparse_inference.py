"""A layer as a sparse product says what the layer says, whatever its settings."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.techniques.pruning.sparse_inference import as_sparse_product


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2), bias=False),
        nn.Conv2d(3, 5, 1),
    ],
)
def test_it_gives_the_convolutions_outputs(layer):
    with torch.no_grad():
        layer.weight[torch.rand(layer.weight.shape) < 0.7] = 0
    x = torch.randn(2, 3, 8, 9)
    assert torch.allclose(as_sparse_product(layer)(x), layer(x), atol=1e-5)


def test_it_gives_the_linear_layers_outputs_and_keeps_its_weights_when_the_layer_changes():
    layer, x = nn.Linear(6, 4), torch.randn(3, 6)
    product, before = as_sparse_product(layer), layer(x).detach()
    assert torch.allclose(product(x), before, atol=1e-5)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    assert torch.allclose(product(x), before, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.ReLU(),
    ],
)
def test_another_layer_is_an_error(layer):
    with pytest.raises(CompressionError, match=r"a Conv2d without groups .*, got .*; try another layer"):
        as_sparse_product(layer)
