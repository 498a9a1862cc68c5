"""A folded network gives the same outputs with fewer operations, and the given one is left alone."""

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compresslab.errors import CompressionError
from compresslab.models.residual import baseline, student
from compresslab.techniques.quantization.batch_norm_folding import fold_batch_norm, folded_weights
from compresslab.techniques.quantization.weight_only import quantize_weights


def lively(model, seed=0):
    """The model with random statistics in its norms: fresh ones (mean 0, variance 1) would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor, low in (
            (norm.running_mean, -1),
            (norm.running_var, 0.1),
            (norm.weight, -1),
            (norm.bias, -1),
        ):
            if tensor is not None:
                tensor.data.uniform_(low, 2, generator=generator)
    return model.eval()


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def close(a, b):
    return torch.allclose(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("make", [baseline, student])
def test_a_residual_network_answers_as_before_and_has_no_norm_left(make):
    torch.manual_seed(0)
    model, x = lively(make()), torch.randn(2, 1, 28, 28)
    folded = fold_batch_norm(model)
    with torch.no_grad():
        assert close(folded(x), model(x))
    assert norms(model)
    assert not norms(folded)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_one_pair_is_folded_as_torch_itself_would(bias, affine):
    torch.manual_seed(0)
    pair = lively(
        nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=bias), nn.BatchNorm2d(6, affine=affine, eps=0.1))
    )
    expected = fuse_conv_bn_eval(*pair)
    folded = fold_batch_norm(pair)[0]
    assert close(folded.weight, expected.weight)
    assert close(folded.bias, expected.bias)


def test_the_formula_holds_channel_by_channel():
    torch.manual_seed(0)
    w, b = torch.randn(3, 2, 1, 1), torch.randn(3)
    norm = {
        "mean": torch.randn(3),
        "variance": torch.rand(3),
        "gamma": torch.randn(3),
        "beta": torch.randn(3),
    }
    folded_w, folded_b = folded_weights(w, b, **norm, epsilon=0.5)
    x = torch.randn(2)
    for c in range(3):  # a 1 × 1 convolution of one pixel, by hand
        convolved = sum(w[c, i, 0, 0] * x[i] for i in range(2)) + b[c]
        wanted = (
            norm["gamma"][c] * (convolved - norm["mean"][c]) / (norm["variance"][c] + 0.5) ** 0.5
            + norm["beta"][c]
        )
        got = sum(folded_w[c, i, 0, 0] * x[i] for i in range(2)) + folded_b[c]
        assert got.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_the_given_model_is_left_alone_and_its_names_stay():
    model = lively(student()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in folded.modules())
    assert type(folded) is type(model)
    assert [name for name, _ in folded.named_modules()] == [name for name, _ in model.named_modules()]


def test_folding_twice_changes_nothing():
    folded = fold_batch_norm(lively(student()))
    again = fold_batch_norm(folded)
    assert all(torch.equal(a, b) for a, b in zip(folded.parameters(), again.parameters(), strict=True))


def test_of_a_compressed_convolution_the_weight_it_really_multiplies_with_is_folded():
    torch.manual_seed(0)
    rough, x = quantize_weights(lively(student()), bits=2), torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert close(fold_batch_norm(rough)(x), rough(x))


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x):
        y = self.convolution(x)
        return self.norm(y) + y


class UsedTwice(ReadTwice):
    def forward(self, x):
        return self.norm(self.convolution(x)) + self.convolution(x)


@pytest.mark.parametrize(
    "model",
    [
        ReadTwice(),
        UsedTwice(),
        nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)),  # the norm comes first
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2)),  # something between them
    ],
)
def test_a_norm_that_is_no_part_of_one_convolution_stays(model):
    torch.manual_seed(0)
    lively(model)
    folded, x = fold_batch_norm(model), torch.randn(2, 1, 5, 5)
    assert len(norms(folded)) == 1
    assert torch.equal(folded(x), model(x))


def test_a_norm_without_running_statistics_stays():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    assert len(norms(fold_batch_norm(model))) == 1


def test_a_forward_that_can_not_be_followed_is_refused():
    class Deciding(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(CompressionError, match=r"^Deciding can't be traced \("):
        fold_batch_norm(Deciding())
