"""One training loop: the same seed gives the same weights, an interruption costs at most an epoch."""

import copy

import pytest
import torch
from torch import nn

from compresslab.data.images import Images
from compresslab.errors import CompressionError
from compresslab.training import loop as training
from compresslab.training.loop import BATCH_SIZE, accuracy, cross_entropy, fast_precision, fit


def network(seed: int = 0) -> nn.Module:
    """A small network with what makes training hard to repeat: convolution and BatchNorm."""
    torch.manual_seed(seed)
    convolution = nn.Conv2d(1, 4, 3, stride=4, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))


def bright_images(count: int, seed: int) -> Images:
    """Noise whose brightness tells its label 0, 1 or 2."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    noise = torch.randint(0, 100, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(noise + (70 * labels).to(torch.uint8)[:, None, None, None], labels)


TRAIN, VALIDATION = bright_images(2 * BATCH_SIZE + 5, 1), bright_images(60, 2)
STEPS = 3  # an epoch


def weights(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def stop_at(step: int):
    """For ``after_step``: raises as Ctrl-C does, at the given step."""
    steps = iter(range(1, step + 1))

    def stop(_):
        if next(steps) == step:
            raise KeyboardInterrupt

    return stop


def test_training_learns():
    trained = fit(network(), TRAIN, VALIDATION, epochs=12, augmented=False)
    assert accuracy(trained.model, VALIDATION) > 0.9 > accuracy(network(), VALIDATION)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    one, again, other = (fit(network(), TRAIN, VALIDATION, epochs=1, seed=seed) for seed in (3, 3, 4))
    assert one.history == again.history
    assert same(one.model, again.model)
    assert not same(one.model, other.model)


@pytest.mark.parametrize("stopped_after", [1, STEPS, STEPS + 1, 3 * STEPS - 1])
def test_a_resumed_run_ends_as_one_that_was_never_interrupted(tmp_path, stopped_after):
    place = tmp_path / "run" / "checkpoint.safetensors"
    whole = fit(network(), TRAIN, VALIDATION, epochs=3, seed=5)
    with pytest.raises(KeyboardInterrupt):
        fit(
            network(),
            TRAIN,
            VALIDATION,
            epochs=3,
            seed=5,
            checkpoint=place,
            after_step=stop_at(stopped_after),
        )
    resumed = fit(network(), TRAIN, VALIDATION, epochs=3, seed=5, checkpoint=place)
    assert resumed.history == whole.history
    assert same(resumed.model, whole.model)


def test_no_more_than_an_epoch_is_lost(tmp_path):
    place, steps = tmp_path / "checkpoint.safetensors", []
    with pytest.raises(KeyboardInterrupt):
        fit(network(), TRAIN, VALIDATION, epochs=3, checkpoint=place, after_step=stop_at(2 * STEPS + 2))
    fit(network(), TRAIN, VALIDATION, epochs=3, checkpoint=place, after_step=steps.append)
    assert len(steps) == STEPS


def test_a_finished_run_is_read_back_without_a_step(tmp_path):
    place = tmp_path / "checkpoint.safetensors"
    first = fit(network(), TRAIN, VALIDATION, epochs=2, checkpoint=place)
    again = fit(network(1), TRAIN, VALIDATION, epochs=2, checkpoint=place, after_step=stop_at(1))
    assert again.history == first.history
    assert same(again.model, first.model)


def test_the_given_model_is_left_alone():
    model = network()
    before = copy.deepcopy(model)
    trained = fit(model, TRAIN, VALIDATION, epochs=1).model
    assert same(model, before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not {t.data_ptr() for t in weights(model)} & {t.data_ptr() for t in weights(trained)}


def test_the_trained_model_is_in_evaluation_mode_and_laid_out_as_usual():
    trained = fit(network(), TRAIN, VALIDATION, epochs=1).model
    assert not trained.training
    assert all(tensor.is_contiguous() for tensor in weights(trained))


def test_validation_chooses_the_epoch(monkeypatch):
    epochs = []  # the weights after each epoch, as validation sees them

    def made_up_accuracy(model, _images, *, precision):
        epochs.append(copy.deepcopy(model.state_dict()))
        return [0.5, 0.7, 0.7, 0.6][len(epochs) - 1]

    monkeypatch.setattr(training, "accuracy", made_up_accuracy)
    trained = fit(network(), TRAIN, VALIDATION, epochs=4)
    assert [epoch.validation_accuracy for epoch in trained.history] == [0.5, 0.7, 0.7, 0.6]
    assert trained.best == trained.history[1], "the first of two equal ones"
    assert all(torch.equal(trained.model.state_dict()[name], epochs[1][name]) for name in epochs[1])


def test_after_every_step_a_property_can_be_kept():
    def keep_zero(model):
        with torch.no_grad():
            model[4].weight[0] = 0

    assert fit(network(), TRAIN, VALIDATION, epochs=1, after_step=keep_zero).model[4].weight[0].eq(0).all()


def test_the_loss_may_be_any_function_of_model_images_and_labels():
    seen = []

    def loss(model, images, labels):
        seen.append((images.shape[1:], images.dtype, labels.dtype))
        return model(images).square().mean()

    trained = fit(network(), TRAIN, VALIDATION, epochs=3, loss=loss)
    assert seen == [((1, 28, 28), torch.float32, torch.int64)] * (3 * STEPS)
    assert trained.history[-1].loss < trained.history[0].loss


def test_every_epoch_shows_each_image_once_in_an_order_of_its_own():
    shown = []

    def loss(model, images, labels):
        shown.extend(images.flatten(1).sum(1).tolist())
        return cross_entropy(model, images, labels)

    fit(network(), TRAIN, VALIDATION, epochs=2, loss=loss, augmented=False)
    first, second = shown[: len(TRAIN)], shown[len(TRAIN) :]
    assert sorted(first) == sorted(second)
    assert first != second


def test_frozen_parameters_stay():
    model = network()
    model[0].weight.requires_grad_(False)
    assert torch.equal(fit(model, TRAIN, VALIDATION, epochs=1).model[0].weight, model[0].weight)


def test_label_smoothing_is_the_mixture_of_two_cross_entropies():
    model, images, labels = network().eval(), TRAIN.inputs()[:9], TRAIN.labels[:9]
    log_shares = model(images).log_softmax(dim=1)
    sharp, flat = -log_shares[torch.arange(9), labels].mean(), -log_shares.mean()
    smoothed = cross_entropy(model, images, labels, label_smoothing=0.2)
    torch.testing.assert_close(smoothed, 0.8 * sharp + 0.2 * flat)


# what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number from 1 up, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number from 1 up, got 1.5"),
        ({"epochs": 1, "learning_rate": 0.0}, "learning_rate must be a positive number, got 0.0; 0.1 suits"),
        ({"epochs": 1, "learning_rate": float("nan")}, "learning_rate must be a positive number, got nan"),
        (
            {"epochs": 1, "precision": torch.float16},
            "precision must be torch.float32 or torch.bfloat16, got torch.float16",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, words):
    with pytest.raises(CompressionError, match=words):
        fit(network(), TRAIN, VALIDATION, **settings)


def test_too_few_images_are_refused():
    nothing = Images(VALIDATION.pixels[:0], VALIDATION.labels[:0])
    with pytest.raises(
        CompressionError, match="train must have at least 2 images and validation 1, got 1 and 60; try"
    ):
        fit(network(), TRAIN.first(1), VALIDATION, epochs=1)
    with pytest.raises(CompressionError, match=r"and validation 1, got .* and 0; try"):
        fit(network(), TRAIN, nothing, epochs=1)


def test_a_loss_that_is_no_longer_finite_ends_the_run(tmp_path):
    place = tmp_path / "checkpoint.safetensors"

    def loss(model, images, labels):
        return cross_entropy(model, images, labels) * float("inf")

    with pytest.raises(
        CompressionError, match=r"the loss is (nan|inf) in epoch 1; .* try a tenth of the learning rate"
    ):
        fit(network(), TRAIN, VALIDATION, epochs=1, loss=loss, checkpoint=place)
    assert not place.exists(), "a broken state is not kept"


@pytest.fixture
def checkpoint(tmp_path):
    place = tmp_path / "checkpoint.safetensors"
    fit(network(), TRAIN, VALIDATION, epochs=1, checkpoint=place)
    return place


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 2}, {"seed": 1}, {"learning_rate": 0.2}, {"augmented": False}, {"precision": torch.bfloat16}],
)
def test_a_checkpoint_of_other_settings_is_refused(checkpoint, settings):
    with pytest.raises(
        CompressionError, match=r"is of another run \(its settings are .* Delete it to start afresh"
    ):
        fit(network(), TRAIN, VALIDATION, **{"epochs": 1, "checkpoint": checkpoint} | settings)


def test_a_checkpoint_of_another_network_is_refused(checkpoint):
    with pytest.raises(CompressionError, match=r"is of another run \(its weights are not of this network\)"):
        fit(
            nn.Sequential(nn.Flatten(), nn.Linear(784, 3)), TRAIN, VALIDATION, epochs=1, checkpoint=checkpoint
        )


@pytest.mark.parametrize("kept_bytes", [0, 4, 300, 3_000])
def test_a_damaged_checkpoint_is_refused(checkpoint, kept_bytes):
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept_bytes])
    with pytest.raises(
        CompressionError, match=r"can't be read .* interrupted training run. Delete it to start afresh"
    ):
        fit(network(), TRAIN, VALIDATION, epochs=1, checkpoint=checkpoint)


# accuracy


def test_accuracy_is_the_share_that_a_loop_counts():
    model = network().eval()
    right = sum(
        int(model(x[None]).argmax() == y) for x, y in zip(VALIDATION.inputs(), VALIDATION.labels, strict=True)
    )
    assert accuracy(model, VALIDATION) == right / len(VALIDATION)


def test_accuracy_leaves_each_module_in_its_mode():
    model = network()
    model[1].eval()  # as a frozen BatchNorm would be
    before = copy.deepcopy(model)
    accuracy(model, VALIDATION)
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    assert same(model, before), "the running statistics too"


def test_the_fast_precision_is_one_that_fit_accepts():
    trained = fit(network(), TRAIN, VALIDATION, epochs=1, precision=fast_precision())
    assert all(parameter.dtype == torch.float32 for parameter in trained.model.parameters())
