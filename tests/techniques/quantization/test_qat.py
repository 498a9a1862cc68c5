"""Training with the rounding in place: torch's own fake quantization is the oracle."""

import pytest
import torch
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.costs import storage_bytes
from compresslab.models.residual import student
from compresslab.techniques.quantization.affine import (
    channel_range,
    fake_quantize,
    integer_range,
    scale_and_zero_point,
)
from compresslab.techniques.quantization.qat import (
    LearnedGrid,
    convert,
    fake_quantize_straight_through,
    prepare,
    scaled_gradient,
    starting_scale,
)
from compresslab.techniques.quantization.weight_only import QuantizedConv2d, QuantizedLinear, WeightGrid
from compresslab.training.loop import fit

every_width = pytest.mark.parametrize("bits", [2, 3, 4, 8])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


@every_width
@pytest.mark.parametrize("signed", [True, False])
def test_values_and_gradients_are_those_of_torch(bits, signed):
    lowest, highest = integer_range(bits, signed=signed)
    x, upstream = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(500.0)
    scale, zero = (0.25, 0) if signed else (0.5, 1)  # powers of two: x / s and x * (1 / s) are one number
    x = x.round(decimals=3) + 0.0004  # none halfway between two integers
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine = fake_quantize_straight_through(ours, scale, zero, bits=bits, signed=signed)
    reference = torch.fake_quantize_per_tensor_affine(theirs, scale, zero, lowest, highest)
    assert torch.equal(mine, reference)
    mine.backward(upstream)
    reference.backward(upstream)
    assert torch.equal(ours.grad, theirs.grad)
    assert (ours.grad == 0).any() or bits == 8


@pytest.mark.skipif(
    not hasattr(torch, "_fake_quantize_learnable_per_tensor_affine"), reason="a private function of torch"
)
@every_width
def test_the_steps_gradient_is_that_of_torch(bits):
    lowest, highest = integer_range(bits, signed=True)
    x, upstream = torch.randn(300) * 2, torch.randn(300)
    x = x[((x / 0.25) % 1 - 0.5).abs() > 1e-3]
    ours, theirs = (torch.tensor([0.25], requires_grad=True) for _ in range(2))
    mine = fake_quantize_straight_through(x, ours, bits=bits, signed=True)
    reference = torch._fake_quantize_learnable_per_tensor_affine(
        x.requires_grad_(), theirs, torch.zeros(1), lowest, highest, 1.0
    )
    mine.backward(upstream[: len(x)])
    reference.backward(upstream[: len(x)])
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4)


def test_the_gradient_is_one_where_the_number_rounds_into_the_range_and_zero_beyond():
    x = torch.tensor([-9.0, -3.6, -3.4, 0.0, 2.4, 3.4, 3.6, 9.0], requires_grad=True)
    fake_quantize_straight_through(x, 1.0, bits=3, signed=True).sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_learned_step_becomes_the_one_of_least_error():
    w = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    grid = LearnedGrid(torch.tensor([0.1]), bits=3)
    optimizer = torch.optim.SGD(grid.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (grid(w) - w).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(grid.parameters(), 0.1)
        optimizer.step()
    candidates = torch.linspace(0.2, 1.5, 400)
    errors = [(fake_quantize(w, s, 0, bits=3, signed=True) - w).square().sum() for s in candidates]
    best = candidates[torch.stack(errors).argmin()]
    assert grid.scale.item() == pytest.approx(best.item(), rel=0.05)


def test_the_gradient_of_a_step_is_scaled_by_one_over_the_root_of_weights_times_highest():
    w = torch.randn(3, 4, 5)
    grid = LearnedGrid(torch.full((3,), 0.3), bits=3)
    grid(w).sum().backward()
    plain = torch.full((3, 1, 1), 0.3, requires_grad=True)
    fake_quantize_straight_through(w, plain, bits=3, signed=True).sum().backward()
    assert torch.allclose(grid.scale.grad, plain.grad.flatten() / (20 * 3) ** 0.5)


def test_a_scaled_gradient_leaves_the_value_alone():
    x = torch.tensor([0.1, 7.0], requires_grad=True)
    assert torch.equal(scaled_gradient(x, 0.37), x)
    scaled_gradient(x, 0.37).sum().backward()
    assert torch.allclose(x.grad, torch.tensor(0.37).expand(2))


def test_the_starting_step_follows_the_paper_and_a_channel_of_zeros_keeps_zero():
    w = torch.tensor([[1.0, -3.0], [0.0, 0.0]])
    assert torch.allclose(starting_scale(w, bits=3), torch.tensor([4 / 3**0.5, 1.0]))
    assert LearnedGrid(starting_scale(w, bits=3), bits=3)(w)[1].tolist() == [0, 0]


@every_width
def test_converting_changes_no_output_and_leaves_integers_alone(bits):
    model, x = network(), torch.randn(6, 1, 4, 4)
    prepared = prepare(model, bits=bits).eval()
    converted = convert(prepared).eval()
    with torch.no_grad():
        assert torch.allclose(converted(x), prepared(x), atol=1e-6)
    for layer in (converted[0], converted[4]):
        assert isinstance(layer, QuantizedConv2d | QuantizedLinear)
        assert isinstance(layer.grid, WeightGrid)
        q = layer.weight / layer.grid.scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        assert torch.allclose(q, q.round(), atol=1e-5)


def test_until_it_is_converted_a_prepared_model_saves_no_bytes():
    model = student()
    prepared = prepare(model, bits=2)
    assert storage_bytes(prepared) > storage_bytes(model)
    assert storage_bytes(convert(prepared)) < 0.5 * storage_bytes(model)


def test_training_moves_the_floats_beneath_and_brings_the_loss_down():
    torch.manual_seed(0)
    images = Images(torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8), torch.arange(128) % 4)
    images.pixels[:, :, :8] = (images.labels * 80).to(torch.uint8)[:, None, None, None]
    prepared = prepare(student(), bits=2)
    trained = fit(prepared, images, images, epochs=12, learning_rate=0.1, augmented=False)
    assert trained.history[-1].loss < 0.5 * trained.history[0].loss
    name = "blocks.0.conv1"
    before, after = (m.get_submodule(name) for m in (prepared, trained.model))
    assert not torch.equal(before.weight, after.weight)
    assert not torch.equal(before.grid.scale, after.grid.scale)


def test_layers_to_skip_stay_floats():
    prepared = prepare(network(), bits=2, skip=["4"])
    assert type(prepared[4]) is nn.Linear
    assert isinstance(prepared[0].grid, LearnedGrid)
    assert type(convert(prepared)[4]) is nn.Linear


def test_a_prepared_model_begins_with_the_weights_of_the_trained_one():
    model = network()
    assert torch.equal(prepare(model, bits=2)[0].weight, model[0].weight)


def test_a_step_that_training_took_below_zero_still_gives_numbers():
    grid = LearnedGrid(torch.tensor([-0.1]), bits=2)
    assert grid(torch.ones(1, 3)).isfinite().all()


def test_what_was_not_prepared_is_not_converted():
    with pytest.raises(
        CompressionError, match=r"layers that prepare\(\) made, got Sequential without any; prepare"
    ):
        convert(network())
    scale, _ = scale_and_zero_point(*channel_range(network()[0].weight), bits=4, symmetric=True)
    assert scale.shape == (4, 1, 1, 1)


def test_bits_out_of_range_are_refused():
    with pytest.raises(CompressionError, match="bits must be a whole number from 2 to 8, got 1; try 8"):
        prepare(network(), bits=1)
