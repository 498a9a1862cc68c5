"""Mixed precision: each layer has its own bits, and the file says how many bytes they take."""

import pytest
import torch
from torch import nn

from compresslab.errors import CompressionError
from compresslab.models.residual import student
from compresslab.storage import save_model
from compresslab.techniques.quantization.mixed_precision import (
    allocate_bits,
    layer_bytes,
    quantize_mixed,
    sensitivity,
)
from compresslab.techniques.quantization.weight_only import quantize_weights


def test_the_bits_are_those_of_the_exact_allocation_in_the_order_of_the_layers():
    """Where buying by the best price alone would take the other layer first, and then lack the bytes."""
    errors, sizes = torch.tensor([[60.0, 59.0, 9.0], [8.0, 3.0, 1.0]]), torch.tensor([[10, 20, 30]] * 2)
    assert torch.equal(allocate_bits(errors, sizes, 40), torch.tensor([2, 0]))
    assert torch.equal(allocate_bits(errors.flip(0), sizes, 40), torch.tensor([0, 2]))


def test_the_bytes_of_the_layers_are_those_of_the_file(tmp_path):
    model = student()
    bits = dict(zip(("stem.0", "blocks.0.conv1", "head"), (2, 3, 8), strict=True))
    ledger = save_model(quantize_mixed(model, bits=bits), tmp_path / "mixed")
    for name, width in bits.items():
        assert ledger.of_module(name) == layer_bytes(model.get_submodule(name), bits=width)


def test_each_named_layer_has_its_own_bits_and_the_others_stay():
    model = student()
    mixed = quantize_mixed(model, bits={"stem.0": 2, "head": 5})
    assert (mixed.stem[0].grid.bits, mixed.head.grid.bits) == (2, 5)
    assert type(mixed.blocks[0].conv1) is nn.Conv2d
    assert len(mixed.stem[0].weight[0].unique()) <= 3


def test_one_width_for_all_layers_is_uniform_quantization():
    model, x = student().eval(), torch.randn(2, 1, 28, 28)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        mixed = quantize_mixed(model, bits=dict.fromkeys(names, 4))
        assert torch.equal(mixed(x), quantize_weights(model, bits=4)(x))


def test_fewer_bits_move_the_answers_more_and_the_model_is_left_alone():
    torch.manual_seed(0)
    model, x = student().train(), torch.randn(16, 1, 28, 28)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = sensitivity(model, x, choices=(2, 4, 8))
    assert list(found) == [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    summed = torch.tensor(list(found.values())).sum(dim=0)
    assert summed[0] > 10 * summed[1] > 10 * summed[2] > -1e-5
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_only_the_layer_in_question_is_quantized():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Linear(6, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(6, 4))  # on every grid: costs nothing
    found = sensitivity(model, torch.randn(5, 1, 2, 2), choices=(2,))
    assert found["1"] == [pytest.approx(0, abs=1e-6)]
    assert found["2"][0] > 1e-3


def test_bad_names_bits_and_no_images_are_refused():
    with pytest.raises(
        CompressionError, match=r"bits must name layers of the model \(stem.0, .*\), got 'tail'"
    ):
        quantize_mixed(student(), bits={"tail": 4})
    with pytest.raises(CompressionError, match="bits must be a whole number from 2 to 8, got 16"):
        quantize_mixed(student(), bits={"head": 16})
    with pytest.raises(CompressionError, match=r"at least one image, got none; try validation\.first"):
        sensitivity(student(), torch.zeros(0, 1, 28, 28), choices=(4,))
