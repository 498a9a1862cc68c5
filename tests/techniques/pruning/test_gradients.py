"""Evidence is a mean over images: autograd, the true Hessian and plain loops in float64 say which."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compresslab.analysis.layer_inputs import gram_matrices
from compresslab.errors import CompressionError
from compresslab.techniques.pruning.criteria import optimal_brain_damage
from compresslab.techniques.pruning.gradients import input_norms, mean_gradients, squared_gradients
from compresslab.techniques.quantization import quantize_weights

every_evidence = pytest.mark.parametrize(
    "evidence", [mean_gradients, squared_gradients, input_norms, gram_matrices]
)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 2, (3, 1), padding="same", padding_mode="reflect", dilation=(1, 1), bias=False),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(18, 4),
        ).double()
        nn.init.uniform_(model[1].running_mean)
    return model


def images(count=23, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 5, 5, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (count,), generator=generator)


def batches(size=23):
    x, y = images()
    return zip(x.split(size), y.split(size), strict=True)


def weights(model):
    return {name.removesuffix(".weight"): w for name, w in model.named_parameters() if w.dim() > 1}


def test_mean_gradients_are_those_of_the_loss_over_all_images():
    model = network().eval()
    x, y = images()
    F.cross_entropy(model(x), y).backward()
    found = mean_gradients(network(), batches())
    assert found.keys() == weights(model).keys()
    for name, w in weights(model).items():
        torch.testing.assert_close(found[name], w.grad)


def test_squared_gradients_are_squared_image_by_image():
    model = network().eval()
    squares = {name: torch.zeros_like(w) for name, w in weights(model).items()}
    for x, y in zip(*images(), strict=True):
        slopes = torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), list(weights(model).values()))
        for total, slope in zip(squares.values(), slopes, strict=True):
            total += slope.square() / 23
    found = squared_gradients(network(), batches())
    for name, square in squares.items():
        torch.testing.assert_close(found[name], square)


def test_squared_gradients_are_the_hessian_where_labels_are_as_frequent_as_the_network_believes():
    """Two images with believed shares 3/4 and 7/8, each given eight times with labels in these shares."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False)).double()
    model[0].weight.data = torch.tensor([[0.5, -0.3], [0.2, 0.8]], dtype=torch.float64)
    x, wanted = torch.eye(2, dtype=torch.float64), torch.tensor([math.log(3), math.log(7)])
    hidden = model[1](model[0](x)).detach()
    model[2].weight.data = torch.stack([torch.linalg.solve(hidden, wanted.double()), torch.zeros(2)])
    images = x.repeat_interleave(8, dim=0)
    labels = torch.tensor([0] * 6 + [1] * 2 + [0] * 7 + [1])
    found = squared_gradients(model, [(images, labels)])
    for name in ("0", "2"):

        def loss(w, name=name):
            logits = torch.func.functional_call(model, {f"{name}.weight": w}, (images,))
            return F.cross_entropy(logits, labels)

        w = model.get_submodule(name).weight.detach()
        hessian = torch.autograd.functional.hessian(loss, w).reshape(4, 4)
        torch.testing.assert_close(found[name].flatten(), hessian.diagonal())


def test_with_squared_gradients_brain_damage_is_half_the_taylor_score_image_by_image():
    model = network().eval()
    w = model[6].weight
    slopes = [
        torch.autograd.grad(F.cross_entropy(model(x[None]), y[None]), w)[0]
        for x, y in zip(*images(), strict=True)
    ]
    by_image = torch.stack([(w * slope).square() for slope in slopes]).mean(dim=0)
    scores = optimal_brain_damage(w, squared_gradients(model, batches())["6"])
    torch.testing.assert_close(scores, by_image.detach() / 2)


