"""What goes into a layer is what its weight multiplies: the layer's own outputs are the oracle."""

import re

import pytest
import torch
from torch import nn

from compresslab.analysis.layer_inputs import (
    check_gram,
    damped,
    gram_matrices,
    input_means,
    input_rows,
    mean_over_inputs,
    output_error,
)
from compresslab.errors import CompressionError
from compresslab.models.surgery import weight_layers


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(27, 4)
        )


def images(count=6):
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def refuses(says):
    return pytest.raises(CompressionError, match=f"^{re.escape(says)}$")


# rows

every_convolution = pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3},
        {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
        {"kernel_size": (2, 3), "dilation": (2, 1), "padding": "same", "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": (2, 1), "padding_mode": "circular"},
        {"kernel_size": 3, "padding": "valid", "stride": 3, "bias": False},
    ],
)


@every_convolution
def test_rows_times_weights_are_the_outputs_of_a_convolution(settings):
    layer, x = nn.Conv2d(2, 3, **settings).double(), numbers(4, 2, 9, 8)
    rows = input_rows(layer, x)
    y = rows @ layer.weight.flatten(1).T + (0 if layer.bias is None else layer.bias)
    torch.testing.assert_close(y, layer(x).flatten(2).mT)


def test_a_linear_layers_rows_are_its_tokens():
    layer, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    assert torch.equal(input_rows(layer, x), x)
    assert input_rows(layer, x[:, 0]).shape == (2, 1, 4)
    assert input_rows(layer, x[None]).shape == (1, 10, 4)


# means and Gram matrices


@every_convolution
def test_mean_inputs_give_the_mean_outputs_and_gram_matrices_their_mean_squares(settings):
    layer, x = nn.Conv2d(2, 3, **settings).double(), numbers(4, 2, 9, 8) + 1
    w, bias = layer.weight.detach().flatten(1), 0 if layer.bias is None else layer.bias[:, None, None]
    y = (layer(x) - bias).detach().transpose(0, 1).flatten(1)  # (out, images · positions)
    mean, gram = (of(layer, [(x, None)])[""] for of in (input_means, gram_matrices))
    torch.testing.assert_close(w @ mean, y.mean(dim=1))
    torch.testing.assert_close(w @ gram @ w.T, y @ y.T / y.shape[1])


@pytest.mark.parametrize("of", [input_means, gram_matrices])
def test_many_images_in_many_batches_give_what_all_give_at_once(of):
    model, x = network().double(), images(120).double()  # more than are unfolded at once
    together, apart = of(model, [(x, None)]), of(model, [(part, None) for part in x.split(7)])
    assert list(together) == list(apart) == ["0", "3"]
    for name in together:
        torch.testing.assert_close(together[name], apart[name])
        assert of(network(), [(images(), None)])[name].dtype == torch.float64


def test_a_mean_weighs_every_row_alike():
    """Three images in one batch and one in the next: each counts a quarter."""
    x = torch.arange(4.0)[:, None]
    found = mean_over_inputs(
        nn.Linear(1, 1), [(x[:3], None), (x[3:], None)], lambda layer, x: (x.sum(), len(x))
    )
    assert found == {"": torch.tensor(1.5)}


def test_the_model_runs_in_evaluation_mode_and_is_left_as_it_was():
    model = network().train()
    once, again = (gram_matrices(model, [(images(), None)])["3"] for _ in range(2))
    assert torch.equal(once, again)  # no chance in it: dropout is off
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


# the error of the outputs


