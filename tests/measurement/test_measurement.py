"""measure() tells what is there: accuracy by hand, each cost from its own function, honest intervals."""

import pytest
import torch
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.measurement.activations import peak_activation_bytes
from compresslab.measurement.costs import count_macs, count_parameters, storage_bytes
from compresslab.measurement.measurement import accuracy_drop, measure
from compresslab.models.residual import student


class Ticks:
    """A clock that moves on by 2 ms whenever it is read."""

    now = 0.0

    def __call__(self):
        self.now += 0.002
        return self.now


def images(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 10, (count,), generator=generator))


class Oracle(nn.Module):
    """Answers as told, image by image, whatever it is shown; 3 numbers, so that it costs something."""

    def __init__(self, answers):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.answers, self.shown = answers, 0

    def forward(self, x):
        told = self.answers.roll(-self.shown)[: len(x)]
        self.shown = (self.shown + len(x)) % len(self.answers)
        return nn.functional.one_hot(told, 10).float()


def told(correct, data, name):
    answers = torch.where(correct, data.labels, (data.labels + 1) % 10)
    return measure(Oracle(answers), data, name=name, clock=Ticks())


def test_accuracy_is_the_share_that_a_hand_count_finds():
    data = images()
    correct = torch.arange(60) % 3 > 0
    measured = told(correct, data, "two thirds")
    assert measured.accuracy == pytest.approx(2 / 3)
    assert torch.equal(measured.correct, correct)


def test_every_cost_is_the_one_of_its_own_function():
    model, data = student(), images(7)
    measured = measure(model, data, name="student", clock=Ticks())
    x = data.inputs()
    assert measured.parameters == count_parameters(model)
    assert measured.storage_bytes == storage_bytes(model)
    assert measured.macs_per_sample == count_macs(model, x)
    assert measured.peak_activation_bytes == peak_activation_bytes(model, x)
    assert (measured.latency_ms_low, measured.latency_ms, measured.latency_ms_high) == pytest.approx(
        (2, 2, 2)
    )
    assert measured.model is model
    assert torch.equal(measured.sample, x[:1])


def test_the_model_comes_back_as_it_was():
    model = student().train()
    model.stem.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, images(5), name="student", clock=Ticks())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert model.head.training
    assert not model.stem[1].training


def test_a_measurement_prints_numbers_and_no_tensors():
    text = repr(told(torch.ones(60, dtype=torch.bool), images(), "oracle"))
    assert "accuracy=1.0" in text
    assert "tensor" not in text
    assert "Oracle" not in text


def test_a_drop_is_paired_so_it_is_zero_for_the_same_answers_and_narrow_for_similar_ones():
    data = images(400)
    good = torch.arange(400) % 5 > 0  # 80 %
    worse = good & (torch.arange(400) % 20 != 1)  # the same but for 20 images: 75 %
    unpaired = good.roll(1) & (torch.arange(400) % 20 != 3)  # other images wrong, 75 % as well
    baseline = told(good, data, "baseline")
    same = accuracy_drop(baseline, told(good, data, "same"))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    drop = accuracy_drop(baseline, told(worse, data, "worse"))
    assert drop.value == pytest.approx(0.05)
    assert drop.low > 0
    other = accuracy_drop(baseline, told(unpaired, data, "unpaired"))
    assert other.high - other.low > 2 * (drop.high - drop.low)


def test_the_interval_of_a_drop_is_the_one_of_the_normal_law():
    data = images(1000)
    drop = accuracy_drop(
        told(torch.ones(1000, dtype=torch.bool), data, "all"),
        told(torch.arange(1000) % 10 > 0, data, "nine of ten"),
    )
    assert drop.value == pytest.approx(0.1)
    assert drop.high - drop.low == pytest.approx(2 * 1.96 * (0.1 * 0.9 / 1000) ** 0.5, rel=0.15)


def test_a_gain_is_a_negative_drop():
    data = images()
    drop = accuracy_drop(
        told(torch.zeros(60, dtype=torch.bool), data, "none"),
        told(torch.ones(60, dtype=torch.bool), data, "all"),
    )
    assert drop.value == -1


def test_measurements_of_different_images_are_not_compared():
    some, more = (told(torch.ones(n, dtype=torch.bool), images(n), f"of {n}") for n in (20, 30))
    with pytest.raises(
        CompressionError, match="same images, got 20 for of 20 and 30 for of 30; measure both with the"
    ):
        accuracy_drop(some, more)


def test_no_images_are_refused():
    with pytest.raises(
        CompressionError, match="data must have at least one image, got none; try the validation split"
    ):
        measure(student(), Images(torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.zeros(0)), name="x")


@pytest.mark.parametrize(
    ("model", "came"),
    [
        (nn.Identity(), r"got the shape \(5, 1, 28, 28\)"),
        (nn.Flatten(0, 2), r"got the shape \(140, 28\)"),
        (nn.LSTM(28, 4), "got the shape|got tuple"),
    ],
)
def test_a_model_that_returns_no_logits_is_refused(model, came):
    if isinstance(model, nn.LSTM):
        model = nn.Sequential(nn.Flatten(1, 2), model)
    with pytest.raises(
        CompressionError, match=f"return logits .5, classes. .*{came}; end it with nn.Flatten"
    ):
        measure(model, images(5), name="x", clock=Ticks())
