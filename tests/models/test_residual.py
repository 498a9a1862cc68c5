"""The networks are as small as promised, and the shipped weights are as good as their card says."""

import json
import shutil

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.location import DATA
from compresslab.errors import CompressionError
from compresslab.models.pretrained import ARCHITECTURES, load_baseline, read_card
from compresslab.models.residual import Mirrored, ResidualBlock, baseline, student, teacher
from compresslab.training.loop import accuracy

FOLDER = DATA / "baselines"


def macs(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 1, 28, 28))
    return counter.get_total_flops() // 2


def test_the_baseline_fits_a_two_core_laptop():
    assert sum(p.numel() for p in baseline().parameters()) <= 600_000
    assert macs(baseline()) <= 25_000_000


def test_the_student_is_at_least_ten_times_smaller_than_the_baseline():
    assert 10 * sum(p.numel() for p in student().parameters()) <= sum(
        p.numel() for p in baseline().parameters()
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_turns_images_into_ten_logits(name):
    assert ARCHITECTURES[name]()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_activation_is_a_module_of_its_own(name):
    model, calls = ARCHITECTURES[name](), []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(id(module)))
    plain = model.network if isinstance(model, Mirrored) else model
    plain(torch.zeros(2, 1, 28, 28))
    assert sorted(calls) == sorted(map(id, relus))
    assert len(relus) == (3 if name == "mlp" else 1 + 2 * len(plain.blocks))


def test_a_mirrored_network_says_the_same_of_an_image_and_its_mirror_image_for_twice_the_macs():
    torch.manual_seed(0)
    network, x = student().eval(), torch.randn(3, 1, 28, 28)
    mirrored = Mirrored(network)
    torch.testing.assert_close(mirrored(x), mirrored(x.flip(-1)))
    torch.testing.assert_close(mirrored(x), (network(x) + network(x.flip(-1))) / 2)
    assert macs(mirrored) == 2 * macs(network)


def test_the_layers_of_a_mirrored_network_last_ran_on_the_image_itself():
    network, x, seen = student().eval(), torch.rand(1, 1, 28, 28), []
    network.stem.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0]))
    Mirrored(network)(x)
    assert torch.equal(seen[-1], x)


def test_the_teacher_is_larger_and_right_at_least_95_times_in_100():
    assert sum(p.numel() for p in teacher().parameters()) > sum(p.numel() for p in baseline().parameters())
    assert read_card("teacher")["test_accuracy"] >= 0.95


@pytest.mark.parametrize(("channels", "stride", "size"), [((4, 4), 1, 8), ((4, 8), 1, 8), ((4, 8), 2, 4)])
def test_a_block_whose_branch_is_silent_passes_its_shortcut_on(channels, stride, size):
    block = ResidualBlock(*channels, stride=stride).eval()
    nn.init.zeros_(block.norm2.weight)  # the branch ends in zero
    x = torch.randn(2, channels[0], 8, 8, generator=torch.Generator().manual_seed(0))
    assert block(x).shape == (2, channels[1], size, size)
    torch.testing.assert_close(block(x), block.shortcut(x).relu())
    assert isinstance(block.shortcut, nn.Identity) == (channels[0] == channels[1] and stride == 1)


# the shipped weights


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_shipped_weights_are_as_good_as_their_card_says(name):
    card, test = read_card(name), fashion_mnist().test.first(2_000)
    share = card["test_accuracy"]
    tolerance = 4 * (share * (1 - share) / len(test)) ** 0.5  # four standard errors of a sample's share
    assert accuracy(load_baseline(name), test) == pytest.approx(share, abs=tolerance)


def test_the_baseline_is_at_least_as_good_as_promised():
    card = read_card("baseline")
    assert card["test_accuracy"] >= 0.94
    assert card["parameters"] == sum(p.numel() for p in load_baseline().parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_card_names_the_epoch_that_validation_chose(name):
    card = read_card(name)
    reached = [epoch["validation_accuracy"] for epoch in card["history"]]
    assert len(reached) == card["recipe"]["epochs"]
    assert reached[card["best_epoch"] - 1] == max(reached)


def test_a_loaded_network_is_in_evaluation_mode():
    assert not any(module.training for module in load_baseline("student").modules())


# what can be wrong with a file


@pytest.fixture
def folder(tmp_path):
    shutil.copy(FOLDER / "student.safetensors", tmp_path)
    shutil.copy(FOLDER / "student.json", tmp_path)
    return tmp_path


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        CompressionError, match=r"name must be one of baseline, teacher, student, mlp, got 'resnet50'"
    ):
        load_baseline("resnet50")


def test_missing_weights_are_named_with_two_ways_to_get_them(tmp_path):
    with pytest.raises(
        CompressionError, match=r"student.safetensors is missing; .*git checkout.* compresslab train student"
    ):
        load_baseline("student", folder=tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 5, 100, 40_000])
def test_truncated_weights_are_refused(folder, kept_bytes):
    place = folder / "student.safetensors"
    place.write_bytes(place.read_bytes()[:kept_bytes])
    with pytest.raises(
        CompressionError, match=r"student.safetensors can't be loaded .* expected the weights of 'student'"
    ):
        load_baseline("student", folder=folder)


def test_weights_of_another_network_are_refused(folder):
    (folder / "student.safetensors").rename(folder / "baseline.safetensors")
    with pytest.raises(CompressionError, match=r"can't be loaded .* expected the weights of 'baseline'"):
        load_baseline("baseline", folder=folder)


@pytest.mark.parametrize("text", [None, "", "{", "[1, 2]", "3"])
def test_a_card_that_cannot_be_read_is_refused(folder, text):
    place = folder / "student.json"
    place.unlink() if text is None else place.write_text(text)
    with pytest.raises(CompressionError, match=r"student.json can't be read .* compresslab train student"):
        read_card("student", folder=folder)


def test_a_card_is_what_its_file_says(folder):
    assert read_card("student", folder=folder) == json.loads((folder / "student.json").read_text())