def test_the_output_error_is_told_beforehand_by_the_gram_matrix():
    """With V for W and no word on the bias, E ‖W x - V x‖² is what the layer's outputs then show."""
    model, x = network().double().eval(), images().double()
    grams = gram_matrices(model, [(x, None)])
    for name, layer in weight_layers(model).items():
        before, seen = layer.weight.detach().clone(), []
        layer.register_forward_hook(lambda _, given, y, seen=seen: seen.append(given[0]))
        model(x)
        wanted = layer(seen[0])
        layer.weight.data += torch.randn_like(before)
        missed = (layer(seen[0]) - wanted).square().sum(1).mean()  # of an image, at a position
        error = output_error(before.flatten(1), layer.weight.flatten(1), grams[name])
        torch.testing.assert_close(error, missed.detach())
        assert not error.requires_grad
        layer.weight.data = before


def test_layers_of_a_batch_have_each_its_own_error_and_rows_may_be_layers():
    x, w, v = numbers(50, 6), numbers(2, 3, 6), numbers(2, 3, 6, seed=1)
    missed = (x @ (v - w).mT).square().mean(dim=1)  # (layers, out)
    gram = x.T @ x / 50
    torch.testing.assert_close(output_error(w, v, gram), missed.sum(dim=1))
    torch.testing.assert_close(output_error(w, v, torch.stack([gram, 4 * gram]))[1], 4 * missed[1].sum())
    torch.testing.assert_close(output_error(w[0, :, None], v[0, :, None], gram), missed[0])
    assert output_error(w.float(), v.float(), gram.float()).dtype == torch.float64
    assert not output_error(w, w, gram).any()


@pytest.mark.parametrize("damping", [0.0, 0.01, 2.0])
def test_damping_adds_its_share_of_the_mean_to_every_eigenvalue(damping):
    x = numbers(40, 3)[:, [0, 1, 2, 2]]  # two inputs are always the same
    gram = x.T @ x / 40
    wanted = torch.linalg.eigvalsh(gram) + damping * gram.trace() / 4
    torch.testing.assert_close(
        torch.linalg.eigvalsh(damped(gram.float(), damping)), wanted, atol=1e-6, rtol=0
    )
    assert torch.linalg.eigvalsh(damped(0 * gram, 1.0)).min() > 0  # where every input is zero, too


# refusals


@pytest.mark.parametrize("shape", [(5, 5), (8,), (1, 8, 8), (8, 5)])
def test_a_gram_matrix_of_another_shape_is_refused(shape):
    says = (
        f"gram must have shape (8, 8) for weights (5, 8), got {shape}; "
        "try gram_matrices(model, batches)[name], w.flatten(1)"
    )
    with refuses(says):
        check_gram(numbers(5, 8), torch.ones(shape))
    with refuses(says):
        output_error(numbers(5, 8), numbers(5, 8), torch.ones(shape))


def test_several_layers_have_one_gram_matrix_or_one_each():
    for shape in ((8, 8), (3, 8, 8)):
        check_gram(numbers(3, 5, 8), torch.ones(shape))
    with refuses(
        "gram must have shape (3, 8, 8) for weights (3, 5, 8), got (2, 8, 8); "
        "try gram_matrices(model, batches)[name], w.flatten(1)"
    ):
        check_gram(numbers(3, 5, 8), torch.ones(2, 8, 8))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 2.0])
def test_what_is_no_gram_matrix_is_refused(wrong):
    gram = torch.eye(8)
    gram[1, 3] = wrong
    with refuses(
        "gram must be finite and symmetric, as E[x xᵀ] is, got a matrix that is not; "
        "try x.T @ x / len(x), with the layer's inputs x (images, n)"
    ):
        check_gram(numbers(5, 8), gram)


def test_what_stands_for_the_weights_has_their_shape():
    with refuses("changed must have the shape (5, 8) of w, got (8, 5); flatten both alike: w.flatten(1)"):
        output_error(numbers(5, 8), numbers(8, 5), torch.eye(8))


def test_no_images_are_refused():
    says = "batches must have at least one image, got none; try train.first(500).batches()"
    for batches in ([], [(images(0), None)]):
        with refuses(says):
            mean_over_inputs(network(), batches, lambda layer, x: (x.sum(), len(x)))