def seen_by(model, name):
    """What goes into each output of a layer, one a row: by cutting every patch out of the padded input."""
    given = []
    layer = model.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model.eval()(images()[0])
    hook.remove()
    x = given[0].detach()
    if name == "6":
        return x
    if name == "0":
        x, (height, width, step) = F.pad(x, (1, 1, 1, 1)), (3, 3, 2)
    else:
        x, (height, width, step) = F.pad(x, (0, 0, 1, 1), mode="reflect"), (3, 1, 1)
    return torch.stack(
        [
            image[:, i : i + height, j : j + width].flatten()
            for image in x
            for i in range(0, x.shape[2] - height + 1, step)
            for j in range(0, x.shape[3] - width + 1, step)
        ]
    )


@pytest.mark.parametrize("name", ["0", "3", "6"])
def test_norms_and_second_moments_are_those_of_every_patch(name):
    rows = seen_by(network(), name)
    norms, gram = input_norms(network(), batches())[name], gram_matrices(network(), batches())[name]
    assert norms.shape == weights(network())[name].shape[1:]
    torch.testing.assert_close(norms.flatten(), rows.square().mean(dim=0).sqrt())
    torch.testing.assert_close(gram, rows.T @ rows / len(rows))
    torch.testing.assert_close(norms.flatten().square(), gram.diagonal())


def test_a_linear_layer_on_tokens_sees_each_token():
    model, x = nn.Linear(3, 2).double(), torch.randn(60, 5, 3).double()
    rows = x.reshape(300, 3)
    torch.testing.assert_close(input_norms(model, [(x, None)])[""], rows.square().mean(dim=0).sqrt())
    gram = gram_matrices(model, [(x, None)])[""]
    torch.testing.assert_close(gram, rows.T @ rows / 300)


class Pooled(nn.Module):
    """A layer that runs twice on tokens, and one that doesn't run."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.twice(self.twice(x).tanh()).mean(dim=1)


def test_a_layer_that_runs_twice_has_the_gradient_of_both_runs():
    model, x, y = Pooled().double(), torch.randn(6, 4, 3).double(), torch.arange(6) % 3
    slopes = [
        torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), model.twice.weight)[0]
        for a, b in zip(x, y, strict=True)
    ]
    found = squared_gradients(model, [(x, y)])
    torch.testing.assert_close(found["twice"], torch.stack(slopes).square().mean(dim=0))
    assert "never" not in found


@every_evidence
def test_how_the_images_are_cut_into_batches_changes_nothing(evidence):
    for whole, cut in zip(
        evidence(network(), batches()).values(), evidence(network(), batches(size=4)).values(), strict=True
    ):
        torch.testing.assert_close(whole, cut)


@every_evidence
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_alone(evidence, training):
    model = network().train(training)
    model[3].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():  # what the caller has switched off doesn't matter
        evidence(model, batches())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training == model[1].training == training
    assert all(p.grad is None for p in model.parameters())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["3.weight"]
    assert not any(module._forward_hooks for module in model.modules())


@every_evidence
def test_no_images_are_refused(evidence):
    text = r"batches must have at least one image, got none; try train\.first\(500\)\.batches\(\)"
    with pytest.raises(CompressionError, match=f"^{text}$"):
        evidence(network(), [])


@every_evidence
def test_a_convolution_in_groups_is_refused(evidence):
    text = (
        "model must have convolutions of one group here, got 2 groups in '0'; "
        "use a method that needs no layer inputs"
    )
    with pytest.raises(CompressionError, match=f"^{text}$"):
        evidence(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), batches())


@every_evidence
def test_a_model_without_layers_is_refused(evidence):
    with pytest.raises(CompressionError, match="Conv2d or Linear layer, got ReLU without any"):
        evidence(nn.ReLU(), batches())


@pytest.mark.parametrize(
    "model", [Pooled(), quantize_weights(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), bits=4)]
)
def test_a_weight_without_a_part_in_the_loss_is_refused_instead_of_called_unimportant(model):
    text = ".* must have a gradient, got none: its layer never ran, or its output was rounded; "
    with pytest.raises(CompressionError, match=f"^{text}score the network before it is quantized$"):
        mean_gradients(model, [(torch.randn(2, 4, 3), torch.tensor([0, 1]))])
