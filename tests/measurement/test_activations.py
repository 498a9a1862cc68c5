"""The peak of activation memory follows its law, however the modules are nested."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from compresslab.measurement.activations import peak_activation_bytes


class Residual(nn.Module):
    """Adds the input to what the layers make of it."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


@pytest.mark.parametrize("widths", [(10, 20), (10, 20, 30, 5), (50, 3, 3, 40, 1), (1, 1)])
def test_a_chain_of_linear_layers_peaks_at_the_largest_in_plus_out(widths):
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
    peak = max(a + b for a, b in pairwise(widths))
    assert peak_activation_bytes(model, torch.randn(6, widths[0])) == 4 * peak
    assert peak_activation_bytes(model.double(), torch.randn(6, widths[0]).double()) == 8 * peak
    nested = nn.Sequential(nn.Sequential(model[0]), nn.Sequential(*model[1:]))
    assert peak_activation_bytes(nested, torch.randn(6, widths[0]).double()) == 8 * peak


def test_a_shortcut_keeps_its_activation_alive():
    grow, shrink = nn.Linear(4, 32, bias=False), nn.Linear(32, 4, bias=False)
    assert peak_activation_bytes(nn.Sequential(grow, shrink), torch.randn(1, 4)) == 4 * (4 + 32)
    assert peak_activation_bytes(Residual(grow, shrink), torch.randn(1, 4)) == 4 * (4 + 32 + 4)


def test_what_the_model_returns_is_alive_to_the_end():
    class Early(nn.Linear):
        def forward(self, x):
            result = super().forward(x)
            x.relu()  # work whose outcome nobody wants
            return result

    assert peak_activation_bytes(Early(4, 6), torch.randn(1, 4)) == 4 * (4 + 6 + 4)


def test_an_activation_in_place_needs_no_second_copy_and_a_view_none_either():
    x = torch.randn(1, 8)
    assert peak_activation_bytes(nn.ReLU(), x) == 2 * 32
    assert peak_activation_bytes(nn.ReLU(inplace=True), x) == 32
    assert peak_activation_bytes(nn.Unflatten(1, (2, 4)), x) == 32
    assert peak_activation_bytes(nn.Identity(), x) == 32
    assert x.min() < 0  # the caller's own tensor was not written to


def test_the_input_may_be_a_slice_of_a_large_batch():
    assert peak_activation_bytes(nn.Linear(3, 2), torch.randn(1000, 3)[5:9]) == 4 * (3 + 2)
